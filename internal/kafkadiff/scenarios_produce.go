package main

import (
	"encoding/binary"
	"fmt"

	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// produce appends in every version, with every codec.
func produce(s *session) {
	name, id := s.create("t", 3)
	each(kmsg.Produce, func(v int16) {
		s.ask("acks all", producing(name, id, 0, s.records(2).bytes()), v)
		one := producing(name, id, 0, s.records(1).bytes())
		one.Acks = 1
		s.ask("acks 1", one, v)
		none := producing(name, id, 1, s.records(1).bytes())
		none.Acks = 0
		s.askNothing("acks 0", none, v)
		two := producing(name, id, 0, s.records(1).bytes())
		two.Topics[0].Partitions = append(two.Topics[0].Partitions, producing(name, id, 1, s.records(2).bytes()).Topics[0].Partitions...)
		s.ask("two partitions", two, v)
		for c := batch.Gzip; c <= batch.Zstd; c++ {
			s.ask(c.String(), producing(name, id, 2, s.records(5).compressed(c).bytes()), v)
		}
		late := producing(name, id, 0, s.records(1).bytes())
		late.TimeoutMillis = -1
		s.ask("a negative timeout", late, v)
		s.ask("nothing", &kmsg.ProduceRequest{Acks: -1, TimeoutMillis: 1000}, v)
	})
	for p := range int32(3) {
		s.ask(fmt.Sprintf("all of partition %d", p), fetching(name, id, p, 0), latest(kmsg.Fetch))
	}
}

// produceErrors names what cannot be produced to.
func produceErrors(s *session) {
	name, id := s.create("t", 3)
	b := s.records(1).bytes()
	each(kmsg.Produce, func(v int16) {
		s.ask("unknown partition", producing(name, id, 9, b), v)
		s.ask("negative partition", producing(name, id, -1, b), v)
		s.ask("unknown topic", producing(s.topic("unknown"), unknownID("produce"), 0, b), v)
		for _, bad := range badNames {
			if v < 13 {
				s.ask("topic named "+bad.what, producing(bad.name, id, 0, b), v)
			}
		}
		for _, acks := range []int16{2, -2, 32767} {
			req := producing(name, id, 0, b)
			req.Acks = acks
			s.ask(fmt.Sprintf("acks %d", acks), req, v)
		}
		if v == latest(kmsg.Produce) {
			s.askBriefly("null records", producing(name, id, 0, nil), v)
		}
		s.ask("empty records", producing(name, id, 0, []byte{}), v)
		mixed := producing(name, id, 0, b)
		mixed.Topics[0].Partitions = append(mixed.Topics[0].Partitions, producing(name, id, 9, b).Topics[0].Partitions...)
		s.ask("known and unknown partition", mixed, v)
		twice := producing(name, id, 1, b)
		twice.Topics[0].Partitions = append(twice.Topics[0].Partitions, twice.Topics[0].Partitions[0])
		s.ask("a partition twice", twice, v)
		txn := "txn"
		req := producing(name, id, 2, b)
		req.TransactionID = &txn
		s.ask("a transactional id and no transactional batch", req, v)
		noAcks := producing(name, id, 9, b)
		noAcks.Acks = 0
		s.askNothing("acks 0 to an unknown partition", noAcks, v)
	})
	s.ask("zero topic id", producing("", [16]byte{}, 0, b), 13)
	for p := range int32(3) {
		s.ask(fmt.Sprintf("what was taken by partition %d", p), fetching(name, id, p, 0), latest(kmsg.Fetch))
	}
}

// badBatch is a batch, or what is left of one, and what is wrong with it.
type badBatch struct {
	what string
	b    []byte
}

// produceBatches sends batches that are not as they must be, each kind to a
// partition of its own, so that what one server takes and the other does not is
// a difference there only.
func produceBatches(s *session) {
	cases := s.badBatches()
	name, id := s.create("t", int32(len(cases)))
	for i, c := range cases {
		for _, v := range []int16{3, 7, 8, 13} {
			s.ask(c.what, producing(name, id, int32(i), c.b), v)
		}
		s.ask("what was taken of "+c.what, fetching(name, id, int32(i), 0), latest(kmsg.Fetch))
	}
}

func (s *session) badBatches() []badBatch {
	good := s.records(3).bytes()
	future := s.now.Add(ahead).UnixMilli()
	u16 := func(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }
	u32 := func(v int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-1] ^= 1
	magic := func(m byte) []byte { return patched(good, atMagic, m) }
	return []badBatch{
		{"nothing wrong", good},
		{"a flipped byte", flipped},
		{"two batches", append(append([]byte(nil), good...), good...)},
		{"a batch and its beginning", append(append([]byte(nil), good...), good[:30]...)},
		{"the beginning of a batch", good[:40]},
		{"a batch without its last byte", good[:len(good)-1]},
		{"5 bytes", good[:5]},
		{"length too small", patched(good, atLength, u32(10)...)},
		{"length negative", patched(good, atLength, u32(-1)...)},
		{"length too large", patched(good, atLength, u32(len(good))...)},
		{"magic 0", magic(0)},
		{"magic 1", magic(1)},
		{"magic 3", magic(3)},
		{"one record more than there are", patched(good, atRecords, u32(4)...)},
		{"one record less than there are", patched(good, atRecords, u32(2)...)},
		{"no records counted", patched(good, atRecords, u32(0)...)},
		{"-1 records counted", patched(good, atRecords, u32(-1)...)},
		{"last offset delta too large", patched(good, atLastOffsetDelta, u32(3)...)},
		{"last offset delta too small", patched(good, atLastOffsetDelta, u32(1)...)},
		{"control bit", patched(good, atAttributes, u16(0x20)...)},
		{"transactional bit without a producer", patched(good, atAttributes, u16(0x10)...)},
		{"log append time bit", patched(good, atAttributes, u16(0x08)...)},
		{"delete horizon bit", patched(good, atAttributes, u16(0x40)...)},
		{"reserved bit", patched(good, atAttributes, u16(0x80)...)},
		{"codec 5", patched(good, atAttributes, u16(5)...)},
		{"codec 7", patched(good, atAttributes, u16(7)...)},
		{"gzip bit on plain records", patched(good, atAttributes, u16(1)...)},
		{"zstd bit on plain records", patched(good, atAttributes, u16(4)...)},
		{"a record length too large", patched(good, atPayload, 0x7e)},
		{"a record length negative", patched(good, atPayload, 0x01)},
		{"a record's attributes set", patched(good, atPayload+1, 0x01)},
		{"a record's offset delta wrong", patched(good, atPayload+3, 0x08)},
		{"header's max timestamp too small", patched(good, atMaxTimestamp, binary.BigEndian.AppendUint64(nil, 1)...)},
		{"header's max timestamp too large", patched(good, atMaxTimestamp, binary.BigEndian.AppendUint64(nil, uint64(s.base.UnixMilli()+30))...)},
		{"timestamp two hours ahead", s.records(2).addAt(future, []byte("k"), []byte("v")).bytes()},
		{"timestamp two hours ahead, gzip", s.records(2).addAt(future, []byte("k"), []byte("v")).compressed(batch.Gzip).bytes()},
		{"timestamp -1", s.records(0).addAt(-1, []byte("k"), []byte("v")).bytes()},
		{"timestamp of 1970", s.records(0).addAt(5, []byte("k"), []byte("v")).bytes()},
		{"no key", s.records(0).addAt(s.base.UnixMilli(), nil, []byte("v")).bytes()},
		{"no value", s.records(0).addAt(s.base.UnixMilli(), []byte("k"), nil).bytes()},
		{"empty key and value", s.records(0).addAt(s.base.UnixMilli(), []byte{}, []byte{}).bytes()},
		{"headers", s.records(0).add(0, "k", "v", batch.RecordHeader{Key: []byte("h"), Value: []byte("1")},
			batch.RecordHeader{Key: []byte("h"), Value: nil}, batch.RecordHeader{Key: []byte{}, Value: []byte{}}).bytes()},
		{"1,100,000 bytes", s.records(0).addAt(s.base.UnixMilli(), []byte("k"), make([]byte, 1_100_000)).bytes()},
		{"1,100,000 bytes, gzip", s.records(0).addAt(s.base.UnixMilli(), []byte("k"), make([]byte, 1_100_000)).compressed(batch.Gzip).bytes()},
	}
}

// produceCompacted sends records without keys to a compacted topic. It ends
// early where there can be no such topic.
func produceCompacted(s *session) {
	name := s.topic("t")
	created, _ := s.ask("cleanup.policy=compact", creating(newTopic(name, 1, 1, "cleanup.policy=compact")), 4).(*kmsg.CreateTopicsResponse)
	if created == nil || created.Topics[0].ErrorCode != 0 {
		return
	}
	id := s.await(name)
	keyless := func() *made {
		return s.records(2).addAt(s.base.UnixMilli(), nil, []byte("v")).addAt(s.base.UnixMilli(), nil, nil)
	}
	each(kmsg.Produce, func(v int16) {
		s.ask("no key among keys", producing(name, id, 0, keyless().bytes()), v)
		s.ask("no key among keys, zstd", producing(name, id, 0, keyless().compressed(batch.Zstd).bytes()), v)
		s.ask("keys", producing(name, id, 0, s.records(2).bytes()), v)
	})
	s.ask("what was taken", fetching(name, id, 0, 0), latest(kmsg.Fetch))
}

// produceIdempotent sends sequences in and out of order.
func produceIdempotent(s *session) {
	name, id := s.create("t", 2)
	send := func(what string, b []byte) { s.ask(what, producing(name, id, 0, b), latest(kmsg.Produce)) }
	send("first", s.records(2).of(2001, 0, 0).bytes())
	send("second", s.records(3).of(2001, 0, 2).bytes())
	send("second again", s.records(3).of(2001, 0, 2).bytes())
	send("first again", s.records(2).of(2001, 0, 0).bytes())
	send("half of the second again", s.records(1).of(2001, 0, 2).bytes())
	send("a gap", s.records(1).of(2001, 0, 9).bytes())
	send("a sequence below", s.records(1).of(2001, 0, 1).bytes())
	send("third", s.records(1).of(2001, 0, 5).bytes())
	send("a new epoch not at 0", s.records(1).of(2001, 1, 6).bytes())
	send("a new epoch at 0", s.records(1).of(2001, 1, 0).bytes())
	send("the old epoch", s.records(1).of(2001, 0, 6).bytes())
	send("epoch 3 at 0", s.records(1).of(2001, 3, 0).bytes())
	send("an unknown producer not at 0", s.records(1).of(2002, 0, 7).bytes())
	send("and its next", s.records(1).of(2002, 0, 8).bytes())
	s.ask("negative epoch", producing(name, id, 1, s.records(1).of(2003, -1, 0).bytes()), latest(kmsg.Produce))
	s.ask("negative sequence", producing(name, id, 1, s.records(1).of(2003, 0, -1).bytes()), latest(kmsg.Produce))
	send("the last sequences", s.records(2).of(2004, 0, 2147483646).bytes())
	send("sequence 0 after the last", s.records(1).of(2004, 0, 0).bytes())
	send("a wrap within a batch", s.records(4).of(2005, 0, 2147483646).bytes())
	send("and its next 2", s.records(1).of(2005, 0, 2).bytes())
	for i := range int32(6) {
		send(fmt.Sprintf("one of six: %d", i), s.records(1).of(2006, 0, i).bytes())
	}
	send("the oldest of six again", s.records(1).of(2006, 0, 0).bytes())
	send("the second of six again", s.records(1).of(2006, 0, 1).bytes())
	both := append(s.records(1).of(2007, 0, 0).bytes(), s.records(1).of(2007, 0, 1).bytes()...)
	send("two batches", both)
	each(kmsg.Produce, func(v int16) {
		s.ask("duplicate", producing(name, id, 0, s.records(1).of(2006, 0, 5).bytes()), v)
		s.ask("out of order", producing(name, id, 0, s.records(1).of(2006, 0, 17).bytes()), v)
		s.ask("fenced", producing(name, id, 0, s.records(1).of(2001, 0, 7).bytes()), v)
	})
	s.ask("what was taken", fetching(name, id, 0, 0), latest(kmsg.Fetch))
}

// produceConfigs produces to topics whose configs change what is stored.
func produceConfigs(s *session) {
	all := func(topic string, id [16]byte) {
		s.ask("what was taken of "+topic, fetching(topic, id, 0, 0), latest(kmsg.Fetch))
	}
	for _, target := range []string{"uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"} {
		name, id := s.create("codec-"+target, 1, "compression.type="+target)
		for c := batch.None; c <= batch.Zstd; c++ {
			s.ask(fmt.Sprintf("%s to %s", c, target), producing(name, id, 0, s.records(3).compressed(c).bytes()), latest(kmsg.Produce))
		}
		all(name, id)
	}
	name, id := s.create("append-time", 1, "message.timestamp.type=LogAppendTime")
	for c := batch.None; c <= batch.Zstd; c++ {
		s.ask("log append time, "+c.String(), producing(name, id, 0, s.records(2).compressed(c).bytes()), latest(kmsg.Produce))
	}
	each(kmsg.Produce, func(v int16) {
		s.ask("log append time", producing(name, id, 0, s.records(2).bytes()), v)
	})
	s.ask("log append time, by a producer", producing(name, id, 0, s.records(2).of(3001, 0, 0).bytes()), latest(kmsg.Produce))
	s.ask("log append time, by a producer, again", producing(name, id, 0, s.records(2).of(3001, 0, 0).bytes()), latest(kmsg.Produce))
	s.ask("log append time, two hours ahead", producing(name, id, 0,
		s.records(0).addAt(s.now.Add(ahead).UnixMilli(), []byte("k"), []byte("v")).bytes()), latest(kmsg.Produce))
	all(name, id)
	name, id = s.create("limits", 1, "message.timestamp.before.max.ms=60000", "message.timestamp.after.max.ms=60000")
	s.ask("too old", producing(name, id, 0, s.records(2).bytes()), latest(kmsg.Produce))
	s.ask("one too old", producing(name, id, 0, s.records(0).addAt(s.now.UnixMilli(), []byte("k"), []byte("v")).add(0, "k", "v").bytes()), latest(kmsg.Produce))
	s.ask("in time", producing(name, id, 0, s.records(0).addAt(s.now.UnixMilli(), []byte("k"), []byte("v")).bytes()), latest(kmsg.Produce))
	all(name, id)
	name, id = s.create("small", 1, "max.message.bytes=100")
	s.ask("too large for the topic", producing(name, id, 0, s.records(10).bytes()), latest(kmsg.Produce))
	s.ask("fits", producing(name, id, 0, s.records(1).bytes()), latest(kmsg.Produce))
	all(name, id)
	name, id = s.create("min-isr", 1, "min.insync.replicas=2")
	s.ask("min.insync.replicas above the replicas", producing(name, id, 0, s.records(1).bytes()), latest(kmsg.Produce))
	one := producing(name, id, 0, s.records(1).bytes())
	one.Acks = 1
	s.ask("min.insync.replicas above the replicas, acks 1", one, latest(kmsg.Produce))
	all(name, id)
}
