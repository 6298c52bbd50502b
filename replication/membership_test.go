package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// replaceDisk kills a node and starts it with a fresh disk, as another incarnation, which
// is returned with the one before.
func (tr *trio) replaceDisk(node int) (old, fresh ReplicaID) {
	tr.t.Helper()
	tr.kill(node)
	tr.mem[node] = vfs.NewMem(uint64(100 + node))
	tr.disks[node] = tr.mem[node]
	old = tr.ids[node-1]
	fresh = ReplicaID{Node: int32(node), Incarnation: old.Incarnation + 0x100}
	tr.startAs(node, fresh)
	return old, fresh
}

// lag is what a learner may lack in these tests.
const lag = 10

// try does one thing at whoever leads until it is done.
func (tr *trio) try(what string, do func(ctx context.Context, r *Replica[int]) error) {
	tr.t.Helper()
	var last error
	for range 600 {
		ctx, cancel := context.WithTimeout(tr.t.Context(), 5*time.Second)
		if last = do(ctx, tr.rigs[tr.leader(1, 2, 3)].replica); last == nil {
			cancel()
			return
		}
		cancel()
		pause(100 * time.Millisecond)
	}
	tr.t.Fatalf("%s: %v", what, last)
}

// replaceSteps are those of a dead member's replacement. Each may be repeated.
func (tr *trio) replaceSteps(old, fresh ReplicaID) []func() {
	return []func(){
		func() {
			tr.try("add", func(ctx context.Context, r *Replica[int]) error { return r.AddLearner(ctx, fresh) })
		},
		func() {
			tr.try("catch up", func(ctx context.Context, r *Replica[int]) error { return r.Promotable(ctx, fresh, lag) })
		},
		func() {
			tr.try("remove", func(ctx context.Context, r *Replica[int]) error { return r.Remove(ctx, old) })
		},
		func() {
			tr.try("promote", func(ctx context.Context, r *Replica[int]) error { return r.Promote(ctx, fresh, lag) })
		},
	}
}

// members wants a node to know these members, voters first, as its applied
// configuration and as the newest one.
func (tr *trio) members(node int, voters, learners []ReplicaID) {
	tr.t.Helper()
	sorted := func(ids []ReplicaID) []ReplicaID {
		return slices.SortedFunc(slices.Values(ids), func(a, b ReplicaID) int { return int(a.Node - b.Node) })
	}
	r := tr.rigs[node].replica
	for range 60_000 { // what is committed it may yet have to learn
		if c, _ := r.peers.configuration(); slices.Equal(c.Servers, r.latest().Servers) && len(c.Servers) == len(voters)+len(learners) {
			break
		}
		pause(time.Millisecond)
	}
	var gotVoters, gotLearners []ReplicaID
	for _, m := range r.Progress().Members {
		if m.Voter {
			gotVoters = append(gotVoters, m.ID)
		} else {
			gotLearners = append(gotLearners, m.ID)
		}
	}
	if !slices.Equal(sorted(gotVoters), sorted(voters)) || !slices.Equal(sorted(gotLearners), sorted(learners)) {
		tr.t.Errorf("node %d knows voters %v and learners %v, want %v and %v", node, gotVoters, gotLearners, voters, learners)
	}
}

