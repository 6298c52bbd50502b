package client

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"
)

// TestGroupCommit: Commit counts the record that the program works on, and a record
// that the loop was left at does not count without it.
func TestGroupCommit(t *testing.T) {
	inGroups(t, 1, func(t *testing.T, f *fakeCluster) {
		o := newOwnership(t)
		manual := func(cfg *GroupConfig) { cfg.CommitInterval = -1 }
		a := f.works(t, o, "a", manual)
		a.next(5)
		if err := a.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := f.committed(t)[0]; got != 5 {
			t.Errorf("committed %d by hand, want 5", got)
		}
		a.next(5)
		a.leaves()
		if got := f.committed(t)[0]; got != 5 {
			t.Errorf("committed %d after 10 records, and Close, want what was said: 5", got)
		}
		b := f.works(t, o, "b")
		b.next(5)
		b.leaves()
		if got := f.committed(t)[0]; got != 9 || b.first() != 5 {
			t.Errorf("committed %d after 5 records from %d, the last of which nobody asked after, want 9", got, b.first())
		}
		// Back as well, if the program says so.
		c := f.works(t, o, "c", manual)
		c.next(1)
		if err := c.Seek("a", 0, 2); err != nil {
			t.Fatal(err)
		}
		if err := c.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := f.committed(t)[0]; got != 2 {
			t.Errorf("committed %d after a seek to 2", got)
		}
		c.leaves()
	})
}

// TestGroupCommitOffsets: of a program that works on several records at once, what it
// says is committed and nothing else, until it says that all is.
func TestGroupCommitOffsets(t *testing.T) {
	inGroups(t, 2, func(t *testing.T, f *fakeCluster) {
		first, second, foreign := TopicPartition{"a", 0}, TopicPartition{"a", 1}, TopicPartition{"a", 2}
		a := f.works(t, newOwnership(t), "a", func(cfg *GroupConfig) { cfg.CommitInterval = -1 })
		a.next(150)                        // of both
		for _, at := range []int64{7, 3} { // back as well
			if err := a.CommitOffsets(t.Context(), map[TopicPartition]int64{first: at}); err != nil {
				t.Fatal(err)
			}
			if got := f.committed(t); len(got) != 1 || got[0] != at {
				t.Errorf("committed %v, want %d of one partition", got, at)
			}
		}
		err := a.CommitOffsets(t.Context(), map[TopicPartition]int64{foreign: 1, second: 5})
		var of *PartitionError
		if !errors.Is(err, ErrNoPartition) || !errors.As(err, &of) || of.Partition != 2 {
			t.Errorf("commit of a partition that the member does not have: %v", err)
		}
		if err := a.CommitOffsets(t.Context(), map[TopicPartition]int64{first: 50, second: -1}); err == nil {
			t.Error("offset -1 was committed")
		}
		if got := f.committed(t); len(got) != 2 || got[0] != 3 || got[1] != 5 {
			t.Errorf("committed %v, want 3 and 5", got)
		}
		if err := a.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := f.committed(t); got[0]+got[1] != 150 {
			t.Errorf("committed %v, want all of 150 records", got)
		}
		a.leaves()
		c := f.works(t, newOwnership(t), "c", func(cfg *GroupConfig) { cfg.CommitInterval = time.Hour })
		c.next(10)
		before := f.committed(t)
		if err := c.CommitOffsets(t.Context(), nil); err != nil || !maps.Equal(f.committed(t), before) {
			t.Errorf("commit of nothing: %v, and %v is committed, want %v", err, f.committed(t), before)
		}
		c.leaves()
		b := f.works(t, newOwnership(t), "b", func(cfg *GroupConfig) { cfg.Delivery = AtMostOnce })
		b.next(1)
		before = f.committed(t)
		if err := b.CommitOffsets(t.Context(), map[TopicPartition]int64{first: 1}); err == nil || !maps.Equal(f.committed(t), before) {
			t.Errorf("a member that delivers at most once takes back what it was handed out: %v", err)
		}
		b.leaves()
	})
}

// TestGroupCommitsWhereItBegins: Commit is of all partitions, also of one of which the
// program was handed out nothing: who has it next begins there, and not at an End that
// is later by then.
func TestGroupCommitsWhereItBegins(t *testing.T) {
	inGroups(t, 2, func(t *testing.T, f *fakeCluster) {
		a := f.works(t, newOwnership(t), "a", func(cfg *GroupConfig) { cfg.CommitInterval, cfg.Start = -1, End })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("something came: %v", err)
		}
		if err := a.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := f.committed(t); len(got) != 2 || got[0] != 100 || got[1] != 100 {
			t.Errorf("committed %v, want where it began: 100 of both", got)
		}
		a.leaves()
	})
}
