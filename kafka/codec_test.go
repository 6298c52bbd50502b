package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/kafka/guard"
	"github.com/flotilla-log/flotilla/log/batch"
)

// sampleProduce is a request of two topics; the records are not looked at by the
// decoder.
func sampleProduce(version int16, txn *string) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.TransactionID, req.Acks, req.TimeoutMillis = version, txn, -1, 12345
	for i, name := range []string{"first", "second topic"} {
		t := kmsg.NewProduceRequestTopic()
		if version < topicIDVersion {
			t.Topic = name
		} else {
			t.TopicID = [16]byte{byte(i + 1), 15: 9}
		}
		for j := range int32(2 + i) {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Partition, p.Records = j+7, bytes.Repeat([]byte{byte(i), byte(j)}, 70)
			if j == 1 && i == 1 {
				p.Records = nil
			}
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	return req
}

func TestDecodeProduce(t *testing.T) {
	t.Parallel()
	id := "transaction"
	for v := int16(produceMin); v <= produceMax; v++ {
		for _, txn := range []*string{nil, &id} {
			req := sampleProduce(v, txn)
			body := req.AppendTo(nil)
			m, err := decodeProduce(v, body)
			if err != nil {
				t.Fatalf("version %d: %v", v, err)
			}
			if m.acks != -1 || m.timeoutMS != 12345 || m.transactional != (txn != nil) || len(m.topics) != 2 || len(m.parts) != 5 {
				t.Fatalf("version %d: %+v", v, m)
			}
			at := 0
			for i, topic := range req.Topics {
				if m.topics[i].name != topic.Topic || m.topics[i].id != topic.TopicID {
					t.Errorf("version %d: topic %d is %v", v, i, m.topics[i].topicRef)
				}
				for _, p := range topic.Partitions {
					got := m.parts[at]
					if got.topic != int32(i) || got.index != p.Partition || !bytes.Equal(got.records, p.Records) || (got.records == nil) != (p.Records == nil) {
						t.Errorf("version %d: part %d is %d/%d with %d bytes", v, at, got.topic, got.index, len(got.records))
					}
					at++
				}
				if m.topics[i].end != at {
					t.Errorf("version %d: topic %d ends at %d, want %d", v, i, m.topics[i].end, at)
				}
			}
			for n := range len(body) {
				if _, err := decodeProduce(v, body[:n]); err == nil {
					t.Fatalf("version %d: decodes though cut off after %d of %d bytes", v, n, len(body))
				}
			}
			if _, err := decodeProduce(v, append(body, 0)); err != nil {
				t.Errorf("version %d: a byte behind it, which Kafka ignores: %v", v, err)
			}
		}
	}
}

// TestKeepLast: of many parts as of few, with the same ones twice in one topic's
// entry and in two, the last ones are kept.
func TestKeepLast(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, fewParts, fewParts + 1, 3 * fewParts} {
		for _, twice := range []int{-1, 0, n / 2, n - 1} { // which part stands once more, in an entry of its own; -1: none
			m := &produceRequest{topics: []produceTopic{{topicRef{name: "a"}, n}}}
			for i := range n {
				m.parts = append(m.parts, producePart{index: int32(i)})
			}
			if twice >= 0 {
				m.topics = append(m.topics, produceTopic{topicRef{name: "b"}, n + 1}, produceTopic{topicRef{name: "a"}, n + 2})
				m.parts = append(m.parts, producePart{topic: 1, index: int32(twice)}, producePart{topic: 2, index: int32(twice), records: []byte("last")})
			}
			m.keepLast()
			want := n
			if twice >= 0 {
				want++ // of b
			}
			if len(m.parts) != want || m.topics[len(m.topics)-1].end != want {
				t.Errorf("%d parts, %d twice: %d are left, and topics %+v", n, twice, len(m.parts), m.topics)
			}
			for i, p := range m.parts {
				if last := twice >= 0 && i == want-1; last != (string(p.records) == "last") || m.topics[p.topic].name == "" || !last && p.index == int32(twice) && m.topics[p.topic].name == "a" {
					t.Errorf("%d parts, %d twice: part %d is %+v", n, twice, i, p)
				}
			}
		}
	}
}

