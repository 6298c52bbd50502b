package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// coder reads or writes the fields of one structure after another, so that a
// format is described once. Reading, it takes bytes from the front of b and
// sets what it is pointed at; writing, it appends to b. The first error of
// reading is final: what follows reads as zero.
type coder struct {
	b        []byte
	decoding bool
	version  int16
	flexible bool // compact lengths, and tagged fields
	err      error
}

// errShort reports a field that is longer than what is left.
var errShort = errors.New("cut off")

func (c *coder) fail(field string, err error) {
	if c.err == nil {
		c.err = fmt.Errorf("%s: %w", field, err)
	}
	c.b = nil
}

// end returns the error of reading, which bytes that nothing has read are, too.
func (c *coder) end() error {
	if c.err == nil && len(c.b) > 0 {
		return fmt.Errorf("%d bytes after the last field", len(c.b))
	}
	return c.err
}

// take returns the next n bytes, or nil if fewer are left.
func (c *coder) take(field string, n int) []byte {
	if c.err != nil {
		return nil
	}
	if n > len(c.b) {
		c.fail(field, fmt.Errorf("%w: %d bytes, %d left", errShort, n, len(c.b)))
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *coder) int8(field string, v *int8) {
	if !c.decoding {
		c.b = append(c.b, byte(*v))
	} else if b := c.take(field, 1); b != nil {
		*v = int8(b[0])
	}
}

func (c *coder) int16(field string, v *int16) {
	if !c.decoding {
		c.b = binary.BigEndian.AppendUint16(c.b, uint16(*v))
	} else if b := c.take(field, 2); b != nil {
		*v = int16(binary.BigEndian.Uint16(b))
	}
}

func (c *coder) int32(field string, v *int32) {
	if !c.decoding {
		c.b = binary.BigEndian.AppendUint32(c.b, uint32(*v))
	} else if b := c.take(field, 4); b != nil {
		*v = int32(binary.BigEndian.Uint32(b))
	}
}

func (c *coder) int64(field string, v *int64) {
	if !c.decoding {
		c.b = binary.BigEndian.AppendUint64(c.b, uint64(*v))
	} else if b := c.take(field, 8); b != nil {
		*v = int64(binary.BigEndian.Uint64(b))
	}
}

func (c *coder) topicID(field string, v *TopicID) {
	if !c.decoding {
		c.b = append(c.b, v[:]...)
	} else if b := c.take(field, len(v)); b != nil {
		copy(v[:], b)
	}
}

// uvarint reads an unsigned varint of at most 31 bits.
func (c *coder) uvarint(field string) uint32 {
	if c.err != nil {
		return 0
	}
	v, n := binary.Uvarint(c.b)
	if n <= 0 || v > math.MaxInt32 {
		c.fail(field, fmt.Errorf("%w: a varint that has no end or passes 31 bits", errShort))
		return 0
	}
	c.b = c.b[n:]
	return uint32(v)
}

// A length is written as one of these.
const (
	short = 2 // bytes: of a string, where nothing is compact
	long  = 4 // bytes: of bytes and lists, where nothing is compact
)

// length codes a length or count; -1 stands for null.
func (c *coder) length(field string, width, n int) int {
	switch {
	case c.flexible && c.decoding:
		return int(c.uvarint(field)) - 1
	case c.flexible:
		c.b = binary.AppendUvarint(c.b, uint64(n+1))
	case width == short:
		v := int16(n)
		c.int16(field, &v)
		return int(v)
	default:
		v := int32(n)
		c.int32(field, &v)
		return int(v)
	}
	return n
}

var errNull = errors.New("null, which it cannot be")

// span reads the bytes of a string or of bytes, or null.
func (c *coder) span(field string, width int) (b []byte, null bool) {
	n := c.length(field, width, 0)
	switch {
	case c.err != nil:
		return nil, false
	case n < -1:
		c.fail(field, fmt.Errorf("%d bytes", n))
		return nil, false
	case n == -1:
		return nil, true
	case width == short && n > MaxStringBytes:
		c.fail(field, fmt.Errorf("a string of %d bytes, the limit is %d", n, MaxStringBytes))
		return nil, false
	}
	return c.take(field, n), false
}

func (c *coder) string(field string, v *string) {
	if !c.decoding {
		c.put(field, *v)
		return
	}
	*v = string(c.plain(field))
}

// plain reads a string where it lies.
func (c *coder) plain(field string) []byte {
	b, null := c.span(field, short)
	if null {
		c.fail(field, errNull)
	}
	return b
}

// put writes a string.
func (c *coder) put(field, v string) {
	if len(v) > MaxStringBytes {
		panic(fmt.Sprintf("record: %s: a string of %d bytes, the limit is %d", field, len(v), MaxStringBytes))
	}
	c.length(field, short, len(v))
	c.b = append(c.b, v...)
}

// nullable codes a string that may be null.
func (c *coder) nullable(field string, v **string) {
	switch {
	case c.decoding:
		*v = nil
		if b, null := c.span(field, short); !null {
			*v = new(string(b))
		}
	case *v == nil:
		c.length(field, short, -1)
	default:
		c.put(field, **v)
	}
}

// bytes codes bytes that are not null: nil is written as no bytes.
func (c *coder) bytes(field string, v *[]byte) {
	if !c.decoding {
		c.length(field, long, len(*v))
		c.b = append(c.b, *v...)
		return
	}
	b, null := c.span(field, long)
	if null {
		c.fail(field, errNull)
	}
	*v = append([]byte{}, b...)
}

// nullableBytes codes bytes that may be null, which is nil.
func (c *coder) nullableBytes(field string, v *[]byte) {
	if !c.decoding && *v == nil {
		c.length(field, long, -1)
		return
	}
	if !c.decoding {
		c.bytes(field, v)
		return
	}
	*v = nil
	if b, null := c.span(field, long); !null {
		*v = append([]byte{}, b...)
	}
}

// list codes a list that is not null, each element by each. An element takes at
// least least bytes, so that a count that what is left cannot hold is refused
// before anything is made for it.
func list[T any](c *coder, field string, least int, v *[]T, each func(*coder, *T)) {
	if !c.decoding {
		c.length(field, long, len(*v))
		for i := range *v {
			each(c, &(*v)[i])
		}
		return
	}
	n := c.length(field, long, 0)
	switch {
	case c.err != nil:
		return
	case n < -1:
		c.fail(field, fmt.Errorf("a count of %d", n))
		return
	case n == -1:
		c.fail(field, errNull)
		return
	case n > len(c.b)/least:
		c.fail(field, fmt.Errorf("%w: a count of %d, %d bytes left", errShort, n, len(c.b)))
		return
	case n == 0:
		*v = nil
		return
	}
	*v = make([]T, n)
	for i := range *v {
		if each(c, &(*v)[i]); c.err != nil {
			return
		}
	}
}

func (c *coder) strings(field string, v *[]string) {
	list(c, field, c.width(short), v, func(c *coder, s *string) { c.string(field, s) })
}

func (c *coder) int32s(field string, v *[]int32) {
	list(c, field, 4, v, func(c *coder, n *int32) { c.int32(field, n) })
}

// width returns the fewest bytes of a length.
func (c *coder) width(width int) int {
	if c.flexible {
		return 1
	}
	return width
}

// tagged is one tagged field of a structure.
type tagged struct {
	tag   uint32
	field string
	write bool // it is not what it is when left out
	code  func(*coder)
}

// tags codes the tagged fields at the end of a structure, in the order of their
// tags. What is not flexible has none.
func (c *coder) tags(fields ...tagged) {
	switch {
	case !c.flexible:
	case c.decoding:
		c.readTags(fields)
	default:
		count := 0
		for _, f := range fields {
			if f.write {
				count++
			}
		}
		c.b = binary.AppendUvarint(c.b, uint64(count))
		for _, f := range fields {
			if !f.write {
				continue
			}
			inner := coder{version: c.version, flexible: true}
			f.code(&inner)
			c.b = binary.AppendUvarint(c.b, uint64(f.tag))
			c.b = binary.AppendUvarint(c.b, uint64(len(inner.b)))
			c.b = append(c.b, inner.b...)
		}
	}
}

func (c *coder) readTags(fields []tagged) {
	count := c.uvarint("tagged fields")
	last := int64(-1)
	for range count {
		tag := c.uvarint("tag")
		size := c.uvarint("size of a tagged field")
		if c.err == nil && int64(tag) <= last {
			c.fail("tagged fields", fmt.Errorf("tag %d after %d", tag, last))
		}
		last = int64(tag)
		b := c.take("tagged field", int(size))
		if c.err != nil {
			return
		}
		for _, f := range fields {
			if f.tag != tag {
				continue
			}
			inner := coder{b: b, decoding: true, version: c.version, flexible: true}
			f.code(&inner)
			if err := inner.end(); err != nil {
				c.fail(f.field, err)
			}
		}
	}
}
