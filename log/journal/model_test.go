package journal

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// logModel is what must be in one shard's log.
type logModel struct {
	incarnation uint64
	recs        []Record // needed; contiguous
	next        uint64   // index to append at
	compacted   uint64
	nonce       uint64

	pending *logStep // called, not returned
}

// logStep is a call on a log. After a crash in it, its effect may be there, for
// an Append that of a prefix.
type logStep struct {
	kind kind
	recs []Record
	from uint64
}

// states are the contents that a crash may leave, the newest last.
func (m *logModel) states() [][]Record {
	states := [][]Record{m.recs}
	if m.pending == nil {
		return states
	}
	switch p := m.pending; p.kind {
	case kindEntry:
		for i := range p.recs {
			states = append(states, append(slices.Clone(m.recs), p.recs[:i+1]...))
		}
	case kindTruncate:
		states = append(states, m.before(p.from))
	case kindDrop:
		states = append(states, nil)
	}
	return states
}

func (m *logModel) before(from uint64) []Record {
	i := slices.IndexFunc(m.recs, func(r Record) bool { return r.Index >= from })
	if i < 0 {
		return m.recs
	}
	return m.recs[:i:i]
}

// model is what must be in a journal.
type model struct {
	mu   sync.Mutex
	logs map[ShardID]logModel
}

func newModel(shards int) *model {
	m := &model{logs: make(map[ShardID]logModel)}
	for i := range shards {
		m.logs[ShardID(i+1)] = logModel{incarnation: 1, next: 1}
	}
	return m
}

func (m *model) log(id ShardID) logModel {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs[id]
}

func (m *model) change(id ShardID, f func(l *logModel)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.logs[id]
	f(&l)
	m.logs[id] = l
}

func (m *model) clone() *model {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &model{logs: make(map[ShardID]logModel)}
	for id, l := range m.logs {
		c.logs[id] = l // the slices are only ever replaced or appended to
	}
	return c
}

// do makes one call and the model's change with it. Calls of one shard follow
// each other; shards may run side by side.
func (m *model) do(j *Journal, id ShardID, step logStep) error {
	l := m.log(id)
	s := j.Shard(id, l.incarnation)
	m.change(id, func(l *logModel) { l.pending = &step })
	var err error
	switch step.kind {
	case kindEntry:
		err = s.Append(step.recs)
	case kindTruncate:
		err = s.TruncateFrom(step.from)
	case kindDrop:
		err = s.Drop()
	}
	if err != nil {
		return err // still pending: its outcome is unknown
	}
	m.change(id, func(l *logModel) {
		states := l.states()
		l.recs, l.pending = states[len(states)-1], nil
		switch step.kind {
		case kindEntry:
			l.next = step.recs[len(step.recs)-1].Index + 1
		case kindTruncate:
			l.next = min(l.next, max(step.from, 1))
		case kindDrop:
			l.incarnation, l.next, l.compacted = l.incarnation+1, 1, 0
		}
	})
	return nil
}

func (m *model) compact(j *Journal, id ShardID, upTo uint64) {
	m.change(id, func(l *logModel) {
		i := slices.IndexFunc(l.recs, func(r Record) bool { return r.Index > upTo })
		if i < 0 {
			i = len(l.recs)
		}
		l.recs, l.compacted = l.recs[i:len(l.recs):len(l.recs)], max(l.compacted, upTo)
	})
	j.Shard(id, m.log(id).incarnation).Compact(upTo)
}

// restart says of a reopened journal what its owner would say, and checks that
// the logs hold what the model allows. It settles what was pending.
func (m *model) restart(j *Journal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, l := range m.logs {
		s := j.Shard(id, l.incarnation)
		s.Compact(l.compacted)
		got, err := contents(s)
		if err != nil {
			return fmt.Errorf("shard %d: %w", id, err)
		}
		states := l.states()
		if !slices.ContainsFunc(states, func(want []Record) bool { return slices.EqualFunc(got, want, sameRecord) }) {
			return fmt.Errorf("shard %d holds %v, want %v, or with %+v", id, indexes(got), indexes(l.recs), l.pending)
		}
		if l.pending != nil && l.pending.kind == kindDrop {
			// Half a drop is not to be seen again by the same owner: do it again.
			if err := s.Drop(); err != nil {
				return err
			}
			got = nil
			l.incarnation, l.next, l.compacted = l.incarnation+1, 1, 0
		}
		l.recs, l.pending = got, nil
		if n := len(got); n > 0 {
			l.next = got[n-1].Index + 1
		}
		m.logs[id] = l
	}
	return nil
}

