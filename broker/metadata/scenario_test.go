package metadata

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

func topicID(s string) TopicID {
	var id TopicID
	copy(id[:], s)
	return id
}

// machine drives one State.
type machine struct {
	t     testing.TB
	s     *State
	index uint64
	term  uint64
}

func newMachine(t testing.TB) *machine { return &machine{t: t, s: New(), term: 1} }

func (m *machine) apply(c Command) Result {
	m.t.Helper()
	m.index++
	r, err := m.s.Apply(m.index, m.term, Append(nil, m.term, c))
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func snapshot(t testing.TB, im *Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := im.WriteSnapshot(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func restore(t testing.TB, b []byte) *State {
	t.Helper()
	s, err := Restore(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestScenarios runs the scripts in testdata/scenarios. Each line of an "apply"
// is one entry. Run with -rewrite to write down what comes out.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		m := newMachine(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			m.t = t
			return m.script(d)
		})
	})
}

func (m *machine) script(d *datadriven.TestData) string {
	switch d.Cmd {
	case "apply":
		decided := m.term
		d.MaybeScanArgs(m.t, "decided", &decided)
		var sb strings.Builder
		for line := range strings.Lines(d.Input) {
			sb.WriteString(m.line(decided, strings.Fields(line)))
		}
		return sb.String()
	case "term":
		d.ScanArgs(m.t, "is", &m.term)
		return ""
	case "restart":
		before := snapshot(m.t, m.s.Image())
		m.s = restore(m.t, before)
		if !bytes.Equal(snapshot(m.t, m.s.Image()), before) {
			m.t.Error("the restored state differs")
		}
		return ""
	case "state":
		return describe(m.s.Image())
	}
	m.t.Fatalf("unknown command %s", d.Cmd)
	return ""
}

// line applies one command and returns its answer.
func (m *machine) line(decided uint64, words []string) string {
	args := map[string]string{}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		args[k] = v
	}
	m.index++
	r, err := m.s.Apply(m.index, m.term, Append(nil, decided, m.command(words[0], args)))
	switch {
	case err != nil:
		return fmt.Sprintf("error: %v\n", err)
	case r.Err() != nil:
		return fmt.Sprintf("%d: %v\n", r.Index, r.Err())
	case r.ProducerID >= 0:
		return fmt.Sprintf("%d: producer id %d\n", r.Index, r.ProducerID)
	}
	return fmt.Sprintf("%d: ok\n", r.Index)
}

func (m *machine) command(name string, args map[string]string) Command {
	num := func(key string) (n int64) {
		if v, ok := args[key]; ok {
			if _, err := fmt.Sscan(v, &n); err != nil {
				m.t.Fatalf("%s=%s: %v", key, v, err)
			}
		}
		return n
	}
	id := topicID(args["id"])
	switch name {
	case "term-start":
		return TermStart{}
	case "cluster":
		return SetClusterID{args["id"]}
	case "node":
		c := RegisterNode{ID: NodeID(num("id")), Incarnation: uint64(num("incarnation")), Replaces: uint64(num("replaces")), FeatureLevel: uint16(num("knows"))}
		if host := args["host"]; host != "" {
			c.Addresses = []Address{{"client", host, 9092}}
		}
		return c
	case "shard":
		return CreateShard{ShardID(num("id")), numbers[NodeID](m.t, args["replicas"])}
	case "add-shards":
		c := AddShards{First: ShardID(num("first"))}
		for set := range strings.SplitSeq(args["shards"], ";") {
			leader, replicas, _ := strings.Cut(set, ":")
			c.Shards = append(c.Shards, NewShard{numbers[NodeID](m.t, leader)[0], numbers[NodeID](m.t, replicas)})
		}
		return c
	case "fence", "unfence":
		return FenceNode{NodeID(num("id")), uint64(num("incarnation")), name == "fence"}
	case "replicas":
		return SetShardReplicas{ShardID(num("id")), numbers[NodeID](m.t, args["replicas"])}
	case "create":
		return CreateTopic{id, args["name"], numbers[ShardID](m.t, args["on"]), configs(args["configs"])}
	case "grow":
		return AddPartitions{id, int32(num("first")), numbers[ShardID](m.t, args["on"])}
	case "configs":
		return SetTopicConfigs{id, configs(args["configs"])}
	case "delete":
		return DeleteTopic{id}
	case "purge":
		return PurgeTombstone{id}
	case "feature-level":
		return SetFeatureLevel{uint16(num("is"))}
	case "producer-ids":
		return AllocateProducerIDs{int32(num("count"))}
	}
	m.t.Fatalf("unknown command %q", name)
	return nil
}

// numbers reads a list such as "1,2,3".
func numbers[T ~int32 | ~uint32](t testing.TB, s string) (ns []T) {
	for f := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ',' }) {
		var n T
		if _, err := fmt.Sscan(f, &n); err != nil {
			t.Fatal(err)
		}
		ns = append(ns, n)
	}
	return ns
}

// configs reads a list such as "key:value,key:value".
func configs(s string) (cs []Config) {
	for f := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ',' }) {
		k, v, _ := strings.Cut(f, ":")
		cs = append(cs, Config{k, v})
	}
	return cs
}

func describe(im *Image) string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "index=%d term=%d cluster=%q next producer=%d feature level=%d\n",
		im.Index(), im.Term(), im.ClusterID(), im.NextProducerID(), im.FeatureLevel())
	for n := range im.Nodes() {
		fmt.Fprintf(&sb, "node %d: incarnation=%d %v at %d", n.ID, n.Incarnation, n.Addresses, n.UpdatedAt)
		if n.FeatureLevel > 0 {
			fmt.Fprintf(&sb, " knows=%d", n.FeatureLevel)
		}
		if n.Fenced {
			sb.WriteString(" fenced")
		}
		sb.WriteByte('\n')
	}
	for s := range im.Shards() {
		fmt.Fprintf(&sb, "shard %d: replicas=%v partitions=%d at %d", s.ID, s.Replicas, s.Partitions, s.UpdatedAt)
		if s.CreatedAt > 0 {
			fmt.Fprintf(&sb, " created=%d founders=%v led by %d", s.CreatedAt, s.Founders, s.Preferred())
		}
		sb.WriteByte('\n')
	}
	for t := range im.Topics() {
		fmt.Fprintf(&sb, "topic %s: on=%v configs=%v created=%d updated=%d grown=%v\n", t.Name, t.Assignment, t.Configs, t.CreatedAt, t.UpdatedAt, t.Grown)
	}
	for t := range im.Tombstones() {
		fmt.Fprintf(&sb, "tombstone %s: partitions=%d deleted=%d\n", t.Name, t.Partitions, t.DeletedAt)
	}
	return sb.String()
}
