package client

import (
	"fmt"
	"testing"
)

// TestMurmur2 has the values of Apache Kafka's own test of Utils.murmur2.
func TestMurmur2(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want int32
	}{
		{"21", -973932308},
		{"foobar", -790332482},
		{"a-little-bit-long-string", -985981536},
		{"a-little-bit-longer-string", -1486304829},
		{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
		{"abc", 479470107},
	}
	for _, tt := range tests {
		if got := int32(murmur2([]byte(tt.in))); got != tt.want {
			t.Errorf("murmur2(%q) = %d, want %d", tt.in, got, tt.want)
		}
	}
}

// TestKeyHash has toPositive(murmur2(key)) % partitions worked out: the hash
// loses its sign bit, it is not negated.
func TestKeyHash(t *testing.T) {
	t.Parallel()
	tests := []struct {
		key        string
		partitions int32
		want       int32
	}{
		{"21", 10, (-973932308 & 0x7fffffff) % 10},
		{"foobar", 7, (-790332482 & 0x7fffffff) % 7},
		{"abc", 1000, 479470107 % 1000},
		{"abc", 1, 0},
	}
	for _, tt := range tests {
		if got := KeyHash([]byte(tt.key), tt.partitions); got != tt.want {
			t.Errorf("KeyHash(%q, %d) = %d, want %d", tt.key, tt.partitions, got, tt.want)
		}
	}
	seen := make(map[int32]int)
	for i := range 10_000 {
		seen[KeyHash(fmt.Append(nil, i), 10)]++
	}
	for p := range int32(10) {
		if seen[p] < 800 || seen[p] > 1200 {
			t.Errorf("%d of 10000 keys in partition %d of 10", seen[p], p)
		}
	}
}

func BenchmarkKeyHash(b *testing.B) {
	key := []byte("user-1234567890")
	b.SetBytes(int64(len(key)))
	b.ReportAllocs()
	for b.Loop() {
		KeyHash(key, 100)
	}
}
