package kafka

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/kafka/guard"
)

// Versions of Fetch. What each adds:
//
//	5  log start offset, in both directions
//	7  sessions, and an error of the whole answer (KIP-227)
//	9  the leader epoch that the client knows (KIP-320)
//	11 the client's rack, and a replica to read from (KIP-392)
//	12 flexible; the last fetched epoch, and where it diverged (KIP-595)
//	13 topic ids in place of names (KIP-516)
//	15 the replica id is a tagged field (KIP-903)
//	16 the nodes of the leaders in the answer (KIP-951)
//
// The rest changed nothing for clients.
const (
	fetchMin = 4
	fetchMax = 18

	fetchSessionVersion      = 7
	fetchRackVersion         = 11
	fetchFlexibleVersion     = 12
	fetchReplicaStateVersion = 15
	fetchEndpointsVersion    = 16
)

// consumerReplica is the replica id of who is no replica.
const consumerReplica = -1

// fetchRequest is a decoded Fetch. It aliases nothing.
type fetchRequest struct {
	replica            int32
	maxWaitMS          int32
	minBytes, maxBytes int32
	isolation          int8 // readCommitted or not, which makes no difference: nothing is unstable
	sessionID          int32
	sessionEpoch       int32
	rack               string // "": not said
	topics             []topicRef
	parts              []fetchPart
	forgottenTopics    []topicRef
	forgotten          []partRef // their topics are in forgottenTopics
}

// maxFetchParts is how many partitions a Fetch may ask for, itself or as its
// session's; and how many it may forget, and how many topics it may name.
const maxFetchParts = 30_000

// errCrowded reports a Fetch of too many partitions.
var errCrowded = fmt.Errorf("%w: too many partitions in a Fetch", guard.ErrTooLarge)

// crowd ends the reading if n of what a Fetch names are too many.
func (d *decoder) crowd(what string, n int) {
	if n > maxFetchParts && d.err == nil {
		d.b, d.err = nil, fmt.Errorf("%w: %d %s, at most %d; fetch them in several sessions, by several clients", errCrowded, n, what, maxFetchParts)
	}
}

// partRef names a partition: the topic by its place in a request's.
type partRef struct{ topic, index int32 }

// fetchPart asks for a partition.
type fetchPart struct {
	partRef
	leaderEpoch  int32 // -1: not known
	fetchedEpoch int32 // of the last record that was fetched; -1: not known
	offset       int64
	maxBytes     int32
}

// Isolation levels.
const (
	readUncommitted = 0
	readCommitted   = 1
)

// decodeFetch decodes a Fetch's body.
func decodeFetch(version int16, body []byte) (*fetchRequest, error) {
	if err := checkBody(kmsg.Fetch, version, body); err != nil {
		return nil, err
	}
	d := &decoder{b: body, flexible: version >= fetchFlexibleVersion}
	m := &fetchRequest{replica: consumerReplica, sessionEpoch: finalEpoch}
	if version < fetchReplicaStateVersion {
		m.replica = d.int32()
	}
	m.maxWaitMS, m.minBytes, m.maxBytes = d.int32(), d.int32(), d.int32()
	m.isolation = d.int8()
	if version >= fetchSessionVersion {
		m.sessionID, m.sessionEpoch = d.int32(), d.int32()
	}
	topicBytes := 2 + 4
	if d.flexible {
		topicBytes = 1 + 1 + 1
	}
	n := d.topicCount(topicBytes, 0)
	m.topics = make([]topicRef, 0, n)
	for range n {
		if d.err != nil {
			break
		}
		m.topics = append(m.topics, d.topic(version))
		d.fetchParts(version, m)
		d.tags(nil)
	}
	if version >= fetchSessionVersion {
		n = d.topicCount(topicBytes, len(m.topics))
		m.forgottenTopics = make([]topicRef, 0, n)
		for range n {
			if d.err != nil {
				break
			}
			m.forgottenTopics = append(m.forgottenTopics, d.topic(version))
			parts := d.count(4)
			if d.crowd("forgotten partitions", len(m.forgotten)+parts); d.err != nil {
				break
			}
			m.forgotten = room(m.forgotten, parts)
			for range parts {
				m.forgotten = append(m.forgotten, partRef{int32(len(m.forgottenTopics) - 1), d.int32()})
			}
			d.tags(nil)
		}
	}
	if version >= fetchRackVersion {
		m.rack = d.string()
	}
	d.tags(func(tag uint32, field *decoder) bool {
		if tag != 1 || version < fetchReplicaStateVersion {
			return false // the cluster id is only looked at between nodes
		}
		m.replica = field.int32()
		field.int64() // the replica's epoch
		field.tags(nil)
		return true
	})
	if d.err != nil {
		return nil, d.err
	}
	return m, nil
}

