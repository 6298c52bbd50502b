package bench

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Limits of a histogram: what is longer counts as maxLatency.
const (
	maxLatency        = time.Hour
	significantDigits = 3
)

// Latency is the summary of a histogram. Percentiles are upper bounds of the
// bucket that holds them, 0.1 % wide; all are 0 if Count is.
type Latency struct {
	Count int64
	Mean  time.Duration
	P50   time.Duration
	P90   time.Duration
	P99   time.Duration
	P999  time.Duration
	Max   time.Duration
}

// newHistogram returns an empty histogram of nanoseconds.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(maxLatency), significantDigits)
}

// record adds d to h, as the nearest that h can hold.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	// The value is within the histogram's range, which is the only reason for
	// which RecordValue fails.
	_ = h.RecordValue(int64(min(max(d, 0), maxLatency)))
}

// summary returns what is in the histograms together.
func summary(hs ...*hdrhistogram.Histogram) Latency {
	all := newHistogram()
	for _, h := range hs {
		all.Merge(h)
	}
	if all.TotalCount() == 0 {
		return Latency{}
	}
	at := func(percent float64) time.Duration { return time.Duration(all.ValueAtQuantile(percent)) }
	return Latency{
		Count: all.TotalCount(),
		Mean:  time.Duration(all.Mean()),
		P50:   at(50), P90: at(90), P99: at(99), P999: at(99.9),
		Max: time.Duration(all.Max()),
	}
}

// recorder counts outcomes. One goroutine adds, another reads at times.
type recorder struct {
	window window

	mu       sync.Mutex
	latency  *hdrhistogram.Histogram // of what was due within the window
	lateness *hdrhistogram.Histogram // of the load itself, in the window
	interval *hdrhistogram.Histogram // since the last take
	records  int64                   // acknowledged within the window
	bytes    int64
	failed   int64
	firstErr error

	answeredAll int64         // acknowledged in the whole run
	last        time.Duration // when the newest of them came

	intervalRecords, intervalBytes int64
}

func newRecorder(w window) *recorder {
	return &recorder{window: w, latency: newHistogram(), lateness: newHistogram(), interval: newHistogram()}
}

// answered counts a record of so many bytes, due and acknowledged at these
// times since the run began.
func (r *recorder) answered(due, done time.Duration, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.window.holds(due) {
		record(r.latency, done-due)
	}
	if r.window.holds(done) {
		r.records++
		r.bytes += int64(bytes)
	}
	r.answeredAll++
	r.last = max(r.last, done)
	record(r.interval, done-due)
	r.intervalRecords++
	r.intervalBytes += int64(bytes)
}

// refused counts a record that failed.
func (r *recorder) refused(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
	if r.firstErr == nil {
		r.firstErr = err
	}
}

// sent notes how late a record was sent.
func (r *recorder) sent(due, at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.window.holds(due) {
		record(r.lateness, at-due)
	}
}

// takeInterval adds what came since the last call to p and h.
func (r *recorder) takeInterval(p *Progress, h *hdrhistogram.Histogram) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.Merge(r.interval)
	r.interval.Reset()
	p.Records += r.intervalRecords
	p.Bytes += r.intervalBytes
	p.Failed += r.failed
	r.intervalRecords, r.intervalBytes = 0, 0
}
