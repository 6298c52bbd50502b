package replication

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/log/journal"
)

// fillWith fills what the ring of a node may hold with applied entries of another
// shard, of which no checkpoint is ever taken.
func (tr *trio) fillWith(node int, shard journal.ShardID) {
	tr.t.Helper()
	j := tr.rigs[node].journal
	s := j.Shard(shard, 9)
	data := make([]byte, 4000)
	for next := uint64(1); ; next++ {
		room, err := j.TryReserve(s, journal.RecordBytes(len(data), 0))
		if errors.Is(err, journal.ErrNoSpace) {
			synctest.Wait() // the ring may be growing
			room, err = j.TryReserve(s, journal.RecordBytes(len(data), 0))
		}
		if errors.Is(err, journal.ErrNoSpace) {
			return
		}
		if err != nil {
			tr.t.Fatal(err)
		}
		if err := s.Append([]journal.Record{{Index: next, Term: 1, Data: data}}); err != nil {
			tr.t.Fatal(err)
		}
		room.Release()
		s.Commit(next)
	}
}

// TestRestartWithAFullRing: of two voters that start without the third, one lacks
// much of what the other has, and has no room for it: its ring is full of entries of
// other shards, which count as not applied since it has started, so that no
// checkpoint frees them. The ring has to grow beyond its bound, since nothing else
// shows what is committed, for ever. It holds no more afterwards than before.
func TestRestartWithAFullRing(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		a := tr.leader(1, 2, 3)
		b, c := tr.others(a)[0], tr.others(a)[1]
		want := numbered("line", 10, 1000)
		tr.mustWrite(a, want...)
		tr.agree(want, 1, 2, 3)
		tr.fillWith(b, 2)
		full := tr.rigs[b].journal.Usage()
		if full.Files != full.MaxFiles {
			t.Fatalf("the ring has %d files of %d: this test no longer makes its situation", full.Files, full.MaxFiles)
		}
		want = tr.startTwo(a, b, c, want)

		tr.cutPower(b)
		tr.start(b)
		tr.mustWrite(tr.leader(a, b), "last")
		tr.agree(append(want, "last"), a, b)
		u := tr.rigs[b].journal.Usage()
		if u.Files <= u.MaxFiles || u.MaxFiles != full.MaxFiles || u.LimitBytes != full.LimitBytes {
			t.Errorf("the ring has %d files of %d, and may hold %d bytes; want more files, of %d, and %d bytes as before",
				u.Files, u.MaxFiles, u.LimitBytes, full.MaxFiles, full.LimitBytes)
		}
	})
}

// TestFollowsWithALongSuffix: a leader is deposed with more that is not committed
// than its shard may hold beside others. Its new leader, who has committed in its
// term, replaces that, and needs room before Raft drops it.
func TestFollowsWithALongSuffix(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		b := tr.leader(1, 2, 3)
		a, c := tr.others(b)[0], tr.others(b)[1]
		tr.mustWrite(b, "first")
		tr.agree([]string{"first"}, 1, 2, 3)
		for shard := range journal.ShardID(4) {
			tr.rigs[b].journal.Shard(2+shard, 9) // the share is a fifth of a quarter
		}
		tr.isolate(int32(b), true)
		for _, line := range numbered("lost", 4, 16_000) {
			if _, err := tr.rigs[b].propose(line); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if u := tr.rigs[b].journal.Usage(); u.LiveBytes+15_000 <= u.LimitBytes/4 {
			t.Fatalf("the deposed leader holds %d bytes of %d: this test no longer makes its situation", u.LiveBytes, u.LimitBytes)
		}
		time.Sleep(5 * time.Second)
		want := append([]string{"first"}, numbered("next", 10, 15_000)...)
		tr.mustWrite(tr.leader(a, c), want[1:]...)
		tr.isolate(int32(b), false)
		tr.agree(want, 1, 2, 3)
	})
}
