package broker

import (
	"context"
	"time"
)

// openingPatience is how long a Produce waits for shards that this node was elected
// to lead, and does not serve yet (R19).
const openingPatience = time.Second

// awaitOpening waits while a shard opens the term that this node was elected for, and
// reports whether it has waited. All parts of a Produce together wait no longer than
// openingPatience, nor than the Produce may take. What it has gathered is proposed
// first: that need not wait.
//
// The others name a leader as soon as it is elected, which some clients hear, and come
// to it, once in several seconds.
func (b *Broker) awaitOpening(p *produce, shard *dataShard) bool {
	opening := shard.replica.Opening()
	if opening == nil {
		return false
	}
	p.propose()
	if p.patience == nil {
		var cancel context.CancelFunc
		p.patience, cancel = context.WithTimeout(b.stopping, min(openingPatience, p.room.until.Sub(b.opt.Now())))
		context.AfterFunc(p.patience, cancel)
	}
	select {
	case <-opening:
	case <-p.patience.Done():
	}
	return true
}
