package control

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

func vote(term uint64) Vote {
	return Vote{Incarnation: 0x0101_0101_0101_0101, Term: term, VoteTerm: term, Candidate: fmt.Appendf(nil, "node-%d", term)}
}

// votesOf returns the votes of the first shards.
func votesOf(v *Votes, shards uint32) map[uint32]Vote {
	out := make(map[uint32]Vote)
	for shard := range shards {
		if vt, ok := v.Load(shard); ok {
			out[shard] = vt
		}
	}
	return out
}

// countedRecords counts the syncs that were asked for.
type countedRecords struct {
	records
	syncs int
}

func (c *countedRecords) sync() error {
	c.syncs++
	return c.records.sync()
}

func TestVotes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, fs vfs.FS, dir string) {
		v := openVotes(t, fs, dir, Options{})
		if _, ok := v.Load(3); ok {
			t.Error("a vote in an empty log")
		}
		counted := &countedRecords{records: v.seq.rec}
		v.seq.rec = counted
		steps := []struct {
			name  string
			do    func() error
			syncs int
		}{
			{"first", func() error { return v.Store(3, vote(1)) }, 1},
			{"the same", func() error { return v.Store(3, vote(1)) }, 0},
			{"another shard", func() error { return v.Store(4, vote(1)) }, 1},
			{"another term", func() error { return v.Store(3, Vote{Term: 2}) }, 1},
			{"no candidate, again", func() error { return v.Store(3, Vote{Term: 2, Candidate: []byte{}}) }, 0},
			{"another incarnation", func() error { return v.Store(3, Vote{Incarnation: 9, Term: 2}) }, 1},
			{"delete", func() error { return v.Delete(4) }, 1},
			{"delete again", func() error { return v.Delete(4) }, 0},
			{"the zero vote", func() error { return v.Store(0, Vote{}) }, 1},
		}
		for _, s := range steps {
			counted.syncs = 0
			if err := s.do(); err != nil || counted.syncs != s.syncs {
				t.Errorf("%s: %v, %d syncs, want %d", s.name, err, counted.syncs, s.syncs)
			}
		}
		if err := v.Store(3, Vote{Candidate: make([]byte, MaxCandidateBytes+1)}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("long candidate: %v, want ErrTooLarge", err)
		}
		candidate := []byte("mine")
		if err := v.Store(5, Vote{Term: 1, Candidate: candidate}); err != nil {
			t.Fatal(err)
		}
		candidate[0] = 'x' // the caller's again
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		want := map[uint32]Vote{0: {}, 3: {Incarnation: 9, Term: 2}, 5: {Term: 1, Candidate: []byte("mine")}}
		for _, v := range []*Votes{v, openVotes(t, fs, dir, Options{})} {
			if diff := cmp.Diff(want, votesOf(v, 10)); diff != "" {
				t.Errorf("votes differ (-want +got):\n%s", diff)
			}
		}
		for _, err := range []error{v.Store(3, vote(9)), v.Delete(3), v.Close()} {
			if err != ErrClosed {
				t.Errorf("after Close: %v, want ErrClosed", err)
			}
		}
	})
}

// TestVotesCompact stores many votes of few shards, beside one that never
// changes and must come along.
func TestVotesCompact(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, fs vfs.FS, dir string) {
		opt := Options{SegmentBytes: 500, CompactRecords: 20}
		v := openVotes(t, fs, dir, opt)
		want := make(map[uint32]Vote)
		store := func(shard uint32, vt Vote) {
			t.Helper()
			want[shard] = vt
			if err := v.Store(shard, vt); err != nil {
				t.Fatal(err)
			}
		}
		store(9, vote(7))
		for term := range uint64(150) {
			store(uint32(term%3), vote(term))
			if n := v.seq.next - v.seq.first; n > 21 {
				t.Fatalf("%d records for %d votes, compaction at 20", n, len(want))
			}
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		v = openVotes(t, fs, dir, opt)
		if diff := cmp.Diff(want, votesOf(v, 10)); diff != "" {
			t.Errorf("votes differ (-want +got):\n%s", diff)
		}
		for term := range uint64(40) { // to nothing
			for shard := range uint32(10) {
				if err := errors.Join(v.Store(shard, vote(term)), v.Delete(shard)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		if got := votesOf(openVotes(t, fs, dir, opt), 10); len(got) != 0 {
			t.Errorf("deleted votes came back: %v", got)
		}
	})
}

// TestVotesConcurrent stores from many goroutines, each its own shard.
func TestVotesConcurrent(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, fs vfs.FS, dir string) {
		opt := Options{CompactRecords: 50}
		v := openVotes(t, fs, dir, opt)
		want := make(map[uint32]Vote)
		var wg sync.WaitGroup
		for shard := range uint32(8) {
			want[shard] = vote(24)
			wg.Go(func() {
				for term := range uint64(25) {
					if err := v.Store(shard, vote(term)); err != nil {
						t.Error(err)
					}
					if got, _ := v.Load(shard); got.Term != term {
						t.Errorf("shard %d: term %d after Store of %d", shard, got.Term, term)
					}
				}
			})
		}
		wg.Wait()
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, votesOf(openVotes(t, fs, dir, opt), 10)); diff != "" {
			t.Errorf("votes differ (-want +got):\n%s", diff)
		}
	})
}

// TestVotesOutlastPowerCut is the rule that elections rest on: a vote that was
// answered is there after a power cut that loses all that was not synced.
func TestVotesOutlastPowerCut(t *testing.T) {
	t.Parallel()
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	m := vfs.NewMem(seed)
	opt := Options{CompactRecords: 10}
	v := openVotes(t, m, "/votes", opt)
	want := make(map[uint32]Vote)
	for step := range uint64(100) {
		shard := rng.Uint32N(4)
		if rng.IntN(6) == 0 {
			delete(want, shard)
			if err := v.Delete(shard); err != nil {
				t.Fatal(err)
			}
		} else {
			want[shard] = vote(step)
			if err := v.Store(shard, want[shard]); err != nil {
				t.Fatal(err)
			}
		}
		after := m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
		if diff := cmp.Diff(want, votesOf(openVotes(t, after, "/votes", opt), 4)); diff != "" {
			t.Fatalf("seed %d step %d: votes lost (-want +got):\n%s", seed, step, diff)
		}
	}
}

// TestVotesFailed keeps the durable vote, not the one that failed.
func TestVotesFailed(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(1)
	v := openVotes(t, m, "/votes", Options{})
	if err := v.Store(1, vote(1)); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	m.SetInjector(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncData {
			return vfs.Fault{Err: boom}
		}
		return vfs.Fault{}
	})
	err := v.Store(1, vote(2))
	m.SetInjector(nil)
	for _, err := range []error{err, v.Store(1, vote(2)), v.Store(1, vote(1)), v.Delete(1)} {
		if !errors.Is(err, ErrFailed) || !errors.Is(err, boom) {
			t.Errorf("%v, want ErrFailed for boom", err)
		}
	}
	if got := votesOf(v, 3); !maps.EqualFunc(got, map[uint32]Vote{1: vote(1)}, Vote.equal) {
		t.Errorf("votes = %v, want the first only", got)
	}
}
