package client

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// maxNodeFetches is how many fetches a node may hold at once. More than one, so
// that a partition which was polled empty need not wait for the others; few, so
// that partitions are asked for together.
const maxNodeFetches = 2

// question is a cursor in a request, as it was when the request was made.
type question struct {
	*cursor
	t      *topic
	epoch  int
	offset int64
	at     At        // for a lookup
	from   time.Time // likewise, if set
}

// fetchLoop asks for records, and for offsets to start from, and tells the
// streams what to deliver, until the Consumer is closed.
func (co *Consumer) fetchLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var seen *image
	due := co.c.cfg.Now() // when a cursor has to be looked at, if nothing happens
	for {
		img, changed := co.c.meta.watch()
		now := co.c.cfg.Now()
		co.mu.Lock()
		scan := co.rescan || img != seen || !now.Before(due)
		co.rescan = false
		var work work
		if scan {
			due = co.scanLocked(now, img, &work)
		}
		work.streams = co.changesLocked()
		co.mu.Unlock()
		seen = img
		co.send(work)
		timer.Reset(due.Sub(now))
		select {
		case <-co.wake:
		case <-timer.C:
		case <-changed:
		case <-co.ctx.Done():
			return
		}
	}
}

// work is what one turn of the fetch loop sends.
type work struct {
	fetches, lookups map[int32][]question // by node
	streams          []changes
}

// scanLocked looks at every cursor, finds what can be sent now, and returns
// when something is due next.
func (co *Consumer) scanLocked(now time.Time, img *image, w *work) (next time.Time) {
	next = now.Add(maxTimeout)
	w.fetches, w.lookups = make(map[int32][]question), make(map[int32][]question)
	n := len(co.cursors)
	for i := range n {
		cur := co.cursors[(co.rotation+i)%n]
		if cur.busy || cur.stopped || cur.paused {
			continue
		}
		if now.Before(cur.retryAt) {
			if cur.retryAt.Before(next) {
				next = cur.retryAt
			}
			continue
		}
		q, node, ok := co.askLocked(cur, img)
		switch {
		case !ok || cur.st != nil && cur.st.node == node:
		case cur.fetch < 0:
			w.lookups[node] = append(w.lookups[node], q)
			cur.busy = true
		case co.streams(node):
			co.leaveLocked(cur) // another node leads it now
			co.joinLocked(q, node, now)
		case cur.held < co.cfg.MaxPartitionBytes && co.bytes < co.cfg.MaxPrefetchedBytes && co.byNode[node] < maxNodeFetches:
			w.fetches[node] = append(w.fetches[node], q)
			cur.busy = true
		}
	}
	co.rotation++
	for node := range w.fetches {
		co.byNode[node]++
	}
	return next
}

// send sends what a turn has found.
func (co *Consumer) send(w work) {
	for _, node := range slices.Sorted(maps.Keys(w.lookups)) {
		co.lookUp(node, w.lookups[node])
	}
	for _, node := range slices.Sorted(maps.Keys(w.fetches)) {
		co.fetch(node, w.fetches[node])
	}
	for _, c := range w.streams {
		co.tell(c)
	}
}

// askLocked returns what to ask about a cursor, and whom. It reports a topic
// that is missing.
func (co *Consumer) askLocked(cur *cursor, img *image) (q question, node int32, ok bool) {
	t := img.topics[cur.topic]
	switch {
	case t == nil, t.err != nil && !t.missing():
		poke(co.c.meta.refresh)
		return q, 0, false
	case t.err != nil:
		co.reportLocked(cur, t.err)
		return q, 0, false
	case int(cur.partition) >= len(t.leaders):
		co.reportLocked(cur, ErrNoPartition)
		return q, 0, false
	case cur.id != t.id && cur.id != TopicID{}:
		co.reportLocked(cur, ErrRecreated)
		return q, 0, false
	}
	cur.id = t.id
	node = t.leaders[cur.partition].node
	if _, known := img.nodes[node]; !known {
		poke(co.c.meta.refresh)
		return q, 0, false
	}
	q = question{cursor: cur, t: t, epoch: cur.epoch, offset: cur.fetch, at: Latest, from: cur.from}
	if cur.start == Beginning {
		q.at = Earliest
	}
	return q, node, true
}

// reportLocked stops a partition with an error for the next Poll.
func (co *Consumer) reportLocked(cur *cursor, err error) {
	co.leaveLocked(cur)
	cur.stopped = true
	co.ready = append(co.ready, Fetched{
		Topic: cur.topic, Partition: cur.partition, HighWatermark: -1, LogStartOffset: -1, epoch: cur.epoch, cur: cur,
		Err: &PartitionError{Topic: cur.topic, Partition: cur.partition, Offset: cur.fetch, Err: err},
	})
	poke(co.arrived)
}

