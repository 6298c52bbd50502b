package replication

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestRestartedVoterHasWhatItFound: a voter's journal fails a sync, so that its
// last entry is in the page cache alone, where the process that follows finds it.
// Its leader still waits for it, and is told that it is there already: Raft does
// not have it stored again. With that answer the entry is acknowledged, by the
// two of three that have it. The voter then loses its power, and the leader is
// gone for good: what is left of the majority must have the entry (R8). It fills
// several sectors: what the voter writes behind it at its start takes the rest of
// the last one, and with it what is in that one, to the disk in any case.
func TestRestartedVoterHasWhatItFound(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		found := "found" + strings.Repeat(".", 8<<10)
		a := tr.leader(1, 2, 3)
		b, c := tr.others(a)[0], tr.others(a)[1]
		want := numbered("before", 5, 10)
		tr.mustWrite(a, want...)
		tr.agree(want, 1, 2, 3)
		tr.isolate(int32(c), true)

		tr.mem[b].SetInjector(func(op vfs.Op) (ft vfs.Fault) {
			if op.Kind == vfs.OpSyncData && strings.HasPrefix(op.Path, "journal") {
				ft.Err = syscall.EIO
			}
			return ft
		})
		term := tr.rigs[a].replica.Leading()
		got, err := tr.rigs[a].propose(found)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-tr.rigs[b].failed:
		case <-time.After(time.Minute):
			t.Fatal("the voter's disk did not fail")
		}
		select {
		case a := <-got:
			t.Fatalf("acknowledged by one of three: %+v", a)
		default:
		}
		tr.kill(b)
		tr.mem[b].SetInjector(nil)
		tr.start(b)
		select {
		case answer := <-got:
			if now := tr.rigs[a].replica.Leading(); answer.err != nil || now != term {
				t.Fatalf("the entry was answered with %v, and the leader's term went from %d to %d: this test no longer makes its situation", answer.err, term, now)
			}
		case <-time.After(time.Minute):
			t.Fatal("no answer after a minute")
		}

		tr.cutPower(b)
		tr.kill(a)
		tr.isolate(int32(c), false)
		r, err := startVoter(tr.disks[b], tr.ids[b-1], tr.hub.Join(1, tr.ids[b-1]), tr.ids)
		if err != nil {
			t.Fatalf("the voter does not start: %v", err)
		}
		tr.rigs[b] = r
		node := tr.leader(b, c)
		tr.mustWrite(node, "after")
		if lines := tr.rigs[node].fsm.all(); !slices.Contains(lines, found) {
			t.Fatalf("an acknowledged entry is lost: there are %.20q", lines)
		}
		tr.agree(append(want, found, "after"), b, c)
	})
}

// TestRestartOverTheShare takes the power from all voters at once when each holds
// more above its checkpoint than a shard may hold that nobody has committed: none
// of it is known to be committed until a leader has committed in a term of its own,
// for which there has to be room.
func TestRestartOverTheShare(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		want := numbered("line", 150, 1000)
		tr.mustWrite(node, want...)
		tr.agree(want, 1, 2, 3)
		for n := 1; n <= 3; n++ {
			if live, limit := tr.rigs[n].journal.Usage().LiveBytes, tr.rigs[n].journal.Usage().LimitBytes; live <= limit/4 {
				t.Fatalf("node %d holds %d bytes of %d, want more than a quarter", n, live, limit)
			}
			tr.cutPower(n)
		}
		for n := 1; n <= 3; n++ {
			tr.start(n)
		}
		tr.mustWrite(tr.leader(1, 2, 3), "next")
		tr.agree(append(want, "next"), 1, 2, 3)
	})
}

// TestRestartFarOverTheShare is that of two voters which start without the third,
// when one of them lacks more than a request of the other carries: no request that
// it is sent before the last one opens the leader's term.
func TestRestartFarOverTheShare(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		a := tr.leader(1, 2, 3)
		b, c := tr.others(a)[0], tr.others(a)[1]
		want := numbered("line", 130, 1000)
		tr.mustWrite(a, want...)
		tr.agree(want, 1, 2, 3)
		if live, limit := tr.rigs[b].journal.Usage().LiveBytes, tr.rigs[b].journal.Usage().LimitBytes; live <= limit/4 {
			t.Fatalf("node %d holds %d bytes of %d, want more than a quarter", b, live, limit)
		}
		if carried := tr.rigs[a].journal.MaxRecordBytes(); carried > 45_000 {
			t.Fatalf("a request carries %d bytes: this test no longer makes its situation", carried)
		}
		tr.startTwo(a, b, c, want)
	})
}

// startTwo takes the power from b, then, when a has led to 90 lines more of 1000 bytes,
// from the others, and has a and b write another line without c. It returns what all
// have to have.
func (tr *trio) startTwo(a, b, c int, want []string) []string {
	tr.t.Helper()
	tr.cutPower(b)
	more := numbered("more", 90, 1000)
	tr.mustWrite(a, more...)
	tr.cutPower(a)
	tr.cutPower(c)
	tr.start(a)
	tr.start(b)
	tr.mustWrite(tr.leader(a, b), "next")
	want = slices.Concat(want, more, []string{"next"})
	tr.agree(want, a, b)
	return want
}
