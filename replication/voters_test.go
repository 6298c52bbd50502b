package replication

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// TestVotersFailOver takes the leader's power away, twice over the round, while
// everything that was acknowledged has to stay, in its order.
func TestVotersFailOver(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		var want []string
		var lastTerm uint64
		for round := range 6 {
			node := tr.leader(1, 2, 3)
			term := tr.rigs[node].replica.Leading()
			if term <= lastTerm {
				t.Errorf("round %d: node %d leads in term %d after term %d", round, node, term, lastTerm)
			}
			lastTerm = term
			lines := numbered(fmt.Sprint(round), 20, 100)
			tr.mustWrite(node, lines...)
			want = append(want, lines...)
			tr.cutPower(node)
			successor := tr.leader(tr.others(node)...)
			tr.mustWrite(successor, fmt.Sprint("after ", round))
			want = append(want, fmt.Sprint("after ", round))
			tr.start(node)
		}
		tr.leader(1, 2, 3)
		tr.agree(want, 1, 2, 3)
		for n := 1; n <= 3; n++ {
			tr.cutPower(n)
		}
		for n := 1; n <= 3; n++ {
			tr.start(n)
		}
		tr.leader(1, 2, 3)
		tr.agree(want, 1, 2, 3)
	})
}

// TestVotersCutOffLeader cuts the leader off, in both directions or in one: it
// stops serving within two leases, what it had not committed is never
// acknowledged, and its successor goes on.
func TestVotersCutOffLeader(t *testing.T) {
	for _, way := range []string{"both", "to the leader", "from the leader"} {
		t.Run(strings.ReplaceAll(way, " ", "_"), func(t *testing.T) {
			withTrio(t, func(t *testing.T, tr *trio) {
				old := tr.leader(1, 2, 3)
				tr.mustWrite(old, "first")
				for _, other := range tr.others(old) {
					tr.hub.Cut(int32(other), int32(old), way != "from the leader")
					tr.hub.Cut(int32(old), int32(other), way != "to the leader")
				}
				got, err := tr.rigs[old].propose("lost")
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				for tr.rigs[old].replica.Leading() != 0 && time.Since(began) < time.Minute {
					pause(time.Millisecond)
				}
				if took := time.Since(began); took > 2*electionTimeout {
					t.Errorf("it led for %v without a majority, want at most two leases of %v", took, electionTimeout)
				}
				if a := <-got; !errors.Is(a.err, ErrOutcomeUnknown) {
					t.Errorf("what it could not commit was answered with %v, want ErrOutcomeUnknown", a.err)
				}
				successor := tr.leader(tr.others(old)...)
				tr.mustWrite(successor, "second")
				tr.isolate(int32(old), false)
				want := []string{"first", "second"}
				if way == "to the leader" { // its entry reached them, and its successor has committed it
					want = []string{"first", "lost", "second"}
				}
				tr.agree(want, 1, 2, 3)
			})
		})
	}
}

// TestConfirm elects a second leader while the first does not know of it: it
// serves writes until its lease ends, none of which is acknowledged, but it must
// not confirm that it leads (R19). Raft's own VerifyLeader has passed such a one.
func TestConfirm(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		old := tr.leader(1, 2, 3)
		tr.mustWrite(old, "first")
		pause(time.Second)
		term := tr.rigs[old].replica.Leading()
		if got, err := tr.rigs[old].replica.Confirm(t.Context()); err != nil || got != term {
			t.Fatalf("Confirm of the only leader = %d, %v", got, err)
		}
		heir := tr.others(old)[0]
		tr.isolate(int32(old), true)
		deadline, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := tr.rigs[old].replica.Confirm(deadline); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Confirm without answers = %v, want the end of its context", err)
		}
		// One of the others campaigns at once, as after a transfer.
		tr.rigs[heir].replica.opt.Transport.Inject(raft.RPC{
			Command:  &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}},
			RespChan: make(chan raft.RPCResponse, 1),
		})
		tr.leader(heir)
		tr.mustWrite(heir, "second")
		if got := tr.rigs[old].replica.Leading(); got != term {
			t.Fatalf("the old leader leads in term %d, want %d: its lease has not ended", got, term)
		}
		tr.hub.Cut(int32(old), int32(tr.others(old)[1]), false)
		tr.hub.Cut(int32(tr.others(old)[1]), int32(old), false)
		if _, err := tr.rigs[old].replica.Confirm(t.Context()); !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrNotConfirmed) {
			t.Errorf("Confirm of a deposed leader = %v: a read of it would miss what was acknowledged elsewhere", err)
		}
		tr.isolate(int32(old), false)
	})
}

