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
	got := pr.gather(1 << 20)
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
		got := pr.gather(need)
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

// TestGatherBehind queues proposals while an entry is in flight: they wait for it while
// they are small, and share the next one.
func TestGatherBehind(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		maxEntry int
		sizes    []int // of what comes meanwhile
		waits    bool
	}{
		{"small", 1 << 20, []int{100, 100, thinBytes - 201}, true},
		{"together not", 1 << 20, []int{100, 100, thinBytes - 200}, false},
		{"one that is not", 1 << 20, []int{1 << 21}, false},
		{"a whole entry, of a small journal", 1000, []int{500, 500}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pr := openProposer(tt.maxEntry, 100)
			push := func(size int) {
				t.Helper()
				if err := pr.push([]*Proposal[int]{waitingProposal(uint32(size), size)}); err != nil {
					t.Fatal(err)
				}
			}
			push(10)
			if n := len(pr.gather(pr.waiting())); n != 1 {
				t.Fatalf("the first entry has %d proposals, want 1", n)
			}
			for _, size := range tt.sizes {
				push(size)
			}
			if waits := pr.waiting() == 0; waits != tt.waits {
				t.Fatalf("waits for the entry in flight: %v, want %v", waits, tt.waits)
			}
			if !tt.waits {
				return
			}
			pr.landed()
			select {
			case <-pr.wake:
			default:
				t.Error("nobody was woken for what had waited")
			}
			if n := len(pr.gather(pr.waiting())); n != len(tt.sizes) {
				t.Errorf("the next entry has %d proposals, want %d", n, len(tt.sizes))
			}
		})
	}
}

// TestAmend changes what proposals take that wait: it counts from then on, and wakes who
// gathers if it is enough; one that does not wait is not changed.
func TestAmend(t *testing.T) {
	t.Parallel()
	pr := openProposer(1<<20, 10)
	first, second, third := waitingProposal(1, 10), waitingProposal(1, 10), waitingProposal(1, 10)
	for _, p := range []*Proposal[int]{first, second, third} {
		if err := pr.push([]*Proposal[int]{p}); err != nil {
			t.Fatal(err)
		}
		if p == first {
			pr.gather(pr.waiting())
		}
	}
	if pr.waits(first) || pr.amend(first, "late", 1, 100) || first.Command != nil {
		t.Error("a proposal was changed that is in an entry")
	}
	if !pr.waits(second) || !pr.amend(second, "small", 90, 100) || pr.waiting() != 0 {
		t.Error("a small proposal that waits could not be changed, or does not wait any more")
	}
	if !pr.cancel(third) || pr.waits(third) || pr.amend(third, "gone", 1, 100) {
		t.Error("a proposal was changed that is cancelled")
	}
	if !pr.amend(second, "large", thinBytes-10, thinBytes) {
		t.Error("a proposal could not be changed a second time")
	}
	select {
	case <-pr.wake:
	default:
		t.Error("nobody was woken for what is large enough")
	}
	got := pr.gather(pr.waiting())
	if len(got) != 1 || got[0] != second || second.Command != "large" || second.CommandBytes != thinBytes-10 || pr.bytes != 0 {
		t.Errorf("gathered %v with %d bytes left, want the one with its last command, and none", got, pr.bytes)
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
