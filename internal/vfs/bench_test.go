package vfs

import (
	"errors"
	"fmt"
	"testing"
)

// BenchmarkWriteVec gives the rate of an overwriting vector and of the sync
// after it, in bytes of payload.
func BenchmarkWriteVec(b *testing.B) {
	const fileBytes = 16 << 20
	for _, sizeKB := range []int{1, 64, 1024} {
		for _, fsys := range []struct {
			name string
			FS
			dir string
		}{{"OS", OS, b.TempDir()}, {"Mem", NewMem(1), ""}} {
			b.Run(fmt.Sprintf("fs=%s/size=%dKiB", fsys.name, sizeKB), func(b *testing.B) {
				name := fmt.Sprintf("%s/%d-%d", fsys.dir, sizeKB, b.N)
				_ = fsys.Remove(name)
				f, err := fsys.Create(name)
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				half := make([]byte, sizeKB<<9)
				for i := range half {
					half[i] = byte(i + 1)
				}
				if err := f.Preallocate(fileBytes); err != nil {
					b.Fatal(err)
				}
				bufs := make([][]byte, 2)
				var off int64
				b.SetBytes(int64(2 * len(half)))
				b.ReportAllocs()
				for b.Loop() {
					bufs[0], bufs[1] = half, half
					if _, err := f.WriteVecAt(bufs, off); err != nil {
						b.Fatal(err)
					}
					if err := f.SyncData(); err != nil {
						b.Fatal(err)
					}
					off = (off + int64(2*len(half))) % fileBytes
				}
			})
		}
	}
}

// BenchmarkCrashClone gives the cost of a clone by what was written.
func BenchmarkCrashClone(b *testing.B) {
	for _, sizeMB := range []int{1, 16} {
		b.Run(fmt.Sprintf("size=%dMiB", sizeMB), func(b *testing.B) {
			m := NewMem(1)
			f, err := m.Create("/x")
			if err != nil {
				b.Fatal(err)
			}
			data := make([]byte, sizeMB<<20)
			for i := range data {
				data[i] = byte(i + 1)
			}
			if _, err := f.WriteAt(data, 0); err != nil {
				b.Fatal(err)
			}
			if err := errors.Join(f.Sync(), m.SyncDir("/")); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				m.CrashClone(CrashOptions{Unsynced: Coin})
			}
		})
	}
}
