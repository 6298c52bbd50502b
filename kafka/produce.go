package kafka

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// defaultProduceTimeout is how long a Produce may wait that says none.
const defaultProduceTimeout = 30 * time.Second

// errUnacknowledged reports a Produce without acknowledgement that failed: the
// end of the connection is the only way to tell.
var errUnacknowledged = errors.New("kafka: a produce without acknowledgement failed")

// producing is one Produce under way.
type producing struct {
	*request
	m       *produceRequest
	raw     []byte     // of the request, which the batches alias
	results []produced // of m.parts
	topics  []broker.TopicID
	sent    []int // the parts that the broker was handed, by their place in m.parts
}

// produce decodes a Produce and hands its batches to the broker, in their order.
func (c *conn) produce(q *request) error {
	m, err := decodeProduce(q.version, q.body)
	if err != nil {
		return fmt.Errorf("kafka: Produce version %d: %w", q.version, err)
	}
	m.keepLast()
	p := &producing{request: q, m: m, raw: q.raw, results: make([]produced, len(m.parts))}
	switch {
	case m.acks < -1 || m.acks > 1:
		p.refuse(errcode.Errorf(errcode.InvalidRequiredAcks, "acks %d; give -1 (all), 1 or 0", m.acks))
	case m.transactional:
		p.refuse(errTransactional)
	default:
		p.start()
	}
	return nil
}

// errTransactional refuses what belongs to a transaction. Of Kafka's codes it is
// the one that every client takes for final, and names the transactional id with.
var errTransactional = errcode.Errorf(errcode.TransactionalIDAuthorizationFailed,
	"transactions are not served by this version; produce without a transactional id")

// refuse answers all parts with an error.
func (p *producing) refuse(e *errcode.Error) {
	for i := range p.results {
		p.results[i] = p.failed(e)
	}
	p.answer()
}

func (p *producing) failed(e *errcode.Error) produced {
	return produced{code: errcode.Code(p.error(e)), baseOffset: -1, logAppendTimeMS: -1, logStart: -1, message: e.Detail}
}

// start hands the broker what can be appended, and answers the rest itself.
func (p *producing) start() {
	p.topics = make([]broker.TopicID, len(p.m.topics))
	parts := make([]broker.ProducePart, 0, len(p.m.parts))
	from := 0
	for i := range p.m.topics {
		t := &p.m.topics[i]
		id, unknown := t.id, (*errcode.Error)(nil)
		if p.version < topicIDVersion {
			id, unknown = p.s.broker.TopicIDOf(t.name)
		}
		p.topics[i] = id
		for ; from < t.end; from++ {
			part := &p.m.parts[from]
			e := unknown
			if e == nil {
				e = p.s.broker.HasPartition(id, part.index)
			}
			if e == nil {
				e = p.checkRecords(part.records)
			}
			if e != nil {
				p.results[from] = p.failed(p.named(e))
				continue
			}
			parts = append(parts, broker.ProducePart{Topic: id, Index: part.index, Batch: part.records})
			p.sent = append(p.sent, from)
		}
	}
	if len(parts) == 0 {
		p.answer()
		return
	}
	p.s.broker.Produce(parts, produceTimeout(p.m.timeoutMS), p.done)
}

func produceTimeout(ms int32) time.Duration {
	if ms <= 0 {
		return defaultProduceTimeout
	}
	return min(time.Duration(ms)*time.Millisecond, maxTimeout)
}

// named is an error for who names topics by name, as older versions do: they do
// not know of ids, and an impossible name is one that no topic has, as in Kafka.
func (q *request) named(e *errcode.Error) *errcode.Error {
	switch e.Code {
	case errcode.UnknownTopicID, errcode.InvalidTopic: // no topic has such a name
		if q.version >= topicIDVersion {
			return e
		}
		return &errcode.Error{Code: errcode.UnknownTopicOrPartition, Detail: e.Detail}
	}
	return e
}