// randomStep draws a call for a log. It lets the needed bytes of a log grow to
// about keepBytes; then it compacts, unless the log is an idle one.
func (m *model) randomStep(rng *rand.Rand, j *Journal, id ShardID, keepBytes int) error {
	l := m.log(id)
	size := 0
	for _, r := range l.recs {
		size += len(r.Data) + recordHeaderBytes
	}
	switch n := rng.IntN(20); {
	case size > keepBytes:
		m.compact(j, id, l.recs[len(l.recs)*3/4].Index)
		return nil
	case n == 0 && len(l.recs) > 2:
		return m.do(j, id, logStep{kind: kindTruncate, from: l.recs[len(l.recs)-1-rng.IntN(2)].Index})
	case n == 1 && rng.IntN(6) == 0:
		return m.do(j, id, logStep{kind: kindDrop})
	case n == 2 && len(l.recs) > 0:
		m.compact(j, id, l.recs[rng.IntN(len(l.recs))].Index)
		return nil
	}
	recs := make([]Record, 1+rng.IntN(3))
	m.change(id, func(l *logModel) {
		for i := range recs {
			l.nonce++
			recs[i] = newRecord(l.next+uint64(i), uint64(rng.IntN(3)), sizes[rng.IntN(len(sizes))], l.nonce<<8|uint64(id))
		}
	})
	return m.do(j, id, logStep{kind: kindEntry, recs: recs})
}

var sizes = []int{0, 1, 40, 200, 900, 2000, inlineBytes + 100}

// cut is the disk at one moment, with what must be on it.
type cut struct {
	mem   *vfs.Mem
	model *model
	where string
}

// history runs a fixed history of n steps on small files, which wraps the ring,
// truncates, compacts, drops, copies an idle shard forward and grows, and calls
// at before and after every operation on the disk. It is the same each time.
func history(t *testing.T, seed uint64, n int, opt Options, at func(mem *vfs.Mem, m *model, where string)) (events map[EventKind]int) {
	events = make(map[EventKind]int)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		mem, m := vfs.NewMem(seed), newModel(3)
		mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
			switch op.Kind {
			case vfs.OpReadAt, vfs.OpStat, vfs.OpFree, vfs.OpReadDir, vfs.OpOpen, vfs.OpMkdirAll:
			default:
				mu.Lock() // writer and preparer work side by side
				defer mu.Unlock()
				at(mem, m, fmt.Sprintf("%s op %d, %s %s at %d", phase, op.Seq, op.Kind, op.Path, op.Off))
			}
		})
		opt.OnEvent = func(e Event) { mu.Lock(); events[e.Kind]++; mu.Unlock() }
		rng := rand.New(rand.NewPCG(seed, 1))
		j := mustOpen(t, mem, opt)
		defer func() { j.Close() }()
		if err := m.do(j, 3, logStep{kind: kindEntry, recs: records(1, 3, 1500)}); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			synctest.Wait()
			if i == n/3 || i == n/2 { // a restart within
				mustClose(t, j)
				j = mustOpen(t, mem, opt)
				if r := j.Recovery(); r.Torn || r.RewrittenBytes != 0 || r.RepairedHeaders != 0 {
					t.Errorf("step %d: a closed journal was mended: %+v", i, r)
				}
				if err := m.restart(j); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			if err := m.randomStep(rng, j, ShardID(1+rng.IntN(2)), 6000); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
		synctest.Wait()
		mustClose(t, j)
	})
	return events
}
