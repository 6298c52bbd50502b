package partition

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// An entry is the data of one Raft log entry of a shard: a header, and a frame
// for each command (little-endian, offsets in bytes).
//
// Header:
//
//	0        1       2               4       8              16           24
//	+--------+-------+---------------+-------+--------------+------------+
//	| format | flags | apply version | count | decided term | wall clock |
//	+--------+-------+---------------+-------+--------------+------------+
//
// flags bit 0 asks for the state's hash at this entry. apply version is the
// oldest that knows everything in the entry; what it does not know is refused,
// whatever the reader knows. decided term is the term in which
// the leader decided the commands other than Produce. wall clock is the
// leader's, in ms since 1970. count is the number of frames.
//
// Frame:
//
//	0      1       2               4                8        12
//	+------+-------+---------------+----------------+--------+------+---------+
//	| kind | flags | header length | payload length | number | TLVs | payload |
//	+------+-------+---------------+----------------+--------+------+---------+
//
// header length counts from kind to the end of the TLVs. flags is zero. number
// is the partition's, or zero for the commands that name it otherwise or
// concern the whole shard.
//
// TLV, in ascending order of type, none twice:
//
//	0      2        4
//	+------+--------+-------+
//	| type | length | value |
//	+------+--------+-------+
//
// Bit 15 of type marks the TLV as mandatory: who does not know it must stop.
// Others may be skipped. A Decision has the mandatory TLV 3: term (8 bytes) and
// number (8 bytes) of the decision. The encoding is canonical: an entry has one form, if
// apply version is the lowest that will do, as EntryBuilder writes it.
const (
	entryFormat      = 1
	entryHeaderBytes = 24
	frameHeaderBytes = 12
	tlvHeaderBytes   = 4

	flagHashAsked = 1
	tlvMandatory  = 1 << 15
)

// ProduceOverheadBytes is what a Produce adds to an entry beside its batch.
const ProduceOverheadBytes = frameHeaderBytes

// DecisionOverheadBytes is what a Decision adds to an entry beside its batches.
const DecisionOverheadBytes = frameHeaderBytes + tlvHeaderBytes + decisionBytes

// EntryOverheadBytes is what an entry holds beside its frames.
const EntryOverheadBytes = entryHeaderBytes

// Kind says what a command does. The zero Kind is never written.
type Kind uint8

const (
	KindProduce            Kind = 1
	KindTermStart          Kind = 2
	KindCreatePartition    Kind = 3
	KindDeletePartition    Kind = 4
	KindSetPartitionConfig Kind = 5
	KindAdvanceLogStart    Kind = 6
	KindSetApplyVersion    Kind = 7
	KindSetLimits          Kind = 8
	KindExpireProducers    Kind = 9  // from apply version 2 on
	KindDecision           Kind = 10 // from apply version 3 on

	lastKind = KindDecision
)

var kindNames = [...]string{
	KindProduce:            "Produce",
	KindTermStart:          "TermStart",
	KindCreatePartition:    "CreatePartition",
	KindDeletePartition:    "DeletePartition",
	KindSetPartitionConfig: "SetPartitionConfig",
	KindAdvanceLogStart:    "AdvanceLogStart",
	KindSetApplyVersion:    "SetApplyVersion",
	KindSetLimits:          "SetLimits",
	KindExpireProducers:    "ExpireProducers",
	KindDecision:           "Decision",
}

