package history

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// A mutator plants one bug of the server (or, for Malformed, of the recorder)
// into a correct run. plant changes r and returns false if r offers no place.
type mutator struct {
	name  string
	kind  Kind
	plant func(r *mutable) bool

	// with are kinds that the same bug may rightly show as well.
	with []Kind

	// not is true for runs in which the bug would be allowed.
	not func(o Options) bool
}

func retrying(o Options) bool { return !o.Idempotent }

var mutators = []mutator{
	{name: "value appended twice", kind: Duplicate, plant: appendTwice, not: retrying},
	{name: "one reader sees another value", kind: InconsistentOffsets, plant: disagree},
	{name: "acknowledged again elsewhere", kind: InconsistentOffsets, plant: ackAgain},
	{name: "two unread values at one offset", kind: InconsistentOffsets, plant: ackTogether, with: []Kind{Unseen}},
	{name: "acknowledged value overwritten", kind: InconsistentOffsets, plant: overwrite, with: []Kind{LostWrite}},
	{name: "failed value read", kind: G1a, plant: readFailed},
	{name: "acknowledged value dropped", kind: LostWrite, plant: dropAcked},
	{name: "log cut at the end", kind: Unseen, plant: cutTail},
	{name: "two sends swapped", kind: NonmonotonicSend, plant: swapSends},
	{name: "two pipelined sends swapped", kind: NonmonotonicSend, plant: swapPipelined, not: retrying},
	{name: "sends swapped across a crash", kind: NonmonotonicSend, plant: swapAcrossCrash, with: []Kind{RealtimeSend}},
	{name: "batch reversed", kind: IntNonmonotonicSend, plant: reverseBatch, not: retrying},
	{name: "sends of two processes swapped", kind: RealtimeSend, plant: swapProcesses},
	{name: "poll lost at its end", kind: PollSkip, plant: skipBetweenPolls},
	{name: "poll lost at the start of the log", kind: PollSkip, plant: skipAtStart},
	{name: "poll repeated", kind: NonmonotonicPoll, plant: repeatPoll},
	{name: "poll from before the assigned start", kind: NonmonotonicPoll, plant: raiseStart},
	{name: "hole inside a poll", kind: IntPollSkip, plant: skipInsidePoll},
	{name: "record repeated inside a poll", kind: IntNonmonotonicPoll, plant: repeatInsidePoll},
	{name: "value from nowhere", kind: Phantom, plant: inventValue},
	{name: "bytes from nowhere", kind: Phantom, plant: garbleAppended},
	{name: "value changed on disk", kind: Phantom, plant: corruptValue, with: []Kind{LostWrite}},
	{name: "value from the future", kind: Phantom, plant: readFuture, with: []Kind{InconsistentOffsets, PollSkip, NonmonotonicPoll}},
	{name: "negative offset", kind: Phantom, plant: negativeOffset, with: []Kind{LostOffset, LostWrite}},
	{name: "wrong offset acknowledged", kind: AckMismatch, plant: wrongAck},
	{name: "negative offset acknowledged", kind: AckMismatch, plant: negativeAck},
	{name: "unacknowledged offset dropped", kind: LostOffset, plant: dropUnacked},
	{name: "offsets shifted", kind: LostOffset, plant: shiftOffsets},
	{name: "old incarnation read", kind: StaleTopic, plant: readStale},
	{name: "log start went back", kind: StartBack, plant: startAgain, with: []Kind{LostWrite, LostOffset, Unseen, PollSkip}},
	{name: "log start moved by nobody", kind: UnexplainedStart, plant: startAhead},
	{name: "newest segment taken for its size", kind: UnexplainedStart, plant: takeNewest, not: retrying},
	{name: "young records taken for their age", kind: UnexplainedStart, plant: takeYoung},
	{name: "deleted record read", kind: BelowStart, plant: readDeleted},
	{
		name: "appended below the log start", kind: BelowStart, plant: appendDeleted,
		with: []Kind{AckMismatch, InconsistentOffsets, NonmonotonicSend, RealtimeSend, LostWrite},
	},
	{
		name: "deleted less than it says", kind: Undeleted, plant: deleteLess,
		with: []Kind{UnexplainedStart, StartBack, PollSkip},
	},
	{name: "completion without invocation", kind: Malformed, plant: orphan},
	{name: "value sent twice", kind: Malformed, plant: sendTwice},
	{name: "assign completed twice", kind: Malformed, plant: assignTwice},
	{name: "failed, then unknown", kind: Malformed, plant: failedThenUnknown},
	{name: "other value acknowledged", kind: Malformed, plant: ackOther},
	{name: "one id for two invocations", kind: Malformed, plant: reuseID},
}