// fetchParts reads the partitions of the last topic.
func (d *decoder) fetchParts(version int16, m *fetchRequest) {
	bytes := 4 + 8 + 4
	if version >= 5 {
		bytes += 8
	}
	if version >= 9 {
		bytes += 4
	}
	if d.flexible {
		bytes += 4 + 1
	}
	n := d.count(bytes)
	if d.crowd("partitions", len(m.parts)+n); d.err != nil {
		return
	}
	m.parts = room(m.parts, n)
	for range n {
		if d.err != nil {
			return
		}
		p := fetchPart{partRef: partRef{int32(len(m.topics) - 1), d.int32()}, leaderEpoch: -1, fetchedEpoch: -1}
		if version >= 9 {
			p.leaderEpoch = d.int32()
		}
		p.offset = d.int64()
		if d.flexible {
			p.fetchedEpoch = d.int32()
		}
		if version >= 5 {
			d.int64() // a follower's log start offset
		}
		p.maxBytes = d.int32()
		d.tags(nil) // a follower's directory and high watermark
		m.parts = append(m.parts, p)
	}
}

// fetchResponse is the answer to a Fetch, but for the batches.
type fetchResponse struct {
	code      errcode.Code // with sessions only
	sessionID int32
	parts     []fetched
	nodes     []endpoint
}

// fetched is the answer for one partition.
type fetched struct {
	topic         topicRef
	index         int32
	code          errcode.Code
	highWatermark int64 // -1 if unknown; the last stable offset is the same
	logStart      int64 // -1 if unknown
	bytes         int64 // of batches
	emptyAborted  bool  // the aborted transactions are none, and not null
	divergingAt   epochEnd
	diverges      bool
	leader        leaderRef
	hasLeader     bool
	readFrom      int32 // the node to read from, if elsewhere
	elsewhere     bool
}

// epochEnd is where a leader epoch ends.
type epochEnd struct {
	epoch int32
	end   int64
}

// heads encodes the answer as what goes before the batches of each of its parts,
// and after those of the last. Parts of one topic that follow on each other
// share a topic's entry, as Kafka's do.
func (r *fetchResponse) heads(version int16) [][]byte {
	e := &encoder{flexible: version >= fetchFlexibleVersion, b: make([]byte, 0, 64+80*len(r.parts))}
	ends := make([]int, 0, len(r.parts)+1)
	e.int32(0) // throttled
	if version >= fetchSessionVersion {
		e.int16(int16(r.code))
		e.int32(r.sessionID)
	}
	e.count(r.topicCount())
	for i := range r.parts {
		p := &r.parts[i]
		if i == 0 || p.topic != r.parts[i-1].topic {
			if i > 0 {
				e.noTags() // of the topic before
			}
			n := 1
			for i+n < len(r.parts) && r.parts[i+n].topic == p.topic {
				n++
			}
			e.topic(version, p.topic)
			e.count(n)
		}
		e.fetched(version, p)
		ends = append(ends, len(e.b))
		e.fetchedTags(p)
	}
	if len(r.parts) > 0 {
		e.noTags()
	}
	if version >= fetchEndpointsVersion && len(r.nodes) > 0 {
		e.uvarint(1)
		e.endpointsTag(0, r.nodes)
	} else {
		e.noTags()
	}
	ends = append(ends, len(e.b))
	heads := make([][]byte, len(ends))
	from := 0
	for i, end := range ends {
		heads[i] = e.b[from:end:end]
		from = end
	}
	return heads
}

func (r *fetchResponse) topicCount() (n int) {
	for i := range r.parts {
		if i == 0 || r.parts[i].topic != r.parts[i-1].topic {
			n++
		}
	}
	return n
}

// fetched appends a partition's fields up to the length of its batches.
func (e *encoder) fetched(version int16, p *fetched) {
	e.int32(p.index)
	e.int16(int16(p.code))
	e.int64(p.highWatermark)
	e.int64(p.highWatermark) // the last stable offset: nothing is unstable
	if version >= 5 {
		e.int64(p.logStart)
	}
	if p.emptyAborted { // aborted transactions: there are none
		e.count(0)
	} else {
		e.count(-1)
	}
	if version >= fetchRackVersion {
		preferred := int32(-1) // this node
		if p.elsewhere {
			preferred = p.readFrom
		}
		e.int32(preferred)
	}
	e.count(int(p.bytes))
}

// fetchedTags appends what follows a partition's batches.
func (e *encoder) fetchedTags(p *fetched) {
	if !e.flexible {
		return
	}
	n := uint32(0)
	if p.diverges {
		n++
	}
	if p.hasLeader {
		n++
	}
	e.uvarint(n)
	if p.diverges {
		e.uvarint(0)
		e.uvarint(4 + 8 + 1)
		e.int32(p.divergingAt.epoch)
		e.int64(p.divergingAt.end)
		e.noTags()
	}
	if p.hasLeader {
		e.leaderTag(1, p.leader)
	}
}
