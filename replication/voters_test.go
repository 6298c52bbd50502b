package replication

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// trio is three voters of a shard, each with its own disk, by node 1 to 3.
type trio struct {
	t     *testing.T
	hub   *transport.Hub
	ids   []ReplicaID
	disks [4]vfs.FS
	mem   [4]*vfs.Mem
	rigs  [4]*rig // nil: down

	refuse ReplicaID // is installed nothing
}

// refusing is the transport of a replica that is installed nothing.
type refusing struct {
	Transport
	rpcs chan raft.RPC
	done chan struct{}
	end  sync.Once
}

// refuseInstalls answers the checkpoints that come in at to.
func refuseInstalls(to Transport) Transport {
	r := &refusing{Transport: to, rpcs: make(chan raft.RPC), done: make(chan struct{})}
	go func() {
		for {
			select {
			case rpc := <-to.Consumer():
				if _, ok := rpc.Command.(*raft.InstallSnapshotRequest); ok {
					rpc.RespChan <- raft.RPCResponse{Error: errNoCatchUp}
					continue
				}
				select {
				case r.rpcs <- rpc:
				case <-r.done:
					return
				}
			case <-r.done:
				return
			}
		}
	}()
	return r
}

// Consumer implements raft.Transport.
func (r *refusing) Consumer() <-chan raft.RPC { return r.rpcs }

// Close implements raft.WithClose.
func (r *refusing) Close() error {
	r.end.Do(func() { close(r.done) })
	return r.Transport.Close()
}

// withTrio runs a test of three voters in virtual time.
func withTrio(t *testing.T, test func(t *testing.T, tr *trio)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tr := &trio{t: t, hub: transport.NewHub(transport.HubOptions{Seed: 1})}
		for node := int32(1); node <= 3; node++ {
			tr.ids = append(tr.ids, ReplicaID{Node: node, Incarnation: 0xa0 + uint64(node)})
			tr.mem[node] = vfs.NewMem(uint64(node))
			tr.disks[node] = tr.mem[node]
		}
		for node := 1; node <= 3; node++ {
			tr.start(node)
		}
		defer func() {
			for node := 1; node <= 3; node++ {
				tr.kill(node)
			}
			time.Sleep(time.Minute)
		}()
		test(t, tr)
	})
}

func (tr *trio) start(node int) { tr.startAs(node, tr.ids[node-1]) }

func (tr *trio) startAs(node int, id ReplicaID) {
	tr.t.Helper()
	var to Transport = tr.hub.Join(1, id)
	if tr.refuse == id {
		to = refuseInstalls(to)
	}
	r, err := startVoter(tr.disks[node], id, to, tr.ids)
	if err != nil {
		tr.t.Fatalf("node %d: %v", node, err)
	}
	tr.rigs[node] = r
}

// kill closes a node without giving it time for anything.
func (tr *trio) kill(node int) {
	if r := tr.rigs[node]; r != nil {
		tr.rigs[node] = nil
		_ = r.replica.Close()
		_ = r.journal.Close()
		_ = r.votes.Close()
	}
}

// cutPower takes a node's power away, and with it what was not synced.
func (tr *trio) cutPower(node int) {
	tr.mem[node].Freeze()
	next := tr.mem[node].CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
	tr.kill(node)
	tr.mem[node], tr.disks[node] = next, next
}

// isolate cuts a node off, or heals it.
func (tr *trio) isolate(node int32, cut bool) {
	for other := int32(1); other <= 3; other++ {
		if other != node {
			tr.hub.Cut(node, other, cut)
			tr.hub.Cut(other, node, cut)
		}
	}
}

// leader waits until one of nodes leads.
func (tr *trio) leader(nodes ...int) int {
	tr.t.Helper()
	for range 60_000 {
		for _, node := range nodes {
			if r := tr.rigs[node]; r != nil && r.replica.Leading() != 0 {
				return node
			}
		}
		time.Sleep(time.Millisecond)
	}
	tr.t.Fatalf("none of %v leads after a minute", nodes)
	return 0
}

func (tr *trio) others(node int) (others []int) {
	for n := 1; n <= 3; n++ {
		if n != node {
			others = append(others, n)
		}
	}
	return others
}

// write proposes lines at a node, one after the other, and returns how many
// were acknowledged before the first error.
func (tr *trio) write(node int, lines ...string) (int, error) {
	for i, line := range lines {
		got, err := tr.rigs[node].propose(line)
		if err != nil {
			return i, err
		}
		select {
		case a := <-got:
			if a.err != nil {
				return i, a.err
			}
		case <-time.After(time.Minute):
			return i, errors.New("no answer after a minute")
		}
	}
	return len(lines), nil
}