// TestReplaceMember replaces a member whose disk is gone, and takes the leader's
// power after each of the steps, so that another one goes on from there. Then the
// newcomer is as good as any: one of the others may fail.
func TestReplaceMember(t *testing.T) {
	for _, checkpoints := range []bool{false, true} { // after each step: members are in them, too
		for crash := range 5 { // after so many steps; 4: after the last
			t.Run(fmt.Sprintf("checkpoints=%t/crash=%d", checkpoints, crash), func(t *testing.T) {
				withTrio(t, func(t *testing.T, tr *trio) {
					_, away, want := tr.leaveBehind()
					old, fresh := tr.replaceDisk(away)
					steps := tr.replaceSteps(old, fresh)
					checkpoint := func() {
						for n := 1; checkpoints && n <= 3; n++ {
							if err := tr.rigs[n].replica.Checkpoint(); err != nil {
								t.Fatal(err)
							}
						}
					}
					for _, step := range steps[:crash] {
						step()
						checkpoint()
					}
					leader := tr.leader(1, 2, 3)
					tr.mustWrite(leader, "before")
					tr.cutPower(leader)
					if leader == away {
						tr.startAs(away, fresh)
					} else {
						tr.start(leader)
					}
					for _, step := range steps { // those that are done change nothing
						step()
						checkpoint()
					}
					tr.mustWrite(tr.leader(1, 2, 3), "after")
					want = append(want, "before", "after")
					tr.agree(want, 1, 2, 3)
					voters := []ReplicaID{fresh}
					for _, n := range tr.others(away) {
						voters = append(voters, tr.ids[n-1])
					}
					for n := 1; n <= 3; n++ {
						tr.members(n, voters, nil)
					}
					for n := 1; n <= 3; n++ {
						tr.cutPower(n)
					}
					tr.startAs(away, fresh)
					second := tr.others(away)[1]
					tr.start(second) // and the first of them stays away
					tr.mustWrite(tr.leader(away, second), "last")
					tr.agree(append(want, "last"), away, second)
					tr.members(away, voters, nil)
					tr.members(second, voters, nil)
				})
			})
		}
	}
}

// TestLearnerCrash takes the power of a newcomer at its first operations, one after
// the other. It comes back under its name and is made a voter.
func TestLearnerCrash(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		_, away, want := tr.leaveBehind()
		fresh := ReplicaID{Node: int32(away), Incarnation: 0x2000}
		tr.try("add", func(ctx context.Context, r *Replica[int]) error { return r.AddLearner(ctx, fresh) })
		from := tr.copies()
		crashes := 0
		for at := 1; ; at += 3 {
			tr.resume(from)
			mem := vfs.NewMem(uint64(at))
			var ops atomic.Int32
			frozen := make(chan struct{})
			for _, n := range tr.others(away) {
				tr.start(n)
			}
			tr.leader(tr.others(away)...)
			mem.OnOp(func(op vfs.Op, _ vfs.Phase) {
				switch op.Kind {
				case vfs.OpReadAt, vfs.OpOpen, vfs.OpStat, vfs.OpReadDir, vfs.OpWriteBack:
					return
				}
				if ops.Add(1) == int32(at) {
					mem.Freeze()
					close(frozen)
				}
			})
			if r, err := startVoter(mem, fresh, tr.hub.Join(1, fresh), tr.ids); err == nil {
				tr.rigs[away] = r
				for range 1000 {
					select {
					case <-frozen:
					default:
						if len(r.fsm.all()) != len(want) {
							pause(10 * time.Millisecond)
							continue
						}
					}
					break
				}
			}
			done := false
			select {
			case <-frozen:
				crashes++
			default:
				done = true
			}
			mem.OnOp(nil)
			if done {
				tr.mem[away], tr.disks[away] = mem, mem
			} else {
				next := mem.CrashClone(vfs.CrashOptions{Unsynced: []vfs.Unsynced{vfs.Lose, vfs.Keep, vfs.Coin}[at%3], Seed: uint64(at)})
				tr.kill(away)
				tr.mem[away], tr.disks[away] = next, next
				tr.startAs(away, fresh)
			}
			for _, step := range tr.replaceSteps(tr.ids[away-1], fresh) {
				step()
			}
			tr.agree(want, 1, 2, 3)
			if t.Failed() {
				t.Fatalf("the power was gone at operation %d", at)
			}
			if done {
				break
			}
		}
		if crashes < 10 {
			t.Errorf("the power was gone %d times, want more", crashes)
		}
	})
}

