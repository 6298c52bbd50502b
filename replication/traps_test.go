package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// TestBurst: a burst of entries that nothing follows is acknowledged at once, and not
// piece by piece whenever Raft looks for what is left (raft.md, trap 4). No replica
// may have more in flight than goes into one AppendEntries.
func TestBurst(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.mustWrite(node, "first")
		tr.rest(time.Second)
		for _, disk := range tr.mem[1:] {
			disk.SetInjector(func(op vfs.Op) vfs.Fault {
				if op.Kind == vfs.OpSyncData {
					return vfs.Fault{Delay: time.Millisecond} // several entries go while one is written
				}
				return vfs.Fault{}
			})
		}
		pr := tr.rigs[node].replica.proposer
		pr.mu.Lock()
		pr.maxEntryBytes = 1 // none waits for those before it
		pr.mu.Unlock()
		for round := range 20 {
			began := time.Now()
			var answers []<-chan answer
			for _, line := range numbered(fmt.Sprint("burst-", round), 12, 200) {
				got, err := tr.rigs[node].propose(line)
				if err != nil {
					t.Fatal(err)
				}
				answers = append(answers, got)
				tr.rest(100 * time.Microsecond) // so that they share no entry
			}
			for _, got := range answers {
				select {
				case a := <-got:
					if a.err != nil {
						t.Fatal(a.err)
					}
				case <-time.After(time.Minute):
					t.Fatalf("round %d: no answer after a minute", round)
				}
			}
			if took := time.Since(began); took > commitTimeout/2 {
				t.Errorf("round %d: a burst took %v", round, took)
			}
			tr.rest(time.Second)
		}
	})
}

// TestInFlightBound: whatever is asked for, what is in flight fits in one AppendEntries
// together with what Raft adds (raft.md, trap 4).
func TestInFlightBound(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		id := ReplicaID{Node: 1, Incarnation: 7}
		votes, err := control.OpenVotes(fsys, "votes", control.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer votes.Close()
		meta, err := control.OpenLog(fsys, "metadata", control.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer meta.Close()
		if err := votes.Store(0, control.Vote{Incarnation: id.Incarnation}); err != nil {
			t.Fatal(err)
		}
		r, err := Open(Options[int]{
			ID: id, FSM: new(list), Now: time.Now, Log: slog.New(slog.DiscardHandler), Control: meta,
			Votes: votes, FS: fsys, CheckpointDir: "checkpoints", Fold: foldLines, MaxInFlight: 10 * maxAppendEntries,
			Transport: transport.NewSolo(id), Bootstrap: []ReplicaID{id}, Encode: encodeList, CommandOverheadBytes: binary.MaxVarintLen64,
			OnFailed: func(err error) { t.Error(err) }, OnLeading: func() {},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got := cap(r.slots); got > maxAppendEntries/2 {
			t.Errorf("%d entries may be in flight, and an AppendEntries takes %d", got, maxAppendEntries)
		}
	})
}

// TestCloseAnswers: whatever was proposed is answered, once, though Raft leaves its
// futures unanswered when it is shut down (raft.md, trap 6).
func TestCloseAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		fsys.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSyncData {
				return vfs.Fault{Delay: 10 * time.Second}
			}
			return vfs.Fault{}
		})
		lines := numbered("unanswered", 40, 4000)
		got, err := r.propose(lines...)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait() // some are in flight, and others wait
		r.stop()
		for i := range lines {
			select {
			case a := <-got:
				if a.err != nil && !errors.Is(a.err, ErrOutcomeUnknown) && !errors.Is(a.err, ErrNotLeader) && !errors.Is(a.err, ErrStopped) {
					t.Errorf("a proposal is answered %v", a.err)
				}
			default:
				t.Fatalf("%d of %d proposals have no answer", len(lines)-i, len(lines))
			}
		}
		if len(got) > 0 {
			t.Errorf("%d proposals were answered twice", len(got))
		}
	})
}