func (tr *trio) mustWrite(node int, lines ...string) {
	tr.t.Helper()
	if _, err := tr.write(node, lines...); err != nil {
		tr.t.Fatalf("node %d: %v", node, err)
	}
}

// rest lets virtual time pass.
func (tr *trio) rest(d time.Duration) { time.Sleep(d) }

// numbered makes lines that are told apart.
func numbered(prefix string, n, bytes int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("%s-%d-%s", prefix, i, strings.Repeat("x", bytes)))
	}
	return lines
}

// agree waits until the nodes have applied the same, and want is what they have.
func (tr *trio) agree(want []string, nodes ...int) {
	tr.t.Helper()
	for range 60_000 {
		if !slices.ContainsFunc(nodes, func(n int) bool { return len(tr.rigs[n].fsm.all()) < len(want) }) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for _, n := range nodes {
		if got := tr.rigs[n].fsm.all(); !slices.Equal(got, want) {
			tr.t.Errorf("node %d has %d lines, want %d, or other ones", n, len(got), len(want))
		}
	}
}

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
					time.Sleep(time.Millisecond)
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
		time.Sleep(time.Second)
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

// wipe makes the situation in which a replica that has forgotten everything
// loses what was acknowledged (R11): a and c have it, b was cut off; a dies, c
// comes back empty, as id, and b and c are a majority.
func (tr *trio) wipe(as func(old ReplicaID) ReplicaID) (a, b, c int) {
	a = tr.leader(1, 2, 3)
	b, c = tr.others(a)[0], tr.others(a)[1]
	tr.isolate(int32(b), true)
	tr.mustWrite(a, numbered("acknowledged", 20, 10)...)
	tr.kill(a)
	tr.kill(c)
	tr.mem[c] = vfs.NewMem(99)
	tr.disks[c] = tr.mem[c]
	tr.isolate(int32(b), false)
	tr.startAs(c, as(tr.ids[c-1]))
	return a, b, c
}

// TestWipedReplica wipes a replica that comes back as a new incarnation: it
// neither leads nor votes, so nothing is lost; with the third voter back the two
// that are whole go on.
func TestWipedReplica(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		a, b, c := tr.wipe(func(old ReplicaID) ReplicaID { return ReplicaID{Node: old.Node, Incarnation: old.Incarnation + 0x10} })
		time.Sleep(time.Minute)
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
		time.Sleep(time.Second)
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
		time.Sleep(time.Second)
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
		time.Sleep(30 * time.Second)
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

// TestTransfer hands the leadership over while proposals come in: none of them
// is left without an answer, and what was acknowledged stays.
func TestTransfer(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		var want []string
		for round := range 4 {
			node := tr.leader(1, 2, 3)
			type proposed struct {
				line string
				got  <-chan answer
			}
			var flying []proposed
			propose := func(line string) {
				if got, err := tr.rigs[node].propose(line); err == nil {
					flying = append(flying, proposed{line, got})
				} else if !errors.Is(err, ErrNotLeader) {
					t.Errorf("round %d: %q: %v", round, line, err)
				}
			}
			propose(fmt.Sprintf("round %d: before", round))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			done := make(chan error, 1)
			go func() { done <- tr.rigs[node].replica.Transfer(ctx) }()
			for i, ended := 0, false; !ended; i++ {
				select {
				case err := <-done:
					if ended = true; err != nil {
						t.Errorf("round %d: %v", round, err)
					}
				case <-time.After(100 * time.Microsecond):
					propose(fmt.Sprintf("round %d: %d", round, i))
				}
			}
			cancel()
			for _, p := range flying {
				select {
				case a := <-p.got:
					if a.err == nil {
						want = append(want, p.line)
					} else if !errors.Is(a.err, ErrNotLeader) {
						t.Errorf("round %d: %q: %v, want ErrNotLeader: it was never handed to Raft", round, p.line, a.err)
					}
				case <-time.After(time.Minute):
					t.Fatalf("round %d: %q has no answer", round, p.line)
				}
			}
			if next := tr.leader(1, 2, 3); next == node {
				t.Errorf("round %d: node %d leads still, or again", round, node)
			}
		}
		tr.agree(want, 1, 2, 3)
	})
}

