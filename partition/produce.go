package partition

import (
	"math"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// produce appends the command's batch to its partition, or finds that it is a
// retry, or refuses it.
func (a *application) produce(c Command) {
	p := a.part
	if p == nil {
		a.refuse(errcode.UnknownTopicOrPartition, ReasonNoPartition, 0, int64(c.Number))
		return
	}
	a.about(p)
	if p.config.Internal != NotInternal {
		a.refuse(errcode.InvalidTopic, ReasonInternal, 0, int64(p.config.Internal))
		return
	}
	h, ok := a.header(c.Payload)
	if !ok {
		return
	}
	if p.end > math.MaxInt64-int64(h.Records) {
		a.refuse(errcode.OffsetOutOfRange, ReasonOffsetsUsedUp, math.MaxInt64, p.end)
		return
	}
	base, last := p.end, p.end+int64(h.LastOffsetDelta)
	appendMS := int64(NoTime)
	if h.Attributes.LogAppendTime() {
		appendMS = h.MaxTimestamp
	}
	if id := ProducerID(h.Producer.ID); id != NoProducer {
		seq := appended{
			first:    h.Sequence,
			last:     h.LastSequence(),
			base:     base,
			appendMS: appendMS,
		}
		if !a.deduplicate(p, id, h.Epoch, seq, h.MaxTimestamp) {
			return
		}
	}
	a.append(p, last, c.Payload)
	a.res.BaseOffset, a.res.LastOffset, a.res.LogAppendTimeMS = base, last, appendMS
}

// append gives a batch the offsets from p's end on, up to last.
func (a *application) append(p *part, last int64, batch []byte) {
	a.s.touch(p)
	base := p.end
	p.end = last + 1
	p.epochs = p.epochs.record(a.res.LeaderEpoch, base)
	e := a.effect(EffectAppended, p)
	e.BaseOffset, e.LastOffset, e.LeaderEpoch, e.Batch = base, last, a.res.LeaderEpoch, batch
}

// header reads the batch's header and refuses what Apply could not give offsets
// to. The proposer has validated the batch; these checks keep a proposer's bug
// from becoming a difference between replicas or a hole in a partition.
func (a *application) header(payload []byte) (batch.Header, bool) {
	h, err := batch.ParseHeader(payload)
	switch {
	case err != nil || h.Size() != len(payload) || h.LastOffsetDelta < 0 || int64(h.Records) != int64(h.LastOffsetDelta)+1:
		a.refuse(errcode.CorruptMessage, ReasonBatch, 0, int64(len(payload)))
	case h.Attributes.Control() || h.Attributes.Transactional():
		a.refuse(errcode.InvalidTxnState, ReasonBatchKind, 0, h.Producer.ID)
	case h.Producer.ID < int64(NoProducer), h.Idempotent() && (h.Epoch < 0 || h.Sequence < 0):
		a.refuse(errcode.InvalidRecord, ReasonProducerFields, 0, h.Producer.ID)
	default:
		return h, true
	}
	return h, false
}

// deduplicate decides about a batch of producer id, with newest as its newest
// timestamp, records it if it is new, and reports whether it is. If not, the result
// is complete.
func (a *application) deduplicate(p *part, id ProducerID, epoch int16, b appended, newest int64) bool {
	pr := p.producers[id]
	if pr == nil {
		// KIP-360: of a producer that is not remembered, any sequence will do.
		if pr = a.admit(p, id); pr == nil {
			return false
		}
	} else if !a.continues(pr, epoch, b) {
		return false
	}
	if epoch != pr.epoch {
		pr.window.clear()
	}
	pr.epoch = epoch
	pr.lastMS = a.s.clockMS
	if a.s.version >= TimestampVersion {
		pr.timestamp = newest
	}
	pr.window.push(b)
	a.s.recent.touch(pr)
	pr.note()
	return true
}

// continues reports whether b is the batch that pr has to send next.
func (a *application) continues(pr *producer, epoch int16, b appended) bool {
	if epoch < pr.epoch {
		a.refuse(errcode.InvalidProducerEpoch, ReasonEpoch, int64(pr.epoch), int64(epoch))
		return false
	}
	if epoch > pr.epoch {
		if b.first != 0 {
			a.refuse(errcode.OutOfOrderSequenceNumber, ReasonNewEpoch, 0, int64(b.first))
		}
		return b.first == 0
	}
	if was, ok := pr.window.find(b.first, b.last); ok {
		a.res.Duplicate = true
		a.res.BaseOffset, a.res.LastOffset, a.res.LogAppendTimeMS = was.base, was.lastOffset(), was.appendMS
		return false
	}
	// What is older than the window cannot be told from a batch that never
	// arrived, so it is out of order, as in Kafka: DUPLICATE_SEQUENCE_NUMBER
	// would make a client take a lost batch for an appended one.
	if next := pr.window.next(); b.first != next {
		a.refuse(errcode.OutOfOrderSequenceNumber, ReasonSequence, int64(next), int64(b.first))
		return false
	}
	return true
}

// admit adds producer id to p. It returns nil, and refuses the batch, if the
// shard remembers as many as it may and none of them is idle.
func (a *application) admit(p *part, id ProducerID) *producer {
	if limit := int(a.s.limits.MaxProducers); a.s.recent.count >= limit {
		oldest := a.s.recent.oldest()
		if a.s.clockMS-oldest.lastMS < a.s.limits.ProducerIdleMS {
			a.refuse(errcode.ThrottlingQuotaExceeded, ReasonProducers, int64(limit), int64(a.s.recent.count))
			return nil
		}
		a.s.forget(oldest)
	}
	pr := &producer{id: id, part: p, timestamp: NoTime}
	if p.producers == nil {
		p.producers = make(map[ProducerID]*producer)
	}
	p.producers[id] = pr
	return pr
}

// forget removes pr.
func (s *State) forget(pr *producer) {
	p := pr.part
	s.recent.remove(pr)
	delete(p.producers, pr.id)
	p.forgotten = append(p.forgotten, pr.id)
	s.touch(p)
}