// fetch asks a node for records.
func (co *Consumer) fetch(node int32, qs []question) {
	req := &pb.FetchRequest{
		MaxWaitMs: uint32(co.cfg.MaxWait.Milliseconds()),
		MinBytes:  uint32(co.cfg.MinBytes),
		MaxBytes:  uint32(co.cfg.MaxFetchBytes),
	}
	for _, q := range qs {
		req.Parts = append(req.Parts, &pb.FetchPart{
			TopicId: q.t.id[:], Partition: q.partition, Offset: q.offset,
			MaxBytes: uint32(co.cfg.MaxPartitionBytes), LeaderEpoch: q.t.leaders[q.partition].epoch,
		})
	}
	resp := new(pb.FetchResponse)
	co.submit(node, &call{kind: frame.KindFetch, req: req, resp: resp, wait: co.cfg.MaxWait, moved: moved(node, qs)}, func(a answer) {
		err := a.err
		if err == nil {
			err = checkFetch(resp, len(qs), len(a.payload))
		}
		co.mu.Lock()
		co.byNode[node]--
		rest := a.payload
		for i, q := range qs {
			if err != nil {
				co.failedLocked(q, err)
				continue
			}
			r := resp.Results[i]
			data := rest[:r.Length:r.Length]
			rest = rest[r.Length:]
			if partErr := fromServer(r.Error); partErr != nil {
				co.failedLocked(q, partErr)
			} else {
				co.fetchedLocked(q, r.HighWatermark, r.LogStartOffset, data)
			}
		}
		co.mu.Unlock()
		co.settle(node, qs, err, func(i int) *pb.Error { return resp.Results[i].Error })
	})
}

// moved returns what reports whether an image has another node for some of what
// node was asked.
func moved(node int32, qs []question) func(*image) bool {
	return func(img *image) bool {
		return slices.ContainsFunc(qs, func(q question) bool {
			return img.elsewhere(q.topic, q.t.id, q.partition, node, q.t.leaders[q.partition].epoch)
		})
	}
}

// checkFetch holds a response against its request and payload.
func checkFetch(resp *pb.FetchResponse, parts, payload int) error {
	if len(resp.Results) != parts {
		return fmt.Errorf("%w: %d results for %d parts", ErrProtocol, len(resp.Results), parts)
	}
	var sum int64
	for _, r := range resp.Results {
		sum += int64(r.Length)
	}
	if sum != int64(payload) {
		return fmt.Errorf("%w: parts of %d bytes in a payload of %d", ErrProtocol, sum, payload)
	}
	return nil
}

// lookUp asks a node where its partitions begin or end.
func (co *Consumer) lookUp(node int32, qs []question) {
	req := new(pb.ListOffsetsRequest)
	for _, q := range qs {
		ask := offsetQuestion{at: q.at.pb()}
		if !q.from.IsZero() {
			ask = atTime(q.from)
		}
		req.Parts = append(req.Parts, listOffsetsPart(q.t, q.partition, ask))
	}
	resp := new(pb.ListOffsetsResponse)
	co.submit(node, &call{kind: frame.KindListOffsets, req: req, resp: resp, moved: moved(node, qs)}, func(a answer) {
		err := a.err
		if err == nil && len(resp.Results) != len(qs) {
			err = fmt.Errorf("%w: %d results for %d parts", ErrProtocol, len(resp.Results), len(qs))
		}
		co.mu.Lock()
		for i, q := range qs {
			switch {
			case err != nil:
				co.failedLocked(q, err)
			case resp.Results[i].Error != nil:
				co.failedLocked(q, fromServer(resp.Results[i].Error))
			default:
				q.busy = false
				if q.epoch == q.cursor.epoch {
					q.found(resp.Results[i].Offset)
				}
			}
		}
		co.mu.Unlock()
		co.settle(node, qs, err, func(i int) *pb.Error { return resp.Results[i].Error })
	})
}

// found takes the offset that was looked up. There may be no record as late as
// was asked for: then those that come are.
func (cur *cursor) found(offset int64) {
	cur.failures = 0
	if offset < 0 && !cur.from.IsZero() {
		cur.start, cur.from = End, time.Time{}
		return
	}
	cur.fetch, cur.position = offset, offset
}

