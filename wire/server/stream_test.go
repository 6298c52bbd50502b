package server_test

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
	"github.com/flotilla-log/flotilla/wire/server"
)

// deliver reads the next frame, which must be a Deliver.
func (p *peer) deliver() (*pb.Deliver, []byte) {
	p.t.Helper()
	m := new(pb.Deliver)
	f, refused := p.answer(m)
	if refused != nil || f.Kind != frame.KindDeliver || f.Flags != 0 || f.CorrelationID != 0 {
		p.t.Fatalf("%v %d %v, want a Deliver", f.Kind, f.CorrelationID, refused)
	}
	var sum int
	for _, part := range m.Parts {
		sum += int(part.Length)
	}
	if sum != len(f.Payload) {
		p.t.Fatalf("parts of %d bytes in a payload of %d", sum, len(f.Payload))
	}
	return m, f.Payload
}

// quiet wants nothing to be pushed. A delivery that is ready when a Ping is
// answered comes before the next one's answer.
func (p *peer) quiet(why string) {
	p.t.Helper()
	for range 2 {
		p.start(frame.KindPing, &pb.Ping{})
		if f, err := p.r.Read(); err != nil || f.Kind != frame.KindPing {
			p.t.Fatalf("%s: %v %v, want nothing but a Pong", why, f.Kind, err)
		}
	}
}

func (p *peer) produce(topic []byte, partition int32, b []byte) {
	p.t.Helper()
	resp := new(pb.ProduceResponse)
	m := &pb.ProduceRequest{Parts: []*pb.ProducePart{{TopicId: topic, Partition: partition, Length: uint32(len(b))}}}
	p.ask(frame.KindProduce, m, resp, b)
	if resp.Results[0].Error != nil {
		p.t.Fatal(resp.Results[0].Error)
	}
}

func streamPart(topic []byte, partition int32, offset int64, generation uint32) *pb.StreamPart {
	return &pb.StreamPart{TopicId: topic, Partition: partition, Offset: offset, LeaderEpoch: -1, Generation: generation}
}

// offsets returns the base offsets of the batches in b, and checks each.
func offsets(t *testing.T, b []byte) (all []int64) {
	t.Helper()
	for len(b) > 0 {
		one, rest, err := batch.Split(b)
		if err == nil {
			err = batch.CheckCRC(one)
		}
		h, perr := batch.ParseHeader(one)
		if err != nil || perr != nil {
			t.Fatal(err, perr)
		}
		all = append(all, h.BaseOffset)
		b = rest
	}
	return all
}