// TestUnknownReplicaHasNoVote: a replica that has no configuration would give its
// vote to anybody, in any term, and campaign if it is told to (trap 17).
func TestUnknownReplicaHasNoVote(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.mustWrite(node, "first")
		away := tr.others(node)[0]
		_, fresh := tr.replaceDisk(away)
		candidate := tr.ids[tr.others(node)[1]-1]
		r := tr.rigs[away].replica
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(candidate.String()), Addr: []byte(candidate.String())}
		ask := func(command any) raft.RPCResponse {
			answers := make(chan raft.RPCResponse, 1)
			r.opt.Transport.Inject(raft.RPC{Command: command, RespChan: answers})
			return <-answers
		}
		if a := ask(&raft.RequestVoteRequest{RPCHeader: header, Term: 99}); a.Error != nil || a.Response.(*raft.RequestVoteResponse).Granted {
			t.Errorf("a replica without a configuration has given its vote: %+v", a)
		}
		if a := ask(&raft.RequestPreVoteRequest{RPCHeader: header, Term: 99}); a.Error != nil || a.Response.(*raft.RequestPreVoteResponse).Granted {
			t.Errorf("a replica without a configuration has given its vote before the vote: %+v", a)
		}
		campaign := &raft.TimeoutNowRequest{RPCHeader: header}
		if a := ask(campaign); !errors.Is(a.Error, ErrNotVoter) {
			t.Errorf("a replica without a configuration campaigns: %+v", a)
		}
		pause(10 * time.Second)
		if term := r.Term(); term != 0 {
			t.Errorf("a replica that is no member is in term %d", term)
		}
		tr.try("add", func(ctx context.Context, r *Replica[int]) error { return r.AddLearner(ctx, fresh) })
		tr.agree([]string{"first"}, away)
		if a := ask(campaign); !errors.Is(a.Error, ErrNotVoter) {
			t.Errorf("a learner campaigns: %+v", a)
		}
		if got := tr.leader(1, 2, 3); got != node {
			t.Errorf("node %d leads, want %d still", got, node)
		}
	})
}

// TestChangesRefused: what a shard could not go on from is refused, and changes
// nothing.
func TestChangesRefused(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.mustWrite(node, "first")
		second, third := tr.others(node)[0], tr.others(node)[1]
		r := tr.rigs[node].replica
		stranger := ReplicaID{Node: int32(third), Incarnation: 0x999}
		want := func(what string, err, want error) {
			t.Helper()
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
		follower := tr.rigs[second].replica
		want("a follower adds", follower.AddLearner(t.Context(), stranger), ErrNotLeader)
		want("a follower promotes", follower.Promote(t.Context(), stranger, lag), ErrNotLeader)
		want("a follower removes", follower.Remove(t.Context(), stranger), ErrNotLeader)
		want("the leader removes itself", r.Remove(t.Context(), tr.ids[node-1]), ErrLeads)
		want("a stranger is removed", r.Remove(t.Context(), stranger), nil)
		want("a stranger is promoted", r.Promote(t.Context(), stranger, lag), ErrNotMember)
		want("a voter is promoted", r.Promote(t.Context(), tr.ids[second-1], lag), nil)
		want("a voter is made a learner", r.AddLearner(t.Context(), tr.ids[second-1]), nil)
		want("a learner that is not there is added", r.AddLearner(t.Context(), stranger), nil)
		want("it is promoted", r.Promote(t.Context(), stranger, 1<<40), ErrLearnerLags)
		tr.members(node, tr.ids, []ReplicaID{stranger})
		want("it is removed", r.Remove(t.Context(), stranger), nil)
		tr.kill(third)
		want("the only other voter is removed", r.Remove(t.Context(), tr.ids[second-1]), ErrTooFewVoters)
		tr.members(node, tr.ids, nil)
		tr.mustWrite(node, "second")
		tr.kill(second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := r.AddLearner(ctx, stranger); err == nil {
			t.Error("a member was added without a majority")
		}
	})
}