// TestKeepLastIsFree: a usual Produce pays nothing for it.
func TestKeepLastIsFree(t *testing.T) {
	m := &produceRequest{topics: []produceTopic{{topicRef{name: "a"}, 16}, {topicRef{name: "b"}, fewParts}}}
	for i := range fewParts {
		m.parts = append(m.parts, producePart{topic: int32(i / 16), index: int32(i % 16)})
	}
	if n := testing.AllocsPerRun(100, m.keepLast); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestProduceResponse(t *testing.T) {
	t.Parallel()
	for v := int16(produceMin); v <= produceMax; v++ {
		m, err := decodeProduce(v, sampleProduce(v, nil).AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		results := []produced{
			{baseOffset: 1 << 40, logAppendTimeMS: -1, logStart: 7},
			{code: errcode.NotLeaderOrFollower, baseOffset: -1, logAppendTimeMS: -1, logStart: -1, message: "elsewhere", leader: leaderRef{3, 17}, hasLeader: true},
			{baseOffset: 5, logAppendTimeMS: 99, logStart: 0},
			{code: errcode.InvalidRecord, baseOffset: -1, logAppendTimeMS: -1, logStart: -1, message: "bad", records: []recordError{{2, "no key"}, {5, "no key"}}},
			{baseOffset: 6, logAppendTimeMS: -1, logStart: 0},
		}
		b := appendProduceResponse(nil, v, m, results, []endpoint{{node: 3, host: "there", port: 9092, rack: "r1"}})
		got := kmsg.NewPtrProduceResponse()
		got.Version = v
		if err := got.ReadFrom(b); err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		want := kmsg.NewPtrProduceResponse()
		want.Version = v
		at := 0
		for i := range m.topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic, rt.TopicID = m.topics[i].name, m.topics[i].id
			for ; at < m.topics[i].end; at++ {
				r := &results[at]
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode, p.BaseOffset, p.LogAppendTime = m.parts[at].index, int16(r.code), r.baseOffset, r.logAppendTimeMS
				if v >= 5 {
					p.LogStartOffset = r.logStart
				}
				if v >= 8 {
					if r.message != "" {
						p.ErrorMessage = kmsg.StringPtr(r.message)
					}
					for _, re := range r.records {
						e := kmsg.NewProduceResponseTopicPartitionErrorRecord()
						e.RelativeOffset, e.ErrorMessage = re.index, kmsg.StringPtr(re.message)
						p.ErrorRecords = append(p.ErrorRecords, e)
					}
				}
				if v >= 10 && r.hasLeader {
					p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = r.leader.node, r.leader.epoch
				}
				rt.Partitions = append(rt.Partitions, p)
			}
			want.Topics = append(want.Topics, rt)
		}
		if v >= 10 {
			n := kmsg.NewProduceResponseBroker()
			n.NodeID, n.Host, n.Port, n.Rack = 3, "there", 9092, kmsg.StringPtr("r1")
			want.Brokers = append(want.Brokers, n)
		}
		if !bytes.Equal(b, want.AppendTo(nil)) {
			t.Errorf("version %d: %s", v, cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)))
		}
	}
}

