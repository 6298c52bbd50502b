package journal

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// BenchmarkAppend is the produce path's only sync: shards goroutines append
// entries of one size, each with one outstanding, to files on the real disk
// that were written through once before.
func BenchmarkAppend(b *testing.B) {
	for _, shards := range []int{1, 4, 16} {
		for _, size := range []int{1 << 10, 16 << 10, 256 << 10} {
			b.Run(fmt.Sprintf("shards=%d/size=%dB", shards, size), func(b *testing.B) {
				benchmarkAppend(b, vfs.OS, filepath.Join(b.TempDir(), "journal"), shards, size)
			})
		}
	}
}

// BenchmarkAppendMem leaves the disk out: what the journal itself costs.
func BenchmarkAppendMem(b *testing.B) {
	for _, size := range []int{128, 16 << 10} {
		b.Run(fmt.Sprintf("shards=4/size=%dB", size), func(b *testing.B) {
			benchmarkAppend(b, vfs.NewMem(1), "journal", 4, size)
		})
	}
}

func benchmarkAppend(b *testing.B, fs vfs.FS, dir string, shards, size int) {
	opt := small()
	opt.FileBytes, opt.MaxBytes = 16<<20, 64<<20
	j, err := Open(fs, dir, opt)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	next := make([]uint64, shards)
	data := newRecord(1, 1, size, 1).Data
	appendEach := func() {
		var wg sync.WaitGroup
		for id := range shards {
			wg.Go(func() {
				s := j.Shard(ShardID(id), 1)
				next[id]++
				if err := s.Append([]Record{{Index: next[id], Data: data}}); err != nil {
					b.Error(err)
				}
				s.Compact(next[id])
			})
		}
		wg.Wait()
	}
	for j.Usage().WrittenBytes < opt.MaxBytes && !b.Failed() { // fill the ring once
		appendEach()
	}
	before := j.Usage()
	b.SetBytes(int64(shards * size))
	b.ReportAllocs()
	for b.Loop() {
		appendEach()
	}
	after := j.Usage()
	b.ReportMetric(float64(after.Syncs-before.Syncs)/float64(b.N), "syncs/op")
}

// BenchmarkOpen scans a ring of small records.
func BenchmarkOpen(b *testing.B) {
	mem := vfs.NewMem(1)
	opt := small()
	opt.FileBytes, opt.MaxBytes = 16<<20, 64<<20
	j, err := Open(mem, "journal", opt)
	if err != nil {
		b.Fatal(err)
	}
	s := j.Shard(1, 1)
	recs := make([]Record, 1000)
	data := newRecord(1, 1, 1000, 1).Data
	for i := range 20 {
		for k := range recs {
			recs[k] = Record{Index: uint64(i*len(recs) + k + 1), Data: data}
		}
		if err := s.Append(recs); err != nil {
			b.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(20 * 1000 * RecordBytes(1000, 0))
	b.ReportAllocs()
	for b.Loop() {
		j, err := Open(mem, "journal", opt)
		if err != nil {
			b.Fatal(err)
		}
		j.Close()
	}
}
