package kafka_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestProduceDurable: with acks 1 and -1 the answer comes when the records are
// durable, and nobody reads them before; with acks 0 none ever comes, and the
// next request of the connection is answered as if it had.
func TestProduceDurable(t *testing.T) {
	t.Parallel()
	for _, acks := range []int16{-1, 1, 0} {
		inBubble(t, nil, func(t *testing.T, b *bubble) {
			c, reader := b.dial("producer"), b.dial("consumer")
			ids := c.makeTopics("a")
			reader.metadata(12, false)
			good := topicPart{"a", 0, recordsOf(t, batch.None, "one")}
			let := b.holdSyncs()
			req := produceReq(9, acks, ids, good)
			began := time.Now()
			c.start(req)
			time.Sleep(20 * time.Second) // of the 30 that it may take
			c.silent("before it is durable")
			if p := reader.fetched(fetchReq(12, ids, from{"a", 0, 0, nil}))[0]; p.ErrorCode != 0 || p.HighWatermark != 0 || len(p.RecordBatches) > 0 {
				t.Errorf("acks %d: read before it is durable: %+v", acks, p)
			}
			let()
			if acks == 0 {
				c.silent("without acknowledgement")
			} else if p := c.next(c.id, req).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 0 {
				t.Errorf("acks %d: %+v", acks, p)
			}
			if took := time.Since(began); took > 21*time.Second {
				t.Errorf("acks %d: durable after 20 s, and answered after %v", acks, took)
			}
			if p := c.fetched(fetchReq(12, ids, from{"a", 0, 0, nil}))[0]; p.HighWatermark != 1 || len(p.RecordBatches) != len(good.records) {
				t.Errorf("acks %d: read when it is durable: %+v", acks, p)
			}
		})
	}
}

// TestUnacknowledgedFailure: without acknowledgement the end of the connection is
// how a client learns of a failure, and the log says why; what is sent before it is
// answered, and what is sent behind it is not.
func TestUnacknowledgedFailure(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("producer")
		ids := c.makeTopics("a")
		good := recordsOf(t, batch.None, "one")
		before := produceReq(9, -1, ids, topicPart{"a", 0, good})
		c.start(before)
		c.start(produceReq(9, 0, ids, topicPart{"a", 0, good}, topicPart{"missing", 0, good}))
		c.start(fetchReq(12, ids, from{"a", 0, 0, nil}))
		if p := c.next(c.id-2, before).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 {
			t.Errorf("before it: %+v", p)
		}
		if err := c.nc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.nc.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
			t.Errorf("behind it: %d bytes, %v; want the end", n, err)
		}
		if out := b.log.String(); !strings.Contains(out, "topic missing, partition 0: UNKNOWN_TOPIC_OR_PARTITION") {
			t.Errorf("log: %s", out)
		}
	})
}

