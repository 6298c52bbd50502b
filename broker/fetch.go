package broker

import (
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition/store"
)

// Fetch is one fetch under way. It has no goroutine while it waits.
type Fetch struct {
	b        *Broker
	req      FetchRequest
	done     func([]FetchResult)
	deadline time.Time

	mu      sync.Mutex
	parked  bool           // it waits; who clears it goes on with the fetch
	woken   bool           // something moved since it last read
	over    bool           // no more waiting: the time is up, or it was cancelled
	watches []*store.Watch // of the present wait, like timer
	timer   *time.Timer
}

// Fetch reads each part's batches and answers by calling done, from any
// goroutine: as soon as MinBytes are there, or a part has an error, or MaxWait
// has passed. Records are readable once they are durable on a majority.
//
// The caller owns the results' chunks; they hold at most MaxBytes together, or
// one batch. A panic on the caller's goroutine is the caller's.
func (b *Broker) Fetch(req FetchRequest, done func([]FetchResult)) *Fetch {
	req.MinBytes = min(req.MinBytes, req.MaxBytes)
	f := &Fetch{b: b, req: req, done: done, deadline: time.Now().Add(req.MaxWait), over: req.MaxWait <= 0}
	f.try()
	return f
}

// Cancel answers the fetch with what there is by now, if it still waits.
func (f *Fetch) Cancel() {
	f.mu.Lock()
	f.over = true
	f.mu.Unlock()
	f.wake(0)
}

// wake goes on with a fetch that waits. It runs where a partition's end moves,
// so the reading is left to a goroutine.
func (f *Fetch) wake(uint32) {
	f.mu.Lock()
	waits := f.parked
	f.parked, f.woken = false, true
	watches, timer := f.watches, f.timer
	if waits {
		f.watches, f.timer = nil, nil
	}
	f.mu.Unlock()
	if !waits {
		return
	}
	go func() {
		if f.req.Panicked != nil {
			defer func() {
				if p := recover(); p != nil {
					f.req.Panicked(p)
				}
			}()
		}
		timer.Stop()
		stopAll(watches)
		f.try()
	}()
}

func stopAll(watches []*store.Watch) {
	for _, w := range watches {
		w.Stop()
	}
}

// try reads, and answers or waits.
func (f *Fetch) try() {
	for {
		f.mu.Lock()
		over := f.over
		f.woken = false
		f.mu.Unlock()
		results, bytes, refused := f.read()
		if over || refused || bytes > 0 && bytes >= int64(f.req.MinBytes) {
			f.done(results)
			return
		}
		releaseAll(results)
		if f.park(results) {
			return
		}
	}
}

// park waits for an end to move from where it was read. It returns false if one
// has moved meanwhile.
func (f *Fetch) park(read []FetchResult) bool {
	var watches []*store.Watch
	moved := false
	for i := range f.req.Parts {
		p := f.b.dir.find(f.req.Parts[i].Topic, f.req.Parts[i].Index)
		if p == nil {
			moved = true
			break
		}
		w, end, err := p.shard.store.Watch(uint32(p.number), f.wake)
		if err != nil {
			moved = true
			break
		}
		watches = append(watches, w)
		moved = moved || end != read[i].HighWatermark
	}
	f.mu.Lock()
	if moved = moved || f.woken || f.over; !moved {
		f.parked, f.watches = true, watches
		f.timer = time.AfterFunc(time.Until(f.deadline), f.Cancel)
	}
	f.mu.Unlock()
	if moved {
		stopAll(watches)
	}
	return !moved
}

// read reads all parts. refused says that a part has an error: no use to wait.
func (f *Fetch) read() (results []FetchResult, bytes int64, refused bool) {
	results = make([]FetchResult, len(f.req.Parts))
	whole := false
	defer func() {
		if !whole { // a panic
			releaseAll(results)
		}
	}()
	left := int64(f.req.MaxBytes)
	for i := range f.req.Parts {
		part := &f.req.Parts[i]
		f.b.readPart(&results[i], part, min(left, int64(part.MaxBytes)), bytes == 0)
		n := results[i].Bytes()
		bytes += n
		left = max(left-n, 0)
		refused = refused || results[i].Err != nil
	}
	whole = true
	return results, bytes, refused
}

func releaseAll(results []FetchResult) {
	for i := range results {
		results[i].Release()
	}
}

// readPart reads one part into r, extent by extent.
func (b *Broker) readPart(r *FetchResult, part *FetchPart, maxBytes int64, atLeastOne bool) {
	*r = FetchResult{HighWatermark: -1, LogStart: -1}
	p := b.dir.find(part.Topic, part.Index)
	if p == nil {
		r.Err = b.absent(part.Topic, part.Index)
		return
	}
	if p.quarantined() {
		r.Err = b.quarantineError(p, p.quarantine)
		return
	}
	if r.Err = p.checkEpoch(part.Epoch); r.Err != nil {
		return
	}
	start, end, err := p.shard.store.Bounds(uint32(p.number))
	if err != nil {
		r.Err = CodeOf(err)
		return
	}
	r.HighWatermark, r.LogStart, r.traffic = end, start, p.traffic
	for offset, left := part.Offset, maxBytes; ; {
		c, err := p.shard.store.Read(uint32(p.number), offset, int(left), atLeastOne)
		if err != nil {
			if len(r.Chunks) == 0 { // else the next fetch meets it
				r.Err = b.readError(p, part, err)
			}
			return
		}
		if c.Bytes == 0 {
			c.Release()
			return
		}
		r.Chunks = append(r.Chunks, c)
		offset, left, atLeastOne = c.End, left-c.Bytes, false
		r.HighWatermark = max(end, offset) // more may have been applied since
		if offset >= end || left <= 0 {
			return
		}
	}
}

// readError is CodeOf for a read: what the table does not know is the disk's. An
// offset above the end is out of range only if the end is known to be current; a
// leader that was deposed meanwhile has an older one (R19).
func (b *Broker) readError(p *placed, part *FetchPart, err error) *errcode.Error {
	e := CodeOf(err)
	switch e.Code {
	case errcode.UnknownServer:
		e.Code = errcode.KafkaStorageError
	case errcode.OffsetOutOfRange:
		start, _, boundsErr := p.shard.store.Bounds(uint32(p.number))
		if boundsErr != nil || part.Offset < start {
			return e
		}
		if !b.current(p) {
			return errcode.Errorf(errcode.OffsetNotAvailable, "offset %d is above the end that this node knows, and it may not lead any more", part.Offset)
		}
		if _, end, boundsErr := p.shard.store.Bounds(uint32(p.number)); boundsErr == nil && part.Offset <= end {
			return errcode.Errorf(errcode.OffsetNotAvailable, "offset %d was not there a moment ago", part.Offset)
		}
	}
	return e
}

// checkEpoch refuses a client that knows another leader epoch (KIP-320), and
// everybody while this node does not lead the partition.
func (p *placed) checkEpoch(known int32) *errcode.Error {
	epoch := p.epoch()
	switch {
	case epoch < 0:
		return errcode.Errorf(errcode.NotLeaderOrFollower, "this node does not lead partition %d", p.key.index)
	case known >= 0 && known < epoch:
		return errcode.Errorf(errcode.FencedLeaderEpoch, "leader epoch %d is over, the partition is in %d", known, epoch)
	case known > epoch:
		return errcode.Errorf(errcode.UnknownLeaderEpoch, "leader epoch %d is not known here yet, the partition is in %d", known, epoch)
	}
	return nil
}
