package kafka_test

import (
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestLastAnswers: what came before a request that ends the connection is answered,
// in its order, though the connection is read no more: it may have been appended. A
// fetch among it waits no longer.
func TestLastAnswers(t *testing.T) {
	t.Parallel()
	ends := map[string][]byte{
		"a length of none": binary.BigEndian.AppendUint32(nil, 0xffff_fff0),
		"an unknown key":   {0, 0, 0, 8, 0x30, 0x39, 0, 0, 0, 0, 0, 1},
		"a Produce cut off": { // version 3, and then nothing
			0, 0, 0, 11, 0, 0, 0, 3, 0, 0, 0, 9, 0xff, 0xff, 0xff,
		},
		"a DeleteTopics of more topics than it has bytes": { // version 3: the writer's to find out
			0, 0, 0, 14, 0, 20, 0, 3, 0, 0, 0, 9, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff,
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, b *bubble) {
				c := b.dial("producer")
				ids := c.makeTopics("a", "b")
				let := b.holdSyncs()
				first := produceReq(9, -1, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one")})
				waits := fetchReq(12, ids, from{"b", 0, 0, nil})
				waits.MaxWaitMillis, waits.MinBytes = 60_000, 1
				second := produceReq(9, -1, ids, topicPart{"a", 0, recordsOf(t, batch.None, "two")})
				c.start(first)
				c.start(waits)
				c.start(second)
				creates := kmsg.NewPtrCreateTopicsRequest()
				creates.Version, creates.TimeoutMillis = 5, 60_000
				creates.Topics = append(creates.Topics, newTopic("c", 1))
				c.start(creates)
				// Much follows it, which nobody reads.
				if _, err := c.nc.Write(append(end, make([]byte, 20_000)...)); err != nil {
					t.Fatal(err)
				}
				b.pass(20 * time.Second)
				c.silent("before it is durable")
				let()
				id := c.id
				if p := c.next(id-3, first).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 0 {
					t.Errorf("the first: %+v", p)
				}
				c.next(id-2, waits)
				if p := c.next(id-1, second).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 1 {
					t.Errorf("the second: %+v", p)
				}
				if p := c.next(id, creates).(*kmsg.CreateTopicsResponse).Topics[0]; p.ErrorCode != 0 {
					t.Errorf("the creation: %v, %s", errcode.Code(p.ErrorCode), message(p.ErrorMessage))
				}
				if n, err := c.nc.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
					t.Errorf("behind them: %d bytes, %v; want the end", n, err)
				}
				if _, err := c.nc.Write([]byte{0}); err != nil {
					t.Errorf("the connection is closed at once, by which what was written may be lost: %v", err)
				}
				b.pass(2 * time.Second)
				if _, err := c.nc.Write([]byte{0}); err == nil {
					t.Errorf("the connection takes bytes yet")
				}
			})
		})
	}
}

// TestLastAnswersEnd: what is not answered in half a minute does not keep a
// connection that has ended.
func TestLastAnswersEnd(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("producer")
		ids := c.makeTopics("a")
		b.holdSyncs()
		req := produceReq(9, -1, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one")})
		req.TimeoutMillis = 10 * 60_000
		c.start(req)
		began := time.Now()
		if _, err := c.nc.Write([]byte{0xff, 0xff, 0xff, 0xff}); err != nil {
			t.Fatal(err)
		}
		if n, err := c.nc.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("%d bytes, %v; want the end", n, err)
		}
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("ended after %v, want 30 s", took)
		}
	})
}
