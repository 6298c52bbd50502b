package journal

import (
	"errors"
	"fmt"
	"time"
)

const (
	inlineBytes   = 4 << 10   // smaller data is copied into a run, not given an iovec of its own
	keepRunBytes  = 4 << 20   // a larger buffer is not kept for the next commit
	copyStepBytes = 256 << 10 // copied forward along with one commit
)

// request is one call that waits for the writer.
type request struct {
	s     *Shard
	kind  kind
	recs  []Record // of an Append
	crcs  []uint32 // of their payloads
	from  uint64   // of a TruncateFrom
	bytes int64
	done  chan error // 1-buffered

	answered bool // the writer's own
}

// placed is a record of the run, and what follows from it once it is durable.
type placed struct {
	s     *Shard
	kind  kind
	copy  bool // of a record that the index holds at another place
	index uint64
	entry entry
	req   *request // completed with this record; nil before its last one
}

// run is what is written next: consecutive records for the file being written.
// It belongs to the writer.
type run struct {
	file   *file
	budget int64 // bytes that may still be placed; see Journal.budgetLocked

	iov   [][]byte
	buf   []byte // headers, small payloads, padding; its parts before open are in iov
	open  int
	bytes int64
	lsn   uint64 // of the next record
	items []placed

	copies []copyRef // what is left to copy forward of the oldest file
	copied uint64    // that file's sequence
}

// start sets the writer to the end of the recovered journal.
func (w *run) start(j *Journal) {
	w.file = j.files[j.at]
	w.lsn = j.nextLSN
	w.budget = j.budgetLocked()
}

// add encodes one record behind the run.
func (w *run) add(h *recordHeader, ext, data []byte) {
	h.lsn = w.lsn
	w.lsn++
	if h.order == 0 {
		h.order = h.lsn
	}
	h.payloadBytes, h.extBytes = uint32(len(ext)+len(data)), uint32(len(ext))
	w.buf = h.encode(w.buf, w.file.seed)
	w.buf = append(w.buf, ext...)
	if len(data) < inlineBytes {
		w.buf = append(w.buf, data...)
	} else {
		w.closePart()
		w.iov = append(w.iov, data)
	}
	size := h.size()
	w.buf = append(w.buf, zeroPad[:size-recordHeaderBytes-int64(h.payloadBytes)]...)
	w.bytes += size
	w.budget -= size
}

// closePart moves the open part of buf to iov. A part keeps its bytes if buf is
// later moved to a larger array.
func (w *run) closePart() {
	if w.open < len(w.buf) {
		w.iov = append(w.iov, w.buf[w.open:])
		w.open = len(w.buf)
	}
}

// offset is where the next record of the run will lie.
func (w *run) offset() int64 { return w.file.end + w.bytes }

func (w *run) reset() {
	clear(w.iov)
	clear(w.items)
	w.iov, w.items, w.bytes, w.open = w.iov[:0], w.items[:0], 0, 0
	if w.buf = w.buf[:0]; cap(w.buf) > keepRunBytes {
		w.buf = nil
	}
}

// runWriter commits what is queued until Close.
func (j *Journal) runWriter() {
	defer close(j.writer)
	for {
		reqs, ok := j.take()
		if !ok {
			break
		}
		j.commit(reqs)
	}
	j.seal()
}

// seal leaves a journal that is proven synced to its end.
func (j *Journal) seal() {
	j.mu.Lock()
	failed := j.failed != nil
	j.mu.Unlock()
	if failed {
		return
	}
	if j.sealed || j.writeMark() == nil {
		_ = j.syncMark() // Close returns what is latched
	}
}

// syncMark makes durable a mark that nothing has followed.
func (j *Journal) syncMark() error {
	w := &j.w
	if j.synced == w.lsn-1 {
		return nil
	}
	if err := w.file.f.SyncData(); err != nil {
		return j.fail("sync", w.file.path, err)
	}
	j.mu.Lock()
	j.synced = w.lsn - 1
	j.mu.Unlock()
	return nil
}

// take waits for requests and takes all of them; false means closed and empty.
func (j *Journal) take() ([]*request, bool) {
	for {
		j.mu.Lock()
		reqs, closed := j.queue, j.closed
		j.queue = nil
		if len(reqs) > 0 {
			j.stats.CommitStarted = j.opt.Now()
		}
		j.mu.Unlock()
		switch {
		case len(reqs) > 0:
			return reqs, true
		case closed:
			return nil, false
		}
		<-j.wake
	}
}

