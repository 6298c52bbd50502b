package replication

import (
	"errors"
	"math/rand/v2"
	"testing"
)

func waitingProposal(queue uint32, bytes int) *Proposal[int] {
	return &Proposal[int]{Queue: queue, bytes: bytes}
}

func openProposer(maxEntryBytes, maxCommands int) *proposer[int] {
	pr := newProposer[int](maxEntryBytes, maxCommands)
	pr.setOpen(true)
	return pr
}

// TestGatherIsFair lets one partition queue a thousand times what another does:
// each entry has room for both, and the small one's proposals go first round.
func TestGatherIsFair(t *testing.T) {
	t.Parallel()
	pr := openProposer(1<<20, 4096)
	for range 1000 {
		if err := pr.push([]*Proposal[int]{waitingProposal(1, 16<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := pr.push([]*Proposal[int]{waitingProposal(2, 1<<10)}); err != nil {
		t.Fatal(err)
	}
	got := pr.gather(nil, 1<<20)
	bytes, small := 0, 0
	for _, p := range got {
		bytes += p.bytes
		if p.Queue == 2 {
			small++
		}
	}
	if small != 1 || bytes > 1<<20 || bytes < 1<<20-32<<10 {
		t.Errorf("first entry: %d bytes with %d proposals of the small queue, want about 1 MiB with 1", bytes, small)
	}
}

// TestGatherKeepsOrder checks, for random sizes, that no queue is reordered,
// that nothing is lost or doubled, and that an entry is never larger than it
// may be unless it holds one proposal.
func TestGatherKeepsOrder(t *testing.T) {
	t.Parallel()
	const maxEntry, seed = 1 << 20, 7
	rng := rand.New(rand.NewPCG(seed, 0))
	pr := openProposer(maxEntry, 100)
	sent := make(map[uint32][]*Proposal[int])
	for range 5000 {
		p := waitingProposal(uint32(rng.IntN(20)), 1+rng.IntN(64<<10))
		if rng.IntN(50) == 0 {
			p.bytes = maxEntry + rng.IntN(4<<20)
		}
		sent[p.Queue] = append(sent[p.Queue], p)
		if err := pr.push([]*Proposal[int]{p}); err != nil {
			t.Fatal(err)
		}
		if rng.IntN(10) == 0 && pr.cancel(p) {
			sent[p.Queue] = sent[p.Queue][:len(sent[p.Queue])-1]
		}
	}
	for {
		need := pr.waiting()
		if need == 0 {
			break
		}
		got := pr.gather(nil, need)
		bytes := 0
		for _, p := range got {
			if len(sent[p.Queue]) == 0 || sent[p.Queue][0] != p {
				t.Fatalf("seed %d: queue %d out of order", seed, p.Queue)
			}
			sent[p.Queue] = sent[p.Queue][1:]
			bytes += p.bytes
		}
		if len(got) > 100 || bytes > maxEntry && len(got) > 1 {
			t.Fatalf("seed %d: an entry of %d proposals, %d bytes", seed, len(got), bytes)
		}
	}
	for q, left := range sent {
		if len(left) > 0 {
			t.Errorf("seed %d: queue %d: %d never gathered", seed, q, len(left))
		}
	}
	if len(pr.queues) != 0 || pr.bytes != 0 {
		t.Errorf("left over: %d queues, %d bytes", len(pr.queues), pr.bytes)
	}
}

func TestProposerClosed(t *testing.T) {
	t.Parallel()
	pr := openProposer(1<<20, 10)
	p := waitingProposal(1, 10)
	if err := pr.push([]*Proposal[int]{p}); err != nil {
		t.Fatal(err)
	}
	if dropped := pr.setOpen(false); len(dropped) != 1 || dropped[0] != p {
		t.Errorf("closing dropped %v, want the one that waited", dropped)
	}
	if err := pr.push([]*Proposal[int]{p}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("push on a closed proposer = %v, want ErrNotLeader", err)
	}
	if pr.cancel(p) {
		t.Error("a dropped proposal was cancelled as well")
	}
}