func sampleFetch(version int16) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version = version
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = -1, 500, 1, 1<<20, 1
	req.SessionID, req.SessionEpoch, req.Rack = 77, 3, "rack"
	for i, name := range []string{"first", "second topic"} {
		t := kmsg.NewFetchRequestTopic()
		if version < topicIDVersion {
			t.Topic = name
		} else {
			t.TopicID = [16]byte{byte(i + 1), 15: 9}
		}
		for j := range int32(2 + i) {
			p := kmsg.NewFetchRequestTopicPartition()
			p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.LogStartOffset = j, 1<<33+int64(j), 4096, -1
			if version >= 9 {
				p.CurrentLeaderEpoch = 5
			}
			if version >= 12 {
				p.LastFetchedEpoch = 4
			}
			if version >= 17 {
				p.ReplicaDirectoryID = [16]byte{1}
			}
			if version >= 18 {
				p.HighWatermark = 12
			}
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	if version >= fetchSessionVersion {
		f := kmsg.NewFetchRequestForgottenTopic()
		if version < topicIDVersion {
			f.Topic = "gone"
		} else {
			f.TopicID = [16]byte{3}
		}
		f.Partitions = []int32{4, 2}
		req.ForgottenTopics = append(req.ForgottenTopics, f)
	}
	return req
}

func TestDecodeFetch(t *testing.T) {
	t.Parallel()
	for v := int16(fetchMin); v <= fetchMax; v++ {
		for _, replica := range []int32{-1, 4} {
			req := sampleFetch(v)
			if v < fetchReplicaStateVersion {
				req.ReplicaID = replica
			} else {
				req.ReplicaState.ID = replica
				req.ReplicaState.Epoch = 8
				req.ClusterID = kmsg.StringPtr("cluster")
			}
			body := req.AppendTo(nil)
			m, err := decodeFetch(v, body)
			if err != nil {
				t.Fatalf("version %d: %v", v, err)
			}
			if m.replica != replica || m.maxWaitMS != 500 || m.minBytes != 1 || m.maxBytes != 1<<20 || len(m.topics) != 2 || len(m.parts) != 5 {
				t.Fatalf("version %d: %+v", v, m)
			}
			wantID, wantEpoch, forgotten := int32(77), int32(3), []partRef{{0, 4}, {0, 2}}
			if v < fetchSessionVersion {
				wantID, wantEpoch, forgotten = noSession, finalEpoch, nil
			}
			if m.sessionID != wantID || m.sessionEpoch != wantEpoch || !cmp.Equal(m.forgotten, forgotten, cmp.AllowUnexported(partRef{})) {
				t.Errorf("version %d: session %d/%d, forgotten %v", v, m.sessionID, m.sessionEpoch, m.forgotten)
			}
			want := fetchPart{partRef: partRef{1, 2}, leaderEpoch: -1, fetchedEpoch: -1, offset: 1<<33 + 2, maxBytes: 4096}
			if v >= 9 {
				want.leaderEpoch = 5
			}
			if v >= 12 {
				want.fetchedEpoch = 4
			}
			if m.parts[4] != want || m.topics[1].name != req.Topics[1].Topic || m.topics[1].id != req.Topics[1].TopicID {
				t.Errorf("version %d: last part %+v of %v, want %+v", v, m.parts[4], m.topics[1], want)
			}
			for n := range len(body) {
				if _, err := decodeFetch(v, body[:n]); err == nil {
					t.Fatalf("version %d: decodes though cut off after %d of %d bytes", v, n, len(body))
				}
			}
			if _, err := decodeFetch(v, append(body, 0)); err != nil {
				t.Errorf("version %d: a byte behind it, which Kafka ignores: %v", v, err)
			}
		}
	}
}

// fetchedBytes puts batches between heads, as a delivery does.
func fetchedBytes(heads [][]byte, batches ...[]byte) (b []byte) {
	for i, h := range heads {
		b = append(b, h...)
		if i < len(batches) {
			b = append(b, batches[i]...)
		}
	}
	return b
}

func TestFetchResponse(t *testing.T) {
	t.Parallel()
	for v := int16(fetchMin); v <= fetchMax; v++ {
		name := func(n string, id byte) topicRef {
			if v < topicIDVersion {
				return topicRef{name: n}
			}
			return topicRef{id: [16]byte{id}}
		}
		batches := [][]byte{bytes.Repeat([]byte("abc"), 100), nil, []byte("x"), nil, nil}
		r := &fetchResponse{sessionID: 41, parts: []fetched{
			{topic: name("a", 1), index: 3, highWatermark: 100, logStart: 2, bytes: 300},
			{topic: name("a", 1), index: 4, code: errcode.NotLeaderOrFollower, highWatermark: -1, logStart: -1, leader: leaderRef{3, 17}, hasLeader: true},
			{topic: name("b", 2), index: 0, highWatermark: 1, logStart: 0, bytes: 1},
			{topic: name("a", 1), index: 5, highWatermark: 9, logStart: 1, diverges: true, divergingAt: epochEnd{4, 8}},
			{topic: name("a", 1), index: 6, highWatermark: 9, logStart: 1, elsewhere: true, readFrom: 5},
		}, nodes: []endpoint{{node: 3, host: "there", port: 9092}}}
		b := fetchedBytes(r.heads(v), batches...)

		want := kmsg.NewPtrFetchResponse()
		want.Version, want.SessionID = v, 41
		for i := range r.parts {
			f := &r.parts[i]
			p := kmsg.NewFetchResponseTopicPartition()
			p.Partition, p.ErrorCode, p.HighWatermark, p.LastStableOffset, p.LogStartOffset = f.index, int16(f.code), f.highWatermark, f.highWatermark, f.logStart
			p.RecordBatches = append([]byte{}, batches[i]...)
			if f.hasLeader {
				p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = 3, 17
			}
			if f.elsewhere && v >= 11 {
				p.PreferredReadReplica = 5
			}
			if f.diverges {
				p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = 4, 8
			}
			if i == 0 || f.topic != r.parts[i-1].topic {
				rt := kmsg.NewFetchResponseTopic()
				rt.Topic, rt.TopicID = f.topic.name, f.topic.id
				want.Topics = append(want.Topics, rt)
			}
			last := &want.Topics[len(want.Topics)-1]
			last.Partitions = append(last.Partitions, p)
		}
		if v >= fetchEndpointsVersion {
			n := kmsg.NewFetchResponseBroker()
			n.NodeID, n.Host, n.Port = 3, "there", 9092
			want.Brokers = append(want.Brokers, n)
		}
		if w := want.AppendTo(nil); !bytes.Equal(b, w) {
			t.Errorf("version %d:\n got %x\nwant %x", v, b, w)
		}
		empty := (&fetchResponse{code: errcode.FetchSessionIDNotFound}).heads(v)
		none := kmsg.NewPtrFetchResponse()
		none.Version, none.ErrorCode = v, int16(errcode.FetchSessionIDNotFound)
		if w := none.AppendTo(nil); !bytes.Equal(fetchedBytes(empty), w) {
			t.Errorf("version %d, no topics:\n got %x\nwant %x", v, fetchedBytes(empty), w)
		}
	}
}

// decodedShare is the most that decoding may allocate, for each byte of the
// request, beside a constant: 8 MiB for 1 MiB.
const (
	decodedShare = 8
	decodedSlack = 256 << 10
)

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestDecodeIsBounded: what decoding allocates is bounded by the request's size,
// whatever it claims, and whatever it really holds.
func TestDecodeIsBounded(t *testing.T) {
	const size = 1 << 20
	fill := func(head, element []byte, countAt int, flexible bool) []byte {
		b := append([]byte{}, head...)
		for len(b) < size {
			b = append(b, element...)
		}
		n := uint32((len(b) - len(head)) / len(element))
		if flexible {
			n++
			copy(b[countAt:], []byte{byte(n) | 0x80, byte(n>>7) | 0x80, byte(n>>14) | 0x80, byte(n >> 21)})
		} else {
			copy(b[countAt:], []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		}
		return b
	}
	// Up to the topics: a null transactional id, acks, timeout.
	produceHead := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	fetchHead := make([]byte, 4+4+4+1+4+4+4)
	tests := []struct {
		name    string
		fetch   bool
		version int16
		body    []byte
	}{
		{"produce of empty topics", false, 9, fill(produceHead, []byte{1, 1, 0}, 7, true)},
		{"produce of empty partitions", false, 9, fill(append(produceHead[:7:7], 2, 1, 0, 0, 0, 0), []byte{0, 0, 0, 0, 1, 0}, 9, true)},
		{"produce of null partitions", false, 3, fill(append(make([]byte, 8), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0), []byte{0, 0, 0, 0, 255, 255, 255, 255}, 14, false)},
		{"fetch of empty topics", true, 12, fill(append(make([]byte, 25), 0, 0, 0, 0), []byte{1, 1, 0}, 25, true)},
		{"fetch of partitions", true, 12, fill(append(make([]byte, 25), 2, 1, 0, 0, 0, 0), make([]byte, 33), 27, true)},
		{"fetch of partitions, version 4", true, 4, fill(append(make([]byte, 17), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0), make([]byte, 16), 23, false)},
		{"fetch that forgets", true, 7, fill(append(fetchHead, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)[:39], make([]byte, 4), 35, false)},
	}
	for _, tt := range tests {
		var err error
		got := allocated(func() {
			if tt.fetch {
				_, err = decodeFetch(tt.version, tt.body)
			} else {
				_, err = decodeProduce(tt.version, tt.body)
			}
		})
		t.Logf("%s: %d bytes allocated for %d, %v", tt.name, got, len(tt.body), err)
		if got > decodedShare*uint64(len(tt.body))+decodedSlack {
			t.Errorf("%s: %d bytes allocated for %d", tt.name, got, len(tt.body))
		}
	}
}

// strangeBodies are a flexible body and an old one of the same request, behind
// their versions, each as it is but with bytes behind it, an unknown tag, more
// tags than there may be, and a tag of more bytes.
func strangeBodies(flexible, old []byte) (all [][]byte) {
	tags := func(n, size int) []byte {
		b := binary.AppendUvarint(append([]byte{}, flexible[:len(flexible)-1]...), uint64(n))
		for i := range n {
			b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(i+50)), uint64(size))
			b = append(b, make([]byte, size)...)
		}
		return b
	}
	version := func(v byte, b []byte) []byte { return append([]byte{v}, b...) }
	return [][]byte{
		version(12, append(flexible[:len(flexible):len(flexible)], "behind"...)),
		version(4, append(old[:len(old):len(old)], "behind"...)),
		version(12, tags(1, 3)), version(12, tags(10_000, 0)), version(12, tags(10_001, 0)),
		version(12, tags(1, 128<<10)), version(12, tags(1, 128<<10+1)),
	}
}

