package kafka_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/log/batch"
)

// from asks for a partition.
type from struct {
	topic  string
	index  int32
	offset int64
	edit   func(*kmsg.FetchRequestTopicPartition)
}

// fetchReq is a Fetch that waits for nothing, without a session.
func fetchReq(version int16, ids map[string][16]byte, parts ...from) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MinBytes, req.MaxBytes, req.SessionEpoch = version, 1, 1<<20, -1
	for _, p := range parts {
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = p.topic, ids[p.topic]
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = p.index, p.offset, 1<<20
		if p.edit != nil {
			p.edit(&rp)
		}
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func (c *rawClient) fetch(req *kmsg.FetchRequest) *kmsg.FetchResponse {
	c.t.Helper()
	return c.ask(req, req.Version).(*kmsg.FetchResponse)
}

// fetched sends a request and returns the answers of its partitions, in order.
func (c *rawClient) fetched(req *kmsg.FetchRequest) (out []kmsg.FetchResponseTopicPartition) {
	c.t.Helper()
	r := c.fetch(req)
	if r.ErrorCode != 0 || r.ThrottleMillis != 0 {
		c.t.Fatalf("version %d: %v, throttled %d", req.Version, errcode.Code(r.ErrorCode), r.ThrottleMillis)
	}
	for _, rt := range r.Topics {
		out = append(out, rt.Partitions...)
	}
	return out
}

// TestFetchVersions: every version reads the bytes that were produced, with base
// offset and leader epoch as the log gave them.
func TestFetchVersions(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := c.makeTopics("a", "b")
	one, two, three := recordsOf(t, batch.Snappy, "one", "two"), recordsOf(t, batch.None, "three"), recordsOf(t, batch.Zstd, "four")
	c.produce(9, ids, topicPart{"a", 0, one})
	c.produce(9, ids, topicPart{"a", 0, two})
	c.produce(9, ids, topicPart{"b", 0, three})
	epoch := c.metadata(13, false, "a").Topics[0].Partitions[0].LeaderEpoch
	at := func(b []byte, offset int64) []byte {
		b = bytes.Clone(b)
		binary.BigEndian.PutUint64(b, uint64(offset))
		binary.BigEndian.PutUint32(b[12:], uint32(epoch))
		return b
	}
	for v := int16(4); v <= 18; v++ {
		r := c.fetched(fetchReq(v, ids, from{"a", 0, 1, nil}, from{"b", 0, 0, nil}, from{"b", 0, 1, nil}, from{"a", 0, 0, nil}))
		if len(r) != 2 {
			t.Fatalf("version %d: %d partitions, want each once", v, len(r))
		}
		wantStart := int64(0)
		if v < 5 {
			wantStart = -1
		}
		for i, want := range []struct {
			records []byte
			end     int64
		}{{append(at(one, 0), at(two, 2)...), 3}, {nil, 1}} {
			p := r[i]
			if p.ErrorCode != 0 || p.HighWatermark != want.end || p.LastStableOffset != want.end || p.LogStartOffset != wantStart ||
				p.AbortedTransactions != nil || p.PreferredReadReplica != -1 || p.RecordBatches == nil || !bytes.Equal(p.RecordBatches, want.records) {
				t.Errorf("version %d: part %d: %+v", v, i, p)
			}
		}
	}
}

// TestFetchRefused: each bad request has Kafka's code, and what is beside it is
// read all the same.
func TestFetchRefused(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := c.makeTopics("a", "good")
	c.produce(9, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one")}, topicPart{"good", 0, recordsOf(t, batch.None, "fine")})
	epoch := c.metadata(13, false, "a").Topics[0].Partitions[0].LeaderEpoch
	current := func(e int32) func(*kmsg.FetchRequestTopicPartition) {
		return func(p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = e }
	}
	tests := []struct {
		name     string
		part     from
		min, max int16
		want     errcode.Code
	}{
		{"no topic", from{"missing", 0, 0, nil}, 4, 12, errcode.UnknownTopicOrPartition},
		{"no name of a topic", from{"not a name", 0, 0, nil}, 4, 12, errcode.UnknownTopicOrPartition},
		{"no topic id", from{"missing", 0, 0, nil}, 13, 18, errcode.UnknownTopicID},
		{"no partition", from{"a", 1, 0, nil}, 4, 18, errcode.UnknownTopicOrPartition},
		{"negative partition", from{"a", -1, 0, nil}, 4, 18, errcode.UnknownTopicOrPartition},
		{"above the end", from{"a", 0, 2, nil}, 4, 18, errcode.OffsetOutOfRange},
		{"negative offset", from{"a", 0, -1, nil}, 4, 18, errcode.OffsetOutOfRange},
		{"an old leader epoch", from{"a", 0, 0, current(epoch - 1)}, 9, 18, errcode.FencedLeaderEpoch},
		{"a leader epoch to come", from{"a", 0, 0, current(epoch + 1)}, 9, 18, errcode.UnknownLeaderEpoch},
	}
	for _, tt := range tests {
		for v := tt.min; v <= tt.max; v++ {
			req := fetchReq(v, ids, tt.part, from{"good", 0, 0, nil})
			r := c.fetched(req)
			if p := r[0]; p.ErrorCode != int16(tt.want) || p.HighWatermark != -1 || p.LastStableOffset != -1 || p.LogStartOffset != -1 || len(p.RecordBatches) > 0 {
				t.Errorf("%s, version %d: %+v, want %v", tt.name, v, p, tt.want)
			}
			if leader := r[0].CurrentLeader; (tt.want == errcode.FencedLeaderEpoch && v >= 12) != (leader.LeaderID == 7 && leader.LeaderEpoch == epoch) {
				t.Errorf("%s, version %d: leader %+v", tt.name, v, leader)
			}
			if r[1].ErrorCode != 0 || r[1].HighWatermark != 1 || len(r[1].RecordBatches) == 0 {
				t.Errorf("%s, version %d: beside it: %+v", tt.name, v, r[1])
			}
		}
	}
	for v := int16(4); v <= 18; v++ {
		req := fetchReq(v, ids, from{"a", 0, 0, nil})
		req.ReplicaID = 3
		if v >= 15 { // a tagged field, which earlier versions may not have
			req.ReplicaID, req.ReplicaState.ID = -1, 3
		}
		if p := c.fetched(req)[0]; p.ErrorCode != int16(errcode.TopicAuthorizationFailed) || len(p.RecordBatches) > 0 {
			t.Errorf("a replica, version %d: %+v", v, p)
		}
	}
	r := c.fetch(fetchReq(16, ids, from{"a", 0, 0, current(epoch - 1)}))
	if len(r.Brokers) != 1 || r.Brokers[0].NodeID != 7 || r.Brokers[0].Port == 0 {
		t.Errorf("nodes of leaders: %+v", r.Brokers)
	}
}

// TestFetchLimits: no more than the limits, but always a whole first batch.
func TestFetchLimits(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := c.makeTopics("a", "b")
	large := recordsOf(t, batch.None, string(bytes.Repeat([]byte("x"), 10_000)))
	for range 5 {
		c.produce(9, ids, topicPart{"a", 0, large}, topicPart{"b", 0, large})
	}
	size := len(large)
	tests := []struct {
		name         string
		of, ofPart   int
		wantA, wantB int // batches
	}{
		{"one batch and a half of each", 1 << 20, size + size/2, 1, 1},
		{"less than a batch", 1 << 20, 10, 1, 0},
		{"nothing", 0, 0, 1, 0},
		{"negative", -5, -5, 1, 0},
		{"three batches together", 3*size + 10, 2 * size, 2, 1},
		{"all", 1 << 20, 1 << 20, 5, 5},
	}
	for _, tt := range tests {
		limit := func(p *kmsg.FetchRequestTopicPartition) { p.PartitionMaxBytes = int32(tt.ofPart) }
		req := fetchReq(12, ids, from{"a", 0, 0, limit}, from{"b", 0, 0, limit})
		req.MaxBytes = int32(tt.of)
		r := c.fetched(req)
		if a, b := len(r[0].RecordBatches), len(r[1].RecordBatches); a != tt.wantA*size || b != tt.wantB*size {
			t.Errorf("%s: %d and %d bytes of batches of %d, want %d and %d batches", tt.name, a, b, size, tt.wantA, tt.wantB)
		}
	}
}

// TestFetchShare: one Fetch is answered with no more than its share of the node's
// memory for answers, an eighth, however much it asks for, or with one batch.
func TestFetchShare(t *testing.T) {
	t.Parallel()
	const memory = 16 << 20
	c := dialRaw(t, startCore(t, func(opt *node.Options) { opt.MemoryBytes = memory }).addr)
	ids := c.makeTopics("a", "b")
	const share = memory * 3 / 16 / 8
	large, small := recordsOf(t, batch.None, strings.Repeat("v", share+1)), recordsOf(t, batch.None, strings.Repeat("v", share/3))
	c.mustProduce("a", 0, small, small, small, small)
	c.mustProduce("b", 0, large, small)
	ask := func(topic string) int {
		req := fetchReq(12, ids, from{topic, 0, 0, func(p *kmsg.FetchRequestTopicPartition) { p.PartitionMaxBytes = 50 << 20 }})
		req.MaxBytes = 50 << 20
		return len(c.fetched(req)[0].RecordBatches)
	}
	if got := ask("a"); got != 2*len(small) {
		t.Errorf("%d bytes, want two batches of %d: the third would make it more than %d", got, len(small), share)
	}
	if got := ask("b"); got != len(large) {
		t.Errorf("%d bytes, want one batch of %d, though that is more than %d", got, len(large), share)
	}
}

// TestFetchWaits: an answer waits for records, not for partitions that do not
// exist, and not at all if no byte is wanted.
func TestFetchWaits(t *testing.T) {
	t.Parallel()
	n := startCore(t, nil)
	c, other := dialRaw(t, n.addr), dialRaw(t, n.addr)
	ids := c.makeTopics("a")
	none := fetchReq(12, ids, from{"a", 0, 0, nil})
	none.MaxWaitMillis, none.MinBytes = 600_000, 0
	if p := c.fetched(none)[0]; p.ErrorCode != 0 || len(p.RecordBatches) > 0 {
		t.Errorf("for no byte: %+v", p)
	}
	gone := fetchReq(12, ids, from{"missing", 0, 0, nil})
	gone.MaxWaitMillis = 600_000
	if p := c.fetched(gone)[0]; p.ErrorCode != int16(errcode.UnknownTopicOrPartition) {
		t.Errorf("of a missing topic: %+v", p)
	}
	waiting := fetchReq(12, ids, from{"missing", 0, 0, nil}, from{"a", 0, 0, nil})
	waiting.MaxWaitMillis = 600_000
	c.start(waiting)
	good := recordsOf(t, batch.None, "one")
	other.produce(9, ids, topicPart{"a", 0, good})
	r := kmsg.NewPtrFetchResponse()
	r.Version = 12
	c.answer(r, true)
	if len(r.Topics) != 2 || r.Topics[0].Partitions[0].ErrorCode != int16(errcode.UnknownTopicOrPartition) || len(r.Topics[1].Partitions[0].RecordBatches) != len(good) {
		t.Errorf("waited for %+v", r)
	}
}

// TestFetchDiverges: a client whose last record is of an epoch that the log does
// not know so is told where they part (KIP-595).
func TestFetchDiverges(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := c.makeTopics("a")
	c.produce(9, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one", "two")})
	epoch := c.metadata(13, false, "a").Topics[0].Partitions[0].LeaderEpoch
	tests := []struct {
		name          string
		epoch         int32
		offset        int64
		want          errcode.Code
		divergesAt    int64 // -1: it does not
		divergesEpoch int32
	}{
		{"as the log has it", epoch, 1, 0, -1, -1},
		{"at its end", epoch, 2, 0, -1, -1},
		{"behind its end", epoch, 3, 0, 2, epoch},
		{"an epoch that wrote nothing", epoch - 1, 1, 0, 0, epoch - 1},
		{"an epoch to come", epoch + 1, 1, errcode.OffsetOutOfRange, -1, -1},
		{"below the start", epoch, -1, errcode.OffsetOutOfRange, -1, -1},
	}
	for _, tt := range tests {
		for v := int16(12); v <= 18; v++ {
			p := c.fetched(fetchReq(v, ids, from{"a", 0, tt.offset, func(p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch = tt.epoch }}))[0]
			if p.ErrorCode != int16(tt.want) || p.DivergingEpoch.EndOffset != tt.divergesAt || p.DivergingEpoch.Epoch != tt.divergesEpoch {
				t.Errorf("%s, version %d: %+v", tt.name, v, p)
			}
			if tt.divergesAt >= 0 && (len(p.RecordBatches) > 0 || p.HighWatermark != 2 || p.LogStartOffset != 0) {
				t.Errorf("%s, version %d: %+v", tt.name, v, p)
			}
		}
	}
}

// TestFetchSession: a session is sent and answered only what changes (KIP-227).
func TestFetchSession(t *testing.T) {
	t.Parallel()
	for _, v := range []int16{7, 11, 12, 13, 18} {
		c := dialRaw(t, startCore(t, nil).addr)
		ids := c.makeTopics("a", "b", "c")
		byID := map[[16]byte]string{ids["a"]: "a", ids["b"]: "b", ids["c"]: "c"}
		one := recordsOf(t, batch.None, "one")
		c.produce(9, ids, topicPart{"a", 0, one})
		told := func(r *kmsg.FetchResponse) (s string) {
			for _, rt := range r.Topics {
				name := rt.Topic
				if v >= 13 {
					name = byID[rt.TopicID]
				}
				for _, p := range rt.Partitions {
					s += name
					if p.ErrorCode != 0 {
						s += "!"
					}
					if len(p.RecordBatches) > 0 {
						s += "+"
					}
				}
			}
			return s
		}
		next := func(id, epoch int32, parts ...from) *kmsg.FetchRequest {
			req := fetchReq(v, ids, parts...)
			req.SessionID, req.SessionEpoch = id, epoch
			return req
		}
		step := func(what string, req *kmsg.FetchRequest, want string, code errcode.Code, session int32) int32 {
			t.Helper()
			r := c.fetch(req)
			if got := told(r); got != want || r.ErrorCode != int16(code) || session >= 0 && r.SessionID != session {
				t.Errorf("version %d, %s: %q, %v, session %d; want %q, %v, session %d", v, what, got, errcode.Code(r.ErrorCode), r.SessionID, want, code, session)
			}
			return r.SessionID
		}
		id := step("full", next(0, 0, from{"a", 0, 0, nil}, from{"b", 0, 0, nil}), "a+b", 0, -1)
		if id == 0 {
			t.Fatalf("version %d: no session", v)
		}
		step("the same again", next(id, 1), "a+", 0, id)
		step("read on", next(id, 2, from{"a", 0, 1, nil}), "", 0, id)
		step("out of order", next(id, 2), "", errcode.InvalidFetchSessionEpoch, 0)
		step("too far", next(id, 4), "", errcode.InvalidFetchSessionEpoch, 0)
		step("still there", next(id, 3), "", 0, id)
		c.produce(9, ids, topicPart{"b", 0, one})
		step("news", next(id, 4), "b+", 0, id)
		step("one more", next(id, 5, from{"b", 0, 1, nil}, from{"c", 0, 0, nil}), "c", 0, id)
		step("an error", next(id, 6, from{"c", 0, 9, nil}), "c!", 0, id)
		step("an error is told each time", next(id, 7), "c!", 0, id)
		step("and its end", next(id, 8, from{"c", 0, 0, nil}), "c", 0, id)
		forget := func(req *kmsg.FetchRequest, names ...string) *kmsg.FetchRequest {
			for _, name := range names {
				f := kmsg.NewFetchRequestForgottenTopic()
				f.Topic, f.TopicID, f.Partitions = name, ids[name], []int32{0}
				req.ForgottenTopics = append(req.ForgottenTopics, f)
			}
			return req
		}
		step("forgotten", forget(next(id, 9), "b"), "", 0, id)
		c.produce(9, ids, topicPart{"a", 0, one}, topicPart{"b", 0, one}, topicPart{"c", 0, one})
		step("without it", next(id, 10), "a+c+", 0, id)
		other := int16(12)
		if v < 13 {
			other = 13
		}
		wrong := fetchReq(other, ids)
		wrong.SessionID, wrong.SessionEpoch = id, 11
		step("named otherwise", wrong, "", errcode.FetchSessionTopicIDError, 0)
		step("all forgotten", forget(next(id, 11), "a", "c"), "", 0, 0)
		step("it has ended", next(id, 12), "", errcode.FetchSessionIDNotFound, 0)

		id = step("another", next(0, 0, from{"a", 0, 0, nil}), "a+", 0, -1)
		id2 := step("which ends the one before", next(id, 0, from{"a", 0, 0, nil}), "a+", 0, -1)
		step("ended", next(id, 1), "", errcode.FetchSessionIDNotFound, 0)
		step("closed, and read for the last time", next(id2, -1, from{"a", 0, 0, nil}), "a+", 0, 0)
		step("closed", next(id2, 1), "", errcode.FetchSessionIDNotFound, 0)
	}
}

// chosen is chance of which the test has chosen the next four bytes, if it is
// asked for four.
type chosen struct{ next atomic.Uint32 }

func (c *chosen) Read(b []byte) (int, error) {
	if len(b) == 4 {
		if next := c.next.Swap(0); next != 0 {
			return copy(b, binary.BigEndian.AppendUint32(nil, next)), nil
		}
	}
	return rand.Read(b)
}

// TestFetchSessionIDs: the ids of sessions are of the node's chance, so that a
// node of a given one repeats.
func TestFetchSessionIDs(t *testing.T) {
	t.Parallel()
	var chance chosen
	c := dialRaw(t, startCore(t, func(opt *node.Options) { opt.Rand = &chance }).addr)
	ids := c.makeTopics("a")
	req := fetchReq(13, ids, from{"a", 0, 0, nil})
	req.SessionEpoch = 0
	chance.next.Store(0x8123_4567)
	if r := c.fetch(req); r.SessionID != 0x0123_4567 { // ids are not negative
		t.Errorf("session %#x", r.SessionID)
	}
	if r := c.fetch(req); r.SessionID == 0 || r.SessionID == 0x0123_4567 {
		t.Errorf("the second session is %#x", r.SessionID)
	}
}

// TestFetchSessionsMax: there are as many sessions as the setting says, a client
// that finds no room goes on without one, and the metrics show all of it.
func TestFetchSessionsMax(t *testing.T) {
	t.Parallel()
	var later atomic.Int64
	metrics, edit := listenMetrics(t, func(o *node.Options) {
		o.Clients.FetchSessions = 2
		o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	c := dialRaw(t, startCore(t, edit).addr)
	ids := c.makeTopics("a", "b")
	begin := func() int32 {
		t.Helper()
		req := fetchReq(13, ids, from{"a", 0, 0, nil}, from{"b", 0, 0, nil})
		req.SessionEpoch = 0
		r := c.fetch(req)
		if r.ErrorCode != 0 || len(r.Topics) != 2 {
			t.Fatalf("%v, %d topics", errcode.Code(r.ErrorCode), len(r.Topics))
		}
		return r.SessionID
	}
	want := func(sessions, partitions, evicted int) {
		t.Helper()
		got := metrics.series("^flotilla_fetch_")
		for name, n := range map[string]int{
			"sessions": sessions, "sessions_limit": 2, "session_partitions": partitions, "sessions_evicted_total": evicted,
		} {
			if v, there := got["flotilla_fetch_"+name]; !there || v != float64(n) {
				t.Errorf("flotilla_fetch_%s is %v (there: %t), want %d", name, v, there, n)
			}
		}
	}
	want(0, 0, 0)
	first, second := begin(), begin()
	if first == 0 || second == 0 {
		t.Fatalf("sessions %d and %d", first, second)
	}
	if id := begin(); id != 0 {
		t.Errorf("a third session, %d, where two may be", id)
	}
	want(2, 4, 0)
	later.Store(int64(3 * time.Minute)) // none of them was used for so long
	if id := begin(); id == 0 {
		t.Error("no session, though one was not used for long")
	}
	want(2, 4, 1)
	req := fetchReq(13, ids)
	req.SessionID, req.SessionEpoch = first, 1
	if r := c.fetch(req); r.ErrorCode != int16(errcode.FetchSessionIDNotFound) {
		t.Errorf("the session that made room: %v", errcode.Code(r.ErrorCode))
	}
}

// TestNoFetchSessions: the setting's 0 is none, and clients go on without.
func TestNoFetchSessions(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, func(o *node.Options) { o.Clients.FetchSessions = -1 }).addr)
	ids := c.makeTopics("a")
	for _, parts := range [][]from{{{"a", 0, 0, nil}}, nil} {
		req := fetchReq(13, ids, parts...)
		req.SessionEpoch = 0
		if r := c.fetch(req); r.ErrorCode != 0 || r.SessionID != 0 || len(r.Topics) != len(parts) {
			t.Errorf("%d partitions: %v, session %d, %d topics", len(parts), errcode.Code(r.ErrorCode), r.SessionID, len(r.Topics))
		}
	}
}

// TestFetchSpans: what lies in files and in memory comes in one answer, in the
// order of the offsets.
func TestFetchSpans(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, func(opt *node.Options) { opt.FlushAge = 1 }).addr)
	ids := c.makeTopics("a", "b")
	const n = 40
	value := string(bytes.Repeat([]byte("v"), 50_000))
	for i := range n {
		c.produce(9, ids, topicPart{"a", 0, recordsOf(t, batch.None, value)}, topicPart{"b", 0, recordsOf(t, batch.None, "small")})
		_ = i
	}
	next := map[string]int64{}
	for next["a"] < n || next["b"] < n {
		req := fetchReq(12, ids, from{"a", 0, next["a"], nil}, from{"b", 0, next["b"], nil})
		r := c.fetch(req)
		moved := false
		for _, rt := range r.Topics {
			for b := rt.Partitions[0].RecordBatches; len(b) > 0; {
				first, rest, err := batch.Split(b)
				if err != nil || batch.CheckCRC(first) != nil {
					t.Fatalf("topic %s: %v", rt.Topic, err)
				}
				h, _ := batch.ParseHeader(first)
				if h.BaseOffset != next[rt.Topic] {
					t.Fatalf("topic %s: offset %d, want %d", rt.Topic, h.BaseOffset, next[rt.Topic])
				}
				next[rt.Topic]++
				moved = true
				b = rest
			}
		}
		if !moved {
			t.Fatalf("nothing at %v", next)
		}
	}
}