func TestEveryKindHasItsMutator(t *testing.T) {
	t.Parallel()
	have := make(map[Kind]bool)
	for _, m := range mutators {
		have[m.kind] = true
	}
	for _, m := range groupMutators {
		have[m.kind] = true
	}
	for _, k := range Kinds() {
		if !have[k] {
			t.Errorf("no mutator plants %s", k)
		}
	}
	if len(have) != len(Kinds()) {
		t.Errorf("mutators plant %d kinds, Kinds has %d", len(have), len(Kinds()))
	}
}

// TestPlantedBugs plants each bug into many runs. The checker must report its
// kind, and nothing but it and what goes with it. With that kind switched off
// the run must pass, so that it is this check, and no other, that found it.
func TestPlantedBugs(t *testing.T) {
	t.Parallel()
	const enough = 15
	for _, m := range mutators {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			planted := 0
			for seed := uint64(0); planted < enough; seed++ {
				if seed == 1000 {
					t.Fatalf("planted only %d times in %d runs", planted, seed)
				}
				r := modelRun(seed, 250)
				if m.not != nil && m.not(r.opt) {
					continue
				}
				mut := newMutable(r)
				if !m.plant(mut) {
					continue
				}
				planted++
				checkPlanted(t, m, mut.run)
			}
		})
	}
}

func checkPlanted(t *testing.T, m mutator, r run) {
	t.Helper()
	report := Check(r.h, r.opt)
	if report.Counts[m.kind] == 0 {
		t.Fatalf("seed %d: %s not found\n%s", r.seed, m.kind, report)
	}
	for k := range report.Counts {
		if k != m.kind && !slices.Contains(m.with, k) {
			t.Fatalf("seed %d: also found %s\n%s", r.seed, k, report)
		}
	}
	r.opt.off = map[Kind]bool{m.kind: true}
	for _, k := range m.with {
		r.opt.off[k] = true
	}
	if err := Check(r.h, r.opt).Err(); err != nil {
		t.Fatalf("seed %d: with %s off: %v", r.seed, m.kind, err)
	}
}

// mutable is a run whose history is its own copy.
type mutable struct {
	run
	rng  *rand.Rand
	sent map[int64]*sentValue
}

// sentValue is what the history says of one value sent to the stable topic.
type sentValue struct {
	key     Key
	value   int64
	process int32
	invoked int
	done    int // event that completed it, or -1
	outcome Type
	ack     int64
	offset  int64 // where the final log has it first, or -1
	copies  int
	read    int // first event that read it, or the end of the history
}

func newMutable(r run) *mutable {
	m := &mutable{run: r, rng: rand.New(rand.NewPCG(r.seed, 0xbadc0de)), sent: make(map[int64]*sentValue)}
	m.h = slices.Clone(r.h)
	m.opt.LogStart = maps.Clone(r.opt.LogStart)
	byID := make(map[int64]int)
	for i := range m.h {
		op := &m.h[i]
		op.Mops = slices.Clone(op.Mops)
		for j := range op.Mops {
			op.Mops[j].Records = slices.Clone(op.Mops[j].Records)
		}
		if op.F != Send {
			continue
		}
		if op.Type == Invoke {
			byID[op.ID] = i
			for _, rec := range op.Mops[0].Records {
				m.sent[rec.Value] = &sentValue{
					key: op.Mops[0].Key, value: rec.Value, process: op.Process,
					invoked: i, done: -1, ack: NoOffset, offset: -1, read: len(m.h),
				}
			}
			continue
		}
		for n, rec := range m.h[byID[op.ID]].Mops[0].Records {
			s := m.sent[rec.Value]
			s.done, s.outcome = i, op.Type
			if op.Type == OK {
				s.ack = op.Mops[0].Records[n].Offset
			}
		}
	}
	for i, op := range m.h {
		for _, mop := range op.Mops {
			for _, rec := range mop.Records {
				if s := m.sent[rec.Value]; op.F == Poll {
					s.read = min(s.read, i)
				}
			}
		}
	}
	for k, l := range m.logs {
		for o, v := range l.values {
			if s := m.sent[v]; s != nil && s.key == k {
				s.copies++
				if s.offset < 0 {
					s.offset = int64(o)
				}
			}
		}
	}
	return m
}