// TestStreamDelivers follows a partition from what is there to what comes.
func TestStreamDelivers(t *testing.T) {
	t.Parallel()
	_, addr := startNode(t, 64<<20)
	p, c := connect(t, addr), connect(t, addr)
	topic := p.create("t", 3)
	b := build(t, []byte("v"))
	p.produce(topic, 1, b)
	p.produce(topic, 1, b)
	c.ask(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 7, CreditBytes: 1 << 20, Parts: []*pb.StreamPart{
		streamPart(topic, 0, 0, 1), streamPart(topic, 1, 1, 5),
	}}, &pb.SubscribeResponse{})
	m, payload := c.deliver()
	part := m.Parts[0]
	if m.Stream != 7 || len(m.Parts) != 1 || part.Partition != 1 || part.Generation != 5 || part.HighWatermark != 2 || part.LogStartOffset != 0 {
		t.Errorf("delivered %v", m)
	}
	if got := offsets(t, payload); len(got) != 1 || got[0] != 1 {
		t.Errorf("offsets %v, want 1", got)
	}
	c.quiet("at the end")
	p.produce(topic, 0, b)
	if m, payload = c.deliver(); m.Parts[0].Partition != 0 || m.Parts[0].Generation != 1 || offsets(t, payload)[0] != 0 {
		t.Errorf("delivered %v", m)
	}
	p.produce(topic, 2, b)
	c.quiet("of a partition that is not followed")

	// Pause, resume, seek, remove.
	refs := []*pb.PartitionRef{{TopicId: topic, Partition: 1}}
	c.ask(frame.KindChangeStream, &pb.ChangeStreamRequest{Stream: 7, Pause: refs}, &pb.ChangeStreamResponse{})
	p.produce(topic, 1, b)
	c.quiet("while paused")
	c.start(frame.KindChangeStream, &pb.ChangeStreamRequest{Stream: 7, Resume: refs})
	for range 2 { // the response and the delivery, in any order
		f, err := c.r.Read()
		if err != nil || f.Kind != frame.KindChangeStream && f.Kind != frame.KindDeliver {
			t.Fatal(f.Kind, err)
		}
		if f.Kind == frame.KindDeliver && offsets(t, f.Payload)[0] != 2 {
			t.Errorf("after resume: offsets %v, want 2", offsets(t, f.Payload))
		}
	}
	c.start(frame.KindChangeStream, &pb.ChangeStreamRequest{Stream: 7, Set: []*pb.StreamPart{streamPart(topic, 1, 0, 6)}})
	for range 2 {
		f, err := c.r.Read()
		if err != nil || f.Kind != frame.KindChangeStream && f.Kind != frame.KindDeliver {
			t.Fatal(f.Kind, err)
		}
		if f.Kind == frame.KindDeliver && !bytes.Equal(f.Payload[:8], make([]byte, 8)) {
			t.Errorf("after seek: offsets %v, want 0 to 2", offsets(t, f.Payload))
		}
	}
	c.ask(frame.KindChangeStream, &pb.ChangeStreamRequest{Stream: 7, Remove: refs}, &pb.ChangeStreamResponse{})
	p.produce(topic, 1, b)
	c.quiet("after remove")
	c.ask(frame.KindUnsubscribe, &pb.UnsubscribeRequest{Stream: 7}, &pb.UnsubscribeResponse{})
	p.produce(topic, 0, b)
	c.quiet("after unsubscribe")
}

// TestStreamCredit: no byte more than was granted, but for the batch that
// crosses the limit.
func TestStreamCredit(t *testing.T) {
	t.Parallel()
	_, addr := startNode(t, 64<<20)
	p, c := connect(t, addr), connect(t, addr)
	topic := p.create("t", 1)
	b := build(t, make([]byte, 1000))
	for range 20 {
		p.produce(topic, 0, b)
	}
	n := uint64(len(b))
	c.ask(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 1, CreditBytes: 3*n + 1, Parts: []*pb.StreamPart{streamPart(topic, 0, 0, 1)}}, &pb.SubscribeResponse{})
	got := 0
	take := func(batches int, why string) {
		t.Helper()
		for want := got + batches; got < want; {
			_, payload := c.deliver()
			got += len(offsets(t, payload))
			if got > want {
				t.Fatalf("%s: %d batches, want %d", why, got, want)
			}
		}
		c.quiet(why)
	}
	take(4, "credit of three batches and a byte: the fourth may cross it")
	c.start(frame.KindCredit, &pb.Credit{Stream: 1, TotalBytes: 4 * n})
	c.quiet("credit that is used up already")
	c.start(frame.KindCredit, &pb.Credit{Stream: 1, TotalBytes: 6 * n})
	take(2, "credit of two more")
	c.start(frame.KindCredit, &pb.Credit{Stream: 1, TotalBytes: 6 * n})
	c.quiet("the same credit again")
	c.start(frame.KindCredit, &pb.Credit{Stream: 9, TotalBytes: 1})
	c.quiet("credit for no stream")
	c.start(frame.KindCredit, &pb.Credit{Stream: 1, TotalBytes: 5 * n})
	if m, _ := c.deliver(); m.Error.GetCode() != int32(errcode.InvalidRequest) || m.Stream != 1 {
		t.Errorf("a credit that falls: %v, want the stream's end", m)
	}
	c.ask(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 1}, &pb.SubscribeResponse{}) // the number is free again
	c.start(frame.KindCredit, &pb.Credit{Stream: 1, TotalBytes: 1<<30 + 1})
	if m, _ := c.deliver(); m.Error.GetCode() != int32(errcode.InvalidRequest) {
		t.Errorf("a credit above the limit: %v, want the stream's end", m)
	}
}

