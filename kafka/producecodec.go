package kafka

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/kafka/guard"
)

// Versions of Produce. What each adds:
//
//	3  transactional id
//	5  log start offset in the answer
//	7  zstd
//	8  record errors and an error message in the answer
//	9  flexible
//	10 leader hints in the answer (KIP-951)
//	13 topic ids in place of names (KIP-516)
//
// The rest changed nothing on the wire.
const (
	produceMin = 3
	produceMax = 13

	produceZstdVersion     = 7
	produceMessageVersion  = 8
	produceFlexibleVersion = 9
	produceLeaderVersion   = 10
)

// produceRequest is a decoded Produce. What holds bytes of records aliases the
// request.
type produceRequest struct {
	transactional bool // it names a transactional id
	acks          int16
	timeoutMS     int32
	topics        []produceTopic
	parts         []producePart // of all topics, in their order
}

// produceTopic is a topic of a Produce.
type produceTopic struct {
	topicRef
	end int // of its parts, which begin where the ones before end
}

// producePart is what a Produce has for a partition.
type producePart struct {
	topic   int32 // in topics
	index   int32
	records []byte
}

// maxProduceParts is how many partitions, and how many topics, a Produce of n
// bytes may name: each that can succeed has a record batch of at least 61 bytes.
func maxProduceParts(n int) int { return 1000 + n/64 }

// few ends the reading if n of what a Produce of so many bytes names are too many.
func (d *decoder) few(what string, n, bytes int) {
	if most := maxProduceParts(bytes); n > most && d.err == nil {
		d.b, d.err = nil, fmt.Errorf("%w: %d %s in a Produce of %d bytes, at most %d", guard.ErrTooLarge, n, what, bytes, most)
	}
}

// decodeProduce decodes a Produce's body, whose records it aliases.
func decodeProduce(version int16, body []byte) (*produceRequest, error) {
	if err := checkBody(kmsg.Produce, version, body); err != nil {
		return nil, err
	}
	d := &decoder{b: body, flexible: version >= produceFlexibleVersion}
	m := &produceRequest{}
	_, m.transactional = d.nullableString()
	m.acks = d.int16()
	m.timeoutMS = d.int32()
	topicBytes, partBytes := 2+4, 4+4
	if d.flexible {
		topicBytes, partBytes = 1+1+1, 4+1+1
	}
	n := d.count(topicBytes)
	d.few("topics", n, len(body))
	if d.err != nil {
		return nil, d.err
	}
	m.topics = make([]produceTopic, 0, n)
	for range n {
		t := produceTopic{topicRef: d.topic(version)}
		parts := d.count(partBytes)
		if d.few("partitions", len(m.parts)+parts, len(body)); d.err == nil {
			m.parts = room(m.parts, parts)
		}
		for range parts {
			if d.err != nil {
				break
			}
			m.parts = append(m.parts, producePart{topic: int32(len(m.topics)), index: d.int32(), records: d.bytes()})
			d.tags(nil)
		}
		d.tags(nil)
		if d.err != nil {
			break
		}
		t.end = len(m.parts)
		m.topics = append(m.topics, t)
	}
	d.tags(nil)
	if d.err != nil {
		return nil, d.err
	}
	return m, nil
}

// fewParts is up to how many parts of a Produce are compared with each other:
// that takes no memory, and for so few no more time than a map.
const fewParts = 32

// repeats reports whether a partition stands there more than once.
func (m *produceRequest) repeats() bool {
	for i := range m.parts {
		p := &m.parts[i]
		for j := range m.parts[:i] {
			q := &m.parts[j]
			if p.index == q.index && (p.topic == q.topic || m.topics[p.topic].topicRef == m.topics[q.topic].topicRef) {
				return true
			}
		}
	}
	return false
}

// keepLast leaves of a partition that stands more than once what it has last, as
// Kafka does: the others are neither appended nor answered, nor are topics of
// which nothing is left.
func (m *produceRequest) keepLast() {
	if len(m.parts) <= fewParts && !m.repeats() {
		return
	}
	number := numbered(m.topics, func(t *produceTopic) topicRef { return t.topicRef })
	last := make(map[partRef]int, len(m.parts))
	for i := range m.parts {
		last[partRef{number[m.parts[i].topic], m.parts[i].index}] = i
	}
	if len(last) == len(m.parts) {
		return
	}
	topics, parts, from := m.topics[:0], m.parts[:0], 0
	for i, t := range m.topics {
		before := len(parts)
		for ; from < t.end; from++ {
			p := m.parts[from]
			if last[partRef{number[i], p.index}] == from {
				p.topic = int32(len(topics))
				parts = append(parts, p)
			}
		}
		if len(parts) > before {
			topics = append(topics, produceTopic{t.topicRef, len(parts)})
		}
	}
	m.topics, m.parts = topics, parts
}

// produced is the answer for one part.
type produced struct {
	code            errcode.Code
	baseOffset      int64
	logAppendTimeMS int64
	logStart        int64
	records         []recordError
	message         string // "" is null
	leader          leaderRef
	hasLeader       bool
}

// recordError says why a record of a batch was refused.
type recordError struct {
	index   int32
	message string
}

// appendProduceResponse appends the answer to m, whose parts have the results in
// their order.
func appendProduceResponse(dst []byte, version int16, m *produceRequest, results []produced, nodes []endpoint) []byte {
	e := &encoder{b: dst, flexible: version >= produceFlexibleVersion}
	e.count(len(m.topics))
	from := 0
	for i := range m.topics {
		t := &m.topics[i]
		e.topic(version, t.topicRef)
		e.count(t.end - from)
		for ; from < t.end; from++ {
			e.producedPart(version, m.parts[from].index, &results[from])
		}
		e.noTags()
	}
	e.int32(0) // throttled
	if version >= produceLeaderVersion && len(nodes) > 0 {
		e.uvarint(1)
		e.endpointsTag(0, nodes)
	} else {
		e.noTags()
	}
	return e.b
}

func (e *encoder) producedPart(version int16, index int32, r *produced) {
	e.int32(index)
	e.int16(int16(r.code))
	e.int64(r.baseOffset)
	e.int64(r.logAppendTimeMS)
	if version >= 5 {
		e.int64(r.logStart)
	}
	if version >= produceMessageVersion {
		e.count(len(r.records))
		for _, re := range r.records {
			e.int32(re.index)
			e.string(re.message)
			e.noTags()
		}
		e.stringOrNull(r.message)
	}
	if version >= produceLeaderVersion && r.hasLeader {
		e.uvarint(1)
		e.leaderTag(0, r.leader)
		return
	}
	e.noTags()
}
