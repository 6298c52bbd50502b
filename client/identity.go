package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// identity is the producer's newest id and epoch, and how it gets them. Lanes
// take it when they need one; those under way keep an older one, since a
// partition knows nothing of the others.
type identity struct {
	now      producerID
	asking   bool
	failures int
	retryAt  time.Time
	err      error // the server will not give one
}

// askID asks some node for a producer id, or a higher epoch of the current one.
func (p *Producer) askID(current producerID) {
	req, resp := new(pb.InitProducerRequest), new(pb.InitProducerResponse)
	if current.valid {
		req.Current = &pb.Producer{Id: current.id, Epoch: int32(current.epoch)}
	}
	p.c.anyLink().submit(&call{kind: frame.KindInitProducer, req: req, resp: resp, done: func(a answer) {
		got := resp.GetProducer()
		if a.err == nil && (got.GetId() < 0 || got.GetEpoch() < 0 || got.GetEpoch() > 32767 || got == nil) {
			a.err = fmt.Errorf("%w: producer %v", ErrProtocol, got)
		}
		p.gotID(current, got, a.err)
	}})
}

// gotID takes the answer to askID.
func (p *Producer) gotID(current producerID, got *pb.Producer, err error) {
	p.mu.Lock()
	id := &p.id
	id.asking = false
	switch {
	case err == nil:
		id.now = producerID{valid: true, id: got.Id, epoch: int16(got.Epoch)}
		id.failures, id.retryAt = 0, time.Time{}
	case !retriable(err) && !current.valid && !errors.Is(err, ErrClosed):
		id.err = fmt.Errorf("client: no producer id: %w", err)
		fallthrough
	default:
		if !retriable(err) {
			id.now = producerID{} // ask for another one
		} else {
			p.c.links.next.Add(1)
		}
		id.failures++
		id.retryAt = p.c.cfg.Now().Add(p.c.backoff(id.failures))
	}
	p.mu.Unlock()
	poke(p.wake)
}
