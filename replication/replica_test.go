package replication

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// list is an FSM whose state is the list of strings that were applied. An entry
// is, for each command, a length and the payload; a payload of "!" cannot be
// applied, as if a newer version had written it.
type list struct {
	mu      sync.Mutex
	lines   []string
	from    int // lines before are in a durable checkpoint
	results []int
	entries []int         // how many lines each had
	gate    chan struct{} // nothing is applied before it is closed; nil: at once

	restores int
}

// restored returns how often a checkpoint was restored.
func (l *list) restored() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.restores
}

var errTooNew = errors.New("list: too new")

// errUnrestorable is what Restore says of a checkpoint that holds the line "?".
var errUnrestorable = errors.New("list: a checkpoint that it refuses")

func encodeList(_ uint64, _ int64, ps []*Proposal[int]) []byte {
	var b []byte
	for _, p := range ps {
		b = binary.AppendUvarint(b, uint64(len(p.Payload)))
		b = append(b, p.Payload...)
	}
	return b
}

func (l *list) Apply(_, _ uint64, entry []byte) ([]int, error) {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.results = l.results[:0]
	before := len(l.lines)
	defer func() { l.entries = append(l.entries, len(l.lines)-before) }()
	for len(entry) > 0 {
		n, w := binary.Uvarint(entry)
		line := string(entry[w : w+int(n)])
		if entry = entry[w+int(n):]; line == "!" {
			return nil, errTooNew
		}
		if line != "" { // TermStart
			l.lines = append(l.lines, line)
		}
		l.results = append(l.results, len(l.lines))
	}
	return l.results, nil
}

func (l *list) AppliedBatch() {}

func (l *list) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

func (l *list) Restore(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = nil
	l.restores++
	for line := range bytes.Lines(b) {
		if string(line) == "?\n" {
			return errUnrestorable
		}
		l.lines = append(l.lines, string(bytes.TrimSuffix(line, []byte("\n"))))
	}
	l.from = len(l.lines)
	return nil
}

type listCapture struct {
	l        *list
	from, to int
}

func (l *list) Capture() (Capture, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &listCapture{l, l.from, len(l.lines)}, nil
}

func (c *listCapture) Persist(w io.Writer) error {
	for _, line := range c.l.all()[c.from:c.to] {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func (c *listCapture) Durable() {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.from = c.to
}

func (c *listCapture) Abandon() {}

// rig is a replica with what is underneath it.
type rig struct {
	journal *journal.Journal
	votes   *control.Votes
	fsm     *list
	replica *Replica[int]
	failed  chan error
}

// startRig opens everything on fsys and starts the only replica of shard 1.
func startRig(fsys *vfs.Mem) (*rig, error) {
	id := ReplicaID{Node: 1, Incarnation: 7}
	return startVoter(fsys, id, transport.NewSolo(id), []ReplicaID{id})
}

// startVoter opens everything on fsys and starts a replica of shard 1.
func startVoter(fsys vfs.FS, id ReplicaID, tr Transport, bootstrap []ReplicaID) (*rig, error) {
	r := &rig{fsm: new(list), failed: make(chan error, 10)}
	log := slog.New(slog.DiscardHandler)
	var err error
	if r.votes, err = control.OpenVotes(fsys, "votes", control.Options{}); err != nil {
		return nil, errors.Join(err, tr.Close())
	}
	r.journal, err = journal.Open(fsys, "journal", journal.Options{
		FileBytes: 64 << 10, MaxBytes: 512 << 10, Rand: rand.NewChaCha8([32]byte{}),
		Logger: log, OnFailed: func(err error) { r.failed <- err },
	})
	if err != nil {
		return nil, errors.Join(err, r.votes.Close(), tr.Close())
	}
	if _, ok := r.votes.Load(1); !ok {
		if err := r.votes.Store(1, control.Vote{Incarnation: id.Incarnation}); err != nil {
			return nil, errors.Join(err, r.journal.Close(), r.votes.Close(), tr.Close())
		}
	}
	r.replica, err = Start(Options[int]{
		Shard: 1, ID: id, FSM: r.fsm, Now: time.Now, Log: log,
		Journal: r.journal, Votes: r.votes, FS: fsys, CheckpointDir: "checkpoints", Fold: foldLines,
		Transport: tr, Bootstrap: bootstrap,
		Encode: encodeList, CommandOverheadBytes: binary.MaxVarintLen64,
		OnFailed:  func(err error) { r.failed <- err },
		OnLeading: func() {},
	})
	if err != nil {
		return nil, errors.Join(err, r.journal.Close(), r.votes.Close())
	}
	return r, nil
}

// pause lets virtual time pass: every test of a replica runs in a bubble.
func pause(d time.Duration) { time.Sleep(d) }

// stop closes everything, and lets the goroutines end that Raft does not wait
// for.
func (r *rig) stop() {
	_ = r.replica.Close()
	_ = r.journal.Close()
	_ = r.votes.Close()
	time.Sleep(time.Minute)
}

type answer struct {
	result int
	err    error
}

// propose proposes lines in one queue and returns where their answers come.
func (r *rig) propose(lines ...string) (<-chan answer, error) {
	got := make(chan answer, len(lines))
	var ps []*Proposal[int]
	for _, line := range lines {
		ps = append(ps, &Proposal[int]{
			Payload: []byte(line),
			Done:    func(n int, err error) { got <- answer{n, err} },
		})
	}
	return got, r.replica.Propose(ps...)
}

// inBubble runs a test with a fresh disk in virtual time.
func inBubble(t *testing.T, test func(t *testing.T, fsys *vfs.Mem)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, vfs.NewMem(1)) })
}

