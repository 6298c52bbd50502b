package partition

import (
	"fmt"
	"testing"
)

// BenchmarkEntryBuilder lays out entries of 1 MiB, as the leader of a shard does
// with what waits.
func BenchmarkEntryBuilder(b *testing.B) {
	for _, batchBytes := range []int{1 << 10, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("batch=%dB", batchBytes), func(b *testing.B) {
			batch := make([]byte, batchBytes)
			var e EntryBuilder
			b.SetBytes(1 << 20)
			b.ReportAllocs()
			for b.Loop() {
				e.Reset(nil, EntryHeader{})
				for n := range 1 << 20 / batchBytes {
					e.Produce(Number(n), batch)
				}
				e.Bytes()
			}
		})
	}
}