// commit makes reqs durable, in order, and answers them.
func (j *Journal) commit(reqs []*request) {
	start := j.stats.CommitStarted // written by this goroutine only
	before := j.stats.WrittenBytes
	err := j.commitAll(reqs)

	j.mu.Lock()
	j.stats.Commits++
	j.stats.LastCommit = j.opt.Now().Sub(start)
	j.stats.LastCommitBytes = j.stats.WrittenBytes - before
	j.stats.CommitStarted = time.Time{}
	j.sincePressure += j.stats.LastCommitBytes
	if eighth := int64(len(j.files)) * j.opt.FileBytes / 8; j.sincePressure >= eighth {
		j.sincePressure = 0
		signal(j.pressure)
	}
	idle := len(j.queue) == 0
	if err != nil {
		j.abortLocked(reqs, err)
		j.abortLocked(j.queue, err)
		j.queue = nil
	}
	j.mu.Unlock()

	if err == nil && idle {
		_ = j.writeMark() // its failure is latched, and these requests have their answer
	}
}

// abortLocked answers the requests that are not answered yet.
func (j *Journal) abortLocked(reqs []*request, err error) {
	for _, req := range reqs {
		if !req.answered {
			req.s.busy, req.answered = false, true
			req.done <- err
		}
	}
}

func (j *Journal) commitAll(reqs []*request) error {
	j.mu.Lock()
	err := j.failed
	j.w.budget = j.budgetLocked()
	j.mu.Unlock()
	if err != nil {
		return err
	}
	if err := j.copyAhead(); err != nil {
		return err
	}
	for _, req := range reqs {
		if err := j.place(req); err != nil {
			return err
		}
	}
	return j.flush()
}

// place adds a request's records to the run.
func (j *Journal) place(req *request) error {
	if req.kind != kindEntry {
		h := recordHeader{kind: req.kind, index: req.from, payloadCRC: payloadCRC(nil, nil)}
		return j.placeRecord(&h, nil, nil, placed{s: req.s, kind: req.kind, index: req.from, req: req})
	}
	for i := range req.recs {
		r := &req.recs[i]
		h := recordHeader{
			kind:       kindEntry,
			payloadCRC: req.crcs[i],
			index:      r.Index,
			term:       r.Term,
			appendedAt: r.AppendedAt,
			raftType:   r.Type,
		}
		p := placed{s: req.s, kind: kindEntry, index: r.Index}
		if i == len(req.recs)-1 {
			p.req = req
		}
		if err := j.placeRecord(&h, r.Extensions, r.Data, p); err != nil {
			return err
		}
	}
	return nil
}

func (j *Journal) placeRecord(h *recordHeader, ext, data []byte, p placed) error {
	if size := RecordBytes(len(data), len(ext)); size > j.w.budget {
		if err := j.makeRoom(size); err != nil {
			return err
		}
	}
	j.addRecord(h, ext, data, p)
	return nil
}

// addRecord adds a record for which the budget has room.
func (j *Journal) addRecord(h *recordHeader, ext, data []byte, p placed) {
	w := &j.w
	offset := w.offset()
	h.shard, h.incarnation, h.synced = p.s.key.id, p.s.key.incarnation, j.synced
	w.add(h, ext, data)
	p.entry = entry{
		order:    h.order,
		term:     h.term,
		slot:     w.file.slot,
		units:    uint32(offset / alignBytes),
		bytes:    uint32(h.size()),
		raftType: h.raftType,
	}
	w.items = append(w.items, p)
}

// flush writes and syncs the run, and then lets the world see it.
func (j *Journal) flush() error {
	w := &j.w
	if w.bytes == 0 {
		return nil
	}
	w.closePart()
	f := w.file
	if _, err := f.f.WriteVecAt(w.iov, f.end); err != nil {
		return j.fail("write", f.path, err)
	}
	if err := f.f.SyncData(); err != nil {
		return j.fail("sync", f.path, err)
	}
	j.sealed = false

	j.mu.Lock()
	f.end += w.bytes
	j.synced, j.nextLSN = w.lsn-1, w.lsn
	j.stats.Syncs++
	j.stats.WrittenBytes += w.bytes
	copied := int64(0)
	for i := range w.items {
		if p := &w.items[i]; p.copy {
			copied += int64(p.entry.bytes)
			p.s.moveLocked(p.index, p.entry)
		} else {
			j.stats.Records++
			j.applyLocked(p)
		}
	}
	j.stats.CopiedBytes += copied
	if j.planLocked() != planNothing {
		signal(j.prepare)
	}
	j.grantLocked()
	w.budget = j.budgetLocked()
	j.mu.Unlock()

	for i := range w.items {
		if req := w.items[i].req; req != nil {
			req.answered = true
			req.done <- nil
		}
	}
	w.reset()
	if copied > 0 {
		j.event(Event{Kind: EventCopiedForward, File: f.path, Sequence: f.sequence, Bytes: copied})
	}
	return nil
}