// TestConfirmIsShared asks many times at once: few rounds answer all.
func TestConfirmIsShared(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.hub.SetFaults(int32(node), int32(tr.others(node)[0]), transport.Faults{MinDelay: time.Millisecond, MaxDelay: time.Millisecond})
		tr.hub.SetFaults(int32(node), int32(tr.others(node)[1]), transport.Faults{MinDelay: time.Millisecond, MaxDelay: time.Millisecond})
		began := time.Now()
		const n = 1000
		errs := make(chan error, n)
		for range n {
			go func() { _, err := tr.rigs[node].replica.Confirm(t.Context()); errs <- err }()
		}
		for range n {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 4*time.Millisecond {
			t.Errorf("%d confirmations took %v of virtual time, want about two rounds of 1 ms", n, took)
		}
	})
}

// TestForgottenVote asks a voter for its vote twice in one term, with a power
// cut between: it must not give it to another.
func TestForgottenVote(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		for n := 1; n <= 3; n++ {
			tr.kill(n)
		}
		a, c := tr.hub.Join(1, tr.ids[0]), tr.hub.Join(1, tr.ids[2])
		defer func() { _, _ = a.Close(), c.Close() }()
		tr.start(2)
		ask := func(from *transport.Member, id ReplicaID) bool {
			req := &raft.RequestVoteRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id.String()), Addr: []byte(id.String())},
				Term:      50, LastLogIndex: 1 << 20, LastLogTerm: 49,
			}
			var resp raft.RequestVoteResponse
			if err := from.RequestVote(raft.ServerID(tr.ids[1].String()), "", req, &resp); err != nil {
				t.Fatal(err)
			}
			return resp.Granted
		}
		if !ask(a, tr.ids[0]) {
			t.Fatal("the first vote of the term is refused")
		}
		tr.cutPower(2)
		tr.start(2)
		if ask(c, tr.ids[2]) {
			t.Error("it voted for two candidates of one term: both may lead")
		}
		if !ask(a, tr.ids[0]) {
			t.Error("it does not repeat its vote")
		}
	})
}

// TestWipedReplica wipes a replica that comes back as a new incarnation: it
// neither leads nor votes, so nothing is lost; with the third voter back the two
// that are whole go on.
func TestWipedReplica(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		a, b, c := tr.wipe(func(old ReplicaID) ReplicaID { return ReplicaID{Node: old.Node, Incarnation: old.Incarnation + 0x10} })
		pause(time.Minute)
		if tr.rigs[b].replica.Leading() != 0 || tr.rigs[c].replica.Leading() != 0 {
			t.Fatal("a leader was elected by the vote of a replica that has forgotten everything")
		}
		tr.start(a)
		node := tr.leader(a, b)
		tr.mustWrite(node, "after")
		want := append(numbered("acknowledged", 20, 10), "after")
		tr.agree(want, a, b)
		if got := tr.rigs[c].fsm.all(); len(got) != 0 {
			t.Errorf("the new incarnation is no member, and has applied %q", got)
		}
	})
}

// TestWipedReplicaUnderItsOldName shows what the rule is for: it finds the loss
// that comes of a replica that votes again under its old name.
func TestWipedReplicaUnderItsOldName(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		_, b, c := tr.wipe(func(old ReplicaID) ReplicaID { return old })
		node := tr.leader(b, c)
		tr.mustWrite(node, "after")
		if got := tr.rigs[node].fsm.all(); slices.Contains(got, numbered("acknowledged", 1, 10)[0]) {
			t.Error("nothing was lost: this test no longer makes the situation that the other one is about")
		}
	})
}

// TestLaggingVoter keeps a voter away while the others write and take
// checkpoints: what it lacks stays in their logs, and it comes back from there.
func TestLaggingVoter(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		away := tr.others(node)[0]
		tr.kill(away)
		want := numbered("away", 60, 1000)
		for lines := range slices.Chunk(want, 10) {
			tr.mustWrite(node, lines...)
			for _, n := range tr.others(away) {
				if err := tr.rigs[n].replica.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			}
		}
		tr.refuse = tr.ids[away-1] // no checkpoint: the log has to do
		tr.start(away)
		tr.agree(want, 1, 2, 3)
		// Whoever leads next has what the others need, too.
		tr.kill(node)
		next := tr.leader(tr.others(node)...)
		tr.mustWrite(next, "next")
		tr.start(node)
		want = append(want, "next")
		tr.agree(want, 1, 2, 3)
		pause(time.Second)
		for n := 1; n <= 3; n++ {
			r := tr.rigs[n].replica
			if err := r.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			if len(r.Behind()) > 0 {
				t.Errorf("node %d says that %v are behind", n, r.Behind())
			}
		}
		// With everybody there, nothing is kept for anybody.
		pause(time.Second)
		for n := 1; n <= 3; n++ {
			r := tr.rigs[n].replica
			if err := r.Trim(); err != nil {
				t.Fatal(err)
			}
			if first, covered := r.store.log.first(), r.Checkpointed(); first+1 < covered {
				t.Errorf("node %d keeps entries from %d on, its checkpoint is at %d and all have them", n, first, covered)
			}
		}
	})
}