// TestPromoteWaitsForTheLog: a learner that lacks much, or of which the leader does
// not know what it lacks, is not counted on yet.
func TestPromoteWaitsForTheLog(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.mustWrite(node, numbered("first", lag+1, 10)...)
		away := tr.others(node)[0]
		_, fresh := tr.replaceDisk(away)
		tr.try("add", func(ctx context.Context, r *Replica[int]) error { return r.AddLearner(ctx, fresh) })
		tr.agree(numbered("first", lag+1, 10), away)
		r := tr.rigs[node].replica
		knows := func(what string, edit func(match map[ReplicaID]uint64), lagEntries uint64) {
			t.Helper()
			r.peers.mu.Lock()
			edit(r.peers.match)
			r.peers.mu.Unlock()
			if err := r.Promote(t.Context(), fresh, lagEntries); !errors.Is(err, ErrLearnerLags) {
				t.Errorf("a learner %s is promoted: %v", what, err)
			}
		}
		last := r.store.log.last()
		knows("that lacks much", func(m map[ReplicaID]uint64) { m[fresh] = last - lag - 1 }, lag)
		knows("that has not answered", func(m map[ReplicaID]uint64) { delete(m, fresh) }, last)
		tr.members(node, tr.ids, []ReplicaID{fresh})
		tr.hub.Cut(int32(away), int32(node), true)
		knows("that does not answer any more", func(m map[ReplicaID]uint64) { m[fresh] = last }, lag)
	})
}

// TestReplacedMemberComesBack starts the disk of a member that was replaced: it is
// in nobody's way, and gets nothing.
func TestReplacedMemberComesBack(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.mustWrite(node, "first")
		away := tr.others(node)[0]
		tr.agree([]string{"first"}, 1, 2, 3)
		lost := tr.mem[away]
		old, fresh := tr.replaceDisk(away)
		for _, step := range tr.replaceSteps(old, fresh) {
			step()
		}
		tr.mustWrite(node, "second")
		tr.agree([]string{"first", "second"}, 1, 2, 3)
		kept := tr.mem[away]
		tr.kill(away)
		tr.mem[away], tr.disks[away] = lost, lost
		tr.startAs(away, old)
		term := tr.rigs[node].replica.Leading()
		pause(30 * time.Second)
		if got := tr.rigs[node].replica.Leading(); got != term || term == 0 {
			t.Errorf("node %d leads in term %d, want %d still", node, got, term)
		}
		if got := tr.rigs[away].fsm.all(); len(got) > 1 {
			t.Errorf("a replica that was replaced has applied %q", got)
		}
		tr.kill(away)
		tr.mem[away], tr.disks[away] = kept, kept
		tr.startAs(away, fresh)
		tr.mustWrite(node, "third")
		tr.agree([]string{"first", "second", "third"}, 1, 2, 3)
	})
}

// TestOneChangeAtATime: a change that is not committed holds up the next one, which
// says so, and the one after it goes on from what was committed.
func TestOneChangeAtATime(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.mustWrite(node, "first")
		away := tr.others(node)[0]
		r := tr.rigs[node].replica
		stranger := ReplicaID{Node: 9, Incarnation: 9}
		index := r.Applied()
		tr.isolate(int32(node), true)
		r.raft.AddNonvoter(raft.ServerID(stranger.String()), raft.ServerAddress(stranger.String()), 0, time.Second)
		for len(r.latest().Servers) != 4 {
			pause(time.Millisecond)
		}
		if err := r.Remove(t.Context(), tr.ids[away-1]); !errors.Is(err, ErrChanging) && !errors.Is(err, ErrNotLeader) {
			t.Errorf("a change beside one that is not committed: %v", err)
		}
		tr.isolate(int32(node), false)
		tr.mustWrite(tr.leader(1, 2, 3), "second")
		tr.try("remove", func(ctx context.Context, r *Replica[int]) error { return r.Remove(ctx, stranger) })
		tr.agree([]string{"first", "second"}, 1, 2, 3)
		for n := 1; n <= 3; n++ {
			tr.members(n, tr.ids, nil)
		}
		if _, at := r.peers.configuration(); at == index {
			t.Errorf("the configuration is still that of index %d", at)
		}
	})
}
