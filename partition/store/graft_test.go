package store

import (
	"errors"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// graft has a partition take all that it lacks of the target, a few batches at a time.
func (a *away) graft(sh *Shard, r Restored) (waited int) {
	a.tb.Helper()
	g, err := sh.Graft(r)
	if err != nil {
		a.tb.Fatal(err)
	}
	for !g.Done() {
		c, err := a.source.sh.Read(r.Key, g.Next(), 2500, true)
		if err != nil {
			a.tb.Fatal(err)
		}
		b, err := c.AppendTo(nil)
		c.Release()
		if err != nil {
			a.tb.Fatal(err)
		}
		damaged := append([]byte(nil), b...)
		damaged[len(damaged)-1] ^= 1
		if err := g.Append(damaged); !errors.Is(err, ErrPulled) {
			a.tb.Fatalf("a damaged batch: %v, want ErrPulled", err)
		}
		before := g.Next()
		for err = g.Append(b); errors.Is(err, ErrTail); err = g.Append(b) {
			waited++
			if err := g.Flush(); err != nil {
				a.tb.Fatal(err)
			}
		}
		if err != nil || g.Next() <= before {
			a.tb.Fatalf("Append at %d = %v, next %d", before, err, g.Next())
		}
	}
	if err := errors.Join(g.Flush(), g.Finish()); err != nil {
		a.tb.Fatal(err)
	}
	sh.SetLogStart(r.Key, r.LogStart)
	return waited
}

// TestGraft brings partitions up to another replica's state while others go on: what
// they lack follows on what they have, or begins at a later log start. A power cut
// before the next checkpoint takes it back, one behind it does not.
func TestGraft(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	a, h := newAway(t, mem)
	defer h.st.Close()
	h.append(1, 100, 200) // in memory, and below the source's log start
	grafted := map[uint32]bool{0: true, 1: true, 3: true}
	for _, r := range a.target.restored() {
		if grafted[r.Key] {
			h.append(4, 77) // in between
			waited := a.graft(h.sh, r)
			if behind := r.Key == 1; (waited > 0) != behind {
				t.Errorf("partition %d: %d times batches had to be written first, before some that do not follow on them: %t", r.Key, waited, behind)
			}
			h.state[r.Key] = a.target.state[r.Key]
		}
	}
	before := newHistory(t, mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep}))
	before.restore(h.durable)
	if err := before.st.Close(); err != nil {
		t.Error(err)
	}
	h.check()
	h.append(0, 30, 40)
	h.append(1, 50)
	h.check()
	h.capture()
	h.persist()
	h.check()
	after := newHistory(t, mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose}))
	defer after.st.Close()
	after.restore(h.durable)
}

// What is no beginning of the other replica's partition is not grafted onto.
func TestGraftRefused(t *testing.T) {
	t.Parallel()
	a, h := newAway(t, vfs.NewMem(1))
	defer h.st.Close()
	all := make(map[uint32]Restored)
	for _, r := range a.target.restored() {
		all[r.Key] = r
	}
	if _, err := h.sh.Graft(all[6]); !errors.Is(err, ErrUnknownPartition) {
		t.Errorf("an unknown partition: %v", err)
	}
	short := all[0]
	short.End = 1
	other := all[0]
	other.Index++
	for _, r := range []Restored{short, other} {
		if _, err := h.sh.Graft(r); err == nil {
			t.Errorf("%x-%d up to %d is taken", r.TopicID, r.Index, r.End)
		}
	}
}
