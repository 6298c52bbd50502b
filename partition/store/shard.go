package store

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"sync"

	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/segment"
)

// Config is what can be set for one partition.
type Config struct {
	SegmentBytes int64 // a segment is not made longer, except by one batch; 0: Options.SegmentBytes
}

// Shard holds the partitions of one shard replica, by key: the partition's
// number in the shard, never reused.
//
// The apply side is for one goroutine. Read, Bounds, Watch and DiskBytes are
// safe for concurrent use; see FlushTo and Checkpointed for the rest.
type Shard struct {
	st *Store
	id uint32

	mu     sync.Mutex
	parts  map[uint32]*part
	dying  map[uint32]*part    // deleted, files not yet unlinked
	harmed map[uint32]struct{} // keys of parts with damage, and perhaps of others

	// captures counts Capture calls; open is the last one if it is neither
	// durable nor abandoned, else 0. See Capture.
	captures, open Token
	openAge        age // of what was applied after the open capture
	causes         []cause
	adopted        []*part // see adopt
	prefetches     bool    // BeginPrefetch was called

	onFlush  func(topicID [16]byte, index int32) // see OnFlush; nil: nobody asks
	onDamage func(Damage)                        // see OnDamage; nil: nobody asks

	moved []*part // watched, appended to since AppliedBatch
	fire  []*Watch
}

// part is one partition.
//
// Invariant: segments end at or below flushed, the tail starts at or above it;
// a gap between the two lies below logStart. Everything in [flushed, end) at
// or above logStart is in the tail.
type part struct {
	sh      *Shard
	key     uint32
	topicID [16]byte
	index   int32

	// Guarded by sh.mu.
	cfg                    Config
	segmentMS              int64 // see SetSegmentMS
	logStart, flushed, end int64
	startedAt              Token              // sh.captures when logStart was last set
	segs                   []*segment.Segment // ascending
	unsynced               []*segment.Segment // written since the last sync
	tail                   []segment.Batch
	pins                   []*Pin // of tail
	tailBytes              int64
	popped                 int // batches that left tail's and pins' arrays at the front
	dirMade, dirUnsynced   bool
	stale                  bool     // the directory may hold files of an earlier life
	dropped                int64    // files below were unlinked early, see FreeEarly; 0: none
	damage                 []Damage // what is known, ascending; see damage.go
	watches                []*Watch
	moved                  bool

	// Guarded by st.mu; while busy, age is the busy goroutine's.
	busy       bool // one goroutine writes or unlinks its files
	aged       bool // in st.aging
	next, prev *part
	age        age
}

// Create adds an empty partition. A directory of the same name that is there
// already holds what was flushed before a crash, of a partition that the last
// durable checkpoint did not know: it is emptied before anything is written.
// It panics if the key is in use.
func (sh *Shard) Create(key uint32, topicID [16]byte, index int32, cfg Config) {
	stale := sh.st.claim(dirName(topicID, index))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.parts[key] != nil || sh.dying[key] != nil {
		panic(fmt.Sprintf("store: partition %d created twice", key))
	}
	sh.parts[key] = &part{sh: sh, key: key, topicID: topicID, index: index, cfg: cfg, stale: stale}
}

// Delete removes a partition: readers get ErrUnknownPartition from now on. Its
// files are unlinked by the Checkpointed of a later Capture. An unknown key is
// ignored.
func (sh *Shard) Delete(key uint32) { sh.st.release(sh.delete(key)) }

func (sh *Shard) delete(key uint32) (freed freed) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parts[key]
	if p == nil {
		return freed
	}
	delete(sh.parts, key)
	sh.dying[key] = p
	sh.causes = append(sh.causes, cause{p: p, at: sh.captures, deleted: true})
	if sh.open == 0 {
		freed = p.popLocked(len(p.tail))
	}
	sh.noteMovedLocked(p)
	sh.st.mu.Lock()
	defer sh.st.mu.Unlock()
	sh.st.aging.remove(p)
	return freed
}

// Configure changes a partition's configuration. An unknown key is ignored.
func (sh *Shard) Configure(key uint32, cfg Config) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p := sh.parts[key]; p != nil {
		p.cfg = cfg
	}
}

