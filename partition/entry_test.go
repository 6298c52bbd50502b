package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sampleConfig needs nothing newer than apply version 1.
var sampleConfig = Config{SegmentBytes: 1 << 20, MaxMessageBytes: 1 << 16, LogAppendTime: true}

// everyCommand builds an entry with each command of apply version 1.
func everyCommand() []byte {
	var b EntryBuilder
	b.Reset(nil, EntryHeader{DecidedTerm: 3, WallClockMS: 1234, HashAsked: true})
	b.TermStart()
	b.CreatePartition(CreatePartition{topicID("a"), 1, 10, 7, sampleConfig})
	b.Produce(1, testBatch{id: 7, count: 3, trailing: 20}.bytes())
	b.SetPartitionConfig(SetPartitionConfig{topicID("a"), 1, 11, testConfig})
	b.AdvanceLogStart(1, 2)
	b.SetApplyVersion(1)
	b.SetLimits(DefaultLimits)
	b.DeletePartition(DeletePartition{topicID("a"), 1, 12})
	return b.Bytes()
}

// secondConfig needs apply version 2.
var secondConfig = Config{SegmentBytes: 1 << 20, MaxMessageBytes: 1 << 16, SegmentMS: 0x0102030405060708}

var sampleExpire = ExpireProducers{UntilMS: 77, Producers: []IdleProducer{
	{Number: 1, ID: 7, Epoch: 3, LastSequence: 1<<31 - 1}, {Number: 2, ID: 1 << 40},
}}

// everyCommandOfVersion2 builds an entry with each command that has more in
// apply version 2.
func everyCommandOfVersion2() []byte {
	var b EntryBuilder
	b.Reset(nil, EntryHeader{DecidedTerm: 3, WallClockMS: 1234})
	b.SetApplyVersion(2)
	b.CreatePartition(CreatePartition{topicID("a"), 1, 10, 7, secondConfig})
	b.SetPartitionConfig(SetPartitionConfig{topicID("a"), 1, 11, secondConfig})
	b.ExpireProducers(sampleExpire)
	return b.Bytes()
}

// everyCommandOfVersion3 builds an entry with each command that has more in
// apply version 3.
func everyCommandOfVersion3(t testing.TB) []byte {
	var b EntryBuilder
	b.Reset(nil, EntryHeader{DecidedTerm: 3, WallClockMS: 1234})
	b.SetApplyVersion(3)
	b.CreatePartition(CreatePartition{topicID("groups"), 1, 10, 7, internalConfig})
	b.SetPartitionConfig(SetPartitionConfig{topicID("groups"), 1, 11, internalConfig})
	b.Decision(Decision{Number: 1, Term: 3, Seq: 0x0102030405060708, Batches: recordsOf(t, "a=1", "b")})
	return b.Bytes()
}

// An entry has the lowest apply version that knows everything in it.
func TestBuilderVersion(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		add  func(b *EntryBuilder)
		want uint16
	}{
		{"nothing", func(*EntryBuilder) {}, 1},
		{"to raise the version", func(b *EntryBuilder) { b.SetApplyVersion(2) }, 1},
		{"create without segment ms", func(b *EntryBuilder) { b.CreatePartition(CreatePartition{Config: sampleConfig}) }, 1},
		{"create", func(b *EntryBuilder) { b.CreatePartition(CreatePartition{Config: secondConfig}) }, 2},
		{"expire", func(b *EntryBuilder) { b.ExpireProducers(sampleExpire) }, 2},
		{"config", func(b *EntryBuilder) { b.SetPartitionConfig(SetPartitionConfig{Config: secondConfig}) }, 2},
		{"create an internal partition", func(b *EntryBuilder) { b.CreatePartition(CreatePartition{Config: internalConfig}) }, 3},
		{"decision", func(b *EntryBuilder) { b.Decision(Decision{}) }, 3},
	}
	for _, tt := range tests {
		var b EntryBuilder
		b.Reset(nil, EntryHeader{ApplyVersion: 9})
		b.SetPartitionConfig(SetPartitionConfig{Config: secondConfig})
		b.Reset(nil, EntryHeader{ApplyVersion: 9}) // remembers nothing
		tt.add(&b)
		b.TermStart()
		d, err := Decode(b.Bytes())
		if err != nil || d.Header.ApplyVersion != tt.want || b.ApplyVersion() != tt.want {
			t.Errorf("%s: version %d, %d in the builder, %v, want %d", tt.name, d.Header.ApplyVersion, b.ApplyVersion(), err, tt.want)
		}
	}
}

