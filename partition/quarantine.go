package partition

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Quarantine says that a command's handling panicked on this replica, and what
// is needed to repeat it (R5).
//
// A quarantine is local: it is no part of a checkpoint or a hash. The partition
// stays as it was before that command; commands about it are refused from there
// on, but for its deletion, which ends the quarantine. So a replica with one has
// another state than the others, and has no hash to compare.
type Quarantine struct {
	Number  Number
	TopicID TopicID
	Index   int32 // of the partition in its topic

	EntryIndex, EntryTerm uint64
	Command               int // position in the entry
	Kind                  Kind
	Panic                 string // what it said
	Stack                 []byte

	// Before is a checkpoint of the partition alone, as it was before the
	// command: Restore reads it, and a state made from it takes the entry again.
	// Nil if nothing can be made of what the panic left.
	Before []byte
}

// MaxQuarantined bounds the partitions of a shard that are quarantined at a
// time: more of them are no longer the partitions' trouble but the shard's, and
// the replica stops.
const MaxQuarantined = 8

// ReplayQuarantine puts partition n into quarantine from the entry at index on,
// as an earlier run of this replica did. It is called after Restore and before
// the first Apply, and reports whether the state may still meet the partition:
// if not, its deletion was checkpointed, and the record is of no use any more.
func (s *State) ReplayQuarantine(n Number, index uint64) bool {
	if s.parts[n] == nil && (n <= s.lastNumber || index <= s.lastIndex) {
		return false
	}
	s.setQuarantined(n, index)
	return true
}

func (s *State) setQuarantined(n Number, index uint64) {
	if s.quarantined == nil {
		s.quarantined = make(map[Number]uint64)
	}
	s.quarantined[n] = index
}

// Quarantined returns the index of the entry whose handling put partition n into
// quarantine, and false if there is none, or that entry is not applied yet.
func (s *State) Quarantined(n Number) (index uint64, ok bool) {
	index, ok = s.quarantined[n]
	return index, ok && s.lastIndex >= index
}

// Whole reports whether s is what its entries say: nothing is quarantined. Only
// then has it a hash to compare with other replicas'.
func (s *State) Whole() bool { return s.QuarantinedPartitions() == 0 }

// QuarantinedPartitions returns how many partitions Quarantined is true of.
func (s *State) QuarantinedPartitions() (count int) {
	for n := range s.quarantined {
		if _, ok := s.Quarantined(n); ok {
			count++
		}
	}
	return count
}

// subject returns the partition that c is about, or nil.
func (s *State) subject(c Command) *part {
	switch c.Kind {
	case KindProduce, KindAdvanceLogStart, KindDecision:
		return s.parts[c.Number]
	case KindCreatePartition, KindDeletePartition, KindSetPartitionConfig:
		d := decodeDelete(c.Payload)
		return s.byKey[key{d.TopicID, d.Index}]
	}
	return nil
}

// applyOne applies one command, and has its effects followed. A panic of either
// quarantines the partition that the command is about. It returns an error that
// matches ErrBroken if there is none, or if more than that partition suffered.
func (s *State) applyOne(c Command, decided uint64, out *Outcome) (err error) {
	a := application{s: s, out: out, res: noResult, decided: decided}
	a.part = s.subject(c)
	if a.part != nil && len(s.quarantined) > 0 && a.isolated(c) {
		out.Results = append(out.Results, a.res)
		return nil
	}
	effects := len(out.Effects)
	var before part
	if a.part != nil {
		before = a.part.frozen()
	}
	defer func() {
		if p := recover(); p != nil {
			out.Effects = out.Effects[:effects]
			err = a.contain(c, &before, p)
		}
	}()
	a.apply(c)
	if out.Follow != nil {
		for i := effects; i < len(out.Effects); i++ {
			out.Follow(&out.Effects[i])
		}
	}
	if a.fold {
		// Last, since it cannot be taken back.
		if err := a.part.folded.Fold(s.records); err != nil {
			panic(fmt.Sprintf("partition: fold: %v", err))
		}
	}
	out.Results = append(out.Results, a.res)
	return nil
}

