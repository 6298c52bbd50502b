package partition

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Payloads (little-endian, offsets in bytes). Produce: one record batch.
// Decision: one record batch or more, one behind the other. TermStart: empty.
//
// CreatePartition and, without base epoch, SetPartitionConfig; DeletePartition
// ends after the metadata index:
//
//	0          16      20               28           32       57
//	+----------+-------+----------------+------------+--------+
//	| topic id | index | metadata index | base epoch | config |
//	+----------+-------+----------------+------------+--------+
//
// config:
//
//	0               8                   12      13           21         22         25
//	+---------------+-------------------+-------+------------+----------+----------+
//	| segment bytes | max message bytes | flags | segment ms | internal | reserved |
//	+---------------+-------------------+-------+------------+----------+----------+
//
// flags bit 0: log append time. segment ms is zero in what is of apply version
// 1, internal in what is of apply version 1 or 2. reserved is zero.
//
// AdvanceLogStart: offset, 8 bytes. SetApplyVersion: version, 2 bytes.
//
// SetLimits:
//
//	0                4               8           12                 20
//	+----------------+---------------+------------+------------------+
//	| max partitions | max producers | max stamps | producer idle ms |
//	+----------------+---------------+------------+------------------+
//
// ExpireProducers, with one or more producers:
//
//	0           8        12            20      22              26
//	+-----------+--------+-------------+-------+---------------+- - -
//	| last until| number | producer id | epoch | last sequence | number
//	+-----------+--------+-------------+-------+---------------+- - -
const (
	keyBytes       = 16 + 4
	deleteBytes    = keyBytes + 8
	configBytes    = 8 + 4 + 1 + 8 + 1 + configReserved
	setConfigBytes = deleteBytes + configBytes
	createBytes    = deleteBytes + 4 + configBytes
	advanceBytes   = 8
	versionBytes   = 2
	limitsBytes    = 4 + 4 + 4 + 8
	expireBytes    = 8
	idleBytes      = 4 + 8 + 2 + 4

	configLogAppendTime = 1
	configReserved      = 3

	decisionBytes = 8 + 8 // the value of TLVDecisionNumber: term, number
)

// CreatePartition makes a partition exist with a config. Repeated for one that
// exists, it sets the config if its metadata index is newer, and does nothing
// else.
type CreatePartition struct {
	TopicID       TopicID
	Index         int32
	MetadataIndex uint64 // of the metadata shard's entry that caused it
	BaseEpoch     int32  // at least 0, above all epochs that the partition had before
	Config        Config
}

// DeletePartition makes a partition not exist.
type DeletePartition struct {
	TopicID       TopicID
	Index         int32
	MetadataIndex uint64
}

// SetPartitionConfig replaces a partition's config.
type SetPartitionConfig struct {
	TopicID       TopicID
	Index         int32
	MetadataIndex uint64
	Config        Config
}

// ExpireProducers forgets producers that appended nothing for long. The leader
// found them idle by the shard clock; one that has appended since, or is gone,
// is passed over.
type ExpireProducers struct {
	UntilMS   int64 // shard clock, in ms: the last append of each is at or before it
	Producers []IdleProducer
}

// IdleProducer is one producer on one partition, as it was found.
type IdleProducer struct {
	Number       Number
	ID           ProducerID
	Epoch        int16
	LastSequence int32 // of its last batch
}

// Decision appends the records that the coordinator of an internal partition has
// decided on. It is refused unless its term is the entry's and its number is the
// one after the last that was applied in that term; the first of a term is 1 (R3).
type Decision struct {
	Number  Number // of the partition
	Term    uint64 // in which the coordinator decided
	Seq     uint64 // counts the decisions of a term, from 1
	Batches []byte // record batches, one behind the other, not compressed and of no producer
}

