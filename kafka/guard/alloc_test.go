package guard

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// allocated returns how many bytes f allocates: the least of some times, since
// the runtime's own goroutines allocate, too, now and then. No other test may
// run meanwhile: those that call it are not parallel.
func allocated(times int, f func()) int64 {
	least := int64(math.MaxInt64)
	for range times {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, int64(after.TotalAlloc-before.TotalAlloc))
	}
	return least
}

// unbounded are limits that nothing exceeds.
var unbounded = Limits{ArrayElements: math.MaxInt64, Tags: math.MaxInt64, TagBytes: math.MaxInt64, AllocBytes: math.MaxInt64}

// measure compares what Check says of a body with what decoding it allocates. It
// must never say less, and not much more: a request that is turned away for
// memory that it would not take is an error, too.
func measure(t *testing.T, key, version int16, body []byte, what string) {
	t.Helper()
	says, err := Check(key, version, body, unbounded)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	took := allocated(3, func() {
		if _, err := decode(key, version, body); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	})
	if says < took || says > took*8/5+256 {
		t.Errorf("%s, %d bytes: Check says that decoding allocates %d bytes, it allocates %d", what, len(body), says, took)
	}
}

// TestAllocBytes measures, for every request in every version, random bodies and,
// for each array in it, one with many elements.
func TestAllocBytes(t *testing.T) {
	each(t, func(t *testing.T, key, version int16) {
		c := newChance(uint64(key)<<16|uint64(version), 5)
		measure(t, key, version, c.body(key, version), "random")
		e := c.encoder(key, version)
		e.strange = true
		e.structure(root(key, version))
		measure(t, key, version, e.out, "with unknown tags")
		for _, f := range arrays(root(key, version)) {
			for _, width := range []int{2, 33, 700} {
				for _, small := range []bool{false, true} {
					e := c.encoder(key, version)
					e.wide, e.width, e.small = f, width, small
					e.structure(root(key, version))
					measure(t, key, version, e.out, fmt.Sprintf("%d %s, small %t", width, f.name, small))
				}
			}
		}
	})
}

// TestAllocFrame sends frames of 1 MiB with as many of the smallest elements as
// they hold, for each array of every request: what Check lets pass makes at most
// 8 MiB be allocated, the frame included.
func TestAllocFrame(t *testing.T) {
	const frameBytes = 1 << 20
	refused, passed, worst := 0, 0, int64(0)
	each(t, func(t *testing.T, key, version int16) {
		if _, last, _ := Versions(key); version < last && testing.Short() {
			return
		}
		for _, f := range arrays(root(key, version)) {
			e := newChance(1, 1).encoder(key, version)
			e.wide, e.width, e.small = f, 1, true
			e.structure(root(key, version))
			one := len(e.out)
			e.out, e.width = nil, 2
			e.structure(root(key, version))
			e.width = (frameBytes - one - 8) / (len(e.out) - one) // 8: the length may become longer
			e.out = make([]byte, 0, frameBytes)
			e.structure(root(key, version))
			says, err := Check(key, version, e.out, LimitsFor(len(e.out)))
			if says, _ := Check(key, version, e.out, unbounded); says > worst {
				worst = says
			}
			if errors.Is(err, ErrTooLarge) {
				refused++
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", f.name, err)
			}
			passed++
			if took := allocated(1, func() { _, err = decode(key, version, e.out) }); err != nil || took > says+4096 || took+int64(len(e.out)) > 8<<20 {
				// 4096: what the runtime may allocate beside it
				t.Errorf("%d %s in %d bytes: decoding allocates %d bytes (Check says %d), %v", e.width, f.name, len(e.out), took, says, err)
			}
		}
	})
	t.Logf("frames of 1 MiB: %d refused, %d passed; the worst would have made %d MiB be allocated", refused, passed, worst>>20)
	if refused < 10 || passed < 10 {
		t.Errorf("%d frames refused and %d passed: one of the two is not tested", refused, passed)
	}
}

// TestAllocTagFrame sends a frame of 1 MiB of topics that have a tag each, of two
// bytes: the map that it makes takes a hundred times as much.
func TestAllocTagFrame(t *testing.T) {
	topic := be(1, 1, 100, 0) // no name, one tag
	n := (1<<20 - 10) / len(topic)
	body := be(uint32(1+n), bytes.Repeat(topic, n), 0, 0, 0, 0)
	says, err := Check(3, 9, body, LimitsFor(len(body)))
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("Check = %d, %v, want %v", says, err, ErrTooLarge)
	}
	if says, err := Check(3, 9, body, unbounded); err != nil || says < 90<<20 {
		t.Errorf("Check says that decoding allocates %d bytes (%v), want at least 90 MiB", says, err)
	}
}

// TestAllocTags measures what unknown tags take, up to the limit of them.
func TestAllocTags(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 9, 14, 15, 28, 29, 100, 448, 449, 896, 897, 1000, 1793, 3000, 7169, 10_000} {
		body := be(2, "a", 2, "b", uint32(n))
		for tag := range n {
			body = append(body, be(uint32(100+tag), 0)...)
		}
		says, err := Check(18, 3, body, LimitsFor(len(body)))
		if err != nil {
			t.Fatalf("%d tags: %v", n, err)
		}
		if took := allocated(3, func() { _, _ = decode(18, 3, body) }); says < took || says > took*3+1024 {
			t.Errorf("%d tags: Check says that decoding allocates %d bytes, it allocates %d", n, says, took)
		}
	}
}

// TestRounded compares with what the runtime makes of a slice of n bytes, with
// and without pointers in it.
func TestRounded(t *testing.T) {
	t.Parallel()
	for n := 1; n < 300_000; n += 1 + n/999 {
		scalar := int64(cap(append([]byte(nil), make([]byte, n)...)))
		if got := rounded(int64(n)); got < scalar || got > scalar*5/4+16 {
			t.Fatalf("rounded(%d) = %d, the runtime takes %d", n, got, scalar)
		}
		words := (n + 7) / 8
		pointers := 8 * int64(cap(append([]*byte(nil), make([]*byte, words)...)))
		if pointers > 512 && pointers <= 32<<10-8 {
			pointers += 8 // the header that says where they are
		}
		if got := rounded(8 * int64(words)); got < pointers {
			t.Fatalf("rounded(%d) = %d, the runtime takes %d for pointers", 8*words, got, pointers)
		}
	}
	if unsafe.Sizeof("") != stringBytes {
		t.Errorf("a string takes %d bytes, want %d", unsafe.Sizeof(""), stringBytes)
	}
}

// TestCheckAllocatesNothing counts allocations: none for what is accepted, one
// for an error.
func TestCheckAllocatesNothing(t *testing.T) {
	each(t, func(t *testing.T, key, version int16) {
		body := newChance(7, 8).body(key, version)
		limits := LimitsFor(len(body))
		if n := testing.AllocsPerRun(10, func() { _, _ = Check(key, version, body, limits) }); n != 0 {
			t.Errorf("Check allocates %v times", n)
		}
		cut := body[:max(0, len(body)-1)]
		if n := testing.AllocsPerRun(10, func() { _, _ = Check(key, version, cut, limits) }); n != 1 && len(body) > 0 {
			t.Errorf("Check allocates %v times for an error", n)
		}
		frame := header(kmsg.RequestForKey(key), version, []byte("client"), nil)
		if n := testing.AllocsPerRun(10, func() { _, _ = ParseHeader(frame, limits) }); n != 0 {
			t.Errorf("ParseHeader allocates %v times", n)
		}
	})
}
