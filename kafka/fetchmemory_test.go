package kafka_test

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/node"
)

// crowded is a Fetch of partitions [from, to) of a topic, most of which are not
// there.
func crowded(version int16, ids map[string][16]byte, topic string, first, end int32) *kmsg.FetchRequest {
	req := fetchReq(version, ids, from{topic, first, 0, nil})
	parts := &req.Topics[0].Partitions
	for i := first + 1; i < end; i++ {
		p := (*parts)[0]
		p.Partition = i
		*parts = append(*parts, p)
	}
	return req
}

// TestFetchPartitionsMax: a Fetch asks for no more than 30,000 partitions, itself
// or as its session's, and names no more topics than that, nor forgets more. One
// that does is told so in the versions that can be, and the others end.
func TestFetchPartitionsMax(t *testing.T) {
	t.Parallel()
	const most = 30_000
	core := startCore(t, func(o *node.Options) { o.MemoryBytes = 1 << 30 })
	c := dialRaw(t, core.addr)
	ids := c.makeTopics("a")
	if r := c.fetch(crowded(12, ids, "a", 0, most)); r.ErrorCode != 0 || len(r.Topics[0].Partitions) != most {
		t.Errorf("as many as may be: %v, %d topics", errcode.Code(r.ErrorCode), len(r.Topics))
	}
	topics, forgets := fetchReq(13, ids, from{"a", 0, 0, nil}), fetchReq(13, ids)
	for len(topics.Topics) <= most {
		topics.Topics = append(topics.Topics, kmsg.FetchRequestTopic{})
	}
	forgets.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{TopicID: ids["a"], Partitions: make([]int32, most+1)}}
	for name, req := range map[string]*kmsg.FetchRequest{
		"partitions, version 7": crowded(7, ids, "a", 0, most+1), "partitions, version 18": crowded(18, ids, "a", 0, most+1), "topics": topics, "forgotten": forgets,
	} {
		if r := c.fetch(req); r.ErrorCode != int16(errcode.InvalidRequest) || len(r.Topics) > 0 {
			t.Errorf("%s: %v, %d topics; want INVALID_REQUEST", name, errcode.Code(r.ErrorCode), len(r.Topics))
		}
	}
	core.log.await(t, "30001 partitions, at most 30000", 2)

	req := crowded(12, ids, "a", 0, most/2)
	req.SessionEpoch = 0
	id := c.fetch(req).SessionID
	more := crowded(12, ids, "a", most/2, most+1)
	more.SessionID, more.SessionEpoch = id, 1
	if r := c.fetch(more); id == 0 || r.ErrorCode != int16(errcode.InvalidRequest) {
		t.Errorf("a session %d that grows: %v, want INVALID_REQUEST", id, errcode.Code(r.ErrorCode))
	}
	more.SessionEpoch = 2
	if r := c.fetch(more); r.ErrorCode != int16(errcode.FetchSessionIDNotFound) {
		t.Errorf("the session after it: %v", errcode.Code(r.ErrorCode))
	}

	old := crowded(4, ids, "a", 0, most+1)
	c.start(old)
	if n, err := c.nc.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("version 4: %d bytes, %v; want the connection's end", n, err)
	}
	dialRaw(t, core.addr).metadata(9, false, "a") // others are served
}

// TestFetchMemory: Fetches of many partitions take memory for them, of which the
// node has so much: who finds none makes those answer that wait for records, and
// takes their place. Those of few partitions have memory of their own. What was
// taken is given back.
func TestFetchMemory(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) { // of 64 MiB, 4 MiB are for this
		first, second, small := b.dial("first"), b.dial("second"), b.dial("small")
		ids := first.makeTopics("a")
		waiting := func(parts int32) *kmsg.FetchRequest {
			req := crowded(12, ids, "a", 0, parts)
			req.MaxWaitMillis = 60_000
			return req
		}
		many, few := waiting(3000), waiting(10)
		for round := range 3 {
			small.start(few)
			small.silent("a Fetch of few partitions at first")
			first.start(many)
			first.silent("a Fetch of many partitions")
			time.Sleep(time.Second)
			began := time.Now()
			second.start(many)
			synctest.Wait()
			first.next(first.id, many)
			if took := time.Since(began); took > time.Millisecond {
				t.Errorf("round %d: one that another waits for is answered after %v, want 0s", round, took)
			}
			second.silent("a Fetch that has got its memory")
			small.silent("a Fetch of few partitions")
			second.next(second.id, many)
			if took := time.Since(began).Truncate(time.Millisecond); took != time.Minute {
				t.Errorf("round %d: the one that has waited for memory is answered after %v, want 1m", round, took)
			}
			small.next(small.id, few)
		}
	})
}

// TestFetchMemoryOfOne: one connection takes only a part of that memory, or what
// one Fetch needs.
func TestFetchMemoryOfOne(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) { // 128 KiB
		c := b.dial("client")
		ids := c.makeTopics("a")
		req := crowded(12, ids, "a", 0, 100)
		req.MaxWaitMillis = 60_000
		began := time.Now()
		c.start(req)
		c.silent("the first")
		c.start(req)
		c.next(c.id-1, req)
		if took := time.Since(began); took > time.Second { // none is asked to give way at once
			t.Errorf("the first is answered after %v, want less than 1s", took)
		}
		c.silent("the second")
	})
}