// TestTransferFails hands over to voters that are cut off: the leader goes on,
// until its lease ends, and no proposal is left without an answer.
func TestTransferFails(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.mustWrite(node, "first")
		time.Sleep(time.Second)
		tr.isolate(int32(node), true)
		moved := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			moved <- tr.rigs[node].replica.Transfer(ctx)
		}()
		time.Sleep(10 * time.Millisecond)
		got, err := tr.rigs[node].propose("second")
		if err != nil {
			t.Fatal(err)
		}
		if err := <-moved; err == nil {
			t.Error("Transfer to nobody succeeded")
		}
		select {
		case <-got:
		case <-time.After(time.Minute):
			t.Error("a proposal has no answer")
		}
		tr.isolate(int32(node), false)
		tr.mustWrite(tr.leader(1, 2, 3), "third")
	})
}

// TestTransferTo hands the leadership to each node by name, twice over.
func TestTransferTo(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		var want []string
		for round := range 6 {
			from := tr.leader(1, 2, 3)
			to := round%3 + 1
			line := fmt.Sprintf("round %d", round)
			tr.mustWrite(from, line)
			want = append(want, line)
			term := tr.rigs[from].replica.Term()
			if err := tr.rigs[from].replica.TransferTo(t.Context(), int32(to), 100); err != nil {
				t.Fatalf("round %d: from %d to %d: %v", round, from, to, err)
			}
			if got := tr.leader(1, 2, 3); got != to {
				t.Errorf("round %d: node %d leads, want %d", round, got, to)
			}
			if now := tr.rigs[to].replica.Term(); (now == term) != (from == to) {
				t.Errorf("round %d: from %d to %d: term %d, after %d", round, from, to, now, term)
			}
		}
		tr.agree(want, 1, 2, 3)
	})
}

// TestTransferToRefused names nodes that cannot take over: the leader says why,
// soon, and leads on.
func TestTransferToRefused(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		others := tr.others(node)
		tr.mustWrite(node, "first")
		tr.agree([]string{"first"}, 1, 2, 3)
		time.Sleep(time.Second)
		term := tr.rigs[node].replica.Leading()
		refused := func(at, to int, want error, text string) {
			t.Helper()
			began := time.Now()
			err := tr.rigs[at].replica.TransferTo(t.Context(), int32(to), 10)
			if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("TransferTo(%d) = %v, want %v with %q", to, err, want, text)
			}
			if took := time.Since(began); took > 2*transferPatience {
				t.Errorf("TransferTo(%d) took %v", to, took)
			}
			if now := tr.rigs[node].replica.Leading(); now != term {
				t.Fatalf("after TransferTo(%d) node %d leads in term %d, want %d", to, node, now, term)
			}
		}
		refused(others[0], others[1], ErrNotLeader, "")
		refused(node, 9, ErrNotVoter, "node 9 has no voter of shard 1")
		tr.kill(others[0])
		refused(node, others[0], ErrHeirLags, "does not answer")
		tr.mustWrite(node, numbered("behind", 11, 10)...)
		refused(node, others[0], ErrHeirLags, "lacks 11 entries")
		tr.mustWrite(node, "last")
	})
}

// TestTransferToWaits: a voter that answers and takes no entries is waited for,
// and not for ever.
func TestTransferToWaits(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.mustWrite(node, "first")
		tr.agree([]string{"first"}, 1, 2, 3)
		slow := tr.others(node)[0]
		tr.mem[slow].SetInjector(func(op vfs.Op) (ft vfs.Fault) {
			if op.Kind == vfs.OpSync || op.Kind == vfs.OpSyncData {
				ft.Delay = 5 * transferPatience
			}
			return ft
		})
		tr.mustWrite(node, "second")
		began := time.Now()
		err := tr.rigs[node].replica.TransferTo(t.Context(), int32(slow), 100)
		if !errors.Is(err, ErrHeirLags) || !strings.Contains(err.Error(), "has not taken the last entries") {
			t.Errorf("TransferTo = %v, want ErrHeirLags", err)
		}
		if took := time.Since(began); took < transferPatience || took > 2*transferPatience {
			t.Errorf("TransferTo took %v, want %v", took, transferPatience)
		}
		tr.mustWrite(node, "last")
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
		time.Sleep(time.Second)
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
		time.Sleep(30 * time.Second)
		tr.agree(want, 1, 2, 3)
		if u := j.Usage(); u.ReservedBytes != 0 || u.Files != files {
			t.Errorf("%d bytes stay reserved, and the ring has %d files, want %d", u.ReservedBytes, u.Files, files)
		}
	})
}
