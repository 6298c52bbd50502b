package broker

import (
	"context"
	"math"
	"sync"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// producerIDBlock is how many producer ids a node takes at a time. The rest of
// a block is lost when the node stops.
const producerIDBlock = 1000

// Producer identifies an idempotent producer.
type Producer struct {
	ID    int64
	Epoch int32
}

// producerIDs are this node's block of producer ids.
type producerIDs struct {
	turn chan struct{} // 1-buffered: held while a block is fetched

	mu        sync.Mutex
	next, end int64 // [next, end) are free
}

func (p *producerIDs) take() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == p.end {
		return 0, false
	}
	p.next++
	return p.next - 1, true
}

// InitProducer returns a producer id that nobody had before, or, for a producer
// that has one (ID not negative), the next epoch of it, or a new id when its
// epochs are used up. Epochs are not on record before their first batch: only
// the producer itself may ask for its next one.
func (b *Broker) InitProducer(ctx context.Context, current Producer) (Producer, error) {
	if current.ID >= 0 {
		if current.Epoch < 0 || current.Epoch > math.MaxInt16 {
			return Producer{}, errcode.Errorf(errcode.InvalidProducerEpoch, "producer epoch %d", current.Epoch)
		}
		if current.ID >= b.image().NextProducerID() {
			return Producer{}, errcode.Errorf(errcode.InvalidProducerIDMapping, "producer id %d was never given", current.ID)
		}
		if current.Epoch < math.MaxInt16 {
			return Producer{ID: current.ID, Epoch: current.Epoch + 1}, nil
		}
	}
	for {
		if id, ok := b.producers.take(); ok {
			return Producer{ID: id}, nil
		}
		if err := b.moreProducerIDs(ctx); err != nil {
			return Producer{}, err
		}
	}
}

// moreProducerIDs takes the next block from the metadata shard, unless somebody
// else just did.
func (b *Broker) moreProducerIDs(ctx context.Context) error {
	p := &b.producers
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return errcode.Errorf(errcode.RequestTimedOut, "no producer id in time")
	}
	p.mu.Lock()
	some := p.next < p.end
	p.mu.Unlock()
	if some {
		return nil
	}
	// It takes fifty bytes for a thousand producers, so it passes on a full disk:
	// that their records wait is then for each Produce to say.
	r, err := b.proposeMeta(ctx, metadata.AllocateProducerIDs{Count: producerIDBlock})
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.next, p.end = r.ProducerID, r.ProducerID+producerIDBlock
	p.mu.Unlock()
	return nil
}
