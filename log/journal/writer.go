package journal

import "time"

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

// runWriter commits what is queued while others write, and proves what is
// written synced, until Close.
func (j *Journal) runWriter() {
	defer close(j.writer)
	for {
		j.mu.Lock()
		reqs, mark, ended := j.takeLocked(), false, false
		if reqs == nil && !j.writing {
			mark, ended = j.markDue, j.closed
			j.writing = mark || ended
		}
		j.mu.Unlock()
		switch {
		case reqs != nil:
			j.commit(reqs)
		case mark:
			_ = j.writeMark() // its failure is latched, and the requests before it have their answer
			j.mu.Lock()
			j.markDue, j.writing = false, false
			j.mu.Unlock()
		case ended:
			j.seal()
			return
		default:
			<-j.wake
		}
	}
}

// takeLocked makes the caller the writer if there is none and something is
// queued, and takes all of that. It returns nil otherwise.
func (j *Journal) takeLocked() []*request {
	if j.writing || len(j.queue) == 0 {
		return nil
	}
	reqs := j.queue
	j.queue, j.w.spare = j.w.spare, reqs[:0]
	j.writing = true
	return reqs
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

// commit makes reqs durable, in order, and answers them. The caller is the
// writer, and is no more when it returns.
func (j *Journal) commit(reqs []*request) {
	start := j.opt.Now()
	j.mu.Lock()
	j.stats.CommitStarted = start
	before := j.stats.WrittenBytes
	j.mu.Unlock()

	err := j.commitAll(reqs)

	end := j.opt.Now()
	j.mu.Lock()
	j.stats.Commits++
	j.stats.LastCommit = end.Sub(start)
	j.stats.LastCommitBytes = j.stats.WrittenBytes - before
	j.stats.CommitStarted = time.Time{}
	j.commitTimes.ObserveDuration(j.stats.LastCommit)
	j.commitSizes.Observe(j.stats.LastCommitBytes)
	j.sincePressure += j.stats.LastCommitBytes
	if eighth := int64(len(j.files)) * j.opt.FileBytes / 8; j.sincePressure >= eighth {
		j.sincePressure = 0
		signal(j.pressure)
	}
	if err != nil {
		j.abortLocked(reqs, err)
		j.abortLocked(j.queue, err)
		j.queue = nil
	}
	clear(reqs)
	j.markDue = err == nil && len(j.queue) == 0
	j.writing = false
	j.mu.Unlock()
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
	start := j.opt.Now()
	if err := f.f.SyncData(); err != nil {
		return j.fail("sync", f.path, err)
	}
	j.syncTimes.ObserveDuration(j.opt.Now().Sub(start))
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
