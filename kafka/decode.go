package kafka

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/kafka/guard"
)

// checkBody looks over the body of a request that is decoded by hand, as over that
// of any other: see package guard.
func checkBody(key kmsg.Key, version int16, body []byte) error {
	_, err := guard.Check(int16(key), version, body, guard.LimitsFor(len(body)))
	return err
}

// decoder reads the body of a request that is decoded by hand, field by field,
// after checkBody. Bytes behind the last field are ignored, as in Kafka.
// After the first error it reads zeros, so that only the end has to ask. What it
// returns aliases the body, unless it is a string.
type decoder struct {
	b        []byte
	flexible bool
	err      error
}

// fail notes the first error, and ends the reading.
func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{errMalformed}, args...)...)
	}
	d.b = nil
}

// take returns the next n bytes; zeros if there are fewer. n is small.
func (d *decoder) take(n int) []byte {
	if len(d.b) < n {
		d.fail("%d bytes left, want %d", len(d.b), n)
		return make([]byte, n)
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) int8() int8     { return int8(d.take(1)[0]) }
func (d *decoder) int16() int16   { return int16(binary.BigEndian.Uint16(d.take(2))) }
func (d *decoder) int32() int32   { return int32(binary.BigEndian.Uint32(d.take(4))) }
func (d *decoder) int64() int64   { return int64(binary.BigEndian.Uint64(d.take(8))) }
func (d *decoder) uuid() [16]byte { return [16]byte(d.take(16)) }

// uvarint reads an unsigned number of at most 32 bits.
func (d *decoder) uvarint() uint32 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > binary.MaxVarintLen32 || v > 1<<32-1 {
		d.fail("a number that does not end, or is above 32 bits")
		return 0
	}
	d.b = d.b[n:]
	return uint32(v)
}

// length reads the length of an array, or of bytes (of a string, if short); -1
// is null. It is at most what is left.
func (d *decoder) length(short bool) int {
	var n int64
	switch {
	case d.flexible:
		n = int64(d.uvarint()) - 1
	case short:
		n = int64(d.int16())
	default:
		n = int64(d.int32())
	}
	if d.err != nil {
		return -1
	}
	if n < 0 && (!d.flexible || n == -1) {
		return -1 // any negative length of the old encodings is null, as in Kafka
	}
	if n < 0 || n > int64(len(d.b)) {
		d.fail("a length of %d with %d bytes left", n, len(d.b))
		return -1
	}
	return int(n)
}

// count reads the length of an array that is never null, whose elements take at
// least elementBytes each.
func (d *decoder) count(elementBytes int) int {
	n := d.length(false)
	switch {
	case d.err != nil:
		return 0
	case n < 0:
		d.fail("null for an array")
		return 0
	case n > len(d.b)/elementBytes:
		d.fail("%d elements of at least %d bytes with %d bytes left", n, elementBytes, len(d.b))
		return 0
	}
	return n
}

// bytes reads bytes, which may be null: nil then. The records of Produce.
func (d *decoder) bytes() []byte {
	n := d.length(false)
	if n < 0 {
		return nil
	}
	taken := d.b[:n:n]
	d.b = d.b[n:]
	return taken
}

// nullableString reads a string, and whether it is not null.
func (d *decoder) nullableString() (string, bool) {
	n := d.length(true)
	if n < 0 {
		return "", false
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s, true
}

// string reads a string that is never null.
func (d *decoder) string() string {
	s, ok := d.nullableString()
	if !ok {
		d.fail("null for a string")
	}
	return s
}

// tags reads the tagged fields, if the encoding has any. known is handed a
// decoder of each field's bytes, and returns false for one that is to be
// skipped; it may be nil.
func (d *decoder) tags(known func(tag uint32, field *decoder) bool) {
	if !d.flexible {
		return
	}
	n := d.uvarint()
	if int64(n) > int64(len(d.b))/2 {
		d.fail("%d tagged fields with %d bytes left", n, len(d.b))
		return
	}
	for range n {
		tag, size := d.uvarint(), d.uvarint()
		if int64(size) > int64(len(d.b)) {
			d.fail("tag %d of %d bytes with %d bytes left", tag, size, len(d.b))
		}
		if d.err != nil {
			return
		}
		field := decoder{b: d.b[:size], flexible: true}
		if known != nil && known(tag, &field) {
			if len(field.b) > 0 {
				field.fail("%d bytes after the field", len(field.b))
			}
			if field.err != nil {
				d.fail("tag %d: %w", tag, field.err)
				return
			}
		}
		d.b = d.b[size:]
	}
}

// room returns s with room for n more elements. It doubles what it makes, so that
// all that is made on the way to a slice is at most twice as large.
func room[T any](s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	return append(make([]T, 0, max(len(s)+n, 2*cap(s))), s...)
}

// topicRef names a topic as a request does: by its name, or by its id.
type topicRef struct {
	name string
	id   broker.TopicID
}

// numbered returns for each of topics the place of the first that is the same, so
// that a partition is told from others by two numbers: a name, which may be long,
// is hashed once, and not for each of its partitions.
func numbered[T any](topics []T, ref func(*T) topicRef) []int32 {
	number := make([]int32, len(topics))
	if len(topics) < 2 {
		return number
	}
	first := make(map[topicRef]int32, len(topics))
	for i := range topics {
		t := ref(&topics[i])
		if _, again := first[t]; !again {
			first[t] = int32(i)
		}
		number[i] = first[t]
	}
	return number
}

// topic reads what a topic is named by in a version of Produce or Fetch: an id
// from version 13 on, in both.
func (d *decoder) topic(version int16) (t topicRef) {
	if version >= topicIDVersion {
		t.id = d.uuid()
		return t
	}
	t.name = d.string()
	return t
}

// topicIDVersion is from where on Produce and Fetch name topics by id.
const topicIDVersion = 13

// topicCount reads the length of a Fetch's array of topics, of which before were
// read.
func (d *decoder) topicCount(elementBytes, before int) int {
	n := d.count(elementBytes)
	if d.crowd("topics", before+n); d.err != nil {
		return 0
	}
	return n
}

// String names the topic, for people.
func (t topicRef) String() string {
	if t.id != (broker.TopicID{}) {
		return "topic id " + t.id.String()
	}
	return "topic " + t.name
}