// checkPayload refuses payloads of the wrong size or with bits that the entry's
// apply version does not know. It runs over the whole entry before the first command is applied, so that an entry is
// applied whole or not at all.
func (c Command) checkPayload(version uint16) error {
	var want int
	switch c.Kind {
	case KindProduce:
		return nil // a malformed batch is that command's failure, not the entry's
	case KindDecision:
		return c.checkDecision(version)
	case KindTermStart:
		want = 0
	case KindCreatePartition:
		want = createBytes
	case KindDeletePartition:
		want = deleteBytes
	case KindSetPartitionConfig:
		want = setConfigBytes
	case KindAdvanceLogStart:
		want = advanceBytes
	case KindSetApplyVersion:
		want = versionBytes
	case KindSetLimits:
		want = limitsBytes
	case KindExpireProducers:
		if version < ExpireVersion {
			return fmt.Errorf("%w: %v in apply version %d", ErrUnsupported, c.Kind, version)
		}
		// The number of producers is what the length says, and at least one.
		want = expireBytes + max(1, (len(c.Payload)-expireBytes)/idleBytes)*idleBytes
	}
	if len(c.Payload) != want {
		return fmt.Errorf("%w: %v with a payload of %d bytes, want %d", ErrDamaged, c.Kind, len(c.Payload), want)
	}
	if c.Kind != KindAdvanceLogStart && c.Number != 0 {
		return fmt.Errorf("%w: %v with partition number %d", ErrDamaged, c.Kind, c.Number)
	}
	switch c.Kind {
	case KindCreatePartition, KindSetPartitionConfig:
		return checkConfig(c.Payload[want-configBytes:], version)
	case KindSetApplyVersion:
		if v := binary.LittleEndian.Uint16(c.Payload); v > MaxApplyVersion {
			return fmt.Errorf("%w: apply version %d, this build has %d", ErrUnsupported, v, MaxApplyVersion)
		}
	}
	return nil
}

func (c CreatePartition) append(b []byte) []byte {
	b = appendKey(b, c.TopicID, c.Index, c.MetadataIndex)
	b = binary.LittleEndian.AppendUint32(b, uint32(c.BaseEpoch))
	return c.Config.append(b)
}

func decodeCreate(b []byte) CreatePartition {
	d := decodeDelete(b)
	return CreatePartition{
		TopicID:       d.TopicID,
		Index:         d.Index,
		MetadataIndex: d.MetadataIndex,
		BaseEpoch:     int32(binary.LittleEndian.Uint32(b[deleteBytes:])),
		Config:        decodeConfig(b[deleteBytes+4:]),
	}
}

func (c DeletePartition) append(b []byte) []byte {
	return appendKey(b, c.TopicID, c.Index, c.MetadataIndex)
}

func decodeDelete(b []byte) DeletePartition {
	return DeletePartition{
		TopicID:       TopicID(b[:16]),
		Index:         int32(binary.LittleEndian.Uint32(b[16:])),
		MetadataIndex: binary.LittleEndian.Uint64(b[keyBytes:]),
	}
}

func (c SetPartitionConfig) append(b []byte) []byte {
	return c.Config.append(appendKey(b, c.TopicID, c.Index, c.MetadataIndex))
}

func decodeSetConfig(b []byte) SetPartitionConfig {
	d := decodeDelete(b)
	return SetPartitionConfig{
		TopicID:       d.TopicID,
		Index:         d.Index,
		MetadataIndex: d.MetadataIndex,
		Config:        decodeConfig(b[deleteBytes:]),
	}
}

func appendKey(b []byte, id TopicID, index int32, stamp uint64) []byte {
	b = append(b, id[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(index))
	return binary.LittleEndian.AppendUint64(b, stamp)
}

func (c Config) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(c.SegmentBytes))
	b = binary.LittleEndian.AppendUint32(b, uint32(c.MaxMessageBytes))
	var flags byte
	if c.LogAppendTime {
		flags = configLogAppendTime
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.SegmentMS))
	b = append(b, byte(c.Internal))
	return append(b, make([]byte, configReserved)...)
}

func decodeConfig(b []byte) Config {
	return Config{
		SegmentBytes:    int64(binary.LittleEndian.Uint64(b)),
		MaxMessageBytes: int32(binary.LittleEndian.Uint32(b[8:])),
		LogAppendTime:   b[12]&configLogAppendTime != 0,
		SegmentMS:       int64(binary.LittleEndian.Uint64(b[13:])),
		Internal:        Internal(b[21]),
	}
}

