package bench

import (
	"context"
	"errors"
	"testing"
	"time"
)

// fakeDisk takes a millisecond for a sync and an hour for a write beyond what is
// preallocated.
type fakeDisk struct {
	now       time.Time
	allocated int64
	syncs     int
	failAt    int // number of the sync that fails
}

var errDisk = errors.New("broken disk")

func (d *fakeDisk) WriteAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > d.allocated {
		d.now = d.now.Add(time.Hour)
	}
	return len(b), nil
}

func (d *fakeDisk) SyncData() error {
	d.syncs++
	d.now = d.now.Add(time.Millisecond)
	if d.syncs == d.failAt {
		return errDisk
	}
	return nil
}

func (d *fakeDisk) Preallocate(bytes int64) error {
	d.allocated = bytes
	return nil
}

func TestYardstick(t *testing.T) {
	t.Parallel()
	d := new(fakeDisk)
	y := Yardstick{FileBytes: 10_000, CommitBytes: []int{1000, 3000}, Duration: time.Second}
	got, err := y.Run(t.Context(), func() time.Time { return d.now }, d)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	for i, r := range got {
		if r.CommitBytes != y.CommitBytes[i] || r.Commits != 1000 || r.Elapsed != time.Second || r.Latency.Count != 1000 ||
			!near(r.Latency.Max, time.Millisecond) {
			t.Errorf("%+v", r)
		}
	}
	if mb := got[1].MBPerSecond(); mb != 3 {
		t.Errorf("%v MB/s, want 3", mb)
	}
	if d.allocated != 10_000 {
		t.Errorf("%d bytes allocated", d.allocated)
	}
	if d.syncs != 2001 {
		t.Errorf("%d syncs for 2000 commits and a fill", d.syncs)
	}
}

func TestYardstickFails(t *testing.T) {
	t.Parallel()
	good := Yardstick{FileBytes: 10_000, CommitBytes: []int{1000}, Duration: time.Second}
	for name, y := range map[string]Yardstick{
		"no size":           {FileBytes: 10, Duration: 1},
		"no duration":       {FileBytes: 10, CommitBytes: []int{1}},
		"too large":         {FileBytes: 10, CommitBytes: []int{11}, Duration: 1},
		"commit of no byte": {FileBytes: 10, CommitBytes: []int{0}, Duration: 1},
	} {
		if _, err := y.Run(t.Context(), time.Now, new(fakeDisk)); err == nil {
			t.Errorf("%s: ran", name)
		}
	}
	for _, n := range []int{1, 2, 500} {
		d := &fakeDisk{failAt: n}
		if _, err := good.Run(t.Context(), func() time.Time { return d.now }, d); !errors.Is(err, errDisk) {
			t.Errorf("sync %d failed: %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := good.Run(ctx, time.Now, new(fakeDisk)); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
