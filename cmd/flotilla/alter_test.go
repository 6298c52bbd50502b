package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestTopicAlter(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t, "-c", "retention.ms=5000000000")
	r := s.ok(t, "", "topic", "alter", topic, "-c", "segment.ms=1000", "--delete-config", "retention.ms", "-o", "json")
	if r.stdout != `{"topic":"`+topic+`","altered":true,"configs":{"segment.ms":"1000"}}`+"\n" {
		t.Errorf("topic alter printed %q", r.stdout)
	}
	r = s.ok(t, "", "topic", "alter", topic, "-c", "segment.ms=2000", "--validate-only")
	if r.stdout != "topic "+topic+" could be altered\nconfig  segment.ms=2000\n" {
		t.Errorf("topic alter --validate-only printed %q", r.stdout)
	}
	if r = s.ok(t, "", "topic", "describe", topic); !strings.Contains(r.stdout, "config  segment.ms=1000\n") ||
		!strings.Contains(r.stdout, "default retention.ms=604800000\n") {
		t.Errorf("topic describe printed %q", r.stdout)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{topic}, exitUsage, "--delete-config"},
		{[]string{topic, "-c", "retention.ms"}, exitUsage, "NAME=VALUE"},
		{[]string{topic, "-c", "retention.ms=x"}, exitFailed, "Not a number of type LONG"},
		{[]string{topic, "-c", "cleanup.policy=compact"}, exitFailed, "not built yet"},
		{[]string{topic + "-none", "-c", "retention.ms=1"}, exitFailed, "flotilla topic create"},
	} {
		s.run(t, "", append([]string{"topic", "alter"}, tt.args...)...).want(t, tt.code, tt.want)
	}
	s.ok(t, "", "topic", "add-partitions", topic, "--to", "3", "--validate-only")
	if r = s.ok(t, "", "topic", "add-partitions", topic, "--to", "2"); r.stdout != "topic "+topic+" has 2 partitions\n" {
		t.Errorf("topic add-partitions printed %q", r.stdout)
	}
	s.run(t, "", "topic", "add-partitions", topic, "--to", "2").want(t, exitFailed, "give a total above that")
	s.run(t, "", "topic", "add-partitions", topic).want(t, exitUsage, "--to N")
}

func TestTopicTrim(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t, "-p", "2")
	s.ok(t, "a\nb\nc\nd\n", "produce", topic, "-p", "1")
	trim := func(want string, args ...string) {
		t.Helper()
		r := s.ok(t, "", append([]string{"topic", "trim", topic}, args...)...)
		if !regexp.MustCompile(want).MatchString(r.stdout) {
			t.Errorf("trim %v printed\n%s", args, r.stdout)
		}
	}
	holds := func(want string) {
		t.Helper()
		if r := s.ok(t, "", "consume", topic, "--from", "beginning", "--until", "end"); r.stdout != want {
			t.Errorf("the topic holds %q, want %q", r.stdout, want)
		}
	}
	trim(`(?s)\n1 +0 +1 +4 +1\nnothing was deleted; give --yes`, "-p", "1", "--before-offset", "1")
	holds("a\nb\nc\nd\n")
	trim(`(?s)\n1 +0 +1 +4 +1\ndeleted 1 records`, "-p", "1", "--before-offset", "1", "--yes")
	holds("b\nc\nd\n")
	trim(`nothing to delete`, "-p", "1", "--before-offset", "1", "--yes")
	trim(`nothing to delete`, "--before-time", "24h", "--yes")
	holds("b\nc\nd\n")
	trim(`(?s)\n0 +0 +0 +0 +0\n1 +1 +4 +4 +3\ndeleted 3`, "--before-time", "2999-01-01T00:00:00Z", "--yes")
	holds("")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "give one of"},
		{[]string{"--before-offset", "1", "--before-time", "1h"}, exitUsage, "give one of"},
		{[]string{"--before-offset", "1"}, exitUsage, "needs --partition"},
		{[]string{"--before-offset", "-1", "-p", "0"}, exitUsage, "give an offset"},
		{[]string{"--before-time", "yesterday"}, exitUsage, "2026-01-31"},
		{[]string{"--before-offset", "1", "-p", "2"}, exitFailed, "partitions 0 to 1, not 2"},
		{[]string{"--before-offset", "5", "-p", "1"}, exitFailed, "ends at offset 4"},
	} {
		s.run(t, "", append([]string{"topic", "trim", topic}, tt.args...)...).want(t, tt.code, tt.want)
	}
}
