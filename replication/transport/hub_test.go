package transport

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestHubConformance(t *testing.T) {
	for _, tt := range []struct {
		name   string
		faults Faults
	}{
		{name: "straight"},
		{name: "delayed", faults: Faults{MinDelay: time.Millisecond, MaxDelay: 4 * time.Millisecond}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conformance(t, func() network {
				h := NewHub(HubOptions{Seed: 1, Timeout: conformanceTimeout, MaxInFlightBytes: conformanceInFlight})
				for _, from := range []int32{1, 2} {
					h.SetFaults(from, 3-from, tt.faults)
				}
				return network{join: func(s ShardID, id ReplicaID) Transport { return h.Join(s, id) }, cut: h.Cut, close: func() {}}
			})
		})
	}
}

// exchange sends n calls through a way with faults, and returns the terms that
// came in, in their order, and how many calls were answered.
func exchange(t *testing.T, f Faults, n int) (came []uint64, answered int) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub(HubOptions{Seed: 3})
		h.SetFaults(1, 2, f)
		a, b := h.Join(1, one), h.Join(1, two)
		got := answering(b, yes)
		done := make(chan error, n)
		for i := range uint64(n) {
			c, err := a.start(name(two), appendOf(i+1, 8), nil)
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, err := c.wait(); done <- err }()
		}
		for range n {
			if err := <-done; err == nil {
				answered++
			} else if !errors.Is(err, ErrTimeout) {
				t.Error(err)
			}
		}
		seen := make(map[*raft.AppendEntriesRequest]bool)
		for _, c := range got() {
			if req := c.(*raft.AppendEntriesRequest); seen[req] {
				t.Fatal("a duplicate shares memory with the first")
			} else {
				seen[req] = true
			}
			came = append(came, c.(*raft.AppendEntriesRequest).PrevLogEntry)
		}
		_, _ = a.Close(), b.Close()
		time.Sleep(time.Minute)
	})
	return came, answered
}

func TestHubFaults(t *testing.T) {
	t.Parallel()
	const n = 400
	sorted := func(xs []uint64) bool {
		for i := 1; i < len(xs); i++ {
			if xs[i] < xs[i-1] {
				return false
			}
		}
		return true
	}
	delay := Faults{MinDelay: time.Millisecond, MaxDelay: 20 * time.Millisecond}
	if came, answered := exchange(t, delay, n); len(came) != n || answered != n || !sorted(came) {
		t.Errorf("delay alone: %d came, %d answered, in order: %t; want all, in order", len(came), answered, sorted(came))
	}
	reorder := delay
	reorder.Reorder = true
	if came, answered := exchange(t, reorder, n); len(came) != n || answered != n || sorted(came) {
		t.Errorf("reorder: %d came, %d answered, in order: %t; want all, out of order", len(came), answered, sorted(came))
	}
	if came, answered := exchange(t, Faults{LossPercent: 25}, n); len(came) < n/2 || len(came) > n*9/10 || answered != len(came) {
		t.Errorf("loss of 25 %%: %d of %d came, %d answered", len(came), n, answered)
	}
	if came, answered := exchange(t, Faults{DuplicatePercent: 25}, n); len(came) < n*11/10 || len(came) > n*3/2 || answered != n {
		t.Errorf("duplicates of 25 %%: %d of %d came, %d answered", len(came), n, answered)
	}
}

func TestReplicaID(t *testing.T) {
	t.Parallel()
	for _, id := range []ReplicaID{one, {Node: 0, Incarnation: 1}, {Node: 1<<31 - 1, Incarnation: 1<<64 - 1}} {
		if got, err := ParseReplicaID(id.String()); err != nil || got != id {
			t.Errorf("ParseReplicaID(%q) = %v, %v", id.String(), got, err)
		}
	}
	for _, s := range []string{"", "1", "1-", "x-0000000000000001", "1-1", "1-00000000000000g1", "4294967296-0000000000000001"} {
		if id, err := ParseReplicaID(s); err == nil {
			t.Errorf("ParseReplicaID(%q) = %v", s, id)
		}
	}
}

func TestSolo(t *testing.T) {
	t.Parallel()
	s := NewSolo(one)
	for call, err := range everyCall(s, two) {
		if call != "pipeline" && !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s = %v, want ErrUnreachable", call, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
