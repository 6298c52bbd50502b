//go:build race

package frame

import "testing"

// TestGivePoisons: whatever the size of a buffer, who uses it after it was given
// sees so, in a build that looks for such things.
func TestGivePoisons(t *testing.T) {
	t.Parallel()
	var b Buffers
	for _, n := range []int{1, 100, 700_000} {
		buf := make([]byte, n, capacity(n))
		b.Give(buf[:n/2])
		for i, v := range buf {
			if v != poisoned {
				t.Fatalf("byte %d of %d is %#x", i, n, v)
			}
		}
	}
}
