package metadata

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// reader takes fields off a command or a section. The first error is kept;
// after it every field reads as zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) damaged(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

// take returns the next n bytes, or zeros if there are fewer.
func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.damaged("%d bytes, want %d", len(r.b), n)
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) uint16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

func (r *reader) string() string   { return string(r.take(int(r.uint16()))) }
func (r *reader) topicID() TopicID { return TopicID(r.take(16)) }
func (r *reader) shard() ShardID   { return ShardID(r.uint32()) }
func (r *reader) config() Config   { return Config{r.string(), r.string()} }
func (r *reader) address() Address { return Address{r.string(), r.string(), r.uint16()} }

func (r *reader) bool() bool {
	v := r.take(1)[0]
	if v > 1 {
		r.damaged("%d is neither 0 nor 1", v)
	}
	return v == 1
}

// level reads a feature level, and refuses one that this build does not know:
// what was written since may be anything.
func (r *reader) level() uint16 {
	level := r.uint16()
	if level > MaxFeatureLevel && r.err == nil {
		r.err = fmt.Errorf("%w: the cluster's feature level is %d, and this build knows up to %d; start the newer version that raised it",
			ErrUnsupported, level, MaxFeatureLevel)
		r.b = nil
	}
	return level
}

func (r *reader) nodes() []NodeID {
	ids := list(r, 4, func() NodeID { return NodeID(r.uint32()) })
	if !slices.IsSorted(ids) {
		r.damaged("replicas out of order")
	}
	return ids
}

func (r *reader) configs() []Config {
	cs := list(r, 4, r.config)
	if !slices.IsSortedFunc(cs, func(a, b Config) int { return compareStrings(a.Key, b.Key) }) {
		r.damaged("configs out of order")
	}
	return cs
}

// list reads a count and so many elements of at least size bytes each, so that
// a count that lies allocates nothing. An empty list is nil.
func list[T any](r *reader, size int, element func() T) []T {
	n := int64(r.uint32())
	if n*int64(size) > int64(len(r.b)) {
		r.damaged("%d elements in %d bytes", n, len(r.b))
		return nil
	}
	if n == 0 {
		return nil
	}
	all := make([]T, 0, n)
	for range n {
		all = append(all, element())
	}
	return all
}
