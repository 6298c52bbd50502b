package partition

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// replica is a State and the checkpoint that was written of it.
type replica struct {
	s     *State
	lists [][]byte
}

// model is what the property test knows about a partition without dedup tables:
// each batch ever appended, by who sent it.
type model struct {
	ends    map[Number]int64
	batches map[string]Result // by partition, producer, epoch and sequences
}

// TestReplicasAgree feeds random entries to two replicas, one of which writes
// captures, loses some, folds them and restarts from them all the time. Both
// must answer alike and have equal hashes, and nobody's retry may be appended
// twice.
func TestReplicasAgree(outer *testing.T) {
	outer.Parallel()
	rapid.Check(outer, func(t *rapid.T) {
		steady, restless := &replica{s: New()}, &replica{s: New()}
		g := &generator{t: t, tb: outer, term: 1, topics: rapid.IntRange(1, 3).Draw(t, "topics")}
		md := &model{ends: map[Number]int64{}, batches: map[string]Result{}}
		var index uint64
		for range rapid.IntRange(1, 30).Draw(t, "entries") {
			index += uint64(rapid.IntRange(1, 3).Draw(t, "gap"))
			entry := g.entry()
			var a, b Outcome
			if err := steady.s.Apply(index, g.term, entry, &a); err != nil {
				t.Fatal(err)
			}
			if err := restless.s.Apply(index, g.term, entry, &b); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(a, b); d != "" {
				t.Fatalf("outcomes differ (-steady +restless):\n%s", d)
			}
			md.check(t, entry, &a)
			restless.disturb(t)
			if steady.s.StateHash() != restless.s.StateHash() {
				t.Fatalf("states differ after entry %d", index)
			}
		}
	})
}

