package client

import (
	"slices"
	"time"
)

// collectLocked takes what a lane has finished.
func (p *Producer) collectLocked(f *feed) {
	if len(f.lane.done) == 0 {
		return
	}
	for _, s := range f.lane.done {
		p.finished = append(p.finished, s.what)
	}
	f.lane.done = slices.Delete(f.lane.done, 0, len(f.lane.done))
	poke(p.finishedWake)
}

// beginFlushLocked makes f wait for all that was accepted, and reports whether
// there is anything. endFlush must follow.
func (p *Producer) beginFlushLocked(f *flush) bool {
	p.flushing++
	attach := func(d *delivery) {
		d.flushes = append(d.flushes, f)
		f.left++
	}
	for _, feed := range p.active {
		if feed.open != nil {
			attach(feed.open)
		} else if n := len(feed.lane.queue); n > 0 {
			attach(feed.lane.queue[n-1].what)
		}
	}
	if n := len(p.finished); n > 0 {
		attach(p.finished[n-1])
	} else if p.running != nil {
		attach(p.running)
	}
	return f.left > 0
}

func (p *Producer) endFlush() {
	p.mu.Lock()
	p.flushing--
	p.mu.Unlock()
}

// callbackLoop calls the callbacks of finished batches until the sender has
// ended and none are left.
func (p *Producer) callbackLoop() {
	for ended := false; ; {
		p.mu.Lock()
		var d *delivery
		if len(p.finished) > 0 {
			d = p.finished[0]
			p.finished = slices.Delete(p.finished, 0, 1)
		}
		p.running = d
		p.mu.Unlock()
		if d != nil {
			if err := d.sending.err; err != nil {
				p.tellBatch(d, BatchFailed, err)
			} else {
				p.tellBatch(d, BatchAcked, nil)
			}
			d.report()
			p.reported(d)
			continue
		}
		if ended {
			return
		}
		select {
		case <-p.finishedWake:
		case <-p.senderEnded:
			ended = true
		}
	}
}

// reported gives d's memory back, and releases those who wait for it.
func (p *Producer) reported(d *delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = nil // from here on, too late for a flush to wait for d
	p.buffered -= d.bytes
	close(p.space)
	p.space = make(chan struct{})
	for _, f := range d.flushes {
		if f.left--; f.left == 0 {
			close(f.done)
		}
	}
}

// report calls the callbacks of a finished batch.
func (d *delivery) report() {
	l := &d.feed.lane
	err := d.sending.err
	if err != nil {
		err = &PartitionError{Topic: l.topic, Partition: l.partition, Offset: -1, Err: err}
	}
	for i, rec := range d.records {
		if rec.done == nil {
			continue
		}
		res := RecordResult{Topic: l.topic, Partition: l.partition, Offset: -1, Err: err}
		if err == nil {
			if d.baseOffset >= 0 {
				res.Offset = d.baseOffset + int64(i)
			}
			ms := rec.timestampMS
			if d.appendTimeMS >= 0 {
				ms = d.appendTimeMS
			}
			res.Timestamp = time.UnixMilli(ms)
		}
		rec.done(res)
	}
}
