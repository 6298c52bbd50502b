package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestCompareAnswers(t *testing.T) {
	t.Parallel()
	type m = map[string]any
	topic := func(name string, fields m) m {
		maps.Copy(fields, m{"Topic": name})
		return fields
	}
	tests := []struct {
		name        string
		kafka, ours any
		want        []string
	}{
		{"equal", m{"A": "1"}, m{"A": "1"}, nil},
		{"both closed", "connection closed", "connection closed", nil},
		{"one closed", "connection closed", m{"A": "1"}, []string{": connection closed, (default)", "A: (default), 1"}},
		{"another value", m{"A": "1"}, m{"A": "2"}, []string{"A: 1, 2"}},
		{"a default on one side", m{"A": "1"}, m{}, []string{"A: 1, (default)"}},
		{"null and empty", m{"A": nil}, m{"A": []any{}}, []string{"A: null, []"}},
		{"null and absent", m{"A": nil}, m{}, []string{"A: null, (default)"}},
		{"empty text and absent", m{"A": ""}, m{}, []string{`A: "", (default)`}},
		{"order of elements", m{"T": []any{topic("a", m{}), topic("b", m{})}}, m{"T": []any{topic("b", m{}), topic("a", m{})}}, nil},
		{"order of numbers", m{"T": []any{"1", "2"}}, m{"T": []any{"2", "1"}}, []string{"T[0]: 1, 2", "T[1]: 2, 1"}},
		{"a missing element", m{"T": []any{topic("a", m{"E": "x"}), topic("b", m{})}}, m{"T": []any{topic("b", m{})}}, []string{"T[a]: (there), (default)"}},
		{"an element too many", m{}, m{"T": []any{topic("a", m{"E": "x"})}}, []string{"T[a]: (default), (there)"}},
		{"an element twice", m{"T": []any{topic("a", m{}), topic("a", m{})}}, m{"T": []any{topic("a", m{})}}, []string{"T[a#2]: (there), (default)"}},
		{"a field of an element", m{"T": []any{topic("a", m{"E": "x"})}}, m{"T": []any{topic("a", m{"E": "y"})}}, []string{"T[a].E: x, y"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, f := range compareAnswers(tt.kafka, tt.ours) {
				got = append(got, fmt.Sprintf("%s: %s, %s", f.path, f.kafka, f.ours))
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("fields (-want +got):\n%s", d)
			}
		})
	}
}

var digits = regexp.MustCompile(`[0-9]+`)

// TestCompareSeesEveryField changes every value of the recorded answers, one at
// a time, and sees that the comparison finds it. Of answers that differ in
// numbers alone it takes one.
func TestCompareSeesEveryField(t *testing.T) {
	t.Parallel()
	changed := 0
	for scenario, steps := range recordings(t) {
		done := make(map[string]bool)
		for _, s := range steps {
			b, err := encode(s.Answer)
			if err != nil {
				t.Fatal(err)
			}
			form := digits.ReplaceAllString(string(b), "")
			if done[form] {
				continue
			}
			done[form] = true
			changes(s.Answer, func(v any) {
				changed++
				if len(compareAnswers(s.Answer, v)) == 0 {
					got, _ := encode(v)
					t.Fatalf("%s: %s: no difference seen between\n%s\n%s", scenario, s.Step, b, got)
				}
			})
		}
	}
	if changed < 10_000 {
		t.Errorf("only %d values changed", changed)
	}
}

// changes calls f with every v that differs from v in one leaf, or by one
// element.
func changes(v any, f func(any)) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			without := maps.Clone(v)
			delete(without, k)
			f(without)
			changes(e, func(e any) {
				with := maps.Clone(v)
				with[k] = e
				f(with)
			})
		}
	case []any:
		for i, e := range v {
			f(slices.Concat(v[:i], v[i+1:]))
			changes(e, func(e any) {
				with := slices.Clone(v)
				with[i] = e
				f(with)
			})
		}
	default:
		f(fmt.Sprint(v, "?"))
	}
}