// pick returns a random value of the stable topic that ok accepts, or nil.
func (m *mutable) pick(ok func(*sentValue) bool) *sentValue {
	var fit []*sentValue
	for _, v := range slices.Sorted(maps.Keys(m.sent)) {
		if s := m.sent[v]; s.key.Topic == stable && ok(s) {
			fit = append(fit, s)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[m.rng.IntN(len(fit))]
}

// end is the offset after the last of a key's log.
func (m *mutable) end(k Key) int64 { return int64(len(m.logs[k].values)) }

// readable accepts values that lie in the log once, below its last offset and
// not below its start.
func (m *mutable) readable(s *sentValue) bool {
	return s.copies == 1 && s.offset >= m.logs[s.key].start && s.offset < m.end(s.key)-1
}

// at returns the value that the log holds once at an offset, or nil.
func (m *mutable) at(k Key, offset int64) *sentValue {
	if offset < m.logs[k].start || offset >= m.end(k) {
		return nil
	}
	if s := m.sent[m.logs[k].values[offset]]; s.copies == 1 {
		return s
	}
	return nil
}

// eachRead lets f change every record read of key, and drop it by false.
func (m *mutable) eachRead(k Key, f func(op *Op, rec *Record) bool) {
	for i := range m.h {
		op := &m.h[i]
		if op.F != Poll || op.Type != OK {
			continue
		}
		for j := range op.Mops {
			if op.Mops[j].Key != k {
				continue
			}
			kept := op.Mops[j].Records[:0]
			for _, rec := range op.Mops[j].Records {
				if f(op, &rec) {
					kept = append(kept, rec)
				}
			}
			op.Mops[j].Records = kept
		}
	}
}

// eachAck lets f change the acknowledgement of every value of key.
func (m *mutable) eachAck(k Key, f func(rec *Record)) {
	for i := range m.h {
		if op := &m.h[i]; op.F == Send && op.Type == OK && op.Mops[0].Key == k {
			for n := range op.Mops[0].Records {
				f(&op.Mops[0].Records[n])
			}
		}
	}
}

// swap exchanges two values in what every client sees.
func (m *mutable) swap(a, b *sentValue) {
	m.eachAck(a.key, func(rec *Record) {
		switch rec.Value {
		case a.value:
			rec.Offset = b.offset
		case b.value:
			rec.Offset = a.offset
		}
	})
	m.eachRead(a.key, func(_ *Op, rec *Record) bool {
		switch rec.Value {
		case a.value:
			rec.Value = b.value
		case b.value:
			rec.Value = a.value
		}
		return true
	})
}

// appendRead lets the last final reader see one record after the end of key.
func (m *mutable) appendRead(k Key, value int64) {
	last := m.finals[len(m.finals)-1]
	id := int64(1 << 40)
	m.h = append(m.h,
		Op{ID: id, Process: last, Type: Invoke, F: Poll},
		Op{ID: id, Process: last, Type: OK, F: Poll, Mops: []Mop{Values(k, value).At(m.end(k))}})
}

// polled picks the records that one poll gave an assigned reader of the
// stable topic, if ok accepts them.
func (m *mutable) polled(ok func(i int, mop *Mop) bool) (int, *Mop) {
	type place struct{ op, mop int }
	var fit []place
	for i := range m.h {
		op := &m.h[i]
		if op.F != Poll || op.Type != OK || op.Process == 12 {
			continue
		}
		for j := range op.Mops {
			if op.Mops[j].Key.Topic == stable && ok(i, &op.Mops[j]) {
				fit = append(fit, place{i, j})
			}
		}
	}
	if len(fit) == 0 {
		return 0, nil
	}
	p := fit[m.rng.IntN(len(fit))]
	return p.op, &m.h[p.op].Mops[p.mop]
}

// readElsewhere reports whether another process than that of event i has read
// an offset.
func (m *mutable) readElsewhere(i int, k Key, offset int64) bool {
	found := false
	m.eachRead(k, func(op *Op, rec *Record) bool {
		found = found || (rec.Offset == offset && op.Process != m.h[i].Process)
		return true
	})
	return found
}

// nextPoll returns what the process of event i was given of mop's key next, if
// nothing but polls that succeeded came between.
func (m *mutable) nextPoll(i int, mop *Mop) *Mop {
	seen := false
	for j := i; j < len(m.h); j++ {
		op := &m.h[j]
		if op.Process != m.h[i].Process {
			continue
		}
		if op.F != Poll || op.Type == Info {
			return nil
		}
		for n := range op.Mops {
			if seen && op.Mops[n].Key == mop.Key && len(op.Mops[n].Records) > 0 {
				return &op.Mops[n]
			}
			seen = seen || &op.Mops[n] == mop
		}
	}
	return nil
}