// TestProduceTimeout: what is not durable in time is answered REQUEST_TIMED_OUT
// when its own time is up, and what is appended of it all the same is what was
// sent: the request's bytes are not lent to another one.
func TestProduceTimeout(t *testing.T) {
	t.Parallel()
	const size = 200_000 // of buffers that are lent again
	for _, timeoutMS := range []int32{1000, 0, -5} {
		inBubble(t, nil, func(t *testing.T, b *bubble) {
			first, late := b.dial("first"), b.dial("late")
			ids := first.makeTopics("a", "b")
			sent := recordsOf(t, batch.None, strings.Repeat("v", size))
			let := b.holdSyncs()
			head := produceReq(9, -1, ids, topicPart{"b", 0, recordsOf(t, batch.None, "head")})
			first.start(head) // whose sync is held, with all that follows
			synctest.Wait()
			req := produceReq(9, -1, ids, topicPart{"a", 0, sent})
			req.TimeoutMillis = timeoutMS
			want := 30 * time.Second // none was given
			if timeoutMS > 0 {
				want = time.Duration(timeoutMS) * time.Millisecond
			}
			began := time.Now()
			late.start(req)
			p := late.next(late.id, req).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			if took := time.Since(began); took.Truncate(time.Millisecond) != want {
				t.Errorf("timeout %d: answered after %v, want %v", timeoutMS, took, want)
			}
			if p.ErrorCode != int16(errcode.RequestTimedOut) || p.BaseOffset != -1 || !strings.Contains(*p.ErrorMessage, "may have been appended") {
				t.Errorf("timeout %d: %v: %s", timeoutMS, errcode.Code(p.ErrorCode), *p.ErrorMessage)
			}
			for range 8 { // of the same size, and refused
				other := produceReq(9, -1, ids, topicPart{"a", 9, bytes.Repeat([]byte("w"), len(sent))})
				if p := late.ask(other, 9).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != int16(errcode.UnknownTopicOrPartition) {
					t.Fatalf("%+v", p)
				}
			}
			let()
			first.next(first.id, head)
			all := fetchReq(12, ids, from{"a", 0, 0, nil})
			all.MaxWaitMillis = 60_000
			got := late.fetched(all)[0].RecordBatches
			if len(got) != len(sent) || batch.CheckCRC(got) != nil || !bytes.Equal(got[16:], sent[16:]) {
				t.Errorf("timeout %d: %d bytes were appended that nobody sent", timeoutMS, len(got))
			}
		})
	}
}

// TestFetchMinBytes: a Fetch waits until as many bytes are there as it wants, or
// until its time is up, which is at most five minutes.
func TestFetchMinBytes(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c, producer := b.dial("consumer"), b.dial("producer")
		c.metadata(12, false)
		ids := producer.makeTopics("a", "b")
		one := recordsOf(t, batch.None, "one")
		produce := func(topic string) { producer.produce(9, ids, topicPart{topic, 0, one}) }
		const minute = 60_000
		tests := []struct {
			name      string
			waitMS    int32
			minBytes  int
			then      func() // ten seconds later
			wantAfter time.Duration
			want      int // batches
		}{
			{"no byte", minute, 0, nil, 0, 0},
			{"no time", 0, 1, nil, 0, 0},
			{"negative time", -5, 1, nil, 0, 0},
			{"one byte", minute, 1, func() { produce("a") }, 10 * time.Second, 1},
			{"two batches, of two partitions", minute, len(one) + 1, func() {
				produce("a")
				c.silent("with one batch")
				time.Sleep(10 * time.Second)
				produce("b")
			}, 20 * time.Second, 2},
			{"two batches, of one partition", minute, 2 * len(one), func() {
				produce("b")
				c.silent("with one batch")
				time.Sleep(10 * time.Second)
				produce("b")
			}, 20 * time.Second, 2},
			{"more than come in time", minute, 2 * len(one), func() { produce("b") }, time.Minute, 1},
			{"nothing comes", minute, 1, nil, time.Minute, 0},
			{"very long", 400_000, 1, nil, 5 * time.Minute, 0},
		}
		for _, tt := range tests {
			end := func(topic string) int64 {
				return c.fetched(fetchReq(12, ids, from{topic, 0, 0, nil}))[0].HighWatermark
			}
			req := fetchReq(12, ids, from{"a", 0, end("a"), nil}, from{"b", 0, end("b"), nil})
			req.MaxWaitMillis, req.MinBytes = tt.waitMS, int32(tt.minBytes)
			began := time.Now()
			c.start(req)
			if tt.then != nil {
				time.Sleep(10 * time.Second)
				c.silent(tt.name)
				tt.then()
			}
			got := 0
			for _, rt := range c.next(c.id, req).(*kmsg.FetchResponse).Topics {
				if p := rt.Partitions[0]; p.ErrorCode != 0 {
					t.Errorf("%s: %+v", tt.name, p)
				}
				got += len(rt.Partitions[0].RecordBatches)
			}
			if took := time.Since(began).Truncate(time.Millisecond); took != tt.wantAfter || got != tt.want*len(one) {
				t.Errorf("%s: answered after %v with %d bytes, want %v and %d batches of %d", tt.name, took, got, tt.wantAfter, tt.want, len(one))
			}
		}
	})
}

