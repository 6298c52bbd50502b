package broker

import (
	"slices"
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

	// found is what each part had when it was last looked at, and bytes that of all
	// together. They are of who goes on with the fetch.
	found []readable
	bytes int64

	mu      sync.Mutex
	parked  bool           // it waits; who clears it goes on with the fetch
	moved   []int          // parts that are to be looked at again, each once
	over    bool           // no more waiting: the time is up, or it was cancelled
	watches []*store.Watch // from the first wait to the answer, like timer
	timer   *time.Timer

	yields []*Yield // from the first wait until it has been answered
}

// readable is what a waiting fetch knows of a part: its batches from the offset on
// that is asked for.
type readable struct {
	bytes int64 // at most what the part may answer, or one batch
	next  int64 // the offset behind them
	end   int64 // of the partition
	moved bool  // in Fetch.moved, and guarded like it
}

// Fetch reads each part's batches and answers by calling done, from any
// goroutine: as soon as MinBytes are there, or a part has an error, which it may get
// while it waits as its leader changes, or MaxWait has passed. That others lead a part is
// answered when it is known who, a second later at most. Records are readable
// once they are durable on a majority.
//
// While it waits, only those parts are looked at that have moved, from where they
// were looked at before: an append costs as much as it brings, however many
// partitions are waited for.
//
// The caller owns the results' chunks; they hold at most MaxBytes together, or
// one batch. A panic on the caller's goroutine is the caller's.
func (b *Broker) Fetch(req FetchRequest, done func([]FetchResult)) *Fetch {
	req.MinBytes = min(req.MinBytes, req.MaxBytes)
	f := &Fetch{b: b, req: req, done: done, deadline: time.Now().Add(req.MaxWait), over: req.MaxWait <= 0}
	results, bytes, refused := f.read()
	if f.isOver() || refused || f.enough(bytes) {
		f.answer(results)
		return f
	}
	for i := range results {
		if r := &results[i]; r.ahead && r.Err.Code != errcode.OffsetNotAvailable {
			if back := time.Now().Add(sentBackWait); back.Before(f.deadline) {
				f.deadline = back
			}
		}
	}
	f.note(results)
	releaseAll(results)
	whole := false
	defer func() {
		if !whole { // a panic
			f.stop()
			f.endYields()
		}
	}()
	f.watch(results)
	f.beginYields()
	f.goOn()
	whole = true
	return f
}

func (f *Fetch) enough(bytes int64) bool { return bytes > 0 && bytes >= int64(f.req.MinBytes) }

func (f *Fetch) isOver() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over
}

// Cancel answers the fetch with what there is by now, if it still waits.
func (f *Fetch) Cancel() {
	f.mu.Lock()
	f.over = true
	f.wakeLocked()
	f.mu.Unlock()
}

// wake tells the fetch that a part has moved. It runs where that happens.
func (f *Fetch) wake(part int) {
	f.mu.Lock()
	if p := &f.found[part]; !p.moved {
		p.moved = true
		f.moved = append(f.moved, part)
	}
	f.wakeLocked()
	f.mu.Unlock()
}

// wakeLocked goes on with a fetch that waits. Where a partition moves nothing may
// be read, so that is left to a goroutine.
func (f *Fetch) wakeLocked() {
	if !f.parked {
		return
	}
	f.parked = false
	go func() {
		defer f.survive()
		f.goOn()
	}()
}

// note keeps what the first reading of all parts has found.
func (f *Fetch) note(read []FetchResult) {
	f.found = make([]readable, len(read))
	for i := range read {
		r := &read[i]
		f.found[i] = readable{bytes: r.Bytes(), next: f.req.Parts[i].Offset, end: r.HighWatermark}
		if n := len(r.Chunks); n > 0 {
			f.found[i].next = r.Chunks[n-1].End
		}
		f.bytes += f.found[i].bytes
	}
}

