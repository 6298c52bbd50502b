package kafka

import (
	"encoding/binary"
	"math"
)

// encoder appends the fields of a response that is encoded by hand.
type encoder struct {
	b        []byte
	flexible bool
}

func (e *encoder) int16(v int16)    { e.b = binary.BigEndian.AppendUint16(e.b, uint16(v)) }
func (e *encoder) int32(v int32)    { e.b = binary.BigEndian.AppendUint32(e.b, uint32(v)) }
func (e *encoder) int64(v int64)    { e.b = binary.BigEndian.AppendUint64(e.b, uint64(v)) }
func (e *encoder) uvarint(v uint32) { e.b = binary.AppendUvarint(e.b, uint64(v)) }
func (e *encoder) uuid(id [16]byte) { e.b = append(e.b, id[:]...) }

// count appends the length of an array, or of bytes; -1 is null.
func (e *encoder) count(n int) {
	if e.flexible {
		e.uvarint(uint32(n + 1))
		return
	}
	e.int32(int32(n))
}

// string appends a string. One that is longer than the encoding can say is cut:
// only error texts can be that long.
func (e *encoder) string(s string) {
	s = s[:min(len(s), math.MaxInt16)]
	if e.flexible {
		e.uvarint(uint32(len(s) + 1))
	} else {
		e.int16(int16(len(s)))
	}
	e.b = append(e.b, s...)
}

// stringOrNull appends a string, or null for an empty one.
func (e *encoder) stringOrNull(s string) {
	switch {
	case s != "":
		e.string(s)
	case e.flexible:
		e.uvarint(0)
	default:
		e.int16(-1)
	}
}

// noTags ends a structure that has no tagged field.
func (e *encoder) noTags() {
	if e.flexible {
		e.uvarint(0)
	}
}

// topic appends what a topic is named by in a version of Produce or Fetch.
func (e *encoder) topic(version int16, t topicRef) {
	if version >= topicIDVersion {
		e.uuid(t.id)
		return
	}
	e.string(t.name)
}

// leaderTag appends the tagged field of a partition's leader (KIP-951).
func (e *encoder) leaderTag(tag uint32, l leaderRef) {
	e.uvarint(tag)
	e.uvarint(4 + 4 + 1)
	e.int32(l.node)
	e.int32(l.epoch)
	e.noTags()
}

// endpointsTag appends the tagged field of the nodes that leaders live on
// (KIP-951), with number tag.
func (e *encoder) endpointsTag(tag uint32, nodes []endpoint) {
	field := encoder{flexible: true}
	field.count(len(nodes))
	for _, n := range nodes {
		field.int32(n.node)
		field.string(n.host)
		field.int32(n.port)
		field.stringOrNull(n.rack)
		field.noTags()
	}
	e.uvarint(tag)
	e.uvarint(uint32(len(field.b)))
	e.b = append(e.b, field.b...)
}