func mustStart(t *testing.T, fsys *vfs.Mem) *rig {
	t.Helper()
	r, err := startRig(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if r.replica.WaitLeading(nil) == 0 {
		t.Fatal("not leading")
	}
	return r
}

func TestReplicaLeadsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		start := time.Now()
		r := mustStart(t, fsys)
		if took := time.Since(start); took >= electionTimeout {
			t.Errorf("a single voter led after %v, want less than an election timeout", took)
		}
		first := r.replica.Leading()
		r.stop()
		r = mustStart(t, fsys)
		defer r.stop()
		if second := r.replica.Leading(); second <= first {
			t.Errorf("terms %d, then %d: a restart is a new term", first, second)
		}
	})
}

// TestReplicaRestarts writes more than the journal holds, with checkpoints and
// restarts, and finds everything, once and in order.
func TestReplicaRestarts(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		var want []string
		for round := range 6 {
			r := mustStart(t, fsys)
			if diff := cmp.Diff(want, r.fsm.all()); diff != "" {
				t.Fatalf("round %d: after restart (-want +got):\n%s", round, diff)
			}
			for range 60 {
				var lines []string
				for range 5 {
					line := fmt.Sprintf("%d-%s", len(want), bytes.Repeat([]byte{'x'}, 500))
					lines, want = append(lines, line), append(want, line)
				}
				got, err := r.propose(lines...)
				if err != nil {
					t.Fatal(err)
				}
				for i := range lines {
					if a := <-got; a.err != nil || a.result != len(want)-len(lines)+i+1 {
						t.Fatalf("answer %d, %v; want %d", a.result, a.err, len(want)-len(lines)+i+1)
					}
				}
				if len(want)%75 == 0 {
					if err := r.replica.Checkpoint(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if r.replica.Checkpointed() == 0 {
				t.Error("no checkpoint")
			}
			r.stop()
		}
	})
}

// TestReplicaPowerCut cuts the power at many moments of a run: what was
// acknowledged is there afterwards, in its place, and nothing is there twice.
func TestReplicaPowerCut(t *testing.T) {
	for _, unsynced := range []vfs.Unsynced{vfs.Lose, vfs.Keep, vfs.Coin} {
		for cut := range 40 {
			t.Run(fmt.Sprintf("%v/cut=%d", unsynced, cut), func(t *testing.T) {
				inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
					r := mustStart(t, fsys)
					var acked []string
					for i := range 10 + 3*cut {
						line := fmt.Sprintf("line %d %s", i, bytes.Repeat([]byte{'y'}, 700))
						got, err := r.propose(line)
						if err != nil {
							t.Fatal(err)
						}
						if a := <-got; a.err != nil {
							t.Fatal(a.err)
						}
						acked = append(acked, line)
						if i%17 == 16 {
							if err := r.replica.Checkpoint(); err != nil {
								t.Fatal(err)
							}
						}
					}
					// One more under way, perhaps applied, not acknowledged.
					if _, err := r.propose("under way"); err != nil {
						t.Fatal(err)
					}
					clone := fsys.CrashClone(vfs.CrashOptions{Seed: uint64(cut), Unsynced: unsynced})
					fsys.Freeze()
					r.stop()

					r = mustStart(t, clone)
					defer r.stop()
					got := r.fsm.all()
					if len(got) > len(acked) && got[len(acked)] == "under way" {
						got = got[:len(acked)]
					}
					if diff := cmp.Diff(acked, got); diff != "" {
						t.Errorf("acknowledged and lost or changed (-want +got):\n%s", diff)
					}
				})
			})
		}
	}
}

