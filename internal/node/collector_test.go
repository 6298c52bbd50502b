package node

import (
	"runtime"
	"testing"
)

func TestCollectAfter(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tt := range []struct {
		live uint64
		want int // per cent
	}{
		{0, 400},
		{1 * mib, 400},
		{8 * mib, 400},
		{16 * mib, 200},
		{32 * mib, 100},
		{50 * mib, 64},
		{54 * mib, 60},
		{1 << 40, 60},
	} {
		if got := collectAfter(tt.live, 32*mib); got != tt.want {
			t.Errorf("%d bytes live: %d %% of garbage, want %d", tt.live, got, tt.want)
		}
	}
}

// TestPace: what is set follows what is live from one collection to the next.
func TestPace(t *testing.T) {
	set := make(chan int)
	done := make(chan struct{})
	go pace(leastGarbage, func(percent int) bool {
		select {
		case set <- percent:
			return true
		case <-done:
			return false
		}
	})
	defer close(done)
	until := func(what string, is func(percent int) bool) {
		t.Helper()
		for range 1000 {
			select {
			case percent := <-set:
				if is(percent) {
					return
				}
			default:
				runtime.GC()
			}
		}
		t.Fatal(what)
	}
	ballast := make([]byte, 256<<20)
	until("never as little as for a large heap", func(percent int) bool { return percent == garbagePercent })
	runtime.KeepAlive(ballast)
	ballast = nil
	until("never more again", func(percent int) bool { return percent > garbagePercent })
}
