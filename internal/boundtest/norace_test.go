//go:build !race

package boundtest

// residentFactor is by how much the bounds are raised: nothing.
const residentFactor = 1