func TestCompareSteps(t *testing.T) {
	t.Parallel()
	kafka := []step{{"a", "1"}, {"b", "1"}}
	ours := []step{{"a", "2"}, {"c", "1"}}
	want := []field{
		{"sc", "a", "", "1", "2"},
		{"sc", "b", "step", "answered", "not asked"},
		{"sc", "c", "step", "not asked", "answered"},
	}
	if d := cmp.Diff(want, compare("sc", kafka, ours), cmp.AllowUnexported(field{})); d != "" {
		t.Errorf("fields (-want +got):\n%s", d)
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"a*c", "abc", true},
		{"a*c", "ac", true},
		{"a*c", "abcd", false},
		{"*c", "cdc", true},
		{"a*b*c", "aXbYc", true},
		{"a*b*c", "aXc", false},
		{"T[*].E", "T[x].E", true},
		{"T[{a,bc}].E", "T[bc].E", true},
		{"T[{a,bc}].E", "T[b].E", false},
		{"*{a,b*}*d", "xxbccd", true},
	}
	for _, tt := range tests {
		if got := matches(tt.pattern, tt.s); got != tt.want {
			t.Errorf("matches(%q, %q) = %t", tt.pattern, tt.s, got)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	list := []difference{
		{step: "A v*", path: "E", kafka: "1", ours: "2"},
		{step: "B", path: "E"},
		{step: "*", path: "*Message", texts: true},
	}
	fields := []field{
		{step: "A v3", path: "E", kafka: "1", ours: "2"},
		{step: "A v3", path: "E", kafka: "1", ours: "3"},
		{step: "A v3", path: "F", kafka: "1", ours: "2"},
		{step: "C", path: "T.Message", kafka: "x", ours: "y"},
		{step: "C", path: "T.Message", kafka: "x", ours: "null"},
		{step: "C", path: "T.Message", kafka: absent, ours: "y"},
	}
	unlisted, gone := judge(list, fields)
	opt := cmp.AllowUnexported(field{}, difference{})
	if d := cmp.Diff([]field{fields[1], fields[2], fields[4], fields[5]}, unlisted, opt); d != "" {
		t.Errorf("not listed (-want +got):\n%s", d)
	}
	if d := cmp.Diff(list[1:2], gone, opt); d != "" {
		t.Errorf("gone (-want +got):\n%s", d)
	}
}

func TestSaveLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	long := map[string]any{"A": int64(1 << 60), "B": []any{nil, "<é>", true}}
	steps := []step{{"one", long}, {"two", "connection closed"}, {"three", long}}
	if err := save(dir, "sc", steps); err != nil {
		t.Fatal(err)
	}
	got, err := load(os.DirFS(dir), "sc")
	if err != nil {
		t.Fatal(err)
	}
	want, err := reread(steps)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("loaded (-want +got):\n%s", d)
	}
}