func TestEntryRoundTrip(t *testing.T) {
	t.Parallel()
	d, err := Decode(everyCommand())
	if err != nil {
		t.Fatal(err)
	}
	if want := (EntryHeader{1, 3, 1234, true}); d.Header != want || d.Count != 8 {
		t.Errorf("header %+v count %d, want %+v and 8", d.Header, d.Count, want)
	}
	var kinds []Kind
	for d.Next() {
		c := d.Command()
		kinds = append(kinds, c.Kind)
		var got, want any
		switch c.Kind {
		case KindCreatePartition:
			got, want = decodeCreate(c.Payload), CreatePartition{topicID("a"), 1, 10, 7, sampleConfig}
		case KindSetPartitionConfig:
			got, want = decodeSetConfig(c.Payload), SetPartitionConfig{topicID("a"), 1, 11, testConfig}
		case KindDeletePartition:
			got, want = decodeDelete(c.Payload), DeletePartition{topicID("a"), 1, 12}
		case KindSetLimits:
			got, want = decodeLimits(c.Payload), DefaultLimits
		case KindProduce:
			got, want = c.Payload, testBatch{id: 7, count: 3, trailing: 20}.bytes()
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%v differs (-want +got):\n%s", c.Kind, d)
		}
	}
	want := []Kind{
		KindTermStart, KindCreatePartition, KindProduce, KindSetPartitionConfig,
		KindAdvanceLogStart, KindSetApplyVersion, KindSetLimits, KindDeletePartition,
	}
	if d := cmp.Diff(want, kinds); d != "" {
		t.Errorf("commands differ (-want +got):\n%s", d)
	}
}

func TestExpireRoundTrip(t *testing.T) {
	t.Parallel()
	if d := cmp.Diff(sampleExpire, decodeExpire(sampleExpire.append(nil))); d != "" {
		t.Errorf("differs (-want +got):\n%s", d)
	}
	for _, n := range []int{0, 1, 7, 8, 8 + 17, 8 + 19, 8 + 35} {
		var b EntryBuilder
		b.Reset(nil, EntryHeader{})
		b.version = 2
		b.frame(KindExpireProducers, 0, n)
		b.buf = append(b.buf, make([]byte, n)...)
		if _, err := Decode(b.Bytes()); !errors.Is(err, ErrDamaged) {
			t.Errorf("payload of %d bytes: error = %v, want ErrDamaged", n, err)
		}
	}
}

// An entry is memory of its own, whatever is in it: what its builder builds next,
// and what becomes of the buffers that its batches lay in, does not change it.
func TestBuilderReuse(t *testing.T) {
	t.Parallel()
	batch := testBatch{id: 7, count: 3, trailing: 20}.bytes()
	tests := []struct {
		name string
		add  func(b *EntryBuilder)
	}{
		{"no batch", func(b *EntryBuilder) { b.TermStart() }},
		{"a batch at the end", func(b *EntryBuilder) { b.TermStart(); b.Produce(1, batch) }},
		{"between batches", func(b *EntryBuilder) { b.Produce(1, batch); b.AdvanceLogStart(1, 2); b.Produce(2, batch) }},
	}
	for _, tt := range tests {
		var fresh, used EntryBuilder
		used.Reset([]byte("prefix"), EntryHeader{DecidedTerm: 9})
		used.Produce(5, batch)
		used.SetLimits(DefaultLimits)
		used.Bytes()
		used.Reset(nil, EntryHeader{})
		used.Produce(6, batch) // given up by the next Reset
		build := func(b *EntryBuilder) []byte {
			b.Reset(nil, EntryHeader{DecidedTerm: 3})
			tt.add(b)
			return b.Bytes()
		}
		want, got := build(&fresh), build(&used)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: a used builder made\n%x, want\n%x", tt.name, got, want)
		}
		used.Reset(nil, EntryHeader{DecidedTerm: 4})
		used.SetLimits(DefaultLimits)
		for i := range batch {
			batch[i] ^= 0xff
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the entry changed after it was taken", tt.name)
		}
		for i := range batch {
			batch[i] ^= 0xff
		}
	}
}

