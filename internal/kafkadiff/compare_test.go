package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
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
		{"one closed", "connection closed", m{"A": "1"}, []string{"(answer): connection closed, (default)", "A: (default), 1"}},
		{"another value", m{"A": "1"}, m{"A": "2"}, []string{"A: 1, 2"}},
		{"a default on one side", m{"A": "1"}, m{}, []string{"A: 1, (default)"}},
		{"null and empty", m{"A": nil}, m{"A": []any{}}, []string{"A: null, []"}},
		{"null and absent", m{"A": nil}, m{}, []string{"A: null, (default)"}},
		{"empty text and absent", m{"A": ""}, m{}, []string{`A: "", (default)`}},
		{"order of elements", m{"T": []any{topic("a", m{}), topic("b", m{})}}, m{"T": []any{topic("b", m{}), topic("a", m{})}}, []string{"T (order): a, then b, b, then a"}},
		{"order of numbers", m{"T": []any{"1", "2"}}, m{"T": []any{"2", "1"}}, []string{"T[0]: 1, 2", "T[1]: 2, 1"}},
		{"a missing element", m{"T": []any{topic("a", m{"E": "x"}), topic("b", m{})}}, m{"T": []any{topic("b", m{})}}, []string{"T[a]: (there), (default)"}},
		{"an element too many", m{}, m{"T": []any{topic("a", m{"E": "x"})}}, []string{"T[a]: (default), (there)", "T[a].E: (default), x", "T[a].Topic: (default), a"}},
		{"another text", m{"ErrorMessage": "x"}, m{"ErrorMessage": "y"}, nil},
		{"no text", m{"ErrorMessage": "x"}, m{"ErrorMessage": nil}, []string{"ErrorMessage: x, null"}},
		{"an empty text", m{"ErrorMessage": ""}, m{"ErrorMessage": "y"}, []string{`ErrorMessage: "", y`}},
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
// numbers alone, or in the name of their scenario, it takes one.
func TestCompareSeesEveryField(t *testing.T) {
	t.Parallel()
	changed := 0
	done := make(map[string]bool)
	for scenario, steps := range recordings(t) {
		for _, s := range steps {
			b, err := encode(s.Answer)
			if err != nil {
				t.Fatal(err)
			}
			form := strings.ReplaceAll(digits.ReplaceAllString(string(b), ""), scenario, "")
			if done[form] {
				continue
			}
			done[form] = true
			kafka := leaves(s.Answer)
			changes(s.Answer, func(v any) {
				changed++
				if len(compareLeaves(kafka, leaves(v))) == 0 && !onlyTexts(s.Answer, v) {
					got, _ := encode(v)
					t.Fatalf("%s: %s: no difference seen between\n%s\n%s", scenario, s.Step, b, got)
				}
			})
		}
	}
	t.Logf("%d values changed", changed)
	if changed < 10_000 {
		t.Errorf("only %d values changed", changed)
	}
}

// onlyTexts reports whether two answers differ in what a text for people says,
// and in nothing else.
func onlyTexts(a, b any) bool {
	x, y := leaves(a), leaves(b)
	for p, v := range x {
		if y[p] != v && !(forPeople(p) && isText(v) && isText(y[p])) {
			return false
		}
	}
	return len(x) == len(y)
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
		{"sc", "a", "(answer)", "1", "2"},
		{"sc", "b", "(step)", "answered", "not asked"},
		{"sc", "c", "(step)", "not asked", "answered"},
	}
	if d := cmp.Diff(want, compare("sc", kafka, ours), cmp.AllowUnexported(field{})); d != "" {
		t.Errorf("fields (-want +got):\n%s", d)
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, s string
		want       bool // anywhere
		inBrackets bool
	}{
		{"", "", true, true},
		{"", "a", false, false},
		{"*", "", true, true},
		{"a*c", "abc", true, true},
		{"a*c", "ac", true, true},
		{"a*c", "abcd", false, false},
		{"*c", "cdc", true, true},
		{"a*b*c", "aXbYc", true, true},
		{"a*b*c", "aXc", false, false},
		{"T[*].E", "T[x].E", true, true},
		{"T[*].E", "T[x].P[y].E", true, false},
		{"*.E", "T[x].E", true, false},
	}
	for _, tt := range tests {
		if got := matches(tt.pattern, tt.s, false); got != tt.want {
			t.Errorf("matches(%q, %q) = %t", tt.pattern, tt.s, got)
		}
		if got := matches(tt.pattern, tt.s, true); got != tt.inBrackets {
			t.Errorf("matches(%q, %q) within brackets = %t", tt.pattern, tt.s, got)
		}
	}
}

