package node

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// How much garbage there may be before it is collected: a share of what is live, as a
// collection costs as much as that; and no less than some, as a small heap would be
// collected all the time. See docs/configuration.md, and debug.SetGCPercent for what
// counts as live.
//
// Each process has a least of its own in a range: replicas take memory in step, as they
// apply the same entries, and would collect at the same moments, when whoever waits for a
// majority waits for a collection.
const (
	garbagePercent   = 60
	leastGarbage     = 24 << 20 // from here
	leastGarbageSpan = 16 << 20 // on
	mostGarbageShare = 400      // per cent: of a heap that has just begun
)

// collectAfter returns the per cent of garbage to collect at, with so many bytes live and
// a least number of bytes of garbage.
func collectAfter(live, least uint64) int {
	return int(min(max(least*100/max(live, 1), garbagePercent), mostGarbageShare))
}

// paceCollector has the garbage collector run as collectAfter says, unless the operator
// has said how by GOGC. place, from 0 to 1, is the process's in the range of leasts.
func paceCollector(place float64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	pace(leastGarbage+uint64(place*leastGarbageSpan), func(percent int) bool {
		debug.SetGCPercent(percent)
		return true
	})
}

// pace calls set with what collectAfter says, now and after each collection in which that
// has changed, until set returns false.
func pace(least uint64, set func(percent int) (more bool)) {
	roots := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"},
	}
	last := 0
	var look func(struct{})
	look = func(struct{}) {
		metrics.Read(roots)
		live := uint64(0)
		for _, r := range roots {
			live += r.Value.Uint64()
		}
		if p := collectAfter(live, least); p != last {
			if last = p; !set(p) {
				return
			}
		}
		collected := new([16]byte) // by the next collection: too large to share its block
		runtime.AddCleanup(collected, look, struct{}{})
	}
	look(struct{}{})
}