// disturb captures, and perhaps loses the capture, folds or restarts.
func (r *replica) disturb(t *rapid.T) {
	what := rapid.SampledFrom([]string{"nothing", "capture", "lose", "fold", "restart"}).Draw(t, "disturb")
	if what == "nothing" {
		return
	}
	c := r.s.Capture()
	if what == "lose" {
		r.s.Requeue(c)
		return
	}
	var buf bytes.Buffer
	if err := c.WriteDelta(&buf); err != nil {
		t.Fatal(err)
	}
	r.lists = append(r.lists, buf.Bytes())
	stream := bytes.Join(r.lists, nil)
	restored, err := Restore(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	if restored.StateHash() != r.s.StateHash() {
		t.Fatalf("base and %d deltas restore to another state", len(r.lists)-1)
	}
	switch what {
	case "fold":
		var base bytes.Buffer
		if err := Fold(&base, bytes.NewReader(stream)); err != nil {
			t.Fatal(err)
		}
		r.lists = [][]byte{base.Bytes()}
	case "restart":
		r.s = restored
	}
}

// check compares an outcome with what was appended before.
func (md *model) check(t *rapid.T, entry []byte, out *Outcome) {
	d, err := Decode(entry)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; d.Next(); i++ {
		r, c := out.Results[i], d.Command()
		if r.Code != errcode.None {
			continue
		}
		if c.Kind == KindDecision { // all of its offsets, or none
			if r.BaseOffset != md.ends[c.Number] || r.LastOffset < r.BaseOffset {
				t.Fatalf("end is %d, answer %+v", md.ends[c.Number], r)
			}
			md.ends[c.Number] = r.LastOffset + 1
		}
		if c.Kind != KindProduce {
			continue
		}
		effects := slices.DeleteFunc(slices.Clone(out.Effects), func(e Effect) bool { return e.Command != i })
		key := fmt.Sprintf("%d %x", c.Number, c.Payload[43:57]) + fmt.Sprint(r.LastOffset-r.BaseOffset)
		first, seen := md.batches[key]
		if r.Duplicate {
			if !seen || first.BaseOffset != r.BaseOffset || first.LastOffset != r.LastOffset || len(effects) > 0 {
				t.Fatalf("a retry of %+v (seen %t) answered %+v with effects %+v", first, seen, r, effects)
			}
			continue
		}
		anonymous := c.Payload[43] == 0xff
		if seen && !anonymous {
			t.Fatalf("appended twice: %+v and %+v", first, r)
		}
		md.batches[key] = r
		if r.BaseOffset != md.ends[c.Number] || len(effects) != 1 || effects[0].BaseOffset != r.BaseOffset {
			t.Fatalf("end is %d, answer %+v, effects %+v", md.ends[c.Number], r, effects)
		}
		md.ends[c.Number] = r.LastOffset + 1
	}
}

// generator makes entries in which much goes right: producers mostly continue,
// and retry what they sent.
type generator struct {
	t      *rapid.T
	term   uint64
	stamp  uint64
	topics int
	sent   map[string]testBatch // last batch by partition and producer

	tb      testing.TB
	decided map[Number]decided // the last decision that is applied, perhaps
}

func (g *generator) int(lo, hi int, label string) int { return rapid.IntRange(lo, hi).Draw(g.t, label) }

func (g *generator) entry() []byte {
	if g.int(0, 5, "election") == 0 {
		g.term++
	}
	decided := g.term
	if g.int(0, 9, "stale") == 0 {
		decided--
	}
	var b EntryBuilder
	b.Reset(nil, EntryHeader{DecidedTerm: decided, WallClockMS: int64(g.int(0, 10_000, "clock"))})
	for range g.int(0, 8, "commands") {
		g.command(&b)
	}
	return b.Bytes()
}

func (g *generator) command(b *EntryBuilder) {
	topic, index := topicID(fmt.Sprint(g.int(1, g.topics, "topic"))), int32(g.int(0, 1, "index"))
	g.stamp += uint64(g.int(0, 2, "newer"))
	stamp := g.stamp - min(g.stamp, uint64(g.int(0, 4, "older")))
	n := Number(g.int(1, 8, "number"))
	switch k := g.int(0, 24, "kind"); k {
	case 0:
		b.TermStart()
	case 1, 2, 3:
		c := Config{SegmentBytes: int64(g.int(1, 3, "segment")), MaxMessageBytes: 1, SegmentMS: int64(g.int(0, 1, "segment ms"))}
		c.Internal = Internal(g.int(0, 1, "internal"))
		b.CreatePartition(CreatePartition{topic, index, stamp, int32(g.int(0, 2, "base")), c})
	case 21, 22, 23, 24:
		g.decision(b, n)
	case 4:
		b.DeletePartition(DeletePartition{topic, index, stamp})
	case 5:
		b.SetApplyVersion(uint16(g.int(1, MaxApplyVersion, "version")))
		b.SetPartitionConfig(SetPartitionConfig{topic, index, stamp, Config{SegmentBytes: 9, MaxMessageBytes: 1}})
	case 6:
		b.AdvanceLogStart(n, int64(g.int(0, 20, "log start")))
	case 8:
		// Whoever was forgotten goes on in an epoch that it never used, so that
		// the model's "never twice" holds.
		id := int64(g.int(0, 3, "expired"))
		key := fmt.Sprint(n, id)
		tb, ok := g.sent[key]
		b.ExpireProducers(ExpireProducers{UntilMS: 10_000, Producers: []IdleProducer{
			{Number: n, ID: ProducerID(id), Epoch: tb.epoch, LastSequence: addSequence(tb.seq, tb.count-1)},
		}})
		if ok {
			g.sent[key] = testBatch{id: id, epoch: tb.epoch + 10, count: 1}
		}
	case 7:
		// Producers are forgotten only once idle for longer than a run lasts, or
		// the model's "never twice" would not hold: see TestScenarios for that.
		b.SetLimits(Limits{uint32(g.int(1, 6, "partitions")), uint32(g.int(1, 9, "producers")), 1 << 30, uint32(g.int(1, 3, "stamps"))})
	default:
		b.Produce(n, g.batch(n).bytes())
	}
}

// decision decides on a few records for a partition, with a number that is the next
// one mostly, as far as g knows.
func (g *generator) decision(b *EntryBuilder, n Number) {
	if g.decided == nil {
		g.decided = make(map[Number]decided)
	}
	d := Decision{Number: n, Term: g.term, Seq: g.decided[n].next(g.term)}
	switch g.int(0, 9, "decision") {
	case 0:
		d.Seq++
	case 1:
		d.Seq--
	case 2:
		d.Term--
	default:
		g.decided[n] = decided{d.Term, d.Seq}
	}
	for range g.int(1, 2, "batches") {
		var words []string
		for range g.int(1, 3, "records") {
			word := string(rune('a' + g.int(0, 5, "key")))
			if v := g.int(0, 3, "value"); v > 0 {
				word += fmt.Sprint("=", v)
			}
			words = append(words, word)
		}
		d.Batches = append(d.Batches, recordsOf(g.tb, words...)...)
	}
	b.Decision(d)
}

func (g *generator) batch(n Number) testBatch {
	id := int64(g.int(-1, 3, "producer"))
	if id < 0 {
		return testBatch{id: -1, epoch: -1, seq: -1, count: int32(g.int(1, 4, "count"))}
	}
	if g.sent == nil {
		g.sent = map[string]testBatch{}
	}
	key := fmt.Sprint(n, id)
	tb, ok := g.sent[key]
	switch what := g.int(0, 9, "send"); {
	case !ok:
		tb = testBatch{id: id, seq: []int32{0, 1<<31 - 2}[g.int(0, 1, "start")], count: 1}
	case what == 0:
		tb.epoch, tb.seq = tb.epoch+1, 0
	case what == 1:
		tb.epoch = max(0, tb.epoch-1)
		return tb
	case what == 2:
		tb.seq = addSequence(tb.seq, tb.count+1) // a gap
		return tb
	case what < 6:
		return tb // a retry
	default:
		tb.seq = addSequence(tb.seq, tb.count)
		tb.count = int32(g.int(1, 3, "count"))
	}
	g.sent[key] = tb
	return tb
}
