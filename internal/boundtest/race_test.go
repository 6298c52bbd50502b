//go:build race

package boundtest

// residentFactor is how much more memory the race detector may take: it keeps up
// to four words for each that the program has, and its allocator holds on to
// more. Measured: 1.2 to 4 times.
const residentFactor = 6