// applyLocked changes the index as a durable record says.
func (j *Journal) applyLocked(p *placed) {
	switch p.kind {
	case kindEntry:
		j.space.queued -= int64(p.entry.bytes)
		if !p.s.dead {
			p.s.insertLocked(p.index, p.entry)
		}
	case kindTruncate:
		p.s.truncateLocked(p.index)
	case kindDrop:
		if !p.s.dead {
			j.killLocked(p.s)
		}
	}
	if p.req != nil {
		p.s.busy = false
	}
}

// budgetLocked is how much may be placed behind file.end before room has to be
// made. While no file is prepared, what the oldest one still needs is kept
// free, so that copying it forward always fits and the ring cannot get stuck,
// even if it then turns out that it cannot grow. It only becomes larger while
// the writer does nothing, so an old answer is safe.
func (j *Journal) budgetLocked() int64 {
	f := j.files[j.at]
	budget := headerBytes + j.usableFileBytes() - f.end
	if j.at == len(j.files)-1 {
		budget -= j.files[0].live
	}
	return budget
}

// makeRoom brings the budget to at least size, by moving on to the next file.
// It waits for the preparer at most, which waits for the disk only.
func (j *Journal) makeRoom(size int64) error {
	if err := j.flush(); err != nil {
		return err
	}
	for switches := 0; ; {
		j.mu.Lock()
		err := j.failed
		j.w.budget = j.budgetLocked()
		room := j.w.budget >= size
		next := j.at < len(j.files)-1
		wait := j.planLocked() != planNothing
		fits := j.copyFitsLocked()
		files := len(j.files)
		j.mu.Unlock()
		switch {
		case err != nil:
			return err
		case room:
			return nil
		case next:
			if switches++; switches > files+1 {
				return j.fail("append to", j.w.file.path, j.errFull(size))
			}
			if err := j.switchFile(); err != nil {
				return err
			}
		case wait:
			signal(j.prepare)
			<-j.prepared
		case !fits:
			return j.fail("append to", j.w.file.path, j.errFull(size))
		default:
			if err := j.copyForward(copyStepBytes); err != nil {
				return err
			}
			if err := j.flush(); err != nil {
				return err
			}
		}
	}
}

// errFull says how the ring came to have no room for an Append, which
// reservations exclude.
func (j *Journal) errFull(size int64) error {
	u := j.Usage()
	return fmt.Errorf("no room for %d bytes in %d files: live %d, reserved %d, limit %d: %w",
		size, u.Files, u.LiveBytes, u.ReservedBytes, u.LimitBytes, errOverrun)
}

var errOverrun = errors.New("more is needed than was reserved")

// switchFile moves on to the next prepared file. All before it is synced then:
// a record in a file is proof of the whole file before.
func (j *Journal) switchFile() error {
	if err := j.syncMark(); err != nil {
		return err
	}
	w := &j.w
	j.mu.Lock()
	j.at++
	w.file = j.files[j.at]
	w.budget = j.budgetLocked()
	j.diskFull = false // one try for each file
	if j.planLocked() != planNothing {
		signal(j.prepare)
	}
	j.mu.Unlock()
	j.event(Event{Kind: EventSwitch, File: w.file.path, Sequence: w.file.sequence})
	return nil
}

// writeMark proves the last commit synced, and leaves the mark itself to the
// next sync. Every file has room for one mark behind its last record; a mark
// that would use up more than that is left out.
func (j *Journal) writeMark() error {
	w := &j.w
	f := w.file
	j.mu.Lock()
	room := j.budgetLocked() >= 0
	j.mu.Unlock()
	if !room {
		return nil
	}
	h := recordHeader{kind: kindMark, synced: j.synced, payloadCRC: payloadCRC(nil, nil)}
	w.add(&h, nil, nil)
	w.closePart()
	if _, err := f.f.WriteVecAt(w.iov, f.end); err != nil {
		return j.fail("write", f.path, err)
	}
	j.sealed = true
	j.mu.Lock()
	f.end += w.bytes
	j.nextLSN = w.lsn
	j.mu.Unlock()
	w.reset()
	return nil
}
