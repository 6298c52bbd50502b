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
	part := func(i int) error {
		if err == nil && p.cfg.Acks != AcksNone {
			return fromServer(resp.Results[i].Error)
		}
		return err
	}
	var moved []bool // parts of which there is a newer leader to ask; nil: none
	for i, of := range r.parts {
		partErr := part(i)
		if partErr == nil || !movesAway(partErr) {
			continue
		}
		l := &of.what.feed.lane
		p.c.misled(l.topic, l.partition, partErr)
		if p.c.meta.image.Load().elsewhere(l.topic, of.id, l.partition, r.node, of.epoch) {
			if moved == nil {
				moved = make([]bool, len(r.parts))
			}
			moved[i] = true
		}
	}
	type retry struct {
		d   *delivery
		err error
	}
	var retried []retry
	p.mu.Lock()
	p.byNode[r.node]--
	delete(p.underWay, r)
	now := p.c.cfg.Now()
	for i, of := range r.parts {
		d, partErr := of.what, part(i)
		if partErr == nil && p.cfg.Acks != AcksNone && !of.finished {
			d.baseOffset, d.appendTimeMS = resp.Results[i].BaseOffset, resp.Results[i].LogAppendTimeMs
		}
		was := of.finished
		d.feed.lane.settle(of.sending, p.judge(partErr, a.sent, len(r.parts)), partErr, func(failures int) time.Time {
			if moved != nil && moved[i] {
				return now // leader epochs grow, so answers cannot send it in a circle
			}
			return now.Add(p.c.backoff(failures))
		})
		if !was && !of.finished {
			retried = append(retried, retry{d, partErr})
		}
		p.collectLocked(d.feed)
	}
	p.mu.Unlock()
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