// An entry is built behind what the buffer holds, and its size is known before.
func TestBuilderSizes(t *testing.T) {
	t.Parallel()
	var b EntryBuilder
	b.Reset([]byte("raft"), EntryHeader{})
	batch := testBatch{id: -1, count: 1}.bytes()
	b.Produce(1, batch)
	b.Produce(2, batch)
	if want := EntryOverheadBytes + 2*(ProduceOverheadBytes+len(batch)); b.Len() != want || b.Count() != 2 {
		t.Errorf("Len = %d, Count = %d, want %d and 2", b.Len(), b.Count(), want)
	}
	out := b.Bytes()
	if !bytes.HasPrefix(out, []byte("raft")) {
		t.Errorf("Bytes = %x..., want the prefix kept", out[:8])
	}
	if _, err := Decode(out[4:]); err != nil {
		t.Error(err)
	}
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	const frame = entryHeaderBytes // where the first frame, a Produce, starts
	tlv := func(types ...uint16) func(b []byte) []byte {
		return func(b []byte) []byte {
			var tlvs []byte
			for _, typ := range types {
				tlvs = binary.LittleEndian.AppendUint16(tlvs, typ)
				tlvs = append(tlvs, 1, 0, 0xaa)
			}
			b[frame+2] += byte(len(tlvs))
			at := frame + frameHeaderBytes
			return append(append(bytes.Clone(b[:at]), tlvs...), b[at:]...)
		}
	}
	set := func(i int, v byte) func(b []byte) []byte {
		return func(b []byte) []byte { b[i] = v; return b }
	}
	// command appends a frame with a payload.
	command := func(k Kind, n Number, payload ...byte) func(b []byte) []byte {
		return func(b []byte) []byte {
			b[4]++
			b = append(b, byte(k), 0, frameHeaderBytes, 0)
			b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
			b = binary.LittleEndian.AppendUint32(b, uint32(n))
			return append(b, payload...)
		}
	}
	config := SetPartitionConfig{Config: testConfig}.append(nil)
	config[len(config)-1] = 1
	second := SetPartitionConfig{Config: secondConfig}.append(nil)

	tests := []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"intact", func(b []byte) []byte { return b }, nil},
		{"empty", func([]byte) []byte { return nil }, ErrDamaged},
		{"newer format", set(0, entryFormat+1), ErrUnsupported},
		{"unknown entry flag", set(1, 2), ErrUnsupported},
		{"newer apply version", set(2, MaxApplyVersion+1), ErrUnsupported},
		{"no apply version", set(2, 0), ErrDamaged},
		{"negative wall clock", set(23, 0x80), ErrDamaged},
		{"count too high", set(4, 2), ErrDamaged},
		{"count too low", set(4, 0), ErrDamaged},
		{"kind 0", set(frame, 0), ErrDamaged},
		{"a kind of version 2 in an entry of version 1", command(KindExpireProducers, 0, make([]byte, expireBytes+idleBytes)...), ErrUnsupported},
		{"the kind after the last", set(frame, byte(lastKind+1)), ErrUnsupported},
		{"unknown kind", set(frame, 200), ErrUnsupported},
		{"unknown frame flag", set(frame+1, 1), ErrUnsupported},
		{"header too short", set(frame+2, frameHeaderBytes-1), ErrDamaged},
		{"payload too long", set(frame+7, 0xff), ErrDamaged},
		{"bytes behind", func(b []byte) []byte { return append(b, 0) }, ErrDamaged},
		{"skippable TLVs", tlv(uint16(TLVTransactionNumber), uint16(TLVMoveID), 999), nil},
		{"mandatory TLV", tlv(uint16(TLVDecisionNumber) | tlvMandatory), ErrUnsupported},
		{"TLVs out of order", tlv(2, 1), ErrDamaged},
		{"TLV twice", tlv(2, 2), ErrDamaged},
		{"TLV header cut off", func(b []byte) []byte { b[frame+2] += 3; return append(b, 0, 0, 0) }, ErrDamaged},
		{"payload of the wrong size", command(KindAdvanceLogStart, 1, 1, 2, 3), ErrDamaged},
		{"number where none belongs", command(KindTermStart, 1), ErrDamaged},
		{"newer config", command(KindSetPartitionConfig, 0, config...), ErrUnsupported},
		{"config of version 2 in an entry of version 1", command(KindSetPartitionConfig, 0, second...), ErrUnsupported},
		{"newer version to set", command(KindSetApplyVersion, 0, MaxApplyVersion+1, 0), ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b EntryBuilder
			b.Reset(nil, EntryHeader{WallClockMS: 5})
			b.Produce(1, testBatch{id: -1, count: 1}.bytes())
			in := tt.change(b.Bytes())
			if _, err := Decode(in); !errors.Is(err, tt.want) {
				t.Fatalf("Decode error = %v, want %v", err, tt.want)
			}
			if tt.want == nil {
				return
			}
			// Apply refuses the entry as a whole: the good command before the
			// bad one leaves no trace.
			m := newMachine(t)
			m.apply(create("a", 0, 1))
			before := m.s.StateHash()
			if err := m.s.Apply(m.index+1, m.term, in, &m.out); !errors.Is(err, tt.want) {
				t.Fatalf("Apply error = %v, want %v", err, tt.want)
			}
			if m.s.StateHash() != before || len(m.out.Results) > 0 {
				t.Error("the refused entry changed the state")
			}
		})
	}
}

