package kafka_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestFetchBehindOthers: Fetches behind a Produce, or a creation, that waits hold no
// memory of the node's for Fetches meanwhile, however many and of however many
// partitions they are; they are answered in their turn.
func TestFetchBehindOthers(t *testing.T) {
	t.Parallel()
	const connections, fetches, partitions = 10, 25, 20 // what would hold all that there is for small ones
	for _, creates := range []bool{false, true} {
		inBubble(t, nil, func(t *testing.T, b *bubble) {
			other := b.dial("other")
			ids := other.makeTopics("a", "b")
			let := b.holdSyncs()
			var first kmsg.Request = produceReq(9, -1, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one")})
			if creates {
				let = b.holdSyncsOf("metadata")
				req := kmsg.NewPtrCreateTopicsRequest()
				req.Version, req.TimeoutMillis = 5, 60_000
				req.Topics = append(req.Topics, newTopic("c", 1))
				first = req
			}
			fetch := crowded(12, ids, "a", 0, partitions)
			var clients []*rawClient
			for range connections {
				c := b.dial("client")
				clients = append(clients, c)
				c.start(first)
				for range fetches {
					c.start(fetch)
				}
				c.silent("behind a request that waits")
			}
			began := time.Now()
			if r := other.fetch(fetch); r.ErrorCode != 0 || time.Since(began) > 0 {
				t.Errorf("another's Fetch: %v after %v, want it at once", errcode.Code(r.ErrorCode), time.Since(began))
			}
			let()
			for i, c := range clients {
				c.next(1, first)
				for id := range int32(fetches) {
					p := c.next(2+id, fetch).(*kmsg.FetchResponse).Topics[0].Partitions[0]
					if p.ErrorCode != 0 || !creates && p.HighWatermark == 0 {
						t.Fatalf("client %d, Fetch %d of what it had produced: %+v", i, id, p)
					}
				}
			}
		})
	}
}

// TestFetchInTurnHurries: a Fetch that is started late answers with what there is if
// a large request came behind it meanwhile, as one does that had been started; else
// it waits from when it is started on.
func TestFetchInTurnHurries(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("client")
		ids := c.makeTopics("a", "b")
		name := strings.Repeat("n", 100)
		for names, want := range map[int]time.Duration{1: time.Minute, 11: 0} { // and no more than 1 KiB, or more
			let := b.holdSyncs()
			produce := produceReq(9, -1, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one")})
			fetch := fetchReq(12, ids, from{"b", 0, 0, nil})
			fetch.MaxWaitMillis, fetch.MinBytes = 60_000, 1
			behind := kmsg.NewPtrMetadataRequest()
			behind.Version = 12
			behind.Topics = slices.Repeat([]kmsg.MetadataRequestTopic{{Topic: &name}}, names)
			c.start(produce)
			c.start(fetch)
			c.start(behind)
			b.pass(20 * time.Second)
			c.silent("before the Produce is durable")
			let()
			c.next(c.id-2, produce)
			began := time.Now()
			c.next(c.id-1, fetch)
			if took := time.Since(began).Truncate(time.Millisecond); took != want {
				t.Errorf("with %d names in the request behind it, a Fetch is answered %v after it was started, want %v", names, took, want)
			}
			c.next(c.id, behind)
		}
	})
}

// TestLargeFetchHurries: a Fetch of more than 1 KiB that is started in its turn has
// those before it answer with what there is, since it holds the memory of its bytes
// meanwhile; a smaller one does not.
func TestLargeFetchHurries(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("client")
		ids := c.makeTopics("a", "b")
		for partitions, want := range map[int32]time.Duration{1: time.Minute, 100: 0} {
			waits, produce := fetchReq(12, ids, from{"b", 0, 0, nil}), produceReq(9, -1, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one")})
			waits.MaxWaitMillis, waits.MinBytes = 60_000, 1
			behind := crowded(12, ids, "a", 0, partitions)
			began := time.Now()
			c.start(waits)
			c.start(produce)
			synctest.Wait()
			c.start(behind)
			c.next(c.id-2, waits)
			if took := time.Since(began).Truncate(time.Millisecond); took != want {
				t.Errorf("with a Fetch of %d partitions behind a Produce, the one before that is answered after %v, want %v", partitions, took, want)
			}
			c.next(c.id-1, produce)
			c.next(c.id, behind)
		}
	})
}

// TestFetchInTurnEnds: a Fetch that is started late, and is none, ends the connection
// when it is its turn: what came before is answered.
func TestFetchInTurnEnds(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("client")
		ids := c.makeTopics("a")
		let := b.holdSyncs()
		produce := produceReq(9, -1, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one")})
		c.start(produce)
		// Fetch version 4 of "a number of topics", without them.
		if _, err := c.nc.Write([]byte{0, 0, 0, 31, 0, 1, 0, 4, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 9}); err != nil {
			t.Fatal(err)
		}
		c.start(fetchReq(12, ids, from{"a", 0, 0, nil})) // which has no answer
		c.silent("before the Produce is durable")
		let()
		if p := c.next(c.id-1, produce).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 {
			t.Errorf("the Produce: %+v", p)
		}
		if n, err := c.nc.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
			t.Errorf("behind it: %d bytes, %v; want the end", n, err)
		}
		b.log.await(t, "Fetch version 4", 1)
	})
}