// TestFetchDoesNotWait: what is wrong with one partition, or that its records are
// no longer what the client has, is told at once, whatever the others wait for.
func TestFetchDoesNotWait(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("consumer")
		ids := c.makeTopics("a", "idle")
		c.produce(9, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one", "two")})
		epoch := c.metadata(13, false, "a").Topics[0].Partitions[0].LeaderEpoch
		for name, edit := range map[string]func(p *kmsg.FetchRequestTopicPartition){
			"above the end":     func(p *kmsg.FetchRequestTopicPartition) { p.FetchOffset = 3 },
			"an old epoch":      func(p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = epoch - 1 },
			"an epoch to come":  func(p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = epoch + 1 },
			"records that part": func(p *kmsg.FetchRequestTopicPartition) { p.FetchOffset, p.LastFetchedEpoch = 3, epoch },
		} {
			req := fetchReq(12, ids, from{"idle", 0, 0, nil}, from{"a", 0, 0, edit})
			req.MaxWaitMillis = 60_000
			began := time.Now()
			r := c.fetched(req)
			if took := time.Since(began); took >= time.Second {
				t.Errorf("%s: answered after %v", name, took)
			}
			if r[0].ErrorCode != 0 || r[1].ErrorCode == 0 && r[1].DivergingEpoch.EndOffset != 2 {
				t.Errorf("%s: %+v", name, r)
			}
		}
	})
}

// TestHurry: a request of more than 1 KiB that is handled in its turn makes the
// Fetches before it answer with what there is, since it holds memory meanwhile; a
// smaller one, a Produce or another Fetch does not.
func TestHurry(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("client")
		ids := c.makeTopics("a", "b")
		asking := func(version int16, names int) kmsg.Request {
			req := kmsg.NewPtrMetadataRequest()
			req.Version = version
			name := strings.Repeat("n", 100)
			req.Topics = slices.Repeat([]kmsg.MetadataRequestTopic{{Topic: &name}}, names)
			return req
		}
		for _, tt := range []struct {
			name   string
			behind kmsg.Request
			want   time.Duration
		}{
			{"a small request", asking(12, 1), time.Minute},
			{"a request of less than 1 KiB", asking(12, 8), time.Minute},
			{"a large request", asking(12, 11), 0},
			{"a large Produce", produceReq(9, -1, ids, topicPart{"b", 0, recordsOf(t, batch.None, strings.Repeat("v", 5000))}), time.Minute},
			{"a large Fetch", fetchReq(12, ids, slices.Repeat([]from{{"b", 0, 0, nil}}, 100)...), time.Minute},
		} {
			req := fetchReq(12, ids, from{"a", 0, 0, nil})
			req.MaxWaitMillis, req.MinBytes = 60_000, 1
			began := time.Now()
			c.start(req)
			c.start(req)
			synctest.Wait()
			c.start(tt.behind)
			if tt.want > 0 {
				time.Sleep(30 * time.Second)
				c.silent(tt.name)
			}
			for id := c.id - 2; id < c.id; id++ {
				if p := c.next(id, req).(*kmsg.FetchResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || len(p.RecordBatches) > 0 {
					t.Errorf("%s: %+v", tt.name, p)
				}
			}
			c.next(c.id, tt.behind)
			if took := time.Since(began).Truncate(time.Millisecond); took != tt.want {
				t.Errorf("%s behind a Fetch that waits: answered after %v, want %v", tt.name, took, tt.want)
			}
		}
	})
}