// submit sends a call to a node, done being what to do with its answer.
func (co *Consumer) submit(node int32, cl *call, done func(answer)) {
	cl.done = done
	if l := co.c.nodeLink(node); l != nil {
		l.submit(cl)
		return
	}
	done(answer{err: fmt.Errorf("%w: node %d is gone", ErrConnection, node)})
}

// misled tells metadata about what a node has answered of a partition. If that says that
// another one leads it by now, there is no reason to wait: leader epochs grow, so answers
// cannot send it in a circle.
func (co *Consumer) misled(q question, id TopicID, node int32, err error) {
	co.c.misled(q.topic, q.partition, err)
	if !co.c.meta.image.Load().elsewhere(q.topic, id, q.partition, node, -1) {
		return
	}
	co.mu.Lock()
	if q.epoch == q.cursor.epoch {
		q.retryAt = time.Time{}
	}
	co.mu.Unlock()
}

// settle tells metadata and the fetch loop about a node's answer. err is that of the
// whole request, and part that of each question.
func (co *Consumer) settle(node int32, qs []question, err error, part func(i int) *pb.Error) {
	for i, q := range qs {
		partErr := err
		if partErr == nil {
			partErr = fromServer(part(i))
		}
		if partErr != nil && movesAway(partErr) {
			co.misled(q, q.t.id, node, partErr)
		}
	}
	co.mu.Lock()
	co.rescanLocked()
	co.mu.Unlock()
}

// failedLocked takes an error instead of an answer: it tries again later, goes
// where OutOfRange says, or stops the partition.
func (co *Consumer) failedLocked(q question, err error) {
	q.busy = false
	if q.epoch != q.cursor.epoch {
		return
	}
	co.rescan = true
	code, _ := CodeOf(err)
	switch {
	case code == errcode.OffsetOutOfRange && co.cfg.OutOfRange != 0:
		start := co.cfg.OutOfRange
		co.c.cfg.Logger.Warn("offset out of range", "topic", q.topic, "partition", q.partition, "offset", q.offset)
		q.start, q.cursor.from, q.cursor.fetch, q.failures = start, time.Time{}, -1, 0
	case retriable(err):
		q.failures++
		q.retryAt = co.c.cfg.Now().Add(co.c.backoff(q.failures))
	case errors.Is(err, ErrClosed):
	default:
		co.reportLocked(q.cursor, err)
	}
}

// fetchedLocked takes a partition's batches: those before the first that is
// damaged are kept, and one that is damaged itself stops the partition.
func (co *Consumer) fetchedLocked(q question, highWatermark, logStart int64, data []byte) {
	q.busy = false
	cur := q.cursor
	if q.epoch != cur.epoch {
		return
	}
	cur.failures = 0
	good, records, next, err := checkBatches(data, q.offset, highWatermark)
	st := cur.st
	if st != nil {
		st.consumed += uint64(len(data) - good)
	}
	if good > 0 {
		co.ready = append(co.ready, Fetched{
			Topic: cur.topic, Partition: cur.partition,
			HighWatermark: highWatermark, LogStartOffset: logStart,
			from: q.offset, data: data[:good:good], maxSize: co.cfg.MaxDecompressedBytes,
			records: records, cur: cur, st: st, epoch: cur.epoch, next: next,
		})
		cur.fetch = next
		cur.held += good
		co.bytes += good
		co.evenLocked(cur)
		poke(co.arrived)
	}
	if err != nil {
		co.reportLocked(cur, err)
	}
}

// checkBatches verifies the run of batches that a fetch from offset returned.
// It returns the size of those that are as written, how many records they hold,
// the offset after them, and what is wrong with the one behind. An end of -1 is
// not known.
func checkBatches(data []byte, offset, end int64) (good, records int, next int64, err error) {
	next = offset
	for rest := data; len(rest) > 0; {
		var b []byte
		b, rest, err = batch.Split(rest)
		if err == nil {
			err = batch.CheckCRC(b)
		}
		var h batch.Header
		if err == nil {
			h, err = batch.ParseHeader(b)
		}
		if err == nil && (h.BaseOffset < 0 || h.LastOffsetDelta < 0 || h.LastOffset() < next ||
			good > 0 && h.BaseOffset < next || end >= 0 && h.LastOffset() >= end) {
			// The prefix, with the base offset, is outside the checksum.
			err = fmt.Errorf("batch of offsets %d to %d, want from %d below %d", h.BaseOffset, h.LastOffset(), next, end)
		}
		if err != nil {
			return good, records, next, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		good += len(b)
		records += int(h.Records)
		next = h.LastOffset() + 1
	}
	return good, records, next, nil
}