// fetchTagged is a Fetch with a tagged field.
func fetchTagged(version int16, tag byte, field []byte) []byte {
	b := sampleFetch(version).AppendTo(nil)
	return append(append(b[:len(b)-1], 1, tag, byte(len(field))), field...)
}

// sameAsGuard wants a body taken that package guard takes, but for the number of
// partitions and topics, and no other.
func sameAsGuard(t *testing.T, req kmsg.Request, body []byte, err error) {
	t.Helper()
	_, guards := guard.Check(req.Key(), req.GetVersion(), body, guard.LimitsFor(len(body)))
	switch {
	case guards != nil && (err == nil || err.Error() != guards.Error()):
		t.Fatalf("decodes with %v; the guard says %v", err, guards)
	case guards == nil && err != nil && !errors.Is(err, guard.ErrTooLarge):
		t.Fatalf("decodes with %v; the guard takes it", err)
	}
}

// TestDecodedAsGuarded: what is decoded by hand is looked over as any other
// request is: the same bytes are taken, and refused, for the same reasons.
func TestDecodedAsGuarded(t *testing.T) {
	t.Parallel()
	for _, b := range strangeBodies(sampleProduce(12, nil).AppendTo(nil), sampleProduce(4, nil).AppendTo(nil)) {
		req := kmsg.NewPtrProduceRequest()
		req.Version = int16(b[0])
		_, err := decodeProduce(req.Version, b[1:])
		sameAsGuard(t, req, b[1:], err)
	}
	fetches := strangeBodies(sampleFetch(12).AppendTo(nil), sampleFetch(4).AppendTo(nil))
	for _, size := range []int{12, 13, 14} {
		for _, v := range []int16{12, 14, 15, 18} {
			fetches = append(fetches, append([]byte{byte(v)}, fetchTagged(v, 1, make([]byte, size))...))
		}
	}
	for _, b := range fetches {
		req := kmsg.NewPtrFetchRequest()
		req.Version = int16(b[0])
		_, err := decodeFetch(req.Version, b[1:])
		sameAsGuard(t, req, b[1:], err)
	}
	for name, n := range map[string]int{"tags": 10_001, "bytes of a tag": 128<<10 + 1} {
		tag := make([]byte, n)
		if name == "tags" {
			tag = nil
		}
		b := sampleFetch(12).AppendTo(nil)
		b = b[:len(b)-1]
		if tag == nil {
			b = binary.AppendUvarint(b, uint64(n))
			for range n {
				b = append(b, 50, 0)
			}
		} else {
			b = append(binary.AppendUvarint(append(b, 1, 50), uint64(n)), tag...)
		}
		if _, err := decodeFetch(12, b); !errors.Is(err, guard.ErrTooLarge) {
			t.Errorf("too many %s: %v", name, err)
		}
	}
}

