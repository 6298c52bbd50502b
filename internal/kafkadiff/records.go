package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// made is a batch under construction.
type made struct {
	s       *session
	builder batch.Builder
	codec   batch.Codec
}

// records begins a batch of n records k0=v0, k1=v1 and so on, a millisecond
// apart.
func (s *session) records(n int) *made {
	m := &made{s: s}
	m.builder.Reset()
	for i := range n {
		m.add(int64(i), fmt.Sprintf("k%d", i), fmt.Sprintf("v%d", i))
	}
	return m
}

// add adds a record, afterMS milliseconds after the session's base.
func (m *made) add(afterMS int64, key, value string, headers ...batch.RecordHeader) *made {
	return m.addAt(m.s.base.UnixMilli()+afterMS, []byte(key), []byte(value), headers...)
}

func (m *made) addAt(timestampMS int64, key, value []byte, headers ...batch.RecordHeader) *made {
	if err := m.builder.Append(timestampMS, key, value, headers); err != nil {
		m.s.fail("a record: %w", err)
	}
	return m
}

func (m *made) compressed(c batch.Codec) *made {
	m.codec = c
	return m
}

func (m *made) by(id int64, epoch int16, sequence int32) *made {
	m.builder.SetProducer(batch.Producer{ID: id, Epoch: epoch, Sequence: sequence}, false)
	return m
}

// of is by for a producer of the scenario's, which has n for a name: its id is one
// that the server gave out when it was first used.
func (m *made) of(n int64, epoch int16, sequence int32) *made {
	id, given := m.s.given[n]
	if !given {
		req := kmsg.NewPtrInitProducerIDRequest()
		resp := m.s.quiet(req, latest(kmsg.InitProducerID)).(*kmsg.InitProducerIDResponse)
		if resp.ErrorCode != 0 {
			m.s.fail("no producer id: error %d", resp.ErrorCode)
		}
		id = resp.ProducerID
		m.s.given[n] = id
	}
	return m.by(id, epoch, sequence)
}

func (m *made) bytes() []byte {
	b, err := m.builder.Build(nil, m.codec, batch.DefaultLevel)
	if err != nil {
		m.s.fail("a batch: %w", err)
	}
	return b
}

// Offsets of fields of a batch, see package batch.
const (
	atLength          = 8
	atMagic           = 16
	atCRC             = 17
	atAttributes      = 21
	atLastOffsetDelta = 23
	atMaxTimestamp    = 35
	atRecords         = 57
	atPayload         = 61
)

// patched returns the batch with the bytes at offset replaced, and its checksum
// made right again.
func patched(b []byte, offset int, with ...byte) []byte {
	b = append([]byte(nil), b...)
	copy(b[offset:], with)
	return checked(b)
}

func checked(b []byte) []byte {
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// producing is a request with one batch, or whatever records hold, for one
// partition, by name and id, so that it fits every version.
func producing(topic string, id [16]byte, partition int32, records []byte) *kmsg.ProduceRequest {
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, records
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID = topic, id
	t.Partitions = append(t.Partitions, p)
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	req.Topics = append(req.Topics, t)
	return req
}

// fill appends n records one by one, each in a batch of its own.
func (s *session) fill(topic string, id [16]byte, partition int32, n int) {
	for i := range n {
		b := s.records(0).add(int64(i), fmt.Sprintf("k%d", i), fmt.Sprintf("v%d", i)).bytes()
		resp := s.quiet(producing(topic, id, partition, b), latest(kmsg.Produce)).(*kmsg.ProduceResponse)
		if e := resp.Topics[0].Partitions[0].ErrorCode; e != 0 {
			s.fail("fill %s-%d: error %d", topic, partition, e)
		}
	}
}