// Append adds a committed batch at the partition's end. body is the whole batch,
// aliases the Raft entry, and is never changed (R1); readers see baseOffset and
// leaderEpoch in place of what it begins with. pin counts the entry's buffer;
// with a nil pin the batch's own bytes are counted.
//
// It panics if the partition is unknown or baseOffset is not its end, since an
// offset must not be given twice.
func (sh *Shard) Append(key uint32, baseOffset, lastOffset int64, leaderEpoch int32, body []byte, pin *Pin) {
	used, n := int64(batchOverheadBytes), int64(len(body))
	if n < batch.HeaderBytes || int64(int32(binary.BigEndian.Uint32(body[23:]))) != lastOffset-baseOffset {
		panic(fmt.Sprintf("store: batch of %d bytes for offsets [%d, %d]", n, baseOffset, lastOffset))
	}
	if pin == nil {
		used += n
	}
	sh.append(key, baseOffset, lastOffset, leaderEpoch, body, pin)
	sh.st.use(used)
}

// append is Append under the lock, which a panic does not keep: the caller may
// go on with the other partitions (R5).
func (sh *Shard) append(key uint32, baseOffset, lastOffset int64, leaderEpoch int32, body []byte, pin *Pin) {
	n := int64(len(body))
	stamp := sh.st.appended.Add(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parts[key]
	if p == nil || p.end != baseOffset {
		panic(fmt.Sprintf("store: append to partition %d at offset %d", key, baseOffset))
	}
	if pin != nil {
		pin.refs.Add(1)
	}
	first := len(p.tail) == 0
	p.tail = append(p.tail, segment.Batch{Base: baseOffset, Body: body, Last: int32(lastOffset - baseOffset), Epoch: leaderEpoch})
	p.pins = append(p.pins, pin)
	p.end = lastOffset + 1
	p.tailBytes += n
	limit := sh.st.opt.TailFlushBytes
	if becameFull := p.tailBytes >= limit && p.tailBytes-n < limit; first || becameFull {
		sh.st.noteTail(p, stamp, becameFull)
	}
	if len(p.watches) > 0 {
		sh.noteMovedLocked(p)
	}
}

// SetLogStart moves the first readable offset up. Segments wholly below it are
// unlinked by the Checkpointed of a later Capture. A lower offset than the
// present one, and an unknown key, are ignored.
func (sh *Shard) SetLogStart(key uint32, offset int64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parts[key]
	if p == nil || offset <= p.logStart {
		return
	}
	if offset > p.end {
		panic(fmt.Sprintf("store: log start %d of partition %d above its end %d", offset, key, p.end))
	}
	p.logStart, p.startedAt = offset, sh.captures
	sh.causes = append(sh.causes, cause{p: p, at: sh.captures, below: offset})
}

// Bounds returns a partition's first and next offset, or ErrUnknownPartition.
func (sh *Shard) Bounds(key uint32) (logStart, end int64, err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parts[key]
	if p == nil {
		return 0, 0, ErrUnknownPartition
	}
	return p.logStart, p.end, nil
}

// DiskBytes returns the length of a partition's data files, those included that
// wait to be unlinked, and of those alone. Both are 0 for an unknown key.
func (sh *Shard) DiskBytes(key uint32) (all, unlink int64) {
	sh.mu.Lock()
	var segs []*segment.Segment
	below := 0
	if p := sh.parts[key]; p != nil {
		segs, below = slices.Clone(p.segs), p.belowLocked(p.logStart)
	}
	sh.mu.Unlock()
	for i, s := range segs {
		n := s.Bytes()
		all += n
		if i < below {
			unlink += n
		}
	}
	return all, unlink
}

// LogBytes returns how many bytes a partition's batches have that are not below
// its log start, or in a segment that begins below it: in files and in the tail, and
// once if they are in both, for a moment. It is 0 for an unknown key.
func (sh *Shard) LogBytes(key uint32) (all int64) {
	sh.mu.Lock()
	p := sh.parts[key]
	if p == nil {
		sh.mu.Unlock()
		return 0
	}
	segs := slices.Clone(p.segs[p.belowLocked(p.logStart):])
	all = p.tailBytes
	if n := len(segs); n > 0 {
		end, size := segs[n-1].Extent()
		for i := 0; i < len(p.tail) && p.tail[i].Base < end; i++ { // written, and not taken off yet
			all -= int64(len(p.tail[i].Body))
		}
		all += size - segment.HeaderBytes
		segs = segs[:n-1]
	}
	sh.mu.Unlock()
	for _, s := range segs {
		all += s.Bytes() - segment.HeaderBytes
	}
	return all
}

// Watch is a registration made by Shard.Watch.
type Watch struct {
	p  *part
	fn func(key uint32)
	at int // in p.watches, guarded as they are; -1: stopped
}

// Watch registers fn to be called by AppliedBatch whenever the partition's end
// has moved or it was deleted, and returns the end as of the registration: what
// comes after it is told. fn runs on the apply goroutine, so it must be short
// and wait for nothing. It may be called once more after Stop, by an
// AppliedBatch that was under way. WakeAll calls it too, on its caller's goroutine.
func (sh *Shard) Watch(key uint32, fn func(key uint32)) (w *Watch, end int64, err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parts[key]
	if p == nil {
		return nil, 0, ErrUnknownPartition
	}
	w = &Watch{p: p, fn: fn, at: len(p.watches)}
	p.watches = append(p.watches, w)
	sh.st.stats.watches.Add(1)
	return w, p.end, nil
}

// Stop ends the registration, in constant time: a partition may have a watcher
// for each of very many consumers. Safe to call more than once.
func (w *Watch) Stop() {
	w.p.sh.mu.Lock()
	defer w.p.sh.mu.Unlock()
	if w.at < 0 {
		return
	}
	w.p.sh.st.stats.watches.Add(-1)
	ws := w.p.watches
	last := len(ws) - 1
	ws[w.at] = ws[last] // it takes the free place; their order means nothing
	ws[w.at].at = w.at
	ws[last], w.at = nil, -1
	if w.p.watches = ws[:last]; last == 0 {
		w.p.watches = nil
	}
}

// AppliedBatch tells watchers of every partition that was appended to or
// deleted since the last call, once each.
func (sh *Shard) AppliedBatch() {
	sh.mu.Lock()
	for i, p := range sh.moved {
		p.moved = false
		sh.fire = append(sh.fire, p.watches...)
		sh.moved[i] = nil
	}
	sh.moved = sh.moved[:0]
	sh.mu.Unlock()
	for i, w := range sh.fire {
		w.fn(w.p.key)
		sh.fire[i] = nil
	}
	sh.fire = sh.fire[:0]
}

// WakeAll calls what every watcher of the shard has registered, whether its
// partition has moved or not: something else has changed that they have to look at.
// It may be called by any goroutine, beside AppliedBatch.
func (sh *Shard) WakeAll() {
	if sh.st.stats.watches.Load() == 0 {
		return
	}
	var all []*Watch
	sh.mu.Lock()
	for _, p := range sh.parts {
		all = append(all, p.watches...)
	}
	sh.mu.Unlock()
	for _, w := range all {
		w.fn(w.p.key)
	}
}

func (sh *Shard) noteMovedLocked(p *part) {
	if len(p.watches) > 0 && !p.moved {
		p.moved = true
		sh.moved = append(sh.moved, p)
	}
}

// lookup returns a partition, also one that is deleted but whose files an
// unfinished checkpoint may need.
func (sh *Shard) lookup(key uint32) *part {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p := sh.parts[key]; p != nil {
		return p
	}
	return sh.dying[key]
}

func (p *part) dir() string { return path.Join(p.sh.st.dir, dirName(p.topicID, p.index)) }

func (p *part) segmentBytes() int64 { return p.sh.segmentBytes(p.cfg) }

func (sh *Shard) segmentBytes(cfg Config) int64 {
	n := cfg.SegmentBytes
	if n <= 0 {
		n = sh.st.opt.SegmentBytes
	}
	return min(n, segment.MaxBytes/2)
}

// tailStartLocked is the offset from which on reads are served from memory.
func (p *part) tailStartLocked() int64 {
	if len(p.tail) > 0 {
		return p.tail[0].Base
	}
	return p.end
}

// freed is what batches that left a tail give back.
type freed struct {
	pins  []*Pin
	bytes int64
}

func (st *Store) release(f freed) {
	for _, pin := range f.pins {
		if pin != nil {
			pin.Release()
		}
	}
	if f.bytes > 0 {
		st.use(-f.bytes)
	}
}

// popLocked takes the first n batches off the tail. The caller releases what
// is freed without the lock. Readers may hold slices of the tail's array, so it
// is never written to; a new one replaces it once half of it is gone.
func (p *part) popLocked(n int) (f freed) {
	f.pins = p.pins[:n]
	for i, pin := range f.pins {
		size := int64(len(p.tail[i].Body))
		p.tailBytes -= size
		f.bytes += batchOverheadBytes
		if pin == nil {
			f.bytes += size
		}
	}
	p.tail, p.pins = p.tail[n:], p.pins[n:]
	p.popped += n
	switch {
	case len(p.tail) == 0:
		p.tail, p.pins, p.popped = nil, nil, 0
	case p.popped >= len(p.tail):
		p.tail, p.pins, p.popped = slices.Clone(p.tail), slices.Clone(p.pins), 0
	}
	p.flushed = max(p.flushed, p.tailStartLocked())
	return f
}