func FuzzDecodeProduce(f *testing.F) {
	for v := int16(produceMin); v <= produceMax; v++ {
		f.Add(v, sampleProduce(v, nil).AppendTo(nil))
	}
	f.Add(int16(9), []byte{0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	for _, b := range strangeBodies(sampleProduce(9, nil).AppendTo(nil), sampleProduce(3, nil).AppendTo(nil)) {
		f.Add(int16(b[0]), b[1:])
	}
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		version = produceMin + (version&0x7fff)%(produceMax-produceMin+1)
		var m *produceRequest
		var err error
		if n := allocated(func() { m, err = decodeProduce(version, body) }); n > decodedShare*uint64(len(body))+decodedSlack {
			t.Fatalf("%d bytes allocated for %d", n, len(body))
		}
		want := kmsg.NewPtrProduceRequest()
		want.Version = version
		if sameAsGuard(t, want, body, err); err != nil {
			return
		}
		if wantErr := want.ReadFrom(body); wantErr != nil {
			t.Fatalf("decodes, and kmsg says %v", wantErr)
		}
		at := 0
		for i, topic := range want.Topics {
			if m.topics[i].name != topic.Topic || m.topics[i].id != topic.TopicID {
				t.Fatalf("topic %d is %v, want %q %x", i, m.topics[i].topicRef, topic.Topic, topic.TopicID)
			}
			for _, p := range topic.Partitions {
				if got := m.parts[at]; got.index != p.Partition || !bytes.Equal(got.records, p.Records) {
					t.Fatalf("part %d differs", at)
				}
				at++
			}
		}
		if at != len(m.parts) || m.acks != want.Acks || m.timeoutMS != want.TimeoutMillis || m.transactional != (want.TransactionID != nil) {
			t.Fatalf("got %+v, want %+v", m, want)
		}
		appendProduceResponse(nil, version, m, make([]produced, len(m.parts)), nil)
	})
}

