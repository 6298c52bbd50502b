package broker

import "testing"

// TestOffsetsPartition holds the partition of a group against Kafka's
// (Utils.abs(group.hashCode) % 50, as Java says).
func TestOffsetsPartition(t *testing.T) {
	tests := []struct {
		group string
		hash  int32 // Java's
	}{
		{"", 0},
		{"a", 97},
		{"hello", 99162322},
		{"polygenelubricants", -2147483648},
		{"\u00fc", 252},
		{"\U0001f600", 1772899}, // a surrogate pair: 0xd83d * 31 + 0xde00
	}
	for _, tt := range tests {
		for _, n := range []int{1, 3, 50} {
			if got, want := offsetsPartition(tt.group, n), (tt.hash&0x7fffffff)%int32(n); got != want {
				t.Errorf("offsetsPartition(%q, %d) = %d, want %d", tt.group, n, got, want)
			}
		}
	}
}
