package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

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
		pause(time.Second)
		tr.isolate(int32(node), true)
		moved := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			moved <- tr.rigs[node].replica.Transfer(ctx)
		}()
		pause(10 * time.Millisecond)
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
		pause(time.Second)
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