// FuzzCheckRecords checks, for any bytes as the records of a partition, that
// checkRecords does not panic, and that what it passes on is one batch.
func FuzzCheckRecords(f *testing.F) {
	var b batch.Builder
	b.Reset()
	if err := b.Append(946_684_800_000, nil, []byte("value"), nil); err != nil {
		f.Fatal(err)
	}
	one, err := b.Build(nil, batch.Zstd, batch.DefaultLevel)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(one, int16(produceZstdVersion))
	f.Add(one, int16(produceZstdVersion-1))
	f.Add(one[:20], int16(3))
	f.Add([]byte(nil), int16(3))
	f.Fuzz(func(t *testing.T, in []byte, version int16) {
		if err := (&producing{request: &request{version: version}}).checkRecords(in); err != nil {
			return
		}
		first, rest, err := batch.Split(in)
		if err != nil || len(rest) > 0 {
			t.Fatalf("%d bytes after the first batch, %v", len(rest), err)
		}
		if h, err := batch.ParseHeader(first); err != nil || h.BaseOffset != 0 || h.Attributes.Transactional() {
			t.Fatalf("passed %+v, %v", h, err)
		}
	})
}

func FuzzDecodeFetch(f *testing.F) {
	for v := int16(fetchMin); v <= fetchMax; v++ {
		f.Add(v, sampleFetch(v).AppendTo(nil))
	}
	for _, b := range strangeBodies(sampleFetch(12).AppendTo(nil), sampleFetch(4).AppendTo(nil)) {
		f.Add(int16(b[0]), b[1:])
	}
	f.Add(int16(12), fetchTagged(12, 1, make([]byte, 13))) // of version 15
	f.Add(int16(15), fetchTagged(15, 1, make([]byte, 13)))
	f.Add(int16(15), fetchTagged(15, 1, make([]byte, 14)))
	f.Add(int16(18), fetchTagged(18, 0, []byte{3, 'i', 'd'}))
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		version = fetchMin + (version&0x7fff)%(fetchMax-fetchMin+1)
		var m *fetchRequest
		var err error
		if n := allocated(func() { m, err = decodeFetch(version, body) }); n > decodedShare*uint64(len(body))+decodedSlack {
			t.Fatalf("%d bytes allocated for %d", n, len(body))
		}
		want := kmsg.NewPtrFetchRequest()
		want.Version = version
		if sameAsGuard(t, want, body, err); err != nil {
			return
		}
		if wantErr := want.ReadFrom(body); wantErr != nil {
			t.Fatalf("decodes, and kmsg says %v", wantErr)
		}
		at := 0
		for i, topic := range want.Topics {
			if m.topics[i].name != topic.Topic || m.topics[i].id != topic.TopicID {
				t.Fatalf("topic %d is %v, want %q %x", i, m.topics[i], topic.Topic, topic.TopicID)
			}
			for _, p := range topic.Partitions {
				got := m.parts[at]
				if got.index != p.Partition || got.offset != p.FetchOffset || got.maxBytes != p.PartitionMaxBytes ||
					got.leaderEpoch != p.CurrentLeaderEpoch || got.fetchedEpoch != p.LastFetchedEpoch {
					t.Fatalf("part %d is %+v, want %+v", at, got, p)
				}
				at++
			}
		}
		forgotten := 0
		for _, topic := range want.ForgottenTopics {
			forgotten += len(topic.Partitions)
		}
		if at != len(m.parts) || forgotten != len(m.forgotten) || m.sessionID != want.SessionID || m.sessionEpoch != want.SessionEpoch {
			t.Fatalf("got %+v, want %+v", m, want)
		}
	})
}

