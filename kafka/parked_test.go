package kafka_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/node"
)

// TestParkedGiveWay: Fetches that wait for records do not keep others from being
// read: the oldest of them are answered with what there is when others wait for
// the memory of requests, the node's or that of their connection, and the rest
// wait on.
func TestParkedGiveWay(t *testing.T) {
	t.Parallel()
	const size = 30_000
	park := func(c *rawClient, ids map[string][16]byte, n int) *kmsg.FetchRequest {
		req := fetchReq(12, ids, from{"a", 0, 0, nil})
		req.MaxWaitMillis, req.MinBytes, req.Rack = 300_000, 1, strings.Repeat("r", size)
		for range n {
			c.start(req)
		}
		return req
	}
	t.Run("the node's", func(t *testing.T) {
		t.Parallel()
		inBubble(t, nil, func(t *testing.T, b *bubble) {
			first, others, other := b.dial("first"), []*rawClient{b.dial("second"), b.dial("third")}, b.dial("other")
			ids := first.makeTopics("a")
			other.metadata(12, false)
			req := park(first, ids, 50)
			time.Sleep(time.Second)
			began := time.Now()
			for _, c := range others {
				park(c, ids, 45) // with those of the first more than 4 MiB
			}
			synctest.Wait()
			other.metadata(12, false)
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("a request waited for %v for the memory of Fetches that wait", took)
			}
			for id := int32(2); id < 4; id++ { // the topic's creation is the first
				if r := first.next(id, req).(*kmsg.FetchResponse); r.ErrorCode != 0 || len(r.Topics) != 1 || r.Topics[0].Partitions[0].ErrorCode != 0 {
					t.Errorf("answered early: %+v", r)
				}
			}
			for _, c := range others {
				c.silent("though its Fetches are not the oldest")
			}
		})
	})
	t.Run("the connection's", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(opt *node.Options) { opt.Clients.InFlightBytes = 10 * (size + 1000) }, func(t *testing.T, b *bubble) {
			c := b.dial("client")
			ids := c.makeTopics("a")
			req := park(c, ids, 9)
			time.Sleep(time.Second)
			c.silent("with room for one more")
			began := time.Now()
			park(c, ids, 2)
			c.next(2, req)
			c.silent("with room again")
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("a request waited for %v for the memory of its own connection", took)
			}
		})
	})
}