// TestVoterTooFarBehind writes more than may be kept for a voter that is away:
// what is kept is bounded, and it takes no part while it is cut off from the
// leader's checkpoints.
func TestVoterTooFarBehind(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		away := tr.others(node)[0]
		tr.mustWrite(node, "before")
		tr.agree([]string{"before"}, 1, 2, 3)
		tr.kill(away)
		want := []string{"before"}
		for range 100 {
			lines := numbered("away", 10, 1000)
			tr.mustWrite(node, lines...)
			want = append(want, lines...)
			for _, n := range tr.others(away) {
				if err := tr.rigs[n].replica.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			}
			u := tr.rigs[node].journal.Usage()
			const files = 8 // when it has grown
			if full := u.LimitBytes / int64(u.Files-1) * (files - 1); u.LiveBytes > full*6/10 {
				t.Fatalf("%d of %d bytes of the ring are kept for a voter that is away, want half", u.LiveBytes, full)
			}
		}
		tr.refuse = tr.ids[away-1]
		tr.start(away)
		pause(30 * time.Second)
		node = tr.leader(tr.others(away)...)
		if got := tr.rigs[node].replica.Behind(); !slices.Equal(got, []ReplicaID{tr.ids[away-1]}) {
			t.Errorf("behind are %v, want %v", got, tr.ids[away-1])
		}
		// Nobody tells it what is committed of the little that it has.
		if got := tr.rigs[away].fsm.all(); len(got) > 1 {
			t.Errorf("the one behind has applied %d lines, want at most the one it had", len(got))
		}
		if tr.rigs[away].replica.Leading() != 0 {
			t.Error("the one behind leads")
		}
		tr.mustWrite(node, "after")
		tr.agree(append(want, "after"), tr.others(away)...)
	})
}

// TestProgress: the leader says how far each voter is, and a follower of itself
// alone.
func TestProgress(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		others := tr.others(node)
		tr.mustWrite(node, numbered("a", 5, 10)...)
		tr.agree(numbered("a", 5, 10), 1, 2, 3)
		pause(time.Second)
		tr.kill(others[1])
		tr.mustWrite(node, "b")
		tr.agree(append(numbered("a", 5, 10), "b"), node, others[0])
		p := tr.rigs[node].replica.Progress()
		if !p.Leading || !p.HasLeader || p.Leader != tr.ids[node-1] || p.ID != p.Leader || p.Applied != p.Last || p.Term != tr.rigs[node].replica.Leading() {
			t.Errorf("the leader says %+v", p)
		}
		match := make(map[ReplicaID]uint64)
		for _, m := range p.Members {
			if match[m.ID] = m.Match; !m.Voter || m.Behind {
				t.Errorf("member %+v, want a voter", m)
			}
		}
		want := map[ReplicaID]uint64{tr.ids[node-1]: p.Last, tr.ids[others[0]-1]: p.Last, tr.ids[others[1]-1]: p.Last - 1}
		if !maps.Equal(match, want) {
			t.Errorf("matches %v, want %v", match, want)
		}
		f := tr.rigs[others[0]].replica.Progress()
		if f.Leading || f.Leader != p.Leader || f.Last != p.Last || len(f.Members) != 3 {
			t.Errorf("a follower says %+v", f)
		}
		for _, m := range f.Members {
			if m.Match != 0 || m.Behind {
				t.Errorf("a follower says of another how far it is: %+v", m)
			}
		}
	})
}

// TestFollowerWithoutRoom fills a follower's journal with applied entries of another
// replica of the node: it takes no more of this shard's, votes and hears of commits
// all the same, and takes them once a checkpoint has made room.
func TestFollowerWithoutRoom(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.mustWrite(node, "first")
		tr.agree([]string{"first"}, 1, 2, 3)
		full := tr.others(node)[0]
		tr.fillWith(full, 2)
		j := tr.rigs[full].journal
		files := j.Usage().Files
		want := append([]string{"first"}, numbered("more", 40, 5000)...)
		tr.mustWrite(node, want[1:]...)
		if got := len(tr.rigs[full].fsm.all()); got > 10 {
			t.Errorf("the full follower has applied %d lines of %d", got, len(want))
		}
		j.Shard(2, 9).Compact(j.Shard(2, 9).Last())
		pause(30 * time.Second)
		tr.agree(want, 1, 2, 3)
		if u := j.Usage(); u.ReservedBytes != 0 || u.Files != files {
			t.Errorf("%d bytes stay reserved, and the ring has %d files, want %d", u.ReservedBytes, u.Files, files)
		}
	})
}
