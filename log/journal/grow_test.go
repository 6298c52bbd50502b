package journal

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestGrowsForPinned: a full ring grows beyond its bound for what no checkpoint can
// free, as after a restart, which knows of nothing that is applied; not for what is
// applied. A shard that is stuck like that does not stall the others (R7). What it has
// grown by holds nothing else, also after the next start.
func TestGrowsForPinned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		j := mustOpen(t, mem, small())
		s := j.Shard(1, 1)
		last := fill(t, j, s) - 1
		limit := j.Usage().LimitBytes
		more := limit / 4
		try := func(what string, reserve func(*Shard, int64) (*Reservation, error), s *Shard, want error) {
			t.Helper()
			r, err := reserve(s, more)
			for errors.Is(err, ErrNoSpace) {
				files := j.Usage().Files
				if synctest.Wait(); j.Usage().Files == files {
					break
				}
				r, err = reserve(s, more)
			}
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
			if err == nil {
				defer r.Release()
			}
		}
		try("a leader's entries, and the ring full of what is applied", j.TryReserveFollowing, s, ErrNoSpace)
		try("urgent ones", j.TryReserveUrgent, s, ErrNoSpace)
		if u := j.Usage(); u.Files != u.MaxFiles {
			t.Errorf("%d files, want %d: checkpoints make room", u.Files, u.MaxFiles)
		}
		killed := mem.KillClone()
		mustClose(t, j)

		j = mustOpen(t, killed, small())
		s, other := j.Shard(1, 1), j.Shard(2, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if r, err := j.Reserve(ctx, other, more); err != nil {
			t.Errorf("another shard's, after a restart: %v", err)
		} else {
			defer r.Release()
		}
		try("a leader's entries, after a restart", j.TryReserveFollowing, s, nil)
		try("urgent ones, after a restart", j.TryReserveUrgent, s, nil)
		try("a shard's over its share", j.TryReserve, s, ErrNoSpace)
		if u := j.Usage(); u.Files <= u.MaxFiles || u.Files > u.MaxFiles+3 || u.LimitBytes != limit {
			t.Errorf("%d files of %d and a limit of %d, want up to three more, and %d", u.Files, u.MaxFiles, u.LimitBytes, limit)
		}
		s.Commit(last)
		try("a leader's entries, all applied", j.TryReserveFollowing, s, ErrNoSpace)
		s.Compact(last - 1)
		fill(t, j, other)
		if u := j.Usage(); u.LiveBytes > limit {
			t.Errorf("%d bytes are live, want at most %d", u.LiveBytes, limit)
		}
		mustClose(t, j)
		j = mustOpen(t, killed, small())
		if u := j.Usage(); u.LimitBytes != limit || u.Files <= u.MaxFiles {
			t.Errorf("after a start: %d files of %d, and a limit of %d, want %d", u.Files, u.MaxFiles, u.LimitBytes, limit)
		}
		mustClose(t, j)
	})
}

// TestGrowsForLastEntries: a log keeps the last entry of its newest checkpoint, and a
// ring full of such entries is as full as one of what is not applied: shards whose
// last entries are more than its bound have room all the same.
func TestGrowsForLastEntries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, vfs.NewMem(1), small())
		defer mustClose(t, j)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for id := ShardID(1); id <= 8; id++ {
			size := int(j.MaxRecordBytes())
			s := j.Shard(id, 1)
			r, err := j.Reserve(ctx, s, RecordBytes(size, 0))
			if err != nil {
				t.Fatalf("shard %d of as many with one entry each: %v", id, err)
			}
			if err := s.Append([]Record{{Index: 1, Term: 1, Data: make([]byte, size)}}); err != nil {
				t.Fatal(err)
			}
			r.Release()
			s.Commit(1)
		}
		if u := j.Usage(); u.LiveBytes <= u.LimitBytes {
			t.Fatalf("%d bytes are live of %d: this test no longer makes its situation", u.LiveBytes, u.LimitBytes)
		}
	})
}

// TestGrowsIntoTheReserve: what is kept free on the disk is for urgent entries that
// nothing else makes room for, and not for a leader's other ones.
func TestGrowsIntoTheReserve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		opt := small()
		opt.KeepFreeBytes = 10 * minFileBytes
		j := mustOpen(t, mem, opt)
		fill(t, j, j.Shard(1, 1))
		killed := mem.KillClone()
		mustClose(t, j)
		j = mustOpen(t, killed, opt)
		defer mustClose(t, j)
		s := j.Shard(1, 1)
		for stuck := true; stuck; s.Compact(s.First()) {
			j.mu.Lock()
			stuck = j.stuckLocked()
			j.mu.Unlock()
		}
		synctest.Wait()
		files := j.Usage().Files
		killed.SetCapacity(int64(files+5) * minFileBytes)
		ask := func(reserve func(*Shard, int64) (*Reservation, error), want int) {
			t.Helper()
			u := j.Usage()
			if _, err := reserve(s, u.LimitBytes-u.LiveBytes+u.LimitBytes/4); !errors.Is(err, ErrNoSpace) {
				t.Fatalf("%v, want ErrNoSpace", err)
			}
			synctest.Wait()
			if got := j.Usage().Files; got != files+want {
				t.Errorf("%d files, want %d", got, files+want)
			}
		}
		ask(j.TryReserveFollowing, 0)
		ask(j.TryReserveUrgent, 1)
	})
}
