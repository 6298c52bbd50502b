package node

import "runtime/debug"

// What the process may take beside Options.MemoryBytes before the garbage
// collector works harder. With what is outside of its reach, resident memory
// stays under the sum that docs/configuration.md states.
const (
	ownMemoryBytes        = 96 << 20 // partitions, producers, garbage
	connectionMemoryBytes = 24 << 10 // for each connection that there may be
)

// LimitMemory makes the process's garbage collector hold to a node's memory,
// whatever it would do by itself: with the usual doubling between collections, a
// node that uses all of its memory would have twice as much resident. It is for
// processes that are nothing but a node. place, from 0 to 1, is drawn by each process: see
// leastGarbage.
func LimitMemory(memoryBytes int64, maxConnections int, place float64) {
	debug.SetMemoryLimit(memoryBytes + ownMemoryBytes + int64(maxConnections)*connectionMemoryBytes)
	paceCollector(place)
}

// pullBytes is the share of a node's memory for what its replicas pull from others, and
// once more for what others pull from it. Both come off the half that tails have.
func pullBytes(memoryBytes int64) int64 { return memoryBytes / 32 }