// TestNothingIsCopied: neither decoding a Produce nor encoding the answer to a
// Fetch takes memory for the records.
func TestNothingIsCopied(t *testing.T) {
	req := sampleProduce(9, nil)
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			req.Topics[i].Partitions[j].Records = make([]byte, 1<<20)
		}
	}
	body := req.AppendTo(nil)
	if n := allocated(func() { _, _ = decodeProduce(9, body) }); n > 4<<10 {
		t.Errorf("%d bytes allocated for a Produce of %d", n, len(body))
	}
	r := &fetchResponse{parts: []fetched{{topic: topicRef{name: "a"}, bytes: 50 << 20}}}
	if n := allocated(func() { r.heads(12) }); n > 4<<10 {
		t.Errorf("%d bytes allocated for an answer of %d", n, r.parts[0].bytes)
	}
}

func BenchmarkDecodeProduce(b *testing.B) {
	body := sampleProduce(9, nil).AppendTo(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeProduce(9, body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeFetch(b *testing.B) {
	for _, v := range []int16{4, 12, 18} {
		b.Run(fmt.Sprintf("version=%d", v), func(b *testing.B) {
			body := sampleFetch(v).AppendTo(nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decodeFetch(v, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFetchHeads(b *testing.B) {
	for _, n := range []int{1, 16, 1000} {
		b.Run(fmt.Sprintf("partitions=%d", n), func(b *testing.B) {
			r := &fetchResponse{parts: make([]fetched, n)}
			for i := range r.parts {
				r.parts[i] = fetched{topic: topicRef{name: "topic"}, index: int32(i), bytes: 1000}
			}
			b.ReportAllocs()
			for b.Loop() {
				r.heads(12)
			}
		})
	}
}