// watch asks to be told when a part moves from where it was read, or somebody else
// leads it. One that has moved meanwhile, or gone, is looked at again.
func (f *Fetch) watch(read []FetchResult) {
	watches := make([]*store.Watch, 0, len(f.req.Parts))
	for i := range f.req.Parts {
		p := f.b.dir.find(f.req.Parts[i].Topic, f.req.Parts[i].Index)
		if p == nil {
			f.wake(i)
			continue
		}
		w, end, err := p.shard.store.Watch(uint32(p.number), func(uint32) { f.wake(i) })
		if err != nil {
			f.wake(i)
			continue
		}
		watches = append(watches, w)
		if end != f.found[i].end || p.shard.turns.Load() != read[i].turn {
			f.wake(i)
		}
	}
	f.mu.Lock()
	f.watches = watches
	f.mu.Unlock()
}

// beginYields lets others have the memory of a fetch that waits: it is answered then.
func (f *Fetch) beginYields() {
	for _, h := range f.req.Held {
		if h.Bytes > 0 {
			f.yields = append(f.yields, h.Of.Yield(h.Bytes, f.Cancel))
		}
	}
}

// endYields ends what beginYields began: the memory has been given back.
func (f *Fetch) endYields() {
	for _, y := range f.yields {
		y.End()
	}
}

// goOn looks at what has moved, and answers or waits.
func (f *Fetch) goOn() {
	for {
		f.mu.Lock()
		if !f.over && len(f.moved) == 0 {
			f.parked = true
			if f.timer == nil {
				f.timer = time.AfterFunc(time.Until(f.deadline), f.Cancel)
			}
			f.mu.Unlock()
			return
		}
		moved := f.moved
		f.moved = nil
		for _, i := range moved {
			f.found[i].moved = false // before it is looked at: what comes from here on is another time's
		}
		answer := f.over
		f.mu.Unlock()
		for _, i := range moved {
			answer = answer || f.look(i)
		}
		if answer || f.enough(f.bytes) {
			f.stop()
			results, _, _ := f.read()
			f.answer(results)
			return
		}
	}
}

// answer answers. If it would say that this node does not lead a partition, it does so
// once it is known who does: that may be this one.
func (f *Fetch) answer(results []FetchResult) {
	var unled []*dataShard
	for i := range results {
		if err := results[i].Err; err != nil && err.Code == errcode.NotLeaderOrFollower {
			if p := f.b.dir.find(f.req.Parts[i].Topic, f.req.Parts[i].Index); p != nil {
				unled = with(unled, p.shard)
			}
		}
	}
	if len(unled) == 0 {
		f.done(results)
		f.endYields()
		return
	}
	f.b.afterHandovers(unled, func(waited bool) {
		if waited {
			defer f.survive()
		}
		if slices.ContainsFunc(unled, func(s *dataShard) bool { return s.replica.Leading() != 0 }) {
			releaseAll(results)
			results, _, _ = f.read()
		}
		f.done(results)
		f.endYields()
	})
}

// survive is deferred where a fetch goes on in a goroutine of its own.
func (f *Fetch) survive() {
	if f.req.Panicked == nil {
		return
	}
	if p := recover(); p != nil {
		f.stop()
		f.endYields()
		f.req.Panicked(p)
	}
}

// look counts what has come in a part. It reports whether the part has an error:
// no use to wait.
func (f *Fetch) look(i int) (refused bool) {
	p, part := &f.found[i], f.req.Parts[i]
	part.Offset = p.next
	var r FetchResult
	defer r.Release()
	most := min(int64(f.req.MaxBytes), int64(part.MaxBytes))
	f.b.readPart(&r, &part, f.req.Rack, new(Confirmed), max(most-p.bytes, 0), p.bytes == 0)
	if n := len(r.Chunks); n > 0 {
		p.next = r.Chunks[n-1].End
	}
	p.bytes += r.Bytes()
	f.bytes += r.Bytes()
	return r.refused()
}

