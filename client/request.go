package client

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// produceRequest is a request being put together for one node.
type produceRequest struct {
	node     int32
	parts    []producePart
	bytes    int
	deadline time.Time // the earliest of the batches'

	resp *pb.ProduceResponse
	link *link
	call *call
}

// producePart is a batch as this request sends it.
type producePart struct {
	*sending
	id    TopicID
	epoch int32 // of the leader that it is sent to
	bytes []byte
}

// submit sends a request to its node.
func (p *Producer) submit(r *produceRequest) {
	req := &pb.ProduceRequest{Acks: p.acks(), TimeoutMs: p.c.serverTimeoutMS()}
	payload := make([]frame.Part, len(r.parts))
	r.resp = new(pb.ProduceResponse)
	r.call = &call{kind: frame.KindProduce, req: req, payload: payload}
	if p.cfg.Acks != AcksNone {
		r.call.resp = r.resp
	}
	for i := range r.parts {
		part := &r.parts[i]
		req.Parts = append(req.Parts, &pb.ProducePart{
			TopicId:   part.id[:],
			Partition: part.what.feed.lane.partition,
			Length:    uint32(len(part.bytes)),
		})
		payload[i].Bytes = part.bytes
	}
	r.call.done = func(a answer) { p.answered(r, a) }
	r.call.moved = func(img *image) bool {
		return slices.ContainsFunc(r.parts, func(part producePart) bool {
			l := &part.what.feed.lane
			return img.elsewhere(l.topic, part.id, l.partition, r.node, part.epoch)
		})
	}
	if r.link = p.c.nodeLink(r.node); r.link == nil {
		r.call.done(answer{err: fmt.Errorf("%w: node %d is gone", ErrConnection, r.node)})
		return
	}
	p.mu.Lock()
	p.underWay[r] = true
	p.mu.Unlock()
	r.link.submit(r.call)
}

// takeBack ends those of the requests under way that wait for a connection, so
// that their batches can be given up with a known outcome.
func (p *Producer) takeBack(which func(*produceRequest) bool) {
	var waiting []*produceRequest
	p.mu.Lock()
	for r := range p.underWay {
		if which(r) {
			waiting = append(waiting, r)
		}
	}
	p.mu.Unlock()
	for _, r := range waiting {
		if r.link.unqueue(r.call) {
			p.answered(r, answer{err: r.link.lastError()})
		}
	}
}

// answered settles every batch of a request.
func (p *Producer) answered(r *produceRequest, a answer) {
	err, resp := a.err, r.resp
	if err == nil && p.cfg.Acks != AcksNone && len(resp.Results) != len(r.parts) {
		err = fmt.Errorf("%w: %d results for %d parts", ErrProtocol, len(resp.Results), len(r.parts))
	}
	type moved struct {
		l   *lane
		err error
	}
	var misled []moved
	type retry struct {
		d   *delivery
		err error
	}
	var retried []retry
	p.mu.Lock()
	p.byNode[r.node]--
	delete(p.underWay, r)
	now := p.c.cfg.Now()
	for i, part := range r.parts {
		d := part.what
		partErr := err
		if partErr == nil && p.cfg.Acks != AcksNone {
			res := resp.Results[i]
			if partErr = fromServer(res.Error); partErr == nil && !part.finished {
				d.baseOffset, d.appendTimeMS = res.BaseOffset, res.LogAppendTimeMs
			}
		}
		o := p.judge(partErr, a.sent, len(r.parts))
		if o != appended && movesAway(partErr) {
			misled = append(misled, moved{&d.feed.lane, partErr})
		}
		was := part.finished
		d.feed.lane.settle(part.sending, o, partErr, func(failures int) time.Time { return now.Add(p.c.backoff(failures)) })
		if !was && !part.finished {
			retried = append(retried, retry{d, partErr})
		}
		p.collectLocked(d.feed)
	}
	p.mu.Unlock()
	for _, m := range misled {
		p.c.misled(m.l.topic, m.l.partition, m.err)
	}
	for _, r := range retried {
		p.tellBatch(r.d, BatchRetried, r.err)
	}
	poke(p.wake)
}

// judge says what the answer to an attempt means. parts is how many batches the
// request had.
func (p *Producer) judge(err error, sent bool, parts int) outcome {
	code, answered := CodeOf(err)
	switch {
	case err == nil:
		return appended
	case errors.Is(err, frame.ErrTooLarge):
		if parts > 1 {
			return postponed // alone, next time
		}
		return refused
	case !answered && !sent:
		return postponed
	case !answered && p.cfg.Acks == AcksNone:
		return abandoned // nobody would notice a second copy
	case !answered:
		return unclear
	case code == errcode.DuplicateSequenceNumber:
		return appended
	case code == errcode.OutOfOrderSequenceNumber && !p.cfg.NotIdempotent:
		return outOfOrder
	case retriable(err) && mayHaveHappened(err):
		return unclear
	case retriable(err):
		return postponed
	case mayHaveHappened(err):
		return abandoned
	}
	return refused
}