// TestManyReplicas has twelve replicas append to one journal, small enough for their
// checkpoints to be what makes room, all at the same time: nobody waits for ever
// (raft.md, trap 25), and a restart finds all of it.
func TestManyReplicas(t *testing.T) {
	const replicas, entries, entryBytes = 12, 60, 2000
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		open := func() (all []*Replica[int], machines []*list, closeAll func()) {
			t.Helper()
			votes, err := control.OpenVotes(fsys, "votes", control.Options{})
			if err != nil {
				t.Fatal(err)
			}
			j, err := journal.Open(fsys, "journal", journal.Options{
				FileBytes: 64 << 10, MaxBytes: 512 << 10, Rand: rand.NewChaCha8([32]byte{}),
				Logger: slog.New(slog.DiscardHandler), OnFailed: func(err error) { t.Error(err) },
			})
			if err != nil {
				t.Fatal(err)
			}
			for shard := ShardID(1); shard <= replicas; shard++ {
				id := ReplicaID{Node: 1, Incarnation: uint64(shard)}
				if _, ok := votes.Load(uint32(shard)); !ok {
					if err := votes.Store(uint32(shard), control.Vote{Incarnation: id.Incarnation}); err != nil {
						t.Fatal(err)
					}
				}
				machine := new(list)
				r, err := Start(Options[int]{
					Shard: shard, ID: id, FSM: machine, Now: time.Now, Log: slog.New(slog.DiscardHandler), Journal: j,
					Votes: votes, FS: fsys, CheckpointDir: path.Join("checkpoints", fmt.Sprint(shard)), Fold: foldLines,
					Transport: transport.NewSolo(id), Bootstrap: []ReplicaID{id}, Encode: encodeList, CommandOverheadBytes: binary.MaxVarintLen64,
					OnFailed: func(err error) { t.Error(err) }, OnLeading: func() {},
				})
				if err != nil {
					t.Fatal(err)
				}
				all, machines = append(all, r), append(machines, machine)
			}
			for _, r := range all {
				r.WaitLeading(nil)
			}
			return all, machines, func() {
				for _, r := range all {
					_ = r.Close()
				}
				_, _ = j.Close(), votes.Close()
				pause(time.Minute)
			}
		}
		fsys.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSyncData {
				return vfs.Fault{Delay: time.Millisecond}
			}
			return vfs.Fault{}
		})
		all, _, closeAll := open()
		stop := make(chan struct{})
		var checkpoints, writers sync.WaitGroup
		for i, r := range all {
			checkpoints.Go(func() {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						if err := r.Checkpoint(); err != nil {
							t.Error(err)
						}
					case <-stop:
						return
					}
				}
			})
			writers.Go(func() {
				for n := range entries {
					answered := make(chan error, 1)
					err := r.Propose(&Proposal[int]{
						Payload: fmt.Appendf(nil, "%d-%d-%s", i, n, strings.Repeat("x", entryBytes)),
						Done:    func(_ int, err error) { answered <- err },
					})
					if err != nil {
						t.Error(err)
						return
					}
					select {
					case err = <-answered:
					case <-time.After(time.Minute):
						err = errors.New("no answer after a minute")
					}
					if err != nil {
						t.Errorf("replica %d, entry %d: %v", i+1, n, err)
						return
					}
				}
			})
		}
		writers.Wait()
		close(stop)
		checkpoints.Wait()
		closeAll()
		_, machines, closeAll := open()
		defer closeAll()
		for i, m := range machines {
			if got := len(m.all()); got != entries {
				t.Errorf("replica %d has %d entries after a restart, want %d", i+1, got, entries)
			}
		}
	})
}

// TestVoterVoteFails: a voter that cannot make its vote durable stops and says why.
// Raft is not told: it would panic, and every shard of the process with it (raft.md,
// trap 5). The vote is not given.
func TestVoterVoteFails(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		old := tr.leader(1, 2, 3)
		tr.mustWrite(old, "first")
		tr.rest(time.Second)
		broken := tr.others(old)
		for _, node := range broken {
			tr.mem[node].SetInjector(func(op vfs.Op) vfs.Fault {
				if (op.Kind == vfs.OpSync || op.Kind == vfs.OpSyncData) && strings.HasPrefix(op.Path, "votes") {
					return vfs.Fault{Err: syscall.EIO}
				}
				return vfs.Fault{}
			})
		}
		tr.isolate(int32(old), true)
		failed := 0
		for _, node := range broken {
			select {
			case err := <-tr.rigs[node].failed:
				if failed++; !errors.Is(err, syscall.EIO) {
					t.Errorf("node %d stopped for %v, want EIO", node, err)
				}
			case <-time.After(time.Minute):
			}
			if tr.rigs[node].replica.Leading() != 0 {
				t.Errorf("node %d leads without a durable vote", node)
			}
		}
		if failed == 0 {
			t.Error("no voter stopped although its vote was not durable")
		}
	})
}