// TestOrderOfAnswers: what is done first is not answered first. A Fetch that a
// Produce behind it ends is answered before it, and one that it does not end too.
func TestOrderOfAnswers(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c, other := b.dial("client"), b.dial("other")
		ids := c.makeTopics("a", "b")
		for topic, want := range map[string]time.Duration{"a": 0, "b": time.Minute} {
			fetch := fetchReq(12, ids, from{"a", 0, 0, nil})
			fetch.Topics[0].Partitions[0].FetchOffset = other.fetched(fetchReq(12, ids, from{"a", 0, 0, nil}))[0].HighWatermark
			fetch.MaxWaitMillis = 60_000
			produce := produceReq(9, -1, ids, topicPart{topic, 0, recordsOf(t, batch.None, "one")})
			began := time.Now()
			c.start(fetch)
			c.start(produce)
			synctest.Wait()
			if p := other.fetched(fetchReq(12, ids, from{topic, 0, 0, nil}))[0]; p.HighWatermark == 0 {
				t.Errorf("%s: a Produce behind a Fetch that waits was not begun", topic)
			}
			if got := c.next(c.id-1, fetch).(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches; (len(got) > 0) != (want == 0) {
				t.Errorf("%s: %d bytes", topic, len(got))
			}
			if p := c.next(c.id, produce).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 {
				t.Errorf("%s: %+v", topic, p)
			}
			if took := time.Since(began).Truncate(time.Millisecond); took != want {
				t.Errorf("%s: answered after %v, want %v", topic, took, want)
			}
		}
	})
}

// TestAnswerIsNotKept: an answer is sent when it is there, though the one behind it
// waits.
func TestAnswerIsNotKept(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("client")
		ids := c.makeTopics("a", "b")
		let := b.holdSyncs()
		produce, fetch := produceReq(9, -1, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one")}), fetchReq(12, ids, from{"b", 0, 0, nil})
		fetch.MaxWaitMillis = 60_000
		c.start(produce)
		c.start(fetch)
		synctest.Wait() // both are there, and neither has its answer
		began := time.Now()
		let()
		c.next(c.id-1, produce)
		if took := time.Since(began); took >= time.Second {
			t.Errorf("an answer with a Fetch behind it came after %v", took)
		}
		c.next(c.id, fetch)
	})
}

// TestFetchOvertaken: of two requests of one session that are under way at a time
// the first one's answer is an error, and the session goes on with the second.
func TestFetchOvertaken(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c, other := b.dial("first"), b.dial("second")
		ids := c.makeTopics("a")
		begin := fetchReq(12, ids, from{"a", 0, 0, nil})
		begin.SessionEpoch = 0
		id := c.fetch(begin).SessionID
		goOn := func(epoch int32) *kmsg.FetchRequest {
			req := fetchReq(12, ids)
			req.SessionID, req.SessionEpoch, req.MaxWaitMillis = id, epoch, 60_000
			return req
		}
		first, second := goOn(1), goOn(2)
		c.start(first)
		synctest.Wait()
		other.start(second)
		synctest.Wait()
		c.silent("while both wait")
		records := recordsOf(t, batch.None, "one")
		b.dial("producer").produce(9, ids, topicPart{"a", 0, records})
		if r := c.next(c.id, first).(*kmsg.FetchResponse); r.ErrorCode != int16(errcode.InvalidFetchSessionEpoch) || r.SessionID != 0 || len(r.Topics) > 0 {
			t.Errorf("the first: %v, session %d, %d topics", errcode.Code(r.ErrorCode), r.SessionID, len(r.Topics))
		}
		if r := other.next(other.id, second).(*kmsg.FetchResponse); r.ErrorCode != 0 || r.SessionID != id || len(r.Topics) != 1 || len(r.Topics[0].Partitions[0].RecordBatches) != len(records) {
			t.Errorf("the second: %+v", r)
		}
		if r := c.fetch(goOn(3)); r.ErrorCode != 0 || len(r.Topics) != 1 {
			t.Errorf("and on: %+v", r)
		}
	})
}

