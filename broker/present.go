package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodPresent asks a node that carries a shard whether what a creation or a
// deletion of a topic means for the shard is done (little-endian, offsets in bytes):
//
//	0        1         2          4       8       24      32           36
//	+--------+---------+----------+-------+-------+-------+------------+
//	| format | present | reserved | shard | topic | index | partitions |
//	|        | 0 or 1  | 0        |       | id    |       |            |
//	+--------+---------+----------+-------+-------+-------+------------+
//
// index is the metadata index of what was done, and partitions is how many the
// topic has, or had. The answer is a byte, 1 if all of its partitions that the shard
// carries are there, or, with present 0, none of them, and else 0: ask again.
const methodPresent transport.Method = 7

const (
	presentFormat = 1
	presentBytes  = 36

	// The waits between two questions, and how long an answer may take.
	firstPresent  = 10 * time.Millisecond
	lastPresent   = 200 * time.Millisecond
	presentAnswer = 2 * time.Second
)

// presentQuestion is what methodPresent asks.
type presentQuestion struct {
	present    bool
	shard      metadata.ShardID
	topic      metadata.TopicID
	index      uint64
	partitions int32
}

// errPresent reports bytes that are no question or answer of methodPresent.
var errPresent = errors.New("broker: not a question of what is there")

func (q *presentQuestion) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 4, presentBytes)
	b[0] = presentFormat
	if q.present {
		b[1] = 1
	}
	b = append(le.AppendUint32(b, uint32(q.shard)), q.topic[:]...)
	return le.AppendUint32(le.AppendUint64(b, q.index), uint32(q.partitions))
}

// decodePresent reads a question. Its errors match errPresent.
func decodePresent(b []byte) (q presentQuestion, err error) {
	le := binary.LittleEndian
	switch {
	case len(b) > 0 && b[0] != presentFormat:
		return q, fmt.Errorf("%w: format %d, this version reads %d", errPresent, b[0], presentFormat)
	case len(b) != presentBytes || b[1] > 1 || b[2]|b[3] != 0:
		return q, fmt.Errorf("%w: %d bytes, want %d, of which those reserved are zero", errPresent, len(b), presentBytes)
	}
	q = presentQuestion{
		present: b[1] == 1, shard: metadata.ShardID(le.Uint32(b[4:])), topic: metadata.TopicID(b[8:24]),
		index: le.Uint64(b[24:]), partitions: int32(le.Uint32(b[32:])),
	}
	if q.partitions < 0 || q.partitions > metadata.MaxTopicPartitions {
		return presentQuestion{}, fmt.Errorf("%w: of %d partitions", errPresent, q.partitions)
	}
	return q, nil
}

// answerPresent answers a question of another node.
func (b *Broker) answerPresent(payload []byte) ([]byte, error) {
	q, err := decodePresent(payload)
	if err != nil {
		return nil, err
	}
	if b.settled(&q) {
		return []byte{1}, nil
	}
	return []byte{0}, nil
}

// settled reports whether what q asks for is done here.
func (b *Broker) settled(q *presentQuestion) bool {
	im, s := b.image(), b.carried()[replication.ShardID(q.shard)]
	if s == nil || s.replica.Leading() == 0 || im.Index() < q.index {
		return false // the leader alone knows what the others will not take back
	}
	t := im.TopicByID(q.topic)
	for i := range q.partitions {
		p := b.dir.find(partition.TopicID(q.topic), i)
		here := p != nil && p.shard == s
		switch {
		case !q.present && here:
			return false
		case q.present && !here && t != nil && int(i) < len(t.Assignment) && t.Assignment[i] == q.shard:
			return false
		}
	}
	return true
}

// awaitPartitions waits until all partitions of a topic, which is, or was, on the
// given shards, are there, or the topic is deleted again; or until none of them is
// there any more.
func (b *Broker) awaitPartitions(ctx context.Context, topic partition.TopicID, on []metadata.ShardID, present bool) error {
	im := b.image()
	elsewhere := make(map[metadata.ShardID]bool)
	for _, id := range on {
		if s := im.Shard(id); s != nil && !slices.Contains(s.Replicas, metadata.NodeID(b.opt.NodeID)) {
			elsewhere[id] = true
		}
	}
	if len(elsewhere) == 0 {
		return b.awaitHere(ctx, topic, len(on), present, nil)
	}
	results := make(chan error, len(elsewhere))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for id := range elsewhere {
		q := presentQuestion{present: present, shard: id, topic: metadata.TopicID(topic), index: im.Index(), partitions: int32(len(on))}
		go func() { results <- b.awaitThere(ctx, &q) }()
	}
	err := b.awaitHere(ctx, topic, len(on), present, func(i int) bool { return elsewhere[on[i]] })
	if err != nil {
		cancel()
	}
	for range elsewhere {
		if there := <-results; err == nil && there != nil {
			err = there
			cancel()
		}
	}
	return err
}

// awaitThere waits for one shard that this node does not carry.
func (b *Broker) awaitThere(ctx context.Context, q *presentQuestion) error {
	for wait := firstPresent; ; wait = min(2*wait, lastPresent) {
		if b.askPresent(ctx, q) || q.present && b.image().TopicByID(q.topic) == nil {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errcode.Errorf(errcode.RequestTimedOut, "the partitions on shard %d were not ready in time; they will be", q.shard)
		case <-b.stopping.Done():
			return errcode.Errorf(errcode.RequestTimedOut, "the node is stopping; what was asked is completed by the others")
		}
	}
}

// askPresent asks the leader of the shard once.
func (b *Broker) askPresent(ctx context.Context, q *presentQuestion) bool {
	node, _, ok := b.shardLeaderOf(replication.ShardID(q.shard))
	if !ok || node == b.opt.NodeID {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, presentAnswer)
	defer cancel()
	answer, err := b.opt.Cluster.Peers.Call(ctx, node, methodPresent, q.encode())
	return err == nil && len(answer) == 1 && answer[0] == 1
}

// awaitHere waits for the first n partitions of a topic on this node, but those
// that skip names.
func (b *Broker) awaitHere(ctx context.Context, topic partition.TopicID, n int, present bool, skip func(i int) bool) error {
	tick := time.NewTicker(awaitTick)
	defer tick.Stop()
	for i := range n {
		for skip == nil || !skip(i) {
			changed, stop := b.dir.changed(partitionKey{topic, int32(i)}, present)
			if changed == nil {
				break
			}
			var err error
			gone := false
			select {
			case <-changed:
			case <-tick.C:
				gone = present && b.image().TopicByID(metadata.TopicID(topic)) == nil
			case <-ctx.Done():
				err = errcode.Errorf(errcode.RequestTimedOut, "partition %d was not ready in time; it will be", i)
			case <-b.stopping.Done():
				err = errcode.Errorf(errcode.RequestTimedOut, "the node is stopping; what was asked is completed at its next start")
			}
			stop()
			if err != nil || gone {
				return err
			}
		}
	}
	return nil
}
