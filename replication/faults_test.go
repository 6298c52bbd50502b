package replication

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// TestLostLogAfterCheckpoint loses the journal of a replica that has a
// checkpoint: what was acknowledged after it must not be gone silently (R20).
func TestLostLogAfterCheckpoint(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		ack := func(line string) {
			got, err := r.propose(line)
			if err != nil {
				t.Fatal(err)
			}
			if a := <-got; a.err != nil {
				t.Fatal(a.err)
			}
		}
		ack("one")
		if err := r.replica.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		ack("two")
		ack("three")
		r.stop()
		if err := fsys.RemoveAll("journal"); err != nil {
			t.Fatal(err)
		}
		r, err := startRig(fsys)
		if err != nil {
			return
		}
		defer r.stop()
		r.replica.WaitLeading(nil)
		t.Errorf("started without its log; of [one two three] acknowledged it has %q", r.fsm.all())
	})
}

type panicking struct{ *list }

func (panicking) Restore(io.Reader) error { panic("list: broken invariant") }

// TestStartKeepsPanics wants the text of a panic inside NewRaft.
func TestStartKeepsPanics(t *testing.T) {
	fsys := vfs.NewMem(1)
	votes, err := control.OpenVotes(fsys, "votes", control.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer votes.Close()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.Open(fsys, "journal", journal.Options{FileBytes: 64 << 10, MaxBytes: 512 << 10, Rand: rand.NewChaCha8([32]byte{}), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	id := ReplicaID{Node: 1, Incarnation: 7}
	defer func() {
		if p := fmt.Sprint(recover()); !strings.Contains(p, "broken invariant") {
			t.Errorf("the panic became %q", p)
		}
	}()
	_, err = Start(Options[int]{
		Shard: 1, ID: id, FSM: panicking{new(list)}, Now: time.Now, Log: log,
		Journal: j, Votes: votes, FS: fsys, CheckpointDir: "checkpoints", Fold: foldLines,
		Transport: transport.NewSolo(id), Bootstrap: []ReplicaID{id}, Encode: encodeList, CommandOverheadBytes: binary.MaxVarintLen64,
		OnFailed: func(error) {}, OnLeading: func() {},
	})
	if err != nil {
		panic(err)
	}
}

// TestStartSaysWhyRestoreFailed: Raft logs why a checkpoint could not be restored,
// and answers without it.
func TestStartSaysWhyRestoreFailed(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		got, err := r.propose("?")
		if err != nil {
			t.Fatal(err)
		}
		if a := <-got; a.err != nil {
			t.Fatal(a.err)
		}
		if err := r.replica.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		r.stop()
		if _, err := startRig(fsys); !errors.Is(err, errUnrestorable) {
			t.Errorf("Start = %v, want %v", err, errUnrestorable)
		}
		pause(time.Minute)
	})
}

// TestControlCompactionFails fails the first sync or unlink of the metadata
// log's compaction: by R9 the replica must report it, at once.
func TestControlCompactionFails(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		votes, err := control.OpenVotes(fsys, "votes", control.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer votes.Close()
		meta, err := control.OpenLog(fsys, "meta", control.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer meta.Close()
		id := ReplicaID{Node: 1, Incarnation: 7}
		failed := make(chan error, 10)
		fsm := new(list)
		r, err := Start(Options[int]{
			Shard: 0, ID: id, FSM: fsm, Now: time.Now, Log: slog.New(slog.DiscardHandler),
			Control: meta, Votes: votes, FS: fsys, CheckpointDir: "checkpoints", Fold: foldLines,
			Transport: transport.NewSolo(id), Bootstrap: []ReplicaID{id}, Encode: encodeList, CommandOverheadBytes: binary.MaxVarintLen64,
			OnFailed: func(err error) { failed <- err }, OnLeading: func() {},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { r.Close(); pause(time.Minute) }()
		r.WaitLeading(nil)
		got := make(chan error, 1)
		for range 20 {
			if err := r.Propose(&Proposal[int]{Payload: []byte("x"), Done: func(_ int, err error) { got <- err }}); err != nil {
				t.Fatal(err)
			}
			<-got
		}
		fsys.SetInjector(func(op vfs.Op) vfs.Fault {
			if strings.HasPrefix(op.Path, "meta") && op.Kind != vfs.OpReadAt && op.Kind != vfs.OpOpen && op.Kind != vfs.OpReadDir {
				return vfs.Fault{Err: syscall.EIO}
			}
			return vfs.Fault{}
		})
		err = r.Checkpoint()
		fsys.SetInjector(nil)
		pause(time.Hour)
		select {
		case f := <-failed:
			t.Log("reported:", f)
		default:
			t.Errorf("Checkpoint = %v; an hour later nobody was told (R9)", err)
		}
	})
}

// TestCheckpointBesideWrites takes checkpoints while entries are written
// on, as a busy shard does, and restarts: the entry of the checkpoint itself is
// compacted away then, which is no lost log.
func TestCheckpointBesideWrites(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		id := ReplicaID{Node: 1, Incarnation: 7}
		run := func(work func(r *Replica[int])) {
			votes, err := control.OpenVotes(fsys, "votes", control.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer votes.Close()
			if _, ok := votes.Load(0); !ok {
				if err := votes.Store(0, control.Vote{Incarnation: 7}); err != nil {
					t.Fatal(err)
				}
			}
			meta, err := control.OpenLog(fsys, "meta", control.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer meta.Close()
			r, err := Start(Options[int]{
				Shard: 0, ID: id, FSM: new(list), Now: time.Now, Log: slog.New(slog.DiscardHandler),
				Control: meta, Votes: votes, FS: fsys, CheckpointDir: "checkpoints", Fold: foldLines,
				Transport: transport.NewSolo(id), Bootstrap: []ReplicaID{id}, Encode: encodeList, CommandOverheadBytes: binary.MaxVarintLen64,
				OnFailed: func(err error) { t.Error(err) }, OnLeading: func() {},
			})
			if err != nil {
				t.Error("start:", err)
				return
			}
			defer func() { r.Close(); pause(time.Minute) }()
			r.WaitLeading(nil)
			work(r)
		}
		ack := func(r *Replica[int]) {
			got := make(chan error, 1)
			if err := r.Propose(&Proposal[int]{Payload: []byte("x"), Done: func(_ int, err error) { got <- err }}); err != nil {
				t.Fatal(err)
			}
			if err := <-got; err != nil {
				t.Fatal(err)
			}
		}
		run(func(r *Replica[int]) {
			for range 10 {
				ack(r)
			}
			fsys.SetInjector(func(op vfs.Op) vfs.Fault {
				if strings.HasPrefix(op.Path, "checkpoints") && op.Kind == vfs.OpWriteAt {
					return vfs.Fault{Delay: time.Second}
				}
				return vfs.Fault{}
			})
			done := make(chan error)
			go func() { done <- r.Checkpoint() }()
			pause(100 * time.Millisecond)
			for range 10 {
				ack(r)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			fsys.SetInjector(nil)
		})
		run(func(*Replica[int]) {})
	})
}

// TestRingWrapsUnderLoad is what a busy data shard does: checkpoints
// beside writes until the ring was used again, a power cut, a start.
func TestRingWrapsUnderLoad(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		fsys.SetInjector(func(op vfs.Op) vfs.Fault {
			if strings.HasPrefix(op.Path, "checkpoints") && op.Kind == vfs.OpWriteAt {
				return vfs.Fault{Delay: 20 * time.Millisecond}
			}
			if op.Kind == vfs.OpSyncData {
				return vfs.Fault{Delay: time.Millisecond}
			}
			return vfs.Fault{}
		})
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				case <-r.journal.Pressure():
					if err := r.replica.Checkpoint(); err != nil {
						t.Error(err)
					}
				}
			}
		}()
		var want []string
		for i := range 600 {
			line := fmt.Sprintf("%d %s", i, bytes.Repeat([]byte{'r'}, 3000))
			got, err := r.propose(line)
			if err != nil {
				t.Fatal(err)
			}
			if a := <-got; a.err != nil {
				t.Fatal(a.err)
			}
			want = append(want, line)
		}
		clone := fsys.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
		close(stop)
		<-done
		fsys.Freeze()
		r.stop()
		r, err := startRig(clone)
		if err != nil {
			t.Fatal("start:", err)
		}
		defer r.stop()
		r.replica.WaitLeading(nil)
		if got := r.fsm.all(); len(got) != len(want) {
			t.Errorf("%d lines, want %d", len(got), len(want))
		}
	})
}

// TestCancelledLeaveTheQueue: while nothing can be gathered (no room in
// the journal), proposals that time out must not pile up.
func TestCancelledLeaveTheQueue(t *testing.T) {
	pr := newProposer[int](1<<20, 4096)
	pr.setOpen(true)
	for range 100_000 {
		p := &Proposal[int]{Queue: 1, bytes: 1000}
		if err := pr.push([]*Proposal[int]{p}); err != nil {
			t.Fatal(err)
		}
		pr.cancel(p)
	}
	if n := len(pr.queues[1].items); n > 1000 {
		t.Errorf("%d cancelled proposals are kept", n)
	}
}