func TestWithin(t *testing.T) {
	t.Parallel()
	tests := []struct {
		versions string
		want     []int // of 0 to 12
	}{
		{"", []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		{"10+", []int{10, 11, 12}},
		{"0-2", []int{0, 1, 2}},
		{"7", []int{7}},
	}
	for _, tt := range tests {
		var got []int
		for v := range 13 {
			if within(tt.versions, v) {
				got = append(got, v)
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", tt.versions, d)
		}
	}
}

func TestAlternatives(t *testing.T) {
	t.Parallel()
	for s, want := range map[string][]string{
		"":                 {""},
		"a, b":             {"a, b"},
		"{a|b}":            {"a", "b"},
		"x{a|b}y{|c}":      {"xay", "xayc", "xby", "xbyc"},
		"{no closing | it": {"{no closing | it"},
	} {
		if d := cmp.Diff(want, alternatives(s)); d != "" {
			t.Errorf("%q (-want +got):\n%s", s, d)
		}
	}
}

// TestJudge sees each way in which a list can be wrong.
func TestJudge(t *testing.T) {
	t.Parallel()
	var steps []played
	for _, name := range []string{"A v1 x", "A v2 x", "A v2 y", "B v1 x", "no request"} {
		steps = append(steps, parts("sc", name))
	}
	at := func(step, path, kafka, ours string) field { return field{"sc", step, path, kafka, ours} }
	right := []field{at("A v1 x", "T[t].E", "1", "2"), at("A v2 x", "T[u].E", "1", "3")}
	d := difference{scenario: "sc", request: "A", what: "x", path: "T[*].E", kafka: "1", ours: "{2|3}"}
	with := func(edit func(*difference)) []difference {
		d := d
		edit(&d)
		return []difference{d}
	}
	tests := []struct {
		name   string
		list   []difference
		fields []field
		want   []string
	}{
		{"right", []difference{d}, right, nil},
		{"another field", []difference{d}, append(slices.Clone(right), at("A v2 x", "T[u].F", "1", "3")), []string{"not listed: sc: A v2 x: T[u].F"}},
		{"another step", []difference{d}, append(slices.Clone(right), at("A v2 y", "T[u].E", "1", "3")), []string{"not listed: sc: A v2 y"}},
		{"another answer of Kafka", []difference{d}, []field{right[0], at("A v2 x", "T[u].E", "4", "3")},
			[]string{"listed, but not so: sc: A v2 x", "not listed: sc: A v2 x", "listed, but never answered by Flotilla: sc: A v* x: T[*].E: 3"}},
		{"another answer of Flotilla", []difference{d}, []field{right[0], at("A v2 x", "T[u].E", "1", "4")},
			[]string{"listed, but not so: sc: A v2 x", "not listed: sc: A v2 x", "listed, but never answered by Flotilla: sc: A v* x: T[*].E: 3"}},
		{"no longer so in one version", []difference{d}, right[:1],
			[]string{"listed, but not so: sc: A v2 x", "listed, but never answered by Flotilla: sc: A v* x: T[*].E: 3"}},
		{"a step that is not there", with(func(d *difference) { d.what = "{x|z}" }), right, []string{"listed, but there is no such step: sc: A v* z"}},
		{"a request that is not there", with(func(d *difference) { d.request = "{A|C}" }), right, []string{"listed, but there is no such step: sc: C v* x"}},
		{"a scenario that is not there", with(func(d *difference) { d.scenario = "{sc|other}" }), right, []string{"listed, but there is no such step: other: A v* x"}},
		{"a version that is not there", with(func(d *difference) { d.versions = "{1-2|3+}" }), right, []string{"listed, but there is no such step: sc: A v3+ x"}},
		{"a path that is not there", with(func(d *difference) { d.path = "T[*].{E|F}" }), right,
			[]string{"listed, but not so: sc: A v1 x: T[*].F", "listed, but not so: sc: A v2 x: T[*].F"}},
		{"a value that is not there", with(func(d *difference) { d.kafka = "{1|5}" }), right, []string{"listed, but never answered by Kafka: sc: A v* x: T[*].E: 5"}},
		{"twice", []difference{d, d}, right, []string{"listed more than once: sc: A v1 x", "listed more than once: sc: A v2 x"}},
		{"too wide a path", with(func(d *difference) { d.path = "*" }), right,
			[]string{"listed, but not so: sc: A v1 x", "listed, but not so: sc: A v2 x", "not listed", "not listed", "listed, but never", "listed, but never", "listed, but never"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := judge(tt.list, steps, tt.fields)
			for i, w := range got {
				if i >= len(tt.want) || !strings.HasPrefix(w, tt.want[i]) {
					t.Errorf("unexpected: %s", w)
				}
			}
			if len(got) < len(tt.want) {
				t.Errorf("got only %q, want %q", got, tt.want)
			}
		})
	}
}

// TestListedIsExact sees that each difference says which steps, which field and
// which answers it is about, and why it stays.
func TestListedIsExact(t *testing.T) {
	t.Parallel()
	for i := range listed {
		d := &listed[i]
		for _, text := range []string{d.scenario, d.request, d.versions} {
			if strings.Contains(text, "*") {
				t.Errorf("%s: %q says too little", d.title(), text)
			}
		}
		if d.what == "" || strings.Trim(d.what, "*") == "" {
			t.Errorf("%s: of any step", d.title())
		}
		if d.path == "" || strings.Contains(strings.ReplaceAll(d.path, "[*]", ""), "*") || strings.HasSuffix(d.path, "[*]") {
			t.Errorf("%s: path %q: a * is for an element whose field is named", d.title(), d.path)
		}
		for _, v := range []string{d.kafka, d.ours} {
			if v == "" || strings.Contains(strings.ReplaceAll(v, "<id of *>", ""), "*") {
				t.Errorf("%s: %s: answer %q", d.title(), d.path, v)
			}
		}
		if d.kafka == d.ours || d.why == "" {
			t.Errorf("%s: %s: both answer %s, why: %q", d.title(), d.path, d.kafka, d.why)
		}
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
	n.node, n.host, n.port, n.clusterID = 3, "h", 99, "ABEiM0RVZneImaq7zN3u_w"
	id := unknownID("a topic")
	n.topics[id] = "a"
	n.epochs[5] = true

	m := kmsg.NewPtrMetadataResponse()
	m.ClusterID = kmsg.StringPtr(n.clusterID)
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
	cluster := kmsg.NewPtrDescribeClusterResponse()
	cluster.ClusterID = "c"                     // not what a cluster's id looks like
	topics := kmsg.NewPtrDeleteTopicsResponse() // in no order
	for _, name := range []string{"b", "a"} {
		t := kmsg.NewDeleteTopicsResponseTopic()
		t.Topic = &name
		topics.Topics = append(topics.Topics, t)
	}
	f := kmsg.NewPtrFetchResponse()
	f.SessionID = 77
	i := kmsg.NewPtrInitProducerIDResponse()
	i.ProducerID = 1234
	i.ErrorCode = 42

	tests := []struct {
		resp kmsg.Response
		want string
	}{
		{m, `{"Brokers":[{"Host":"<host>","NodeID":"<node>","Port":"<port>"},{"Host":"other","NodeID":4,"Port":98}],` +
			`"ClusterID":"<cluster>","ControllerID":"<node>","Topics":[{"Partitions":[` +
			`{"Leader":"<node>","LeaderEpoch":"<epoch>","Partition":3,"Replicas":["<node>",4]},` +
			`{"ErrorCode":"UNKNOWN_TOPIC_OR_PARTITION","Leader":9,"LeaderEpoch":6}],"Topic":"a","TopicID":"<id of a>"}]}`},
		{l, `{"Topics":[{"Partitions":[{"Timestamp":"base+7"}],"Topic":"t"},{"Partitions":[{"Partition":1,"Timestamp":"<now>"}],"Topic":"t"},` +
			`{"Partitions":[{"Partition":2,"Timestamp":7}],"Topic":"t"}]}`},
		{cluster, `{"ClusterID":"c"}`},
		{topics, `{"Topics":[{"Topic":"a"},{"Topic":"b"}]}`},
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