// TestReplicaDiskFails breaks the journal's sync: the proposal is not
// acknowledged, OnFailed is told once, and the replica can be closed although
// one of Raft's goroutines is held.
func TestReplicaDiskFails(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		fsys.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSyncData {
				return vfs.Fault{Err: syscall.EIO}
			}
			return vfs.Fault{}
		})
		got, err := r.propose("lost")
		if err != nil {
			t.Fatal(err)
		}
		if err := <-r.failed; !errors.Is(err, syscall.EIO) {
			t.Errorf("OnFailed(%v), want EIO", err)
		}
		if a := <-got; !errors.Is(a.err, ErrOutcomeUnknown) && !errors.Is(a.err, ErrNotLeader) {
			t.Errorf("answer %v, want ErrOutcomeUnknown", a.err)
		}
		if r.replica.Leading() != 0 {
			t.Error("a stopped replica leads")
		}
		r.stop()
	})
}

// TestReplicaVoteFails breaks the vote log: Raft would panic on an error from
// its StableStore.
func TestReplicaVoteFails(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		r.stop()
		fsys.SetInjector(func(op vfs.Op) vfs.Fault {
			if (op.Kind == vfs.OpSync || op.Kind == vfs.OpSyncData) && bytes.HasPrefix([]byte(op.Path), []byte("votes")) {
				return vfs.Fault{Err: syscall.EIO}
			}
			return vfs.Fault{}
		})
		r, err := startRig(fsys)
		if err != nil {
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("start = %v, want EIO", err)
			}
			return // opening the vote log syncs it already
		}
		defer r.stop()
		if err := <-r.failed; !errors.Is(err, syscall.EIO) {
			t.Errorf("OnFailed(%v), want EIO", err)
		}
		if r.replica.Leading() != 0 {
			t.Error("leads without a durable vote")
		}
	})
}

// TestReplicaStopsAtUnknownCommand applies what only a newer version could: the
// replica stops, serves nothing more, and closes.
func TestReplicaStopsAtUnknownCommand(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		got, err := r.propose("before", "!", "after")
		if err != nil {
			t.Fatal(err)
		}
		if err := <-r.failed; !errors.Is(err, errTooNew) {
			t.Errorf("OnFailed(%v), want the FSM's error", err)
		}
		if _, err := r.propose("later"); !errors.Is(err, ErrStopped) && !errors.Is(err, ErrNotLeader) {
			t.Errorf("Propose on a stopped replica = %v", err)
		}
		r.stop()
		for range 3 {
			if a := <-got; a.err == nil {
				t.Error("a command of the entry was acknowledged")
			}
		}
	})
}

func TestReplicaTooLarge(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		defer r.stop()
		most := int(r.journal.MaxRecordBytes()) - binary.MaxVarintLen64
		if _, err := r.propose(string(bytes.Repeat([]byte{'a'}, most+1))); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a proposal of %d bytes = %v, want ErrTooLarge", most+1, err)
		}
		got, err := r.propose(string(bytes.Repeat([]byte{'a'}, most)))
		if err != nil {
			t.Fatal(err)
		}
		if a := <-got; a.err != nil {
			t.Errorf("a proposal of %d bytes, the most there is: %v", most, a.err)
		}
	})
}

