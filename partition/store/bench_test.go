package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// benchStore returns a store on the real file system with n partitions.
func benchStore(b *testing.B, n uint32, opt Options) (*Store, *Shard) {
	b.Helper()
	st, err := Open(vfs.OS, b.TempDir(), opt)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = st.Close() })
	sh := st.Shard(1)
	for key := range n {
		sh.Create(key, topic, int32(key), Config{})
	}
	return st, sh
}

// BenchmarkAppend gives the cost of one batch on the apply side, with the
// flusher working behind it: bytes/s is what the store sustains.
func BenchmarkAppend(b *testing.B) {
	for _, parts := range []uint32{1, 1000} {
		for _, size := range []int{1 << 10, 16 << 10} {
			b.Run(fmt.Sprintf("partitions=%d/batch=%dB", parts, size), func(b *testing.B) {
				st, sh := benchStore(b, parts, Options{MemoryBytes: 256 << 20})
				r := makeRec(b, 0, 1, size)
				ends := make([]int64, parts)
				b.SetBytes(int64(len(r.body)))
				b.ReportAllocs()
				key := uint32(0)
				for b.Loop() {
					if err := st.Admit(b.Context(), int64(len(r.body))); err != nil {
						b.Fatal(err)
					}
					sh.Append(key, ends[key], ends[key], 1, r.body, nil)
					ends[key]++
					key = (key + 1) % parts
				}
			})
		}
	}
}

// BenchmarkAppendMemory gives the cost of Append alone.
func BenchmarkAppendMemory(b *testing.B) {
	st, sh := benchStore(b, 1, Options{MemoryBytes: 1 << 50, TailFlushBytes: 1 << 50, TailMaxAge: time.Hour})
	r := makeRec(b, 0, 1, 1<<10)
	pin := st.Pin(1 << 20)
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		sh.Append(0, off, off, 1, r.body, pin)
		if off++; off%(1<<16) == 0 {
			p := sh.parts[0]
			sh.mu.Lock()
			f := p.popLocked(len(p.tail))
			sh.mu.Unlock()
			st.release(f)
		}
	}
}

// BenchmarkRead gives the cost of finding 64 KiB in the tail and in a file.
func BenchmarkRead(b *testing.B) {
	for _, from := range []string{"tail", "file"} {
		for _, size := range []int{1 << 10, 16 << 10} {
			b.Run(fmt.Sprintf("%s/batch=%dB", from, size), func(b *testing.B) {
				_, sh := benchStore(b, 1, Options{TailFlushBytes: 1 << 50, TailMaxAge: time.Hour})
				r := makeRec(b, 0, 1, size)
				n := int64(32<<20) / int64(size)
				for off := range n {
					sh.Append(0, off, off, 1, r.body, nil)
				}
				if from == "file" {
					if err := sh.FlushTo([]End{{0, n}}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				off, bytes := int64(0), int64(0)
				for b.Loop() {
					c, err := sh.Read(0, off, 64<<10, true)
					if err != nil {
						b.Fatal(err)
					}
					off, bytes = c.End%n, c.Bytes
					c.Release()
				}
				b.SetBytes(bytes)
			})
		}
	}
}

// BenchmarkFlush gives the rate of FlushTo, syncs included, 64 MiB at a time.
func BenchmarkFlush(b *testing.B) {
	for _, parts := range []uint32{1, 256} {
		b.Run(fmt.Sprintf("partitions=%d", parts), func(b *testing.B) {
			_, sh := benchStore(b, parts, Options{TailFlushBytes: 1 << 50, TailMaxAge: time.Hour, MemoryBytes: 1 << 50, SegmentBytes: 1 << 30})
			r := makeRec(b, 0, 1, 16<<10)
			per := int64(64<<20) / int64(len(r.body)) / int64(parts)
			b.SetBytes(per * int64(parts) * int64(len(r.body)))
			var end int64
			for b.Loop() {
				ends := make([]End, parts)
				for key := range parts {
					for off := end; off < end+per; off++ {
						sh.Append(key, off, off, 1, r.body, nil)
					}
					ends[key] = End{Key: key, End: end + per}
				}
				end += per
				if err := sh.FlushTo(ends); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWatchStop gives the cost of one registration and its end, of a partition
// that has others: it must not depend on how many.
func BenchmarkWatchStop(b *testing.B) {
	for _, others := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			_, sh := benchStore(b, 1, Options{})
			for range others {
				if _, _, err := sh.Watch(0, func(uint32) {}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				w, _, _ := sh.Watch(0, func(uint32) {})
				w.Stop()
			}
		})
	}
}