// TestSlowStreams: a thousand streams whose consumers grant credit and read
// nothing hold no memory, and hold up nobody. When they read at last, by when
// what they were sent lies in files, nothing is missing.
func TestSlowStreams(t *testing.T) {
	t.Parallel()
	const memory = 4 << 20
	const conns, perConn, limit = 16, 64, memory * 3 / 16 // room for seven of these batches
	n, addr := startNodeFlushing(t, memory, time.Hour)    // what is delivered lies in memory yet
	p, healthy := connect(t, addr), connect(t, addr)
	topic := p.create("t", 1)
	value := make([]byte, 100_000)
	var payloads [][]byte
	more := func(count int) {
		t.Helper()
		for range count {
			value[0], value[1] = byte(len(payloads)), byte(len(payloads)>>8)
			b := build(t, value)
			payloads = append(payloads, b[batch.PrefixBytes:])
			p.produce(topic, 0, b)
			if got := n.Streams().HeldBytes; got > limit {
				t.Fatalf("streams hold %d bytes, limit %d", got, limit)
			}
		}
	}
	slow := make([]*peer, conns)
	for i := range slow {
		slow[i] = connect(t, addr)
		for st := range perConn {
			slow[i].start(frame.KindSubscribe, &pb.SubscribeRequest{
				Stream: uint32(st + 1), CreditBytes: 1 << 30, Parts: []*pb.StreamPart{streamPart(topic, 0, 0, 1)},
			})
		}
	}
	healthy.ask(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 1, CreditBytes: 1 << 30, Parts: []*pb.StreamPart{streamPart(topic, 0, 0, 1)}}, &pb.SubscribeResponse{})
	at := int64(0)
	follow := func() {
		t.Helper()
		for at < int64(len(payloads)) {
			_, payload := healthy.deliver()
			for _, offset := range offsets(t, payload) {
				if offset != at {
					t.Fatalf("the healthy consumer got offset %d, want %d", offset, at)
				}
				at++
			}
		}
	}
	for range 300 { // the first few fill the slow consumers' sockets, from memory
		more(1)
		follow()
	}
	if got := n.Streams(); got.Streams != conns*perConn+1 || got.Partitions != got.Streams {
		t.Errorf("%+v, want %d streams of a partition", got, conns*perConn+1)
	}
	for deadline := time.Now().Add(patience); n.Streams().HeldBytes > 0; {
		p.ask(frame.KindPing, &pb.Ping{}, &pb.Pong{})
		if time.Now().After(deadline) {
			t.Fatalf("streams hold %d bytes for consumers that take nothing", n.Streams().HeldBytes)
		}
	}
	next := make(map[uint32]int)
	for left := perConn; left > 0; {
		f, err := slow[0].r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind != frame.KindDeliver {
			continue
		}
		m := new(pb.Deliver)
		if err := frame.Unmarshal(f.Header, m); err != nil {
			t.Fatal(err)
		}
		for rest := f.Payload; len(rest) > 0; next[m.Stream]++ {
			one, r, err := batch.Split(rest)
			if err != nil || !bytes.Equal(one[batch.PrefixBytes:], payloads[next[m.Stream]]) {
				t.Fatalf("stream %d: batch %d differs (%v)", m.Stream, next[m.Stream], err)
			}
			rest = r
		}
		if next[m.Stream] >= 10 {
			left--
			slow[0].start(frame.KindUnsubscribe, &pb.UnsubscribeRequest{Stream: m.Stream})
			next[m.Stream] = -1 << 30
		}
	}
}

