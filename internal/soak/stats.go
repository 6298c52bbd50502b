//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// stats counts what the load sees, for the samples.
type stats struct {
	acked, readRecords, givenUp atomic.Int64

	mu    sync.Mutex
	took  []time.Duration // of a sample's acknowledgements, at most maxTook of them
	seen  int
	last  time.Duration // longest since the last sample
	cause error         // the last record that was given up
}

// maxTook bounds the latencies kept for one sample: every acknowledgement has
// the same chance to be among them.
const maxTook = 4096

func (s *stats) acknowledged(took time.Duration) {
	n := s.acked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, took)
	s.seen++
	if len(s.took) < maxTook {
		s.took = append(s.took, took)
		return
	}
	// A multiplicative hash of the count serves as chance enough here.
	if at := int(uint64(n) * 0x9e3779b97f4a7c15 % uint64(s.seen)); at < maxTook {
		s.took[at] = took
	}
}

func (s *stats) given(err error) {
	s.givenUp.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cause = err
}

func (s *stats) read(n int) { s.readRecords.Add(int64(n)) }

// latencies returns p50, p99 and the maximum since the last call.
func (s *stats) latencies() (p50, p99, longest time.Duration) {
	s.mu.Lock()
	took := s.took
	longest = s.last
	s.took, s.seen, s.last = nil, 0, 0
	s.mu.Unlock()
	if len(took) == 0 {
		return 0, 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100], longest
}

// sample is how things stood at one moment, and went since the one before.
type sample struct {
	at          time.Duration // since the start
	action      string        // what went on
	steady      bool          // taken while nothing ended the server
	usage       usage
	diskBytes   int64 // used on the file system
	acked, read int64 // in all
	p50, p99    time.Duration
	longest     time.Duration
}

// diskUsed returns the bytes that are used on dir's file system.
func diskUsed(dir string) int64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return -1
	}
	return int64(st.Blocks-st.Bfree) * int64(st.Bsize)
}

// writeCSV writes all samples.
func writeCSV(w io.Writer, samples []sample) error {
	if _, err := fmt.Fprintln(w, "seconds,action,steady,starts,rss_bytes,cpu_seconds,open_files,disk_bytes,acked,read,p50_ms,p99_ms,max_ms"); err != nil {
		return err
	}
	for _, s := range samples {
		_, err := fmt.Fprintf(w, "%.0f,%s,%t,%d,%d,%.2f,%d,%d,%d,%d,%.2f,%.2f,%.2f\n", s.at.Seconds(), s.action, s.steady, s.usage.starts,
			s.usage.rssBytes, s.usage.cpu.Seconds(), s.usage.files, s.diskBytes, s.acked, s.read, ms(s.p50), ms(s.p99), ms(s.longest))
		if err != nil {
			return err
		}
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// tableRows is how many rows a table has at most.
const tableRows = 40

// writeTable writes the course of things, a row for each run of samples.
func writeTable(w io.Writer, samples []sample) {
	fmt.Fprintf(w, "%8s %7s %9s %8s %7s %6s %9s %9s %9s %9s %s\n",
		"seconds", "starts", "RSS MiB", "disk MiB", "CPU %", "files", "acked/s", "read/s", "p50 ms", "p99 ms", "during")
	step := max((len(samples)+tableRows-1)/tableRows, 1)
	before := sample{}
	for i := 0; i < len(samples); i += step {
		run := samples[i:min(i+step, len(samples))]
		last := run[len(run)-1]
		span := (last.at - before.at).Seconds()
		var rss, disk int64
		var p50, p99 time.Duration
		var during []string
		files := 0
		for _, s := range run {
			rss, disk, files = max(rss, s.usage.rssBytes), max(disk, s.diskBytes), max(files, s.usage.files)
			p50, p99 = max(p50, s.p50), max(p99, s.p99)
			if s.action != "" && !slices.Contains(during, s.action) {
				during = append(during, s.action)
			}
		}
		fmt.Fprintf(w, "%8.0f %7d %9d %8d %7.0f %6d %9.0f %9.0f %9.2f %9.1f %v\n",
			last.at.Seconds(), last.usage.starts, rss>>20, disk>>20, 100*(last.usage.cpu-before.usage.cpu).Seconds()/span, files,
			float64(last.acked-before.acked)/span, float64(last.read-before.read)/span, ms(p50), ms(p99), during)
		before = last
	}
}

// verdict judges the memory: its bound always, and no creep in the steady part.
// Memory that creeps is higher in the second half of it than in the first.
func verdict(samples []sample, boundBytes int64) error {
	var steady []int64
	for _, s := range samples {
		if s.usage.rssBytes > boundBytes {
			return fmt.Errorf("at %v the server had %d MiB resident, more than %d", s.at, s.usage.rssBytes>>20, boundBytes>>20)
		}
		if s.steady {
			steady = append(steady, s.usage.rssBytes)
		}
	}
	if len(steady) < 8 {
		return fmt.Errorf("%d samples without a restart are too few to see whether memory creeps; give more time", len(steady))
	}
	// The first quarter warms up.
	steady = steady[len(steady)/4:]
	first, second := slices.Max(steady[:len(steady)/2]), slices.Max(steady[len(steady)/2:])
	if second > first+first/10+creepBytes {
		return fmt.Errorf("memory creeps: at most %d MiB in the first half of the steady part, %d in the second", first>>20, second>>20)
	}
	return nil
}

// creepBytes is what chance may add to the peak of half of a steady part.
const creepBytes = 16 << 20
