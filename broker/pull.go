package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodPull is the call by which a replica that catches up asks another for
// committed batches of one partition, by offset (R18). Request and answer,
// little-endian, sizes in bytes:
//
//	0        1       2          4       8       16         32      36
//	+--------+-------+----------+-------+-------+----------+-------+-----
//	| format | flags | reserved | shard | index | topic id | part. | max
//	+--------+-------+----------+-------+-------+----------+-------+-----
//	40       48    56
//	+--------+-----+
//	| offset | end |
//	+--------+-----+
//
//	0        1      2          4         8           16        24
//	+--------+------+----------+---------+-----------+---------+---------
//	| format | what | reserved | aborted | log start | horizon | batches
//	+--------+------+----------+---------+-----------+---------+---------
//
// The callee has applied the shard's entries up to index, at least; otherwise the
// call is refused. Batches are whole, as readers see them, from the one that
// contains offset on, none of them at or above end, and at most max bytes in all,
// or a single longer one. what says what they are: 0, the next ones; 1, there are
// none, because the log starts above offset; 2, there are none, because the
// partition or its topic was deleted. log start is the callee's, horizon the partition's
// tombstone horizon (R12), -1: nothing is compacted yet. aborted counts the aborted
// transactions of the range: none yet, so a format that has some is another.
// Flags and reserved bytes are zero.
const methodPull transport.Method = 4

const (
	pullFormat       = 1
	pullRequestBytes = 56
	pullAnswerBytes  = 24

	// maxPulledBatch is the largest batch that fits in an answer.
	maxPulledBatch = transport.MaxCallBytes - pullAnswerBytes

	// pullBytes is how much one call asks for.
	pullBytes = 1 << 20

	// maxPulls is how many calls a node answers at a time: each holds about
	// pullBytes of memory.
	maxPulls = 4
)

type pullWhat uint8

const (
	pullBatches pullWhat = iota
	pullMoved
	pullDeleted
)

// errPull matches a request or an answer that is not one.
var errPull = errors.New("broker: damaged call for batches")

// pullRequest asks for batches.
type pullRequest struct {
	shard    replication.ShardID
	index    uint64
	topic    partition.TopicID
	part     int32
	maxBytes int32
	offset   int64
	end      int64
}

func (r *pullRequest) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, pullRequestBytes)
	b = append(b, pullFormat, 0, 0, 0)
	b = le.AppendUint32(b, uint32(r.shard))
	b = le.AppendUint64(b, r.index)
	b = append(b, r.topic[:]...)
	b = le.AppendUint32(b, uint32(r.part))
	b = le.AppendUint32(b, uint32(r.maxBytes))
	b = le.AppendUint64(b, uint64(r.offset))
	return le.AppendUint64(b, uint64(r.end))
}

func decodePullRequest(b []byte) (r pullRequest, err error) {
	if len(b) > 0 && b[0] != pullFormat {
		return r, fmt.Errorf("%w: format %d, this version has %d", errPull, b[0], pullFormat)
	}
	if len(b) != pullRequestBytes || b[1] != 0 || b[2] != 0 || b[3] != 0 {
		return r, fmt.Errorf("%w: request of %d bytes, want %d, or unknown flags", errPull, len(b), pullRequestBytes)
	}
	le := binary.LittleEndian
	r = pullRequest{
		shard: replication.ShardID(le.Uint32(b[4:])), index: le.Uint64(b[8:]), topic: partition.TopicID(b[16:32]),
		part: int32(le.Uint32(b[32:])), maxBytes: int32(le.Uint32(b[36:])),
		offset: int64(le.Uint64(b[40:])), end: int64(le.Uint64(b[48:])),
	}
	if r.part < 0 || r.maxBytes <= 0 || r.offset < 0 || r.end <= r.offset {
		return pullRequest{}, fmt.Errorf("%w: partition %d, %d bytes of [%d, %d)", errPull, r.part, r.maxBytes, r.offset, r.end)
	}
	return r, nil
}

// pullAnswer is what another replica has.
type pullAnswer struct {
	what     pullWhat
	logStart int64
	horizon  int64
	batches  []byte
}

func (a *pullAnswer) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, pullAnswerBytes+len(a.batches))
	b = append(b, pullFormat, byte(a.what), 0, 0)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, uint64(a.logStart))
	b = le.AppendUint64(b, uint64(a.horizon))
	return append(b, a.batches...)
}