// TestStreamOfManyPartitions follows 10,000 partitions on one connection. What
// moves is delivered, each record once, and the rest costs no delivery.
func TestStreamOfManyPartitions(t *testing.T) {
	t.Parallel()
	n, addr := startNode(t, 64<<20)
	const partitions = 10_000
	p, c := connect(t, addr), connect(t, addr)
	topic := p.create("t", partitions)
	m := &pb.SubscribeRequest{Stream: 1, CreditBytes: 1 << 30}
	for i := range int32(partitions) {
		m.Parts = append(m.Parts, streamPart(topic, i, 0, uint32(i+1)))
	}
	c.ask(frame.KindSubscribe, m, &pb.SubscribeResponse{})
	if got := n.Streams(); got.Partitions != partitions {
		t.Errorf("%d partitions are followed, want %d", got.Partitions, partitions)
	}
	c.quiet("of ten thousand empty partitions")
	b := build(t, []byte("v"))
	for i := int32(7); i < partitions; i += 997 {
		p.produce(topic, i, b)
		d, payload := c.deliver()
		if len(d.Parts) != 1 || d.Parts[0].Partition != i || d.Parts[0].Generation != uint32(i+1) || len(payload) != len(b) {
			t.Fatalf("partition %d moved; delivered %v", i, d.Parts)
		}
	}
	c.quiet("when all is delivered")
	_ = c.nc.Close()
	for deadline := time.Now().Add(patience); n.Streams() != (server.StreamStats{PartitionLimit: n.Streams().PartitionLimit}); {
		p.ask(frame.KindPing, &pb.Ping{}, &pb.Pong{})
		if time.Now().After(deadline) {
			t.Fatalf("after the connection's end: %+v", n.Streams())
		}
	}
}

// TestStreamLimits holds each limit of streams against the server.
func TestStreamLimits(t *testing.T) {
	t.Parallel()
	_, addr := startNode(t, 64<<20)
	p := connect(t, addr)
	topic := p.create("t", 1)
	refused := func(kind frame.Kind, m proto.Message, want errcode.Code) {
		t.Helper()
		p.start(kind, m)
		if _, e := p.answer(&pb.Ping{}); e.GetCode() != int32(want) {
			t.Errorf("%v %v: %v, want code %d", kind, m, e, want)
		}
	}
	for i := range uint32(64) {
		p.ask(frame.KindSubscribe, &pb.SubscribeRequest{Stream: i + 1}, &pb.SubscribeResponse{})
	}
	refused(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 65}, errcode.PolicyViolation)
	refused(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 64}, errcode.InvalidRequest)
	p.ask(frame.KindUnsubscribe, &pb.UnsubscribeRequest{Stream: 64}, &pb.UnsubscribeResponse{})
	refused(frame.KindUnsubscribe, &pb.UnsubscribeRequest{Stream: 64}, errcode.ResourceNotFound)
	refused(frame.KindChangeStream, &pb.ChangeStreamRequest{Stream: 64}, errcode.ResourceNotFound)
	// A refused Subscribe leaves no stream behind.
	bad := &pb.SubscribeRequest{Stream: 64, Parts: []*pb.StreamPart{streamPart(topic, 0, 0, 1), streamPart(topic, 0, 0, 2)}}
	refused(frame.KindSubscribe, bad, errcode.InvalidRequest)
	p.ask(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 64}, &pb.SubscribeResponse{})

	// 50,000 partitions, of all streams of the connection together. They need
	// not exist: nothing is read for a paused one.
	for i := range 10 {
		m := &pb.ChangeStreamRequest{Stream: uint32(i%2 + 1)}
		for j := range int32(5000) {
			part := streamPart(topic, int32(i)*5000+j, 0, 1)
			part.Paused = true
			m.Set = append(m.Set, part)
		}
		p.ask(frame.KindChangeStream, m, &pb.ChangeStreamResponse{})
	}
	one := []*pb.StreamPart{streamPart(topic, 0, 0, 1)}
	refused(frame.KindChangeStream, &pb.ChangeStreamRequest{Stream: 3, Set: one}, errcode.PolicyViolation)
	p.ask(frame.KindUnsubscribe, &pb.UnsubscribeRequest{Stream: 1}, &pb.UnsubscribeResponse{})
	p.ask(frame.KindChangeStream, &pb.ChangeStreamRequest{Stream: 3, Set: one}, &pb.ChangeStreamResponse{})
}