// stop ends what would wake the fetch.
func (f *Fetch) stop() {
	f.mu.Lock()
	watches, timer := f.watches, f.timer
	f.watches, f.timer = nil, nil
	f.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	for _, w := range watches {
		w.Stop()
	}
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
	var confirmed Confirmed
	for i := range f.req.Parts {
		part := &f.req.Parts[i]
		f.b.readPart(&results[i], part, f.req.Rack, &confirmed, min(left, int64(part.MaxBytes)), bytes == 0)
		n := results[i].Bytes()
		bytes += n
		left = max(left-n, 0)
		refused = refused || results[i].refused()
	}
	whole = true
	return results, bytes, refused
}

func releaseAll(results []FetchResult) {
	for i := range results {
		results[i].Release()
	}
}

// refused reports that there is no use to wait for records.
func (r *FetchResult) refused() bool {
	if r.Err != nil {
		return !r.ahead
	}
	return r.Elsewhere
}

// readPart reads one part into r, extent by extent, for who stands in rack.
func (b *Broker) readPart(r *FetchResult, part *FetchPart, rack string, confirmed *Confirmed, maxBytes int64, atLeastOne bool) {
	*r = FetchResult{HighWatermark: -1, LogStart: -1}
	b.opt.reads(part)
	p := b.dir.find(part.Topic, part.Index)
	if p == nil {
		r.Err = b.absent(part.Topic, part.Index)
		return
	}
	r.turn = p.shard.turns.Load()
	r.Following = b.mayFollow(p, rack)
	b.readPlaced(r, p, part, rack, confirmed, maxBytes, atLeastOne)
	if r.Following && r.Err != nil {
		b.sendBack(r, p)
	}
}

// readPlaced is readPart for a partition that is here.
func (b *Broker) readPlaced(r *FetchResult, p *placed, part *FetchPart, rack string, confirmed *Confirmed, maxBytes int64, atLeastOne bool) {
	if p.quarantined() {
		r.Err = b.quarantineError(p, p.quarantine)
		return
	}
	check := p.checkEpoch
	if r.Following {
		check = p.checkFollowed
	}
	if r.Err = check(part.Epoch); r.Err != nil {
		return
	}
	start, end, err := p.shard.store.Bounds(uint32(p.number))
	if err != nil {
		r.Err = CodeOf(err)
		return
	}
	r.HighWatermark, r.LogStart, r.traffic = end, start, p.traffic
	if !r.Following && start <= part.Offset && part.Offset <= end {
		if r.ReadFrom, r.Elsewhere = b.nearer(p, rack); r.Elsewhere {
			return
		}
	}
	for offset, left := part.Offset, maxBytes; ; {
		c, err := p.shard.store.Read(uint32(p.number), offset, int(left), atLeastOne)
		if err != nil {
			if len(r.Chunks) == 0 { // else the next fetch meets it
				r.Err = b.readError(p, part, confirmed, err)
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
func (b *Broker) readError(p *placed, part *FetchPart, confirmed *Confirmed, err error) *errcode.Error {
	e := CodeOf(err)
	switch e.Code {
	case errcode.UnknownServer:
		e.Code = errcode.KafkaStorageError
	case errcode.OffsetOutOfRange:
		start, _, boundsErr := p.shard.store.Bounds(uint32(p.number))
		if boundsErr != nil || part.Offset < start {
			return e
		}
		if !confirmed.current(b, p) {
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
	if epoch < 0 {
		return errcode.Errorf(errcode.NotLeaderOrFollower, "this node does not lead partition %d", p.key.index)
	}
	return sameEpoch(known, epoch)
}

// sameEpoch refuses a client that knows another leader epoch than the partition's.
func sameEpoch(known, epoch int32) *errcode.Error {
	switch {
	case known >= 0 && known < epoch:
		return errcode.Errorf(errcode.FencedLeaderEpoch, "leader epoch %d is over, the partition is in %d", known, epoch)
	case known > epoch:
		return errcode.Errorf(errcode.UnknownLeaderEpoch, "leader epoch %d is not known here yet, the partition is in %d", known, epoch)
	}
	return nil
}