// decodePullAnswer returns an answer, whose batches alias b and are not looked at.
func decodePullAnswer(b []byte) (a pullAnswer, err error) {
	if len(b) > 0 && b[0] != pullFormat {
		return a, fmt.Errorf("%w: answer in format %d, this version has %d", errPull, b[0], pullFormat)
	}
	if len(b) < pullAnswerBytes || b[2] != 0 || b[3] != 0 {
		return a, fmt.Errorf("%w: answer of %d bytes, want at least %d", errPull, len(b), pullAnswerBytes)
	}
	le := binary.LittleEndian
	a = pullAnswer{what: pullWhat(b[1]), logStart: int64(le.Uint64(b[8:])), horizon: int64(le.Uint64(b[16:])), batches: b[pullAnswerBytes:]}
	if n := le.Uint32(b[4:]); n != 0 {
		return pullAnswer{}, fmt.Errorf("%w: answer with %d aborted transactions, of which this version knows nothing", errPull, n)
	}
	if a.what > pullDeleted || a.logStart < 0 || a.horizon < -1 || a.what != pullBatches && len(a.batches) > 0 {
		return pullAnswer{}, fmt.Errorf("%w: answer %d, log start %d, horizon %d, %d bytes", errPull, a.what, a.logStart, a.horizon, len(a.batches))
	}
	return a, nil
}

// answerPull answers a replica that catches up.
func (b *Broker) answerPull(ctx context.Context, payload []byte) ([]byte, error) {
	r, err := decodePullRequest(payload)
	if err != nil {
		return nil, err
	}
	select {
	case b.pulls.slots <- struct{}{}:
		defer func() { <-b.pulls.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	release, err := b.holdPull(ctx, b.pulls.answered)
	if err != nil {
		return nil, err
	}
	defer release()
	a, err := b.batchesFor(&r)
	if err != nil {
		return nil, err
	}
	return a.encode(), nil
}

// batchesFor reads what r asks for.
func (b *Broker) batchesFor(r *pullRequest) (a pullAnswer, err error) {
	a.horizon = -1
	s := b.carried()[r.shard]
	if s == nil {
		return a, fmt.Errorf("node %d has no replica of shard %d", b.opt.NodeID, r.shard)
	}
	// In this order: what is not there has then been deleted.
	if applied := s.replica.Applied(); applied < r.index {
		return a, fmt.Errorf("node %d has applied shard %d up to %d, and %d is asked for", b.opt.NodeID, r.shard, applied, r.index)
	}
	p := b.dir.find(r.topic, r.part)
	if p == nil || p.shard != s || b.image().Tombstone(metadata.TopicID(r.topic)) != nil { // see freeDoomed
		a.what = pullDeleted
		return a, nil
	}
	if _, in := s.machine.quarantinedAt(p.number); in {
		return a, fmt.Errorf("partition %d of %v is in quarantine on node %d", r.part, r.topic, b.opt.NodeID)
	}
	c, err := s.store.Read(uint32(p.number), r.offset, int(min(r.maxBytes, pullBytes)), true)
	var outside *store.RangeError
	switch {
	case errors.As(err, &outside) && r.offset < outside.Start:
		a.what, a.logStart = pullMoved, outside.Start
		return a, nil
	case errors.Is(err, store.ErrUnknownPartition):
		a.what = pullDeleted
		return a, nil
	case err != nil:
		return a, fmt.Errorf("partition %d of %v on node %d: %w", r.part, r.topic, b.opt.NodeID, err)
	}
	defer c.Release()
	if a.logStart, _, err = s.store.Bounds(uint32(p.number)); err != nil {
		a.what, a.logStart = pullDeleted, 0
		return a, nil
	}
	all, err := c.AppendTo(make([]byte, 0, pullAnswerBytes+c.Bytes))
	if err != nil {
		return a, err
	}
	a.batches, err = below(all, r.end)
	return a, err
}

// below cuts off of a run of whole batches what begins at or above an offset.
func below(run []byte, end int64) ([]byte, error) {
	for rest := run; len(rest) > 0; {
		h, err := batch.ParseHeader(rest)
		if err != nil {
			return nil, err
		}
		if h.BaseOffset >= end {
			return run[:len(run)-len(rest)], nil
		}
		rest = rest[min(h.Size(), len(rest)):]
	}
	return run, nil
}

// quarantinedAt returns the index of the entry that put a partition into
// quarantine on this replica.
func (m *machine) quarantinedAt(n partition.Number) (index uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Quarantined(n)
}

// pace bounds a rate of bytes.
type pace struct {
	bytesPerSecond int64
	now            func() time.Time
	free           time.Time // when the next call may be made
}

// spend waits until what was used fits the rate.
func (p *pace) spend(ctx context.Context, bytes int) error {
	return waitFor(ctx, p.charge(bytes))
}

// charge counts bytes that were used, and returns how long to wait for them to fit the
// rate.
func (p *pace) charge(bytes int) time.Duration {
	now := p.now()
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(bytes) / float64(p.bytesPerSecond) * float64(time.Second)))
	return p.free.Sub(now)
}
