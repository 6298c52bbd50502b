package store

import (
	"fmt"

	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/segment"
)

// Graft takes the batches that a partition lacks of another replica's state, while the
// other partitions of the shard go on: a partition to which nothing else is appended,
// and of which nobody reads, since it is in quarantine (R5).
//
// What it takes is appended as Append does it. Until a checkpoint has the other
// replica's state, a restart cuts it off again (R14).
type Graft struct {
	sh   *Shard
	part *part
	pull Prefetch // what is wanted, and how a batch is judged
}

// Graft begins to take what a partition lacks of r. It returns ErrUnknownPartition, or
// an error that says what here is not a beginning of r.
func (sh *Shard) Graft(r Restored) (*Graft, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parts[r.Key]
	switch {
	case p == nil:
		return nil, ErrUnknownPartition
	case p.topicID != r.TopicID || p.index != r.Index || p.end > r.End:
		return nil, fmt.Errorf("store: partition %d: the other replica has %x-%d up to %d, here is %x-%d up to %d", r.Key, r.TopicID, r.Index, r.End, p.topicID, p.index, p.end)
	}
	return &Graft{sh: sh, part: p, pull: Prefetch{
		sh: sh, want: r, check: checkEpochs(r.Epochs), floor: r.LogStart, at: p.end, next: max(p.end, r.LogStart),
	}}, nil
}

// Next returns the offset from which on batches are wanted.
func (g *Graft) Next() int64 { return g.pull.next }

// Done reports whether no batch is wanted any more.
func (g *Graft) Done() bool { return g.pull.next >= g.pull.want.End }

// Append takes whole batches, as readers see them, that begin with the one which
// contains Next, and keeps b. Each is checked as Prefetch.Append does it. It waits for
// no disk, and is of the apply side.
//
// An error matching ErrPulled takes nothing of b, and so does ErrTail: the batches
// before are to be written first, by Flush, since the first of b is not the next one.
func (g *Graft) Append(b []byte) error {
	var batches []segment.Batch
	next := g.pull.next
	for len(b) > 0 {
		first, rest, err := batch.Split(b)
		if err != nil {
			return g.pull.refuse(next, err)
		}
		b = rest
		h, err := g.pull.judge(first, next)
		if err != nil {
			return g.pull.refuse(next, err)
		}
		if h.BaseOffset >= g.pull.want.End {
			break
		}
		batches = append(batches, segment.Batch{Base: h.BaseOffset, Body: first, Last: h.LastOffsetDelta, Epoch: h.LeaderEpoch})
		next = h.BaseOffset + int64(h.LastOffsetDelta) + 1
	}
	if len(batches) == 0 {
		return nil
	}
	if err := g.skip(batches[0].Base); err != nil {
		return err
	}
	for i := range batches {
		c := &batches[i]
		g.sh.Append(g.part.key, c.Base, c.End()-1, c.Epoch, c.Body, nil)
	}
	g.pull.at, g.pull.next = next, next
	return nil
}

// skip moves the partition's end up to an offset, below which the other replica has
// nothing any more.
func (g *Graft) skip(to int64) error {
	g.sh.mu.Lock()
	defer g.sh.mu.Unlock()
	p := g.part
	switch {
	case p.end >= to:
		return nil
	case len(p.tail) > 0:
		return fmt.Errorf("%w: partition %d, from %d on", ErrTail, p.key, p.tail[0].Base)
	}
	p.flushed, p.end = to, to
	return nil
}

// Finish ends the graft: the partition ends where it does at the other replica. The
// caller moves the log start. ErrTail is as of Append, which it is like.
func (g *Graft) Finish() error { return g.skip(g.pull.want.End) }

// Flush writes what was taken to segments, so that its memory is free; nothing is
// synced. It may wait for disks, and runs beside everything else. An error of Temporary
// may be tried again.
func (g *Graft) Flush() error {
	st := g.sh.st
	st.take(g.part)
	defer st.giveBack(g.part)
	return st.flush(g.part, g.part.last())
}