// TestCanonical sees what is written by name, what is left out, and that
// nothing else is touched.
func TestCanonical(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	n := newNames(now)
	n.node, n.host, n.port, n.clusterID = 3, "h", 99, "c"
	id := unknownID("a topic")
	n.topics[id] = "a"
	n.epochs[5] = true

	m := kmsg.NewPtrMetadataResponse()
	m.ClusterID = kmsg.StringPtr("c")
	m.ControllerID = 3
	m.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 3, Host: "h", Port: 99}, {NodeID: 4, Host: "other", Port: 98}}
	p := kmsg.NewMetadataResponseTopicPartition()
	p.Partition, p.Leader, p.LeaderEpoch, p.Replicas = 3, 3, 5, []int32{3, 4}
	other := kmsg.NewMetadataResponseTopicPartition()
	other.Leader, other.LeaderEpoch, other.ErrorCode = 9, 6, 3
	topic := kmsg.NewMetadataResponseTopic()
	topic.Topic, topic.TopicID = kmsg.StringPtr("a"), id
	topic.Partitions = []kmsg.MetadataResponseTopicPartition{p, other}
	m.Topics = append(m.Topics, topic)

	l := kmsg.NewPtrListOffsetsResponse()
	times := []int64{n.base.UnixMilli() + 7, now.UnixMilli() + 7, 7}
	for i, ms := range times {
		lp := kmsg.NewListOffsetsResponseTopicPartition()
		lp.Partition, lp.Timestamp = int32(i), ms
		l.Topics = append(l.Topics, kmsg.ListOffsetsResponseTopic{Topic: "t", Partitions: []kmsg.ListOffsetsResponseTopicPartition{lp}})
	}
	f := kmsg.NewPtrFetchResponse()
	f.SessionID = 77
	i := kmsg.NewPtrInitProducerIDResponse()
	i.ProducerID = 1234
	i.ErrorCode = 42

	tests := []struct {
		resp any
		want string
	}{
		{m, `{"Brokers":[{"Host":"<host>","NodeID":"<node>","Port":"<port>"},{"Host":"other","NodeID":4,"Port":98}],` +
			`"ClusterID":"<cluster>","ControllerID":"<node>","Topics":[{"Partitions":[` +
			`{"ErrorCode":"UNKNOWN_TOPIC_OR_PARTITION","Leader":9,"LeaderEpoch":6},` +
			`{"Leader":"<node>","LeaderEpoch":"<epoch>","Partition":3,"Replicas":["<node>",4]}],"Topic":"a","TopicID":"<id of a>"}]}`},
		{l, `{"Topics":[{"Partitions":[{"Timestamp":"base+7"}],"Topic":"t"},{"Partitions":[{"Partition":1,"Timestamp":"<now>"}],"Topic":"t"},` +
			`{"Partitions":[{"Partition":2,"Timestamp":7}],"Topic":"t"}]}`},
		{f, `{"SessionID":"<session>"}`},
		{i, `{"ErrorCode":"INVALID_REQUEST","ProducerID":"<producer 1>"}`},
	}
	for _, tt := range tests {
		got, err := encode(n.canonical(tt.resp))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, string(got)); d != "" {
			t.Errorf("%T (-want +got):\n%s", tt.resp, d)
		}
	}
}

// TestCanonicalBatches sees that records are written out, compressed or not, and
// that damage shows.
func TestCanonicalBatches(t *testing.T) {
	t.Parallel()
	s := &session{names: newNames(time.UnixMilli(1_800_000_000_000))}
	plain := s.records(2).bytes()
	damaged := slices.Clone(plain)
	damaged[len(damaged)-1] ^= 1
	tests := []struct {
		name string
		b    []byte
		want string
	}{
		{"none", nil, `[]`},
		{"plain", plain, `[{"Attributes":0,"BaseTimestamp":"base+0","Bytes":83,"FirstOffset":0,"LastOffsetDelta":1,"LeaderEpoch":-1,` +
			`"MaxTimestamp":"base+1","Records":["0 base+0 k0=v0","1 base+1 k1=v1"]}]`},
		{"gzip", s.records(1).compressed(1).by(9, 2, 4).bytes(), `[{"Attributes":1,"BaseTimestamp":"base+0","FirstOffset":0,"LastOffsetDelta":0,` +
			`"LeaderEpoch":-1,"MaxTimestamp":"base+0","Producer":"<producer 1> epoch 2 sequence 4","Records":["0 base+0 k0=v0"]}]`},
		{"cut off", plain[:70], `["70 bytes of an incomplete batch"]`},
	}
	for _, tt := range tests {
		got, err := encode(s.batches(tt.b))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, string(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
	if m := s.batch(damaged).(map[string]any); m["CRC"] == nil {
		t.Errorf("a damaged batch is written as %v, without its checksum's error", m)
	}
}
