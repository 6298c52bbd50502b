package batch

import (
	"fmt"
	"testing"
)

// benchRecords are a batch's worth of records of about 100 bytes each, which
// compress to about a quarter.
func fillBench(b *testing.B, w *Builder, n int) {
	w.Reset()
	key, value := make([]byte, 0, 16), make([]byte, 0, 128)
	for i := range n {
		key = fmt.Appendf(key[:0], "user-%08d", i*7919)
		value = fmt.Appendf(value[:0], `{"id":%d,"name":"somebody","at":%d,"amount":%d,"currency":"EUR"}`,
			i*7919, 1_700_000_000_000+i, i*104729%10007)
		if err := w.Append(1_700_000_000_000+int64(i), key, value, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// perCodec runs a benchmark on batches of 16 KiB and 1 MiB, uncompressed, and
// counts those bytes, whatever the codec makes of them.
func perCodec(b *testing.B, run func(b *testing.B, w *Builder, codec Codec, built []byte)) {
	for _, records := range []int{150, 10_000} {
		var w Builder
		fillBench(b, &w, records)
		for codec := range Codec(len(codecNames)) {
			built, err := w.Build(nil, codec, DefaultLevel)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("codec=%s/records=%d", codec, records), func(b *testing.B) {
				b.SetBytes(int64(w.Size()))
				b.ReportAllocs()
				run(b, &w, codec, built)
			})
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	perCodec(b, func(b *testing.B, w *Builder, codec Codec, built []byte) {
		dst := make([]byte, 0, 2*w.Size())
		for b.Loop() {
			if _, err := w.Build(dst, codec, DefaultLevel); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	perCodec(b, func(b *testing.B, w *Builder, codec Codec, built []byte) {
		for b.Loop() {
			if _, err := Validate(built, Limits{MaxBatchBytes: 2 << 20}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkValidateLarge is what a broker pays for batches of 1 KiB records.
func BenchmarkValidateLarge(b *testing.B) {
	value := make([]byte, 1<<10)
	for i := range value {
		value[i] = "abcdefghijklmnopqrstuvwxyz 0123456789"[i*i%37]
	}
	for _, records := range []int{16, 1000} {
		var w Builder
		w.Reset()
		for i := range records {
			copy(value, fmt.Sprintf("%08d", i*7919))
			if err := w.Append(int64(i), nil, value, nil); err != nil {
				b.Fatal(err)
			}
		}
		for codec := range Codec(len(codecNames)) {
			built, err := w.Build(nil, codec, DefaultLevel)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("codec=%s/records=%d", codec, records), func(b *testing.B) {
				b.SetBytes(int64(w.Size()))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Validate(built, Limits{MaxBatchBytes: 2 << 20}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkIterate(b *testing.B) {
	perCodec(b, func(b *testing.B, w *Builder, codec Codec, built []byte) {
		var it Iterator
		for b.Loop() {
			if err := it.Reset(built, 0); err != nil {
				b.Fatal(err)
			}
			for _, ok := it.Next(); ok; _, ok = it.Next() {
			}
			if it.Err() != nil {
				b.Fatal(it.Err())
			}
		}
	})
}

// BenchmarkAppend is what a client pays for each record, before compression.
func BenchmarkAppend(b *testing.B) {
	var w Builder
	w.Reset()
	key, value := []byte("user-12345678"), make([]byte, 100)
	b.SetBytes(int64(len(key) + len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if w.Size() > 1<<20 {
			w.Reset()
		}
		if err := w.Append(1_700_000_000_000, key, value, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckCRC(b *testing.B) {
	var w Builder
	fillBench(b, &w, 150)
	built, err := w.Build(nil, None, DefaultLevel)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(built)))
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckCRC(built); err != nil {
			b.Fatal(err)
		}
	}
}
