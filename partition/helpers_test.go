package partition

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// testBatch says what the header of a test's batch holds. Apply looks at
// nothing behind the header.
type testBatch struct {
	id       int64
	epoch    int16
	seq      int32
	count    int32
	attrs    uint16
	maxTime  int64
	trailing int // bytes behind the header
}

const attrLogAppendTime = 0x08

func (b testBatch) bytes() []byte {
	out := make([]byte, 61+b.trailing)
	be := binary.BigEndian
	be.PutUint32(out[8:], uint32(len(out)-12))
	out[16] = 2
	be.PutUint16(out[21:], b.attrs)
	be.PutUint32(out[23:], uint32(b.count-1))
	be.PutUint64(out[35:], uint64(b.maxTime))
	be.PutUint64(out[43:], uint64(b.id))
	be.PutUint16(out[51:], uint16(b.epoch))
	be.PutUint32(out[53:], uint32(b.seq))
	be.PutUint32(out[57:], uint32(b.count))
	return out
}

var testConfig = Config{SegmentBytes: 1 << 28, MaxMessageBytes: 1 << 20}

func topicID(s string) TopicID {
	var id TopicID
	copy(id[:], s)
	return id
}

// machine drives one State. The zero entry header is filled in.
type machine struct {
	t     testing.TB
	s     *State
	index uint64
	term  uint64
	clock int64
	out   Outcome
}

func newMachine(t testing.TB) *machine {
	return &machine{t: t, s: New(), term: 1, clock: 1000}
}

// entry builds an entry of what add appends.
func (m *machine) entry(add ...func(*EntryBuilder)) []byte {
	var b EntryBuilder
	b.Reset(nil, EntryHeader{DecidedTerm: m.term, WallClockMS: m.clock})
	for _, f := range add {
		f(&b)
	}
	return b.Bytes()
}

// apply applies one entry and returns its results.
func (m *machine) apply(add ...func(*EntryBuilder)) []Result {
	m.t.Helper()
	m.index++
	if err := m.s.Apply(m.index, m.term, m.entry(add...), &m.out); err != nil {
		m.t.Fatalf("Apply(%d): %v", m.index, err)
	}
	return slices.Clone(m.out.Results)
}

func create(topic string, index int32, stamp uint64) func(*EntryBuilder) {
	return func(b *EntryBuilder) {
		b.CreatePartition(CreatePartition{TopicID: topicID(topic), Index: index, MetadataIndex: stamp, Config: testConfig})
	}
}

func remove(topic string, index int32, stamp uint64) func(*EntryBuilder) {
	return func(b *EntryBuilder) {
		b.DeletePartition(DeletePartition{TopicID: topicID(topic), Index: index, MetadataIndex: stamp})
	}
}

func produce(n Number, tb testBatch) func(*EntryBuilder) {
	return func(b *EntryBuilder) { b.Produce(n, tb.bytes()) }
}

func advance(n Number, offset int64) func(*EntryBuilder) {
	return func(b *EntryBuilder) { b.AdvanceLogStart(n, offset) }
}

func setLimits(l Limits) func(*EntryBuilder) {
	return func(b *EntryBuilder) { b.SetLimits(l) }
}

// delta returns the bytes of a capture.
func delta(t testing.TB, c *Capture) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := c.WriteDelta(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func restore(t testing.TB, bs ...[]byte) *State {
	t.Helper()
	s, err := Restore(bytes.NewReader(slices.Concat(bs...)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