// TestReplicaGathersBehind proposes line by line while an entry is in flight: the lines
// are one entry, which goes when that one is applied.
func TestReplicaGathersBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		defer r.stop()
		gate := make(chan struct{})
		r.fsm.mu.Lock()
		r.fsm.gate = gate
		r.fsm.mu.Unlock()
		var answers []<-chan answer
		for _, line := range []string{"a", "b", "c", "d"} {
			got, err := r.propose(line)
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, got)
			synctest.Wait()
		}
		close(gate)
		for i, got := range answers {
			if a := <-got; a.err != nil || a.result != i+1 {
				t.Errorf("line %d: %d, %v", i+1, a.result, a.err)
			}
		}
		r.fsm.mu.Lock()
		defer r.fsm.mu.Unlock()
		if got, want := r.fsm.entries, []int{0, 1, 3}; !slices.Equal(got, want) { // TermStart is first
			t.Errorf("entries of %v lines, want %v", got, want)
		}
	})
}

// TestReplicaGathersWhatFits proposes at once more than a record of the journal
// holds.
func TestReplicaGathersWhatFits(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		defer r.stop()
		var lines []string
		for range 8 {
			lines = append(lines, string(bytes.Repeat([]byte{'x'}, 6<<10)))
		}
		got, err := r.propose(lines...)
		if err != nil {
			t.Fatal(err)
		}
		for range lines {
			select {
			case a := <-got:
				if a.err != nil {
					t.Fatal(a.err)
				}
			case err := <-r.failed:
				t.Fatal("the replica stopped:", err)
			}
		}
	})
}

// TestReplicaWaitsForRoom fills the journal while no checkpoint runs: proposals
// wait and can be cancelled, one that frees space passes (R6), nothing fails, and
// a checkpoint lets the others pass.
func TestReplicaWaitsForRoom(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		defer r.stop()
		const n = 400
		got := make(chan answer, n)
		var ps []*Proposal[int]
		for i := range n {
			p := &Proposal[int]{
				Payload: fmt.Appendf(nil, "%d %s", i, bytes.Repeat([]byte{'z'}, 3000)),
				Done:    func(n int, err error) { got <- answer{n, err} },
			}
			ps = append(ps, p)
			if err := r.replica.Propose(p); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		done := len(got)
		if done == 0 || done == n {
			t.Fatalf("%d of %d applied without a checkpoint; the journal should hold some", done, n)
		}
		freed := make(chan answer, 1)
		if err := r.replica.Propose(&Proposal[int]{
			Payload: []byte("frees space"), Urgent: true,
			Done: func(n int, err error) { freed <- answer{n, err} },
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		select {
		case a := <-freed:
			if a.err != nil || a.result != done+1 {
				t.Errorf("the command that frees space: %d, %v; want it next, at %d", a.result, a.err, done+1)
			}
		default:
			t.Error("a command that frees space waits behind those that wait for room")
		}
		if !r.replica.Cancel(ps[n-1]) {
			t.Error("the last proposal waits, and could not be cancelled")
		}
		for done < n-1 {
			if err := r.replica.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if len(got) == done {
				t.Fatalf("stuck at %d of %d although a checkpoint made room", done, n)
			}
			done = len(got)
		}
		for range n - 1 {
			if a := <-got; a.err != nil {
				t.Fatal(a.err)
			}
		}
		if r.replica.Cancel(ps[0]) {
			t.Error("an applied proposal was cancelled")
		}
	})
}

// TestReplicaLostItsLog finds a vote without a log: such a replica must not
// start over under its name (R11).
func TestReplicaLostItsLog(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		r.stop()
		if err := fsys.RemoveAll("journal"); err != nil {
			t.Fatal(err)
		}
		if r, err := startRig(fsys); err == nil {
			r.stop()
			t.Error("a replica that has lost its log started over as itself")
		}
	})
}