// FuzzDecode checks, for any bytes, that Decode and Apply do not panic, and that
// an entry without TLVs re-encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add(everyCommand())
	f.Add(everyCommandOfVersion2())
	f.Add([]byte(nil))
	f.Add(newMachine(f).entry(produce(1, testBatch{id: 1, count: math.MaxInt32})))
	f.Fuzz(func(t *testing.T, in []byte) {
		d, err := Decode(in)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("Decode error = %v, want a sentinel", err)
			}
			return
		}
		m := newMachine(t)
		m.apply(create("a", 0, 1))
		if err := m.s.Apply(m.index+1, 3, bytes.Clone(in), &m.out); err != nil {
			t.Fatalf("Apply of what decodes: %v", err)
		}
		restored := restore(t, delta(t, m.s.full()))
		if restored.StateHash() != m.s.StateHash() {
			t.Fatal("the restored state differs")
		}
		reencode(t, d, in)
	})
}

func reencode(t *testing.T, d Decoder, in []byte) {
	var b EntryBuilder
	b.Reset(nil, d.Header)
	b.version = d.Header.ApplyVersion // any that will do is as good to a decoder
	for d.Next() {
		c := d.Command()
		if len(c.TLVs) > 0 {
			return
		}
		b.frame(c.Kind, c.Number, len(c.Payload))
		switch c.Kind {
		case KindCreatePartition:
			b.buf = decodeCreate(c.Payload).append(b.buf)
		case KindSetPartitionConfig:
			b.buf = decodeSetConfig(c.Payload).append(b.buf)
		case KindDeletePartition:
			b.buf = decodeDelete(c.Payload).append(b.buf)
		case KindExpireProducers:
			b.buf = decodeExpire(c.Payload).append(b.buf)
		case KindSetLimits:
			b.buf = decodeLimits(c.Payload).append(b.buf)
		default:
			b.buf = append(b.buf, c.Payload...)
		}
	}
	if got := b.Bytes(); !bytes.Equal(got, in) {
		t.Fatalf("re-encoded %x, want %x", got, in)
	}
}
