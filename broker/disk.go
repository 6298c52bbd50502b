package broker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

const (
	// diskInterval is how often to look how full the disk is.
	diskInterval = 250 * time.Millisecond

	// fullForget is after which time a checkpoint that found no space is
	// forgotten, if no other one has and none has succeeded before.
	fullForget = 5 * time.Second
)

// DiskState says how full the disk of the data directory is.
type DiskState struct {
	// Low says that records and topics are not taken: less than ReserveBytes
	// are free, or a write found no space. Reads and deletions go on. It ends by
	// itself, an eighth above the reserve so that it does not come and go.
	Low   bool
	Since time.Time // of Low as it is now
	Cause string    // of Low, for people; empty if it is not

	FreeBytes    int64 // as of the last look, on the disk as a whole
	TotalBytes   int64
	ReserveBytes int64 // disk.reserve.bytes

	Entered int64 // how often it became low, since the start
	Refused int64 // batches and requests that were answered so, since the start
}

// DiskState returns how full the disk is. It is cheap: the disk is looked at
// four times a second.
func (b *Broker) DiskState() DiskState { return b.disk.state() }

// diskWatch looks at the disk, and holds what needs space while there is little.
type diskWatch struct {
	opt     *Options
	tight   chan struct{} // 1-buffered: it is low, and was looked at again
	refused atomic.Int64
	turn    chan struct{} // 1-buffered: held by a look, so that they act in order

	mu     sync.Mutex
	now    DiskState
	full   error // of the newest checkpoint, if it found no space, at fullAt
	fullAt time.Time
}

func newDiskWatch(opt *Options) *diskWatch {
	return &diskWatch{
		opt: opt, tight: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		now: DiskState{ReserveBytes: opt.DiskReserveBytes, Since: opt.Now()},
	}
}

// run looks at the disk until ctx ends.
func (d *diskWatch) run(ctx context.Context) {
	tick := time.NewTicker(diskInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.look()
		case <-ctx.Done():
			return
		}
	}
}

// look looks at the disk once, and acts on what it sees. A disk that cannot be
// asked is taken to be as before.
func (d *diskWatch) look() {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	u, err := d.opt.FS.Usage(d.opt.DiskDir)
	stalled, at := d.opt.Store.Stalled(), d.opt.Now()
	d.mu.Lock()
	was := d.now.Low
	if err == nil {
		if stalled == nil && at.Sub(d.fullAt) < fullForget {
			stalled = d.full
		}
		d.stepLocked(at, u, stalled)
	}
	now := d.now
	d.mu.Unlock()
	if now.Low != was {
		d.turned(now)
	}
	if now.Low {
		select {
		case d.tight <- struct{}{}:
		default:
		}
	}
	if d.opt.OnDisk != nil {
		now.Refused = d.refused.Load()
		d.opt.OnDisk(now)
	}
}

// turned acts on a disk that became low, or is so no more.
func (d *diskWatch) turned(now DiskState) {
	d.opt.Journal.Hold(now.Low)
	if now.Low {
		d.opt.Log.Warn("the disk is nearly full: records and new topics wait; reads and deletions go on",
			"cause", now.Cause, "dir", d.opt.DiskDir, "free_bytes", now.FreeBytes, "disk.reserve.bytes", now.ReserveBytes)
	} else {
		d.opt.Log.Info("the disk has room again: records are taken", "dir", d.opt.DiskDir, "free_bytes", now.FreeBytes)
	}
}

// stepLocked decides whether the disk is low. full is the error of a write that
// found no room although the disk seems to have some: a quota, or no inode left,
// or too many open files.
func (d *diskWatch) stepLocked(now time.Time, u vfs.Usage, full error) {
	s := &d.now
	s.FreeBytes, s.TotalBytes = u.FreeBytes, u.TotalBytes
	cause := ""
	switch {
	case u.FreeBytes < s.ReserveBytes:
		cause = fmt.Sprintf("%d bytes are free, below disk.reserve.bytes (%d)", u.FreeBytes, s.ReserveBytes)
	case s.Low && u.FreeBytes < s.ReserveBytes+s.ReserveBytes/8:
		cause = fmt.Sprintf("%d bytes are free, not yet an eighth above disk.reserve.bytes (%d)", u.FreeBytes, s.ReserveBytes)
	case full != nil:
		cause = full.Error()
	}
	if low := cause != ""; low != s.Low {
		s.Low, s.Since = low, now
		if low {
			s.Entered++
		}
	}
	s.Cause = cause
}

// note notes how a checkpoint ended.
func (d *diskWatch) note(err error) {
	d.mu.Lock()
	d.full, d.fullAt = err, d.opt.Now()
	low := d.now.Low
	d.mu.Unlock()
	if err != nil && !low {
		d.look()
	}
}

func (d *diskWatch) state() DiskState {
	d.mu.Lock()
	s := d.now
	d.mu.Unlock()
	s.Refused = d.refused.Load()
	return s
}

// refusal returns the error of what needs space while the disk is low, which it
// counts, or nil.
func (d *diskWatch) refusal() *errcode.Error {
	s := d.state()
	if !s.Low {
		return nil
	}
	d.refused.Add(1)
	return errcode.Errorf(errcode.KafkaStorageError,
		"the disk of %s on node %d is nearly full: %s; free space on it, delete topics, or lower disk.reserve.bytes",
		d.opt.DiskDir, d.opt.NodeID, s.Cause)
}
