package partition

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestScenarios runs the scripts in testdata/scenarios. Each line of an "apply"
// is a command of one entry; the entry's term and wall clock are those that the
// last "term" and "clock" set, and its decided term is the same unless given.
// Run with -rewrite to write down what comes out.
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
	case "term":
		d.ScanArgs(m.t, "is", &m.term)
		return ""
	case "clock":
		d.ScanArgs(m.t, "is", &m.clock)
		return ""
	case "apply":
		return m.scriptApply(d)
	case "epoch-end":
		var n, epoch int
		d.ScanArgs(m.t, "n", &n)
		d.ScanArgs(m.t, "epoch", &epoch)
		e, code := m.s.EpochEnd(Number(n), int32(epoch))
		if code != errcode.None {
			return code.Name() + "\n"
		}
		return fmt.Sprintf("epoch=%d end=%d\n", e.Epoch, e.End)
	case "restart":
		before := m.s.StateHash()
		m.s = restore(m.t, delta(m.t, m.s.full()))
		if m.s.StateHash() != before {
			m.t.Error("the restored state differs")
		}
		return ""
	case "state":
		return m.scriptState()
	case "idle":
		var until, limit int
		d.ScanArgs(m.t, "until", &until)
		d.ScanArgs(m.t, "limit", &limit)
		var sb strings.Builder
		for _, p := range m.s.IdleProducers(int64(until), limit) {
			fmt.Fprintf(&sb, "n=%d pid=%d epoch=%d last=%d\n", p.Number, p.ID, p.Epoch, p.LastSequence)
		}
		return sb.String()
	}
	m.t.Fatalf("unknown command %s", d.Cmd)
	return ""
}

func (m *machine) scriptState() string {
	var sb strings.Builder
	index, term := m.s.Applied()
	fmt.Fprintf(&sb, "index=%d term=%d clock=%d producers=%d version=%d\n", index, term, m.s.ClockMS(), m.s.Producers(), m.s.ApplyVersion())
	for v := range m.s.Partitions() {
		fmt.Fprintf(&sb, "%d: %s-%d [%d, %d) epoch=%d producers=%d stamp=%d%s epochs=%v\n", v.Number,
			strings.TrimRight(string(v.TopicID[:]), "\x00"), v.Index, v.LogStart, v.End, v.LeaderEpoch, v.Producers,
			v.MetadataIndex, formatConfig(v.Config), m.s.Epochs(v.Number))
		if v.Config.Internal != NotInternal {
			fmt.Fprintf(&sb, "   decided term=%d number=%d folded: %s\n", v.DecidedTerm, v.DecisionSeq, foldedText(m.s, v.Number))
		}
	}
	return sb.String()
}

func (m *machine) scriptApply(d *datadriven.TestData) string {
	decided := m.term
	d.MaybeScanArgs(m.t, "decided", &decided)
	var b EntryBuilder
	b.Reset(nil, EntryHeader{DecidedTerm: decided, WallClockMS: m.clock})
	for line := range strings.Lines(d.Input) {
		m.scriptCommand(&b, strings.Fields(line))
	}
	m.index++
	if err := m.s.Apply(m.index, m.term, b.Bytes(), &m.out); err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	var sb strings.Builder
	for i := range m.out.Results {
		sb.WriteString(formatResult(&m.out.Results[i]))
		for _, e := range m.out.Effects {
			if e.Command == i {
				sb.WriteString(formatEffect(e))
			}
		}
	}
	return sb.String()
}

