package partition

import (
	"errors"
	"fmt"
	"math"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// decided is the last decision that was applied to an internal partition. Its
// zero value is before the first.
type decided struct {
	term uint64
	seq  uint64 // counts the decisions of term, from 1
}

// next returns the number of the decision that may follow in term (R3).
func (d decided) next(term uint64) uint64 {
	if d.term == term {
		return d.seq + 1
	}
	return 1
}

// decide appends the batches of a coordinator's decision, and has their records
// folded, all or nothing. A coordinator whose decision is refused has to begin anew
// from what is applied: it did not know of another decision, or was deposed.
func (a *application) decide(c Decision) {
	p := a.part
	if p == nil {
		a.refuse(errcode.UnknownTopicOrPartition, ReasonNoPartition, 0, int64(c.Number))
		return
	}
	a.about(p)
	switch next := p.decided.next(a.s.lastTerm); {
	case p.config.Internal == NotInternal:
		a.refuse(errcode.InvalidTopic, ReasonInternal, 0, 0)
		return
	case c.Term != a.s.lastTerm:
		a.refuse(errcode.NotCoordinator, ReasonTerm, int64(a.s.lastTerm), int64(c.Term))
		return
	case c.Seq != next:
		a.refuse(errcode.NotCoordinator, ReasonDecision, int64(next), int64(c.Seq))
		return
	}
	end, err := a.s.readDecision(c.Batches, p.end)
	if err != nil {
		a.refuse(errcode.CorruptMessage, ReasonBatch, 0, int64(len(c.Batches)))
		return
	}
	a.res.BaseOffset, a.res.LastOffset = p.end, end-1
	p.decided = decided{c.Term, c.Seq}
	for rest := c.Batches; len(rest) > 0; {
		var b []byte
		b, rest, _ = batch.Split(rest) // readDecision did
		h, _ := batch.ParseHeader(b)
		a.append(p, p.end+int64(h.LastOffsetDelta), b)
	}
	a.fold = true
}

var errDecision = errors.New("partition: not the batches of a decision")

// readDecision checks batches that are to follow a log end, puts their records into
// s.records, and returns the log end behind them. The coordinator's node has made
// them; what it may have got wrong must not become a hole in a partition.
func (s *State) readDecision(batches []byte, end int64) (int64, error) {
	clear(s.records)
	s.records = s.records[:0]
	if len(batches) == 0 {
		return 0, fmt.Errorf("%w: there are none", errDecision)
	}
	for rest := batches; len(rest) > 0; {
		b, after, err := batch.Split(rest)
		if err != nil {
			return 0, err
		}
		rest = after
		var it batch.Iterator
		if err := it.Reset(b, 0); err != nil {
			return 0, err
		}
		h := it.Header()
		if h.Attributes != 0 || h.Producer != batch.NoProducer || h.Records < 1 || h.Records != h.LastOffsetDelta+1 {
			return 0, fmt.Errorf("%w: attributes %#x, producer %d, %d records, last offset delta %d", errDecision, h.Attributes, h.Producer.ID, h.Records, h.LastOffsetDelta)
		}
		if end > math.MaxInt64-int64(h.Records) {
			return 0, fmt.Errorf("%w: no offsets are left", errDecision)
		}
		end += int64(h.Records)
		for r, ok := it.Next(); ok; r, ok = it.Next() {
			s.records = append(s.records, Record{Key: r.Key, Value: r.Value})
		}
		if err := it.Err(); err != nil {
			return 0, err
		}
	}
	return end, nil
}
