package history

import (
	"bytes"
	"runtime"
	"testing"
	"time"
)

// bigRun is a correct history of sends values, one a send, over eight keys,
// each read by two readers in polls of 100.
func bigRun(sends int) History {
	r := NewRecorder(func() time.Time { return time.Time{} })
	logs := make([][]int64, 8)
	for v := range sends {
		n := v % len(logs)
		op := r.Invoke(Op{Process: int32(n), F: Send, Mops: []Mop{Values(Key{"orders", int32(n)}, int64(v))}})
		op.Mops = []Mop{op.Mops[0].At(int64(len(logs[n])))}
		logs[n] = append(logs[n], int64(v))
		r.Complete(op, OK)
	}
	for reader := range int32(2) {
		for n, log := range logs {
			for from := 0; from < len(log); from += 100 {
				op := r.Invoke(Op{Process: 100 + reader, F: Poll})
				op.Mops = []Mop{Values(Key{"orders", int32(n)}, log[from:min(from+100, len(log))]...).At(int64(from))}
				r.Complete(op, OK)
			}
		}
	}
	return r.History()
}

func liveBytes() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// BenchmarkCheck checks a million sends. history-MB is what the history itself
// takes; B/op is what Check allocates beside it.
func BenchmarkCheck(b *testing.B) {
	before := liveBytes()
	h := bigRun(1_000_000)
	history := liveBytes() - before
	opt := Options{Idempotent: true, Assigned: true, Final: true}
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(h, opt).Err(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(history)/(1<<20), "history-MB")
	runtime.KeepAlive(h)
}

func BenchmarkWrite(b *testing.B) {
	h := bigRun(100_000)
	var out bytes.Buffer
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		if err := Write(&out, h); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(out.Len()))
}

func BenchmarkRead(b *testing.B) {
	in := encode(b, bigRun(100_000))
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(bytes.NewReader(in)); err != nil {
			b.Fatal(err)
		}
	}
}