// scriptCommand appends the command of one line, as in "produce n=1 pid=7
// epoch=0 seq=0 count=3".
func (m *machine) scriptCommand(b *EntryBuilder, words []string) {
	args := map[string]int64{"pid": -1, "epoch": -1, "seq": -1, "count": 1, "segment": testConfig.SegmentBytes, "segment-ms": 0}
	var topic string
	var batches []string
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "topic":
			topic = v
			continue
		case "records": // of one batch, as in records=a=1,b
			batches = append(batches, v)
			continue
		}
		var n int64
		if _, err := fmt.Sscan(v, &n); err != nil {
			m.t.Fatalf("%s: %v", w, err)
		}
		args[k] = n
	}
	config := testConfig
	config.SegmentBytes, config.SegmentMS, config.Internal = args["segment"], args["segment-ms"], Internal(args["internal"])
	id, index, stamp := topicID(topic), int32(args["index"]), uint64(args["stamp"])
	switch words[0] {
	case "term-start":
		b.TermStart()
	case "create":
		b.CreatePartition(CreatePartition{id, index, stamp, int32(args["base"]), config})
	case "delete":
		b.DeletePartition(DeletePartition{id, index, stamp})
	case "config":
		b.SetPartitionConfig(SetPartitionConfig{id, index, stamp, config})
	case "advance":
		b.AdvanceLogStart(Number(args["n"]), args["offset"])
	case "limits":
		b.SetLimits(Limits{uint32(args["partitions"]), uint32(args["producers"]), args["idle"], uint32(args["stamps"])})
	case "version":
		b.SetApplyVersion(uint16(args["is"]))
	case "expire":
		b.ExpireProducers(ExpireProducers{UntilMS: args["until"], Producers: []IdleProducer{
			{Number: Number(args["n"]), ID: ProducerID(args["pid"]), Epoch: int16(args["epoch"]), LastSequence: int32(args["last"])},
		}})
	case "decision":
		c := Decision{Number: Number(args["n"]), Term: uint64(args["term"]), Seq: uint64(args["seq"])}
		for _, records := range batches {
			c.Batches = append(c.Batches, recordsOf(m.t, strings.Split(records, ",")...)...)
		}
		b.Decision(c)
	case "produce":
		tb := testBatch{id: args["pid"], epoch: int16(args["epoch"]), seq: int32(args["seq"]), count: int32(args["count"]), attrs: uint16(args["attrs"])}
		if at, ok := args["log-append-time"]; ok {
			tb.attrs, tb.maxTime = attrLogAppendTime, at
		}
		b.Produce(Number(args["n"]), tb.bytes())
	default:
		m.t.Fatalf("unknown command %q", words)
	}
}

func formatResult(r *Result) string {
	if err := r.Err(); err != nil {
		return fmt.Sprintf("%v: %v\n", r.Kind, err)
	}
	s := fmt.Sprintf("%v: n=%d", r.Kind, r.Number)
	if r.Kind == KindProduce || r.Kind == KindDecision {
		s += fmt.Sprintf(" offsets=[%d, %d] epoch=%d", r.BaseOffset, r.LastOffset, r.LeaderEpoch)
	}
	if r.LogAppendTimeMS != NoTime {
		s += fmt.Sprintf(" time=%d", r.LogAppendTimeMS)
	}
	if r.Duplicate {
		s += " duplicate"
	}
	return s + "\n"
}

func formatConfig(c Config) string {
	s := fmt.Sprintf(" segment=%d", c.SegmentBytes)
	if c.SegmentMS != 0 {
		s += fmt.Sprintf(" segment-ms=%d", c.SegmentMS)
	}
	if c.Internal != NotInternal {
		s += fmt.Sprintf(" internal=%d", c.Internal)
	}
	return s
}

func formatEffect(e Effect) string {
	switch e.Kind {
	case EffectAppended:
		return fmt.Sprintf("  append n=%d [%d, %d] epoch=%d bytes=%d\n", e.Number, e.BaseOffset, e.LastOffset, e.LeaderEpoch, len(e.Batch))
	case EffectCreated:
		return fmt.Sprintf("  create n=%d index=%d%s\n", e.Number, e.Index, formatConfig(e.Config))
	case EffectDeleted:
		return fmt.Sprintf("  delete n=%d\n", e.Number)
	case EffectLogStartMoved:
		return fmt.Sprintf("  log-start n=%d offset=%d\n", e.Number, e.LogStart)
	case EffectConfigSet:
		return fmt.Sprintf("  config n=%d%s\n", e.Number, formatConfig(e.Config))
	}
	return fmt.Sprintf("  unknown effect %d\n", e.Kind)
}