// checkConfig refuses bits that version does not know: a newer build may have
// set them.
func checkConfig(b []byte, version uint16) error {
	known := 13
	if version >= SegmentMSVersion {
		known = 21
	}
	if version >= DecisionVersion && Internal(b[21]) <= lastInternal {
		known = configBytes - configReserved
	}
	unknown := b[12] &^ configLogAppendTime
	for _, c := range b[known:configBytes] {
		unknown |= c
	}
	if unknown != 0 {
		return fmt.Errorf("%w: config %x in apply version %d", ErrUnsupported, b[:configBytes], version)
	}
	return nil
}

// minVersion returns the first apply version that knows c.
func (c Config) minVersion() uint16 {
	switch {
	case c.Internal != NotInternal:
		return DecisionVersion
	case c.SegmentMS != 0:
		return SegmentMSVersion
	}
	return MinApplyVersion
}

// valid reports whether the values make sense at all; their ranges are checked
// where a topic is configured.
func (c Config) valid() bool {
	return c.SegmentBytes > 0 && c.MaxMessageBytes > 0 && c.SegmentMS >= 0 && c.Internal <= lastInternal
}

// checkDecision refuses a Decision that does not say which it is.
func (c Command) checkDecision(version uint16) error {
	if version < DecisionVersion {
		return fmt.Errorf("%w: %v in apply version %d", ErrUnsupported, c.Kind, version)
	}
	if v := c.tlv(TLVDecisionNumber); len(v) != decisionBytes {
		return fmt.Errorf("%w: %v with a number of %d bytes, want %d", ErrDamaged, c.Kind, len(v), decisionBytes)
	}
	return nil
}

// Decided returns what a Decision says, and false of any other command. Its batches
// alias the entry.
func (c Command) Decided() (Decision, bool) {
	if c.Kind != KindDecision {
		return Decision{}, false
	}
	return decodeDecision(c), true
}

// decodeDecision returns a Decision that passed checkDecision.
func decodeDecision(c Command) Decision {
	v := c.tlv(TLVDecisionNumber)
	return Decision{
		Number: c.Number, Term: binary.LittleEndian.Uint64(v), Seq: binary.LittleEndian.Uint64(v[8:]), Batches: c.Payload,
	}
}

// Bytes returns the size of c's payload.
func (c ExpireProducers) Bytes() int { return expireBytes + len(c.Producers)*idleBytes }

func (c ExpireProducers) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(c.UntilMS))
	for _, p := range c.Producers {
		b = le.AppendUint32(b, uint32(p.Number))
		b = le.AppendUint64(b, uint64(p.ID))
		b = le.AppendUint16(b, uint16(p.Epoch))
		b = le.AppendUint32(b, uint32(p.LastSequence))
	}
	return b
}

func decodeExpire(b []byte) ExpireProducers {
	le := binary.LittleEndian
	c := ExpireProducers{UntilMS: int64(le.Uint64(b))}
	for b = b[expireBytes:]; len(b) > 0; b = b[idleBytes:] {
		c.Producers = append(c.Producers, IdleProducer{
			Number:       Number(le.Uint32(b)),
			ID:           ProducerID(le.Uint64(b[4:])),
			Epoch:        int16(le.Uint16(b[12:])),
			LastSequence: int32(le.Uint32(b[14:])),
		})
	}
	return c
}

func (l Limits) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, l.MaxPartitions)
	b = binary.LittleEndian.AppendUint32(b, l.MaxProducers)
	b = binary.LittleEndian.AppendUint32(b, l.MaxStamps)
	return binary.LittleEndian.AppendUint64(b, uint64(l.ProducerIdleMS))
}

func decodeLimits(b []byte) Limits {
	return Limits{
		MaxPartitions:  binary.LittleEndian.Uint32(b),
		MaxProducers:   binary.LittleEndian.Uint32(b[4:]),
		MaxStamps:      binary.LittleEndian.Uint32(b[8:]),
		ProducerIdleMS: int64(binary.LittleEndian.Uint64(b[12:])),
	}
}

func (l Limits) valid() bool {
	return l.MaxPartitions > 0 && l.MaxProducers > 0 && l.MaxStamps > 0 &&
		l.ProducerIdleMS >= 0 && l.ProducerIdleMS < math.MaxInt64/2
}