// String returns the command's name.
func (k Kind) String() string {
	if int(k) >= len(kindNames) || k == 0 {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return kindNames[k]
}

// TLVType is the type of a TLV, without its mandatory bit. The types below are
// reserved from the first format on; of them only TLVDecisionNumber is read yet, in
// a Decision.
type TLVType uint16

const (
	TLVTransactionNumber TLVType = 1
	TLVCoordinatorEpoch  TLVType = 2
	TLVDecisionNumber    TLVType = 3
	TLVMoveID            TLVType = 4
)

// EntryHeader is what an entry says of all its commands.
type EntryHeader struct {
	// ApplyVersion is the oldest that knows everything in the entry. An
	// EntryBuilder finds it, and takes no notice of what Reset is given.
	ApplyVersion uint16

	DecidedTerm uint64 // of the commands other than Produce
	WallClockMS int64  // the leader's; not negative
	HashAsked   bool   // the replicas report the state's hash at this entry
}

// EntryBuilder appends commands to one entry, and then to another. The zero
// EntryBuilder needs a Reset. Not safe for concurrent use.
type EntryBuilder struct {
	buf     []byte // the prefix, and the entry without its batches
	start   int    // of the entry in buf
	batches []placedBatch
	bytes   int // of batches
	count   uint32
	version uint16   // that the commands so far need
	parts   [][]byte // of Bytes, reused
}

// placedBatch is a batch that comes before what buf holds from at on.
type placedBatch struct {
	at    int
	batch []byte
}

// Reset starts an entry behind a copy of prefix.
func (b *EntryBuilder) Reset(prefix []byte, h EntryHeader) {
	b.start, b.bytes, b.count, b.version = len(prefix), 0, 0, MinApplyVersion
	clear(b.batches)
	b.batches = b.batches[:0]
	var flags byte
	if h.HashAsked {
		flags = flagHashAsked
	}
	buf := append(b.buf[:0], prefix...)
	buf = append(buf, entryFormat, flags)
	buf = binary.LittleEndian.AppendUint16(buf, 0)
	buf = binary.LittleEndian.AppendUint32(buf, 0)
	buf = binary.LittleEndian.AppendUint64(buf, h.DecidedTerm)
	b.buf = binary.LittleEndian.AppendUint64(buf, uint64(h.WallClockMS))
}

// Len returns the size of the entry so far, in bytes.
func (b *EntryBuilder) Len() int { return len(b.buf) - b.start + b.bytes }

// Count returns the number of commands so far.
func (b *EntryBuilder) Count() int { return int(b.count) }

// ApplyVersion returns the oldest apply version that knows all commands so far.
// The entry may be proposed only to a shard that has it.
func (b *EntryBuilder) ApplyVersion() uint16 { return b.version }

// Bytes ends the entry, and returns it behind the prefix of Reset, in memory of
// its own: the entry is immutable once it was proposed (R1). The builder keeps
// no reference to it, nor to the batches; a Reset must follow.
func (b *EntryBuilder) Bytes() []byte {
	binary.LittleEndian.PutUint16(b.buf[b.start+2:], b.version)
	binary.LittleEndian.PutUint32(b.buf[b.start+4:], b.count)
	parts, from := b.parts[:0], 0
	for _, p := range b.batches {
		parts = append(parts, b.buf[from:p.at], p.batch)
		from = p.at
	}
	parts = append(parts, b.buf[from:])
	// Unlike make, Join does not clear what it is about to write.
	entry := bytes.Join(parts, nil)
	clear(parts)
	clear(b.batches)
	b.parts, b.batches, b.bytes = parts, b.batches[:0], 0
	return entry
}

// Produce appends a command that appends batch to partition n. batch is one
// validated record batch; it is copied, once, by Bytes, and must not change
// until then. Its base offset and leader epoch fields have no meaning.
func (b *EntryBuilder) Produce(n Number, batch []byte) {
	b.frame(KindProduce, n, len(batch))
	b.batches = append(b.batches, placedBatch{len(b.buf), batch})
	b.bytes += len(batch)
}

// Decision appends c. Its batches are copied, once, by Bytes, and must not change
// until then.
func (b *EntryBuilder) Decision(c Decision) {
	b.version = max(b.version, DecisionVersion)
	start := len(b.buf)
	b.frame(KindDecision, c.Number, len(c.Batches))
	le := binary.LittleEndian
	le.PutUint16(b.buf[start+2:], DecisionOverheadBytes)
	b.buf = le.AppendUint16(b.buf, uint16(TLVDecisionNumber)|tlvMandatory)
	b.buf = le.AppendUint16(b.buf, decisionBytes)
	b.buf = le.AppendUint64(b.buf, c.Term)
	b.buf = le.AppendUint64(b.buf, c.Seq)
	b.batches = append(b.batches, placedBatch{len(b.buf), c.Batches})
	b.bytes += len(c.Batches)
}

// TermStart appends the first command of a leader's term.
func (b *EntryBuilder) TermStart() { b.frame(KindTermStart, 0, 0) }

// CreatePartition appends c.
func (b *EntryBuilder) CreatePartition(c CreatePartition) {
	b.frame(KindCreatePartition, 0, createBytes)
	b.version = max(b.version, c.Config.minVersion())
	b.buf = c.append(b.buf)
}

// DeletePartition appends c.
func (b *EntryBuilder) DeletePartition(c DeletePartition) {
	b.frame(KindDeletePartition, 0, deleteBytes)
	b.buf = c.append(b.buf)
}

// SetPartitionConfig appends c.
func (b *EntryBuilder) SetPartitionConfig(c SetPartitionConfig) {
	b.frame(KindSetPartitionConfig, 0, setConfigBytes)
	b.version = max(b.version, c.Config.minVersion())
	b.buf = c.append(b.buf)
}

// AdvanceLogStart appends a command that moves the log start offset of
// partition n up to offset.
func (b *EntryBuilder) AdvanceLogStart(n Number, offset int64) {
	b.frame(KindAdvanceLogStart, n, advanceBytes)
	b.buf = binary.LittleEndian.AppendUint64(b.buf, uint64(offset))
}

// SetApplyVersion appends a command that raises the shard's apply version. It
// may be proposed only once every replica of the shard supports the version:
// those that do not will stop.
func (b *EntryBuilder) SetApplyVersion(version uint16) {
	b.frame(KindSetApplyVersion, 0, versionBytes)
	b.buf = binary.LittleEndian.AppendUint16(b.buf, version)
}

// AskHash asks the replicas for the state's hash at this entry: behind all of
// its commands.
func (b *EntryBuilder) AskHash() { b.buf[b.start+1] |= flagHashAsked }

// ExpireProducers appends c, whose list must not be empty.
func (b *EntryBuilder) ExpireProducers(c ExpireProducers) {
	b.frame(KindExpireProducers, 0, c.Bytes())
	b.buf = c.append(b.buf)
	b.version = max(b.version, ExpireVersion)
}

// SetLimits appends a command that replaces the shard's limits.
func (b *EntryBuilder) SetLimits(l Limits) {
	b.frame(KindSetLimits, 0, limitsBytes)
	b.buf = l.append(b.buf)
}

func (b *EntryBuilder) frame(k Kind, n Number, payloadBytes int) {
	b.buf = append(b.buf, byte(k), 0, frameHeaderBytes, 0)
	b.buf = binary.LittleEndian.AppendUint32(b.buf, uint32(payloadBytes))
	b.buf = binary.LittleEndian.AppendUint32(b.buf, uint32(n))
	b.count++
}
