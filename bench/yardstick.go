package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Disk is a file that Yardstick writes to.
type Disk interface {
	WriteAt(b []byte, off int64) (int, error)
	// SyncData makes what was written durable (fdatasync).
	SyncData() error
	// Preallocate makes room for so many bytes.
	Preallocate(bytes int64) error
}

// Yardstick times bare writes, each followed by fdatasync, to a preallocated
// file that is written over again: what any server could reach on this disk if
// it did nothing else, one commit after the other.
type Yardstick struct {
	FileBytes   int64
	CommitBytes []int         // one measurement each
	Duration    time.Duration // of each measurement
	Seed        uint64        // of what is written
}

// YardstickResult is one measurement.
type YardstickResult struct {
	CommitBytes int
	Commits     int64
	Elapsed     time.Duration
	Latency     Latency // of one commit
}

// MBPerSecond returns the rate, in MB/s.
func (r YardstickResult) MBPerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Commits) * float64(r.CommitBytes) / 1e6 / r.Elapsed.Seconds()
}

// Run fills the file once and then measures. It returns the first error of the
// disk, or ctx's.
func (y Yardstick) Run(ctx context.Context, now func() time.Time, disk Disk) ([]YardstickResult, error) {
	if y.Duration <= 0 || len(y.CommitBytes) == 0 {
		return nil, errors.New("bench: a yardstick of nothing")
	}
	for _, n := range y.CommitBytes {
		if n < 1 || int64(n) > y.FileBytes {
			return nil, fmt.Errorf("bench: commits of %d bytes in a file of %d", n, y.FileBytes)
		}
	}
	data := make([]byte, poolBytes)
	r := rand.New(rand.NewPCG(y.Seed, 0))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	if err := y.fill(ctx, disk, data); err != nil {
		return nil, err
	}
	var out []YardstickResult
	for _, n := range y.CommitBytes {
		res, err := y.measure(ctx, now, disk, data, n)
		if err != nil {
			return nil, err
		}
		out = append(out, res)
	}
	return out, nil
}

// fill writes the whole file, so that no later write needs a new block.
func (y Yardstick) fill(ctx context.Context, disk Disk, data []byte) error {
	if err := disk.Preallocate(y.FileBytes); err != nil {
		return err
	}
	for at := int64(0); at < y.FileBytes; at += int64(len(data)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := disk.WriteAt(data[:min(int64(len(data)), y.FileBytes-at)], at); err != nil {
			return err
		}
	}
	return disk.SyncData()
}

func (y Yardstick) measure(ctx context.Context, now func() time.Time, disk Disk, data []byte, n int) (YardstickResult, error) {
	res := YardstickResult{CommitBytes: n}
	h := newHistogram()
	start := now()
	at, from := int64(0), 0
	for t := start; t.Sub(start) < y.Duration; {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		if at+int64(n) > y.FileBytes {
			at = 0
		}
		if err := write(disk, data, &from, at, n); err != nil {
			return res, err
		}
		at += int64(n)
		after := now()
		record(h, after.Sub(t))
		t = after
		res.Commits++
		res.Elapsed = after.Sub(start)
	}
	res.Latency = summary(h)
	return res, nil
}

// write commits n bytes at the offset, taken from data in a circle.
func write(disk Disk, data []byte, from *int, at int64, n int) error {
	for n > 0 {
		part := data[*from:min(len(data), *from+n)]
		if _, err := disk.WriteAt(part, at); err != nil {
			return err
		}
		at, n = at+int64(len(part)), n-len(part)
		*from = (*from + len(part)) % len(data)
	}
	return disk.SyncData()
}
