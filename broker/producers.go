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
			if b.mayBeBehind() {
				return Producer{}, errcode.Errorf(errcode.NotController, "producer id %d is not known to this node, which may be behind; ask the one that leads the metadata", current.ID)
			}
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

// checkProducer refuses a batch of a producer with an id that was never given out:
// what such ids leave behind in a shard would keep producers from it that have
// theirs from InitProducer. Whether an id was given, for certain, only the leader
// of the metadata can tell: another node, which may be behind, asks how far that one is,
// and waits until it is as far, for currentTimeout at most. A producer that was told to
// try again could do so seconds later: one that has just got its id, of the first block
// of a cluster or a new one, is ahead of what this node has heard. p asks once, whatever
// its parts are.
func (b *Broker) checkProducer(p *produce, id int64) error {
	if id < b.image().NextProducerID() { // batch.NoProducer too
		return nil
	}
	if !p.asked {
		p.asked, p.unsure = true, b.awaitCurrent(b.stopping)
	}
	switch {
	case id < b.image().NextProducerID(): // as of now
		return nil
	case p.unsure != nil:
		return errcode.Errorf(errcode.LeaderNotAvailable,
			"producer id %d is not known to this node, which may be behind; nothing was appended, try again", id)
	}
	return errcode.Errorf(errcode.InvalidProducerIDMapping,
		"producer id %d was never given; ask for one (InitProducerId), and begin with it at sequence 0", id)
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
	r, err := b.proposeAnywhere(ctx, metadata.AllocateProducerIDs{Count: producerIDBlock})
	if err != nil {
		return err
	}
	if err := b.awaitApplied(ctx, r.index); err != nil {
		return err // the ids are lost: this node would refuse them for a while
	}
	p.mu.Lock()
	p.next, p.end = r.producerID, r.producerID+producerIDBlock
	p.mu.Unlock()
	return nil
}
