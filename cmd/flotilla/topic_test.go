package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestTopicLifeCycle(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := s.ok(t, "", "topic", "list")
	r.want(t, exitOK, "no topics yet")
	if r.stdout != "" {
		t.Errorf("topic list printed %q without topics", r.stdout)
	}

	r = s.ok(t, "", "topic", "create", "b", "--partitions", "3", "--config", "max.message.bytes=2000", "-c", "segment.bytes=1048576")
	if r.stdout != "created topic b\n" {
		t.Errorf("topic create printed %q", r.stdout)
	}
	s.run(t, "", "topic", "create", "b").want(t, exitFailed, `there is a topic "b" already`)
	if r = s.ok(t, "", "topic", "create", "b", "--if-not-exists", "-o", "json"); r.stdout != `{"topic":"b","created":false}`+"\n" {
		t.Errorf("topic create --if-not-exists printed %q", r.stdout)
	}
	if r = s.ok(t, "", "topic", "create", "dry", "--dry-run"); r.stdout != "topic dry could be created\n" {
		t.Errorf("topic create --dry-run printed %q", r.stdout)
	}
	s.ok(t, "", "topic", "create", "a")

	if r = s.ok(t, "", "topic", "list"); !regexp.MustCompile(
		`^TOPIC +PARTITIONS +LEADERLESS +ID\na +1 +0 +[0-9a-f-]{36}\nb +3 +0 +[0-9a-f-]{36}\n$`).MatchString(r.stdout) {
		t.Errorf("topic list printed\n%s", r.stdout)
	}
	var got topicLine
	first, _, _ := strings.Cut(s.ok(t, "", "topic", "list", "-o", "json").stdout, "\n")
	decode(t, first, &got)
	if diff := cmp.Diff(topicLine{Topic: "a", Partitions: 1}, got, cmpopts.IgnoreFields(topicLine{}, "ID")); diff != "" {
		t.Error(diff)
	}

	s.run(t, "", "topic", "delete", "a", "none").want(t, exitFailed, `there is no topic "none"; nothing was deleted`)
	r = s.ok(t, "", "topic", "delete", "b", "a", "none", "a", "--if-exists")
	if r.stdout != "deleted topic a\ndeleted topic b\nthere is no topic none\n" {
		t.Errorf("topic delete printed %q", r.stdout)
	}
	s.run(t, "", "topic", "describe", "a").want(t, exitFailed, `there is no topic "a"`, "flotilla topic create a")
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

func TestTopicDescribe(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t, "-p", "2", "-c", "max.message.bytes=2000")
	s.ok(t, "x\ny\n", "produce", topic, "-p", "1")

	r := s.ok(t, "", "topic", "describe", topic)
	for _, line := range []string{
		`topic   ` + topic, `config  max.message.bytes=2000`,
		`PARTITION  LEADER  EPOCH  SHARD  LOG START  HIGH WATERMARK +SIZE +TO UNLINK`,
		`default retention.ms=604800000`, `0 +1 +\d+ +\d+ +0 +0 +0 B +0 B`, `1 +1 +\d+ +\d+ +0 +2 +\d.*B +0 B`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(r.stdout) {
			t.Errorf("no line %q in\n%s", line, r.stdout)
		}
	}

	n := func(n int64) *int64 { return &n }
	want := topicDescription{Topic: topic, Configs: map[string]string{"max.message.bytes": "2000"}, Partitions: []partitionDescription{
		{Partition: 0, Leader: n(1), LogStartOffset: n(0), HighWatermark: n(0)},
		{Partition: 1, Leader: n(1), LogStartOffset: n(0), HighWatermark: n(2)},
	}}
	var got topicDescription
	decode(t, s.ok(t, "", "topic", "describe", topic, "-o", "json").stdout, &got)
	ignore := []cmp.Option{
		cmpopts.IgnoreFields(topicDescription{}, "ID", "Defaults"),
		cmpopts.IgnoreFields(partitionDescription{}, "LeaderEpoch", "Shard", "SizeBytes", "UnlinkBytes"),
	}
	if diff := cmp.Diff(want, got, ignore...); diff != "" {
		t.Error(diff)
	}
}

func TestTopicCreateRefused(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	tests := []struct {
		args []string
		code int
		want string
	}{
		{[]string{"a/b"}, exitFailed, "contains one or more characters other than"},
		{[]string{"x", "--config", "no.such=1"}, exitFailed, `Unknown topic config name: no.such`},
		{[]string{"x", "--config", "segment.bytes=many"}, exitFailed, "Not a number of type INT"},
		{[]string{"x", "--config", "segment.bytes"}, exitUsage, "give NAME=VALUE"},
		{[]string{"x", "-c", "segment.bytes=1", "-c", "segment.bytes=2"}, exitUsage, "given twice"},
		{[]string{"x", "--partitions", "-1"}, exitUsage, "at least 1"},
		{[]string{"x", "--partitions", "2147483647"}, exitFailed, "partitions; give 1 to"},
		{[]string{"x", "--replication-factor", "9"}, exitFailed, "replication factor of 9"},
		{[]string{"x", "y"}, exitUsage, "the name of one topic"},
		{nil, exitUsage, "the name of one topic"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			s.run(t, "", append([]string{"topic", "create"}, tt.args...)...).want(t, tt.code, tt.want)
		})
	}
}
