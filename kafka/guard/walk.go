package guard

import (
	"encoding/binary"
	"math"
)

// maxTextBytes is the longest string that Kafka takes. In versions that are not
// flexible no longer one can be encoded.
const maxTextBytes = math.MaxInt16

// null is the length of what is null.
const null = -1

// walker is on its way through one body. Its methods return false when they
// have refused it, and refused says why.
type walker struct {
	body     []byte
	at       int // bytes that are walked
	end      int // of what may be walked: the body's, or a tagged field's
	alloc    int64
	limits   Limits
	flexible bool
	refused  Error // but for what the walker does not know
}

// error returns why the walk ended.
//
//go:noinline
func (w *walker) error(request string, version int16) error {
	e := w.refused
	e.Request, e.Version = request, version
	return &e
}

// refuse ends the walk here. reason has a verb for value and one for bound. In
// which field that is, the callers add.
//
//go:noinline
func (w *walker) refuse(kind error, reason string, value, bound int64) bool {
	w.refused = Error{Kind: kind, At: w.at, reason: reason, value: value, bound: bound}
	return false
}

// in names the struct and the field that were refused, unless one inside has.
//
//go:noinline
func (w *walker) in(s *structure, f string) bool {
	if w.refused.Struct == "" {
		w.refused.Struct, w.refused.Field = s.name, f
	}
	return false
}

// request walks a whole body.
func (w *walker) request(s *structure) bool {
	if !w.allocate(int64(s.memory)) {
		return w.in(s, "(itself)")
	}
	return w.fields(s)
}

// left is how many bytes there are still.
func (w *walker) left() int { return w.end - w.at }

const short = "%d bytes are needed, %d are left"

// skip walks over n bytes.
func (w *walker) skip(n int) bool {
	if n > w.left() {
		return w.refuse(ErrMalformed, short, int64(n), int64(w.left()))
	}
	w.at += n
	return true
}

// allocate counts one allocation of n bytes.
func (w *walker) allocate(n int64) bool {
	w.alloc += rounded(n)
	if w.alloc > w.limits.AllocBytes {
		return w.refuse(ErrTooLarge, "decoding would allocate %d bytes, %d are allowed: send several smaller requests", w.alloc, w.limits.AllocBytes)
	}
	return true
}

// fields walks a struct.
func (w *walker) fields(s *structure) bool {
	for i := range s.fields {
		if f := &s.fields[i]; !w.one(f) {
			return w.in(s, f.name)
		}
	}
	if !w.flexible {
		return true
	}
	if w.at < w.end && w.body[w.at] == 0 { // no tag, as nearly always
		w.at++
		return true
	}
	return w.tags(s)
}

// one walks a field.
func (w *walker) one(f *field) bool {
	switch f.kind {
	case fixed:
		return w.skip(int(f.size))
	case text:
		return w.text(f.nullable, f.pointer)
	case blob:
		n, ok := w.length(f.nullable)
		return ok && (n <= 0 || w.skip(n)) // it is not copied: see kmsg
	case nested:
		return w.nested(f)
	}
	return w.array(f)
}

// text walks a string.
func (w *walker) text(nullable, pointer bool) bool {
	var n int
	ok := true
	if w.flexible {
		n, ok = w.compact()
	} else if w.left() >= 2 {
		n = int(int16(binary.BigEndian.Uint16(w.body[w.at:])))
		w.at += 2
	} else {
		return w.skip(2)
	}
	switch {
	case !ok:
		return false
	case n < 0:
		return nullable || w.refuse(ErrMalformed, "length %d: it may not be null (least length: %d)", int64(n), 0)
	case n > maxTextBytes:
		return w.refuse(ErrMalformed, "a string of %d bytes, at most %d are allowed", int64(n), maxTextBytes)
	case !w.skip(n):
		return false
	case pointer && !w.allocate(stringBytes):
		return false
	case n > 1:
		return w.allocate(int64(n))
	}
	return true
}

// length walks the length of a byte string, or the count of an array, and
// returns null if it is null.
func (w *walker) length(nullable bool) (n int, ok bool) {
	if w.flexible {
		if n, ok = w.compact(); !ok {
			return 0, false
		}
	} else if w.left() >= 4 {
		n = int(int32(binary.BigEndian.Uint32(w.body[w.at:])))
		w.at += 4
	} else {
		return 0, w.skip(4)
	}
	if n < 0 {
		if !nullable {
			return 0, w.refuse(ErrMalformed, "length %d: it may not be null (least length: %d)", int64(n), 0)
		}
		n = null
	}
	return n, true
}

// compact walks a compact length, which is one more than what it stands for.
func (w *walker) compact() (n int, ok bool) {
	v, ok := w.uvarint()
	if !ok {
		return 0, false
	}
	if v > math.MaxInt32 {
		return 0, w.refuse(ErrMalformed, "a length of %d, at most %d can be", int64(v)-1, math.MaxInt32-1)
	}
	return int(v) - 1, true
}

// maxUvarintBytes is the most that 32 bits are encoded in.
const maxUvarintBytes = 5

// uvarint walks an unsigned varint of 32 bits.
func (w *walker) uvarint() (v uint32, ok bool) {
	b := w.body[w.at:w.end]
	if len(b) > 0 && b[0] < 0x80 {
		w.at++
		return uint32(b[0]), true
	}
	for i := range min(len(b), maxUvarintBytes) {
		c := b[i]
		v |= uint32(c&0x7f) << (7 * i)
		switch {
		case i == maxUvarintBytes-1 && c > 0x0f:
			return 0, w.refuse(ErrMalformed, "a varint of more than %d bits, or %d bytes", 32, maxUvarintBytes)
		case c < 0x80:
			w.at += i + 1
			return v, true
		}
	}
	return 0, w.refuse(ErrMalformed, "a varint of more than the %d bytes that are left (it may take %d)", int64(len(b)), maxUvarintBytes)
}

// nested walks a struct that may be null.
func (w *walker) nested(f *field) bool {
	s := &structures[f.elem]
	if !f.nullable {
		return w.fields(s)
	}
	if !w.skip(1) {
		return false
	}
	switch present := int8(w.body[w.at-1]); {
	case present == null:
		return true
	case present < 0: // null to Kafka, and not null to kmsg
		return w.refuse(ErrMalformed, "%d is neither null (%d) nor a struct", int64(present), null)
	}
	return w.allocate(int64(s.memory)) && w.fields(s)
}

// array walks an array.
func (w *walker) array(f *field) bool {
	n, ok := w.length(f.nullable)
	if !ok {
		return false
	}
	if n <= 0 {
		return true
	}
	least, memory := int(f.size), int64(f.size)
	switch f.kind {
	case texts:
		memory = stringBytes
	case structs:
		least, memory = int(structures[f.elem].min), int64(structures[f.elem].memory)
	}
	switch {
	case n > w.left()/least:
		return w.refuse(ErrMalformed, "%d elements, the bytes left hold at most %d", int64(n), int64(w.left()/least))
	case int64(n) > w.limits.ArrayElements:
		return w.refuse(ErrTooLarge, "%d elements, %d are allowed: send several smaller requests", int64(n), w.limits.ArrayElements)
	case !w.allocate(int64(n) * memory):
		return false
	case f.kind == scalars:
		return w.skip(n * least)
	case f.kind == texts:
		for range n {
			if !w.text(false, false) {
				return false
			}
		}
		return true
	}
	s := &structures[f.elem]
	for range n {
		if !w.fields(s) {
			return false
		}
	}
	return true
}
