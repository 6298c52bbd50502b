package broker

import (
	"cmp"
	"context"
	"slices"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
)

// EpochPart asks where a leader epoch of a partition ends.
type EpochPart struct {
	Topic   TopicID
	Index   int32
	Epoch   int32 // that is asked about
	Current int32 // newest leader epoch that the client knows, -1: none
}

// EpochResult answers one EpochPart: the greatest epoch at or below the one asked
// about that wrote something, and the offset behind its last record; both are -1
// if there is no such epoch yet, or ever.
type EpochResult struct {
	Err   *errcode.Error
	Epoch int32
	End   int64
}

// EpochEnds answers each part (R16), as of a moment after the call: like Offsets
// it asks the voters of each shard once whether this node still leads it, since
// the end that a deposed leader knows would look to a consumer as if its records
// had been lost.
func (b *Broker) EpochEnds(ctx context.Context, parts []EpochPart) []EpochResult {
	var unled []*dataShard
	for i := range parts {
		unled = b.unled(unled, parts[i].Topic, parts[i].Index)
	}
	b.awaitHandovers(ctx, unled)
	confirm := b.confirmations(ctx)
	results := make([]EpochResult, len(parts))
	for i := range parts {
		end, err := b.epochEnd(&parts[i], confirm)
		if err != nil {
			end = partition.EpochEnd{Epoch: -1, End: -1}
		}
		results[i] = EpochResult{Err: err, Epoch: end.Epoch, End: end.End}
	}
	return results
}

func (b *Broker) epochEnd(part *EpochPart, confirm func(*placed) *errcode.Error) (partition.EpochEnd, *errcode.Error) {
	none := partition.EpochEnd{Epoch: -1, End: -1}
	p, err := b.led(part.Topic, part.Index, part.Current)
	if err == nil {
		err = confirm(p)
	}
	if err != nil || part.Epoch < 0 {
		return none, err
	}
	end, code := p.shard.machine.epochEnd(p.number, part.Epoch)
	switch code {
	case errcode.None:
		return end, nil
	case errcode.UnknownLeaderEpoch: // that of the part is the client's to check
		return none, nil
	}
	return none, errcode.Errorf(code, "partition %d was deleted meanwhile", part.Index)
}

// led returns a partition that this node leads, as far as it knows, or why there
// is none. known is the newest leader epoch that the client knows, or -1.
func (b *Broker) led(topic TopicID, index, known int32) (*placed, *errcode.Error) {
	p := b.dir.find(topic, index)
	if p == nil {
		return nil, b.absent(topic, index)
	}
	if p.quarantined() {
		return nil, b.quarantineError(p, p.quarantine)
	}
	return p, p.checkEpoch(known)
}

// confirmations returns what asks, once for each shard, whether this node still
// leads it (R19).
func (b *Broker) confirmations(ctx context.Context) func(*placed) *errcode.Error {
	confirmed := make(map[*dataShard]error)
	return func(p *placed) *errcode.Error {
		err, asked := confirmed[p.shard]
		if !asked {
			_, err = p.shard.replica.Confirm(ctx)
			confirmed[p.shard] = err
		}
		if err != nil {
			return errcode.Errorf(errcode.NotLeaderOrFollower,
				"node %d cannot tell whether it still leads partition %d: %v", b.opt.NodeID, p.key.index, err)
		}
		return nil
	}
}

// ProducerState is what a partition remembers of one idempotent producer.
type ProducerState struct {
	ID           int64
	Epoch        int32
	LastSequence int32

	// LastTimestamp is the newest of its last batch, in ms since 1970; -1: not known,
	// as the batch came before apply version 3.
	LastTimestamp int64
}

// ProducerCount returns how many producers a partition remembers, 0 if it is not
// here.
func (b *Broker) ProducerCount(topic TopicID, index int32) int {
	p := b.dir.find(topic, index)
	if p == nil {
		return 0
	}
	return p.shard.machine.producerCount(p.number)
}

// Producers returns the producers that a partition remembers, by id.
// Apply waits while they are copied: some ten ms if there are producers.max.
func (b *Broker) Producers(topic TopicID, index int32) ([]ProducerState, *errcode.Error) {
	p, err := b.led(topic, index, -1)
	if err != nil {
		return nil, err
	}
	all := p.shard.machine.producersOf(p.number)
	slices.SortFunc(all, func(x, y partition.ProducerView) int { return cmp.Compare(x.ID, y.ID) })
	states := make([]ProducerState, len(all))
	for i, v := range all {
		states[i] = ProducerState{ID: int64(v.ID), Epoch: int32(v.Epoch), LastSequence: v.LastSequence, LastTimestamp: v.LastTimestamp}
	}
	return states, nil
}