// isolated refuses c if its partition is in quarantine, and reports whether it
// is.
func (a *application) isolated(c Command) bool {
	index, ok := a.s.Quarantined(a.part.number)
	if !ok || c.Kind == KindDeletePartition && index < a.s.lastIndex {
		return false
	}
	a.res.Kind = c.Kind
	a.about(a.part)
	a.refuse(errcode.KafkaStorageError, ReasonQuarantined, int64(index), int64(a.s.lastIndex))
	return true
}

// contain answers a command whose handling panicked with what.
func (a *application) contain(c Command, before *part, what any) error {
	s, p := a.s, a.part
	stack := debug.Stack()
	broken := func(why string) error {
		return fmt.Errorf("%w: entry %d, command %d (%v): %v; %s\n%s", ErrBroken, s.lastIndex, len(a.out.Results), c.Kind, what, why, stack)
	}
	if p == nil {
		return broken("no single partition is concerned")
	}
	s.takeBack(p, before)
	if why := s.damage(); why != "" {
		return broken(why)
	}
	s.setQuarantined(p.number, s.lastIndex)
	if n := len(s.quarantined); n > MaxQuarantined {
		return broken(fmt.Sprintf("%d partitions of the shard are in quarantine already, so the cause is elsewhere", n-1))
	}
	a.res = noResult
	a.isolated(c)
	a.out.Quarantines = append(a.out.Quarantines, Quarantine{
		Number: p.number, TopicID: p.key.topic, Index: p.key.index,
		EntryIndex: s.lastIndex, EntryTerm: s.lastTerm, Command: len(a.out.Results), Kind: c.Kind,
		Panic: fmt.Sprint(what), Stack: stack, Before: s.alone(p),
	})
	a.out.Results = append(a.out.Results, a.res)
	return nil
}

// takeBack makes p what it was before a command that panicked. Producers of
// which the command had changed anything by then are forgotten.
func (s *State) takeBack(p, before *part) {
	p.stamp, p.baseEpoch, p.config = before.stamp, before.baseEpoch, before.config
	p.logStart, p.end, p.epochs, p.decided = before.logStart, before.end, before.epochs, before.decided
	// If it was to be deleted.
	s.parts[p.number], s.byKey[p.key] = p, p
	delete(s.stamps, p.key)
	s.dirty.deleted = slices.DeleteFunc(s.dirty.deleted, func(n Number) bool { return n == p.number })
	for id, pr := range p.producers {
		if pr == nil || !s.recent.has(pr) || pr.window.count == 0 || pr.window.at(int(pr.window.count)-1).lastOffset() >= p.end {
			delete(p.producers, id)
			p.forgotten = append(p.forgotten, id)
			if pr != nil && s.recent.has(pr) {
				s.recent.remove(pr)
			}
		}
	}
	s.touch(p)
}

// alone returns a checkpoint of p and its producers, one entry back, or nil if
// they would not restore.
func (s *State) alone(p *part) []byte {
	c := &Capture{header: s.header(0), parts: []part{p.frozen()}}
	c.header.lastIndex--
	for _, pr := range p.producers {
		c.producers = append(c.producers, pr.frozen())
	}
	c.freezeFolded(p)
	c.sort()
	var buf bytes.Buffer
	if err := c.WriteDelta(&buf); err != nil {
		return nil
	}
	if _, err := Restore(bytes.NewReader(buf.Bytes())); err != nil {
		return nil
	}
	return buf.Bytes()
}

// damage checks what partitions share, and says what is wrong with it. It takes
// time proportional to the state.
func (s *State) damage() string {
	if len(s.parts) != len(s.byKey) {
		return fmt.Sprintf("%d partitions and %d keys are left", len(s.parts), len(s.byKey))
	}
	count := 0
	for n, p := range s.parts {
		if p.number != n || s.byKey[p.key] != p {
			return fmt.Sprintf("partition %d is not under its key", n)
		}
		count += len(p.producers)
	}
	listed := 0
	var last *producer
	for pr := s.recent.head; pr != nil && listed <= count; pr = pr.next {
		if s.parts[pr.part.number] != pr.part || pr.part.producers[pr.id] != pr || pr.prev != last {
			return fmt.Sprintf("producer %d of partition %d is out of the order", pr.id, pr.part.number)
		}
		last = pr
		listed++
	}
	if listed != count || s.recent.count != count || s.recent.tail != last {
		return fmt.Sprintf("%d producers, %d counted, %d in order", count, s.recent.count, listed)
	}
	return ""
}