// checkRecords refuses what is not one record batch of the present format, as a
// client makes it, by Kafka's codes. What is in it is the broker's to check.
func (p *producing) checkRecords(records []byte) *errcode.Error {
	first, rest, err := batch.Split(records)
	switch {
	case len(records) == 0 || errors.Is(err, batch.ErrShort):
		return errcode.Errorf(errcode.InvalidRecord, "%d bytes of records, not a whole record batch; send exactly one per partition", len(records))
	case errors.Is(err, batch.ErrMagic) && records[batch.PrefixBytes] < batch.Magic: // it follows the prefix
		return errcode.Errorf(errcode.InvalidRecord, "records of the old format %d; send record batches of format 2", records[batch.PrefixBytes])
	case err != nil:
		return &errcode.Error{Code: errcode.CorruptMessage, Detail: err.Error()}
	case len(rest) > 0:
		return errcode.Errorf(errcode.InvalidRecord, "%d bytes after the first record batch; send exactly one per partition", len(rest))
	}
	h, err := batch.ParseHeader(first)
	switch {
	case err != nil:
		return &errcode.Error{Code: errcode.CorruptMessage, Detail: err.Error()}
	case p.version < produceZstdVersion && h.Attributes.Codec() == batch.Zstd:
		return errcode.Errorf(errcode.UnsupportedCompressionType, "zstd in version %d of Produce, which has it from version %d on", p.version, produceZstdVersion)
	case h.Attributes.Transactional():
		return errTransactional
	case h.BaseOffset != 0:
		return errcode.Errorf(errcode.InvalidRecord, "a record batch with the base offset %d; offsets are the server's to give, send 0", h.BaseOffset)
	}
	return nil
}

// produceError is an error as producers know it. A shard that can remember no
// further producer answers with a code that some of Kafka's clients take for final
// here, as its brokers never give it to a Produce; this one they all try again on.
func produceError(e *errcode.Error) *errcode.Error {
	if e.Code == errcode.ThrottlingQuotaExceeded {
		return &errcode.Error{Code: errcode.KafkaStorageError, Detail: e.Detail}
	}
	return e
}

// done takes the broker's results, and answers.
func (p *producing) done(results []broker.ProduceResult) {
	defer p.survive() // it is the broker's goroutine
	leaders := p.leaders()
	for i := range results {
		r, at := &results[i], p.sent[i]
		if r.Err != nil {
			part := &p.m.parts[at]
			p.results[at] = p.failed(produceError(p.named(r.Err)))
			p.results[at].logStart = r.LogStart
			for _, re := range r.Records {
				p.results[at].records = append(p.results[at].records, recordError{re.Index, re.Text})
			}
			if r.Err.Code == errcode.NotLeaderOrFollower && p.version >= produceLeaderVersion {
				p.results[at].leader, p.results[at].hasLeader = leaders.of(p.topics[part.topic], part.index)
			}
			continue
		}
		p.results[at] = produced{baseOffset: r.BaseOffset, logAppendTimeMS: r.LogAppendTimeMS, logStart: r.LogStart}
	}
	if !slices.ContainsFunc(results, func(r broker.ProduceResult) bool { return r.Err != nil }) {
		p.s.buffers.Give(p.raw) // the log holds its own copy of every batch
	}
	p.send(p.encode(leaders.nodes))
}

// answer answers a request of which the broker was handed nothing.
func (p *producing) answer() {
	a := p.encode(nil)
	p.s.buffers.Give(p.raw)
	p.send(a)
}

// encode makes the answer of the results.
func (p *producing) encode(nodes []endpoint) answer {
	if p.m.acks == 0 {
		i := slices.IndexFunc(p.results, func(r produced) bool { return r.code != errcode.None })
		if i < 0 {
			return answer{none: true}
		}
		part := &p.m.parts[i]
		return answer{err: fmt.Errorf("%w: %s, partition %d: %s: %s", errUnacknowledged,
			p.m.topics[part.topic].topicRef, part.index, p.results[i].code, p.results[i].message)}
	}
	size := 64 + 64*len(p.results)
	return answer{head: appendProduceResponse(make([]byte, 0, size), p.version, p.m, p.results, nodes)}
}