// TestFetchOfTheGone: a Fetch does not wait for a client that has gone, nor does
// a node that stops wait for a Fetch: it is answered with what there is.
func TestFetchOfTheGone(t *testing.T) {
	t.Parallel()
	inBubble(t, func(opt *node.Options) { opt.Clients.Connections = 1 }, func(t *testing.T, b *bubble) {
		gone := b.dial("client")
		ids := gone.makeTopics("a")
		waiting := fetchReq(12, ids, from{"a", 0, 0, nil})
		waiting.MaxWaitMillis = 300_000
		gone.start(waiting)
		synctest.Wait()
		if err := gone.nc.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c := b.dial("client") // there is room for one
		synctest.Wait()
		if strings.Contains(b.log.String(), "(connections.max)") {
			t.Fatal("a Fetch that waits holds the connection of a client that has gone")
		}
		c.metadata(12, false, "a")
		began := time.Now()
		c.start(waiting)
		c.silent("while it waits")
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if p := c.next(c.id, waiting).(*kmsg.FetchResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || len(p.RecordBatches) > 0 {
			t.Errorf("of a node that stops: %+v", p)
		}
		if took := time.Since(began); took >= time.Second {
			t.Errorf("the node stopped after %v", took)
		}
	})
}

// TestStalledFetches: clients that do not take what they have asked for, which lies
// in memory yet, keep nobody waiting for more than 20 ms for the memory of answers,
// and nothing is missing when they take it.
func TestStalledFetches(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		healthy := b.dial("healthy")
		ids := healthy.makeTopics("a")
		records := recordsOf(t, batch.None, strings.Repeat("v", 900_000))
		healthy.produce(9, ids, topicPart{"a", 0, records})
		req := fetchReq(12, ids, from{"a", 0, 0, nil})
		stalled := make([]*rawClient, 20) // of 12 MiB for all
		for i := range stalled {
			stalled[i] = b.dial("stalled")
			stalled[i].start(req)
		}
		synctest.Wait()
		began := time.Now()
		check := func(name string, r *kmsg.FetchResponse) {
			t.Helper()
			if got := r.Topics[0].Partitions[0].RecordBatches; !bytes.Equal(got[16:], records[16:]) {
				t.Errorf("%s: other records than were sent, %d bytes", name, len(got))
			}
		}
		check("the healthy client", healthy.fetch(req))
		if took := time.Since(began); took == 0 || took > 20*time.Millisecond {
			t.Errorf("a Fetch waited for %v for the memory of clients that take nothing, want 20ms", took)
		}
		time.Sleep(30 * time.Second)
		for _, c := range stalled {
			check("a stalled client", c.next(1, req).(*kmsg.FetchResponse))
		}
	})
}

// TestConnectionsPerClient: as many connections of one address as the setting
// says, and another address is not concerned.
func TestConnectionsPerClient(t *testing.T) {
	t.Parallel()
	inBubble(t, func(opt *node.Options) { opt.Clients.Connections, opt.Clients.ConnectionsPerIP = 5, 2 }, func(t *testing.T, b *bubble) {
		refused := func(host, setting string, n int) {
			t.Helper()
			c := b.dial(host)
			req := kmsg.NewPtrMetadataRequest()
			_, _ = c.nc.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, 1))
			if n, err := c.nc.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Errorf("one too many of %s is answered", host)
			}
			if got := strings.Count(b.log.String(), setting); got != n {
				t.Errorf("%d lines about %s, want %d", got, setting, n)
			}
		}
		first := b.dial("10.0.0.1")
		for _, host := range []string{"10.0.0.1", "10.0.0.2"} {
			b.dial(host).metadata(12, false)
		}
		refused("10.0.0.1", "(connections.max.per.ip)", 1)
		if err := first.nc.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.dial("10.0.0.1").metadata(12, false) // there is room again
		b.dial("10.0.0.2").metadata(12, false)
		b.dial("10.0.0.3").metadata(12, false)
		refused("10.0.0.4", "(connections.max)", 1)
	})
}
