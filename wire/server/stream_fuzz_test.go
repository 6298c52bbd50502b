package server_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// program makes requests about streams of bytes: well-formed frames, in any
// order and with any numbers, most of them small so that they meet.
type program struct {
	rest  []byte
	topic []byte
}

func (p *program) byte() byte {
	if len(p.rest) == 0 {
		return 0
	}
	b := p.rest[0]
	p.rest = p.rest[1:]
	return b
}

// number is small, or, now and then, at the edge of what there is.
func (p *program) number() uint64 {
	switch b := p.byte(); {
	case b < 250:
		return uint64(b % 8)
	case b < 253:
		return 1 << (p.byte() % 64)
	default:
		return 1<<(p.byte()%64) - 1
	}
}

func (p *program) id() []byte {
	if b := p.byte(); b > 250 {
		return make([]byte, b%20)
	}
	return p.topic
}

func (p *program) refs() (refs []*pb.PartitionRef) {
	for range p.byte() % 4 {
		refs = append(refs, &pb.PartitionRef{TopicId: p.id(), Partition: int32(p.number())})
	}
	return refs
}

func (p *program) parts() (parts []*pb.StreamPart) {
	for range p.byte() % 4 {
		parts = append(parts, &pb.StreamPart{
			TopicId: p.id(), Partition: int32(p.number()), Offset: int64(p.number()), LeaderEpoch: int32(p.number()) - 1,
			Generation: uint32(p.number()), Paused: p.byte()%4 == 0,
		})
	}
	return parts
}

func (p *program) next() (frame.Kind, proto.Message) {
	stream := uint32(p.number())
	switch p.byte() % 6 {
	case 0, 1:
		return frame.KindSubscribe, &pb.SubscribeRequest{
			Stream: stream, CreditBytes: 50 * p.number(), MaxBytes: uint32(50 * p.number()), MaxPartitionBytes: uint32(50 * p.number()), Parts: p.parts(),
		}
	case 2:
		return frame.KindChangeStream, &pb.ChangeStreamRequest{Stream: stream, Set: p.parts(), Remove: p.refs(), Pause: p.refs(), Resume: p.refs()}
	case 3:
		return frame.KindCredit, &pb.Credit{Stream: stream, TotalBytes: 50 * p.number()}
	case 4:
		return frame.KindUnsubscribe, &pb.UnsubscribeRequest{Stream: stream}
	}
	return frame.KindDeliver, &pb.Deliver{Stream: stream} // no client may
}

// FuzzStreams checks, for any requests about streams, that each is answered
// (but Credit), that no stream is sent more than it was granted and one batch,
// that what is delivered is whole batches of the partitions that are there, and
// that nothing is left when the connection has ended.
func FuzzStreams(f *testing.F) {
	for _, seed := range []string{
		"\x01\x00\x07\x00\x00\x03\x00\x00\x00\x00\x01\x01\x00\x01\x00\x00\x01\x01",
		"\x01\x00\xff\x1e\x00\x00\x01\x00\x00\x00\x00\x01\x01\x01\x02\x01\x00\x01\x00\x02\x01\x01\x00\x00",
		"\x01\x01\x02\x00\x00\x02\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00\x02\x01\x03\x06\x01\x03\x01\x01\x04",
		"\x00\x05\x00\x01\x00\x00\x00\x00\x01\x03\xfd\x3f\x01\x03\xfd\x3f\x01\x04",
	} {
		f.Add([]byte(seed))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	n, err := node.Start(context.Background(), node.Options{
		FS: vfs.NewMem(1), Dir: "data", NodeID: 1, Version: "test", Listener: l,
		JournalBytes: 4 << 20, JournalFileBytes: 1 << 20, MemoryBytes: 4 << 20,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = n.Close(context.Background()) })
	topic, size := fuzzTopic(f, l.Addr().String())
	f.Fuzz(func(t *testing.T, in []byte) {
		c := connect(t, l.Addr().String())
		defer c.nc.Close()
		p := &program{rest: in[:min(len(in), 400)], topic: topic}
		unanswered := 0
		granted, sent := make(map[uint32]uint64), make(map[uint32]uint64)
		for len(p.rest) > 0 {
			kind, m := p.next()
			if s, ok := m.(*pb.SubscribeRequest); ok { // a number may be used again: count over all
				granted[s.Stream] += min(s.CreditBytes, 1<<40) + size
			}
			if cr, ok := m.(*pb.Credit); ok {
				granted[cr.Stream] += min(cr.TotalBytes, 1<<40)
			}
			c.start(kind, m)
			if kind != frame.KindCredit {
				unanswered++
			}
		}
		last := c.start(frame.KindPing, &pb.Ping{})
		for unanswered >= 0 {
			fr, err := c.r.Read()
			if err != nil {
				t.Fatalf("%d requests were not answered: %v", unanswered+1, err)
			}
			if fr.Kind != frame.KindDeliver || fr.Flags != 0 {
				unanswered--
				if fr.CorrelationID > last {
					t.Fatalf("an answer to %d", fr.CorrelationID)
				}
				continue
			}
			d := new(pb.Deliver)
			if err := frame.Unmarshal(fr.Header, d); err != nil {
				t.Fatal(err)
			}
			if sent[d.Stream] += uint64(len(fr.Payload)); sent[d.Stream] > granted[d.Stream] {
				t.Fatalf("stream %d was sent %d bytes, granted %d", d.Stream, sent[d.Stream], granted[d.Stream])
			}
			offsets(t, fr.Payload)
		}
		_ = c.nc.Close()
		probe := connect(t, l.Addr().String())
		defer probe.nc.Close()
		for n.Streams().Streams > 0 || n.Streams().Partitions > 0 {
			probe.ask(frame.KindPing, &pb.Ping{}, &pb.Pong{}) // until its deadline
		}
	})
}

// fuzzTopic makes a topic of three partitions of five batches.
func fuzzTopic(f *testing.F, addr string) (topic []byte, batchBytes uint64) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		f.Fatal(err)
	}
	defer nc.Close()
	r, w := frame.NewReader(nc), frame.NewWriter(nc)
	if _, err := frame.Connect(r, w, &pb.ClientHello{}); err != nil {
		f.Fatal(err)
	}
	ask := func(kind frame.Kind, m, into proto.Message, payload ...frame.Part) {
		if err := w.Queue(kind, 0, 1, m, payload...); err != nil {
			f.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			f.Fatal(err)
		}
		fr, err := r.Read()
		if err != nil || fr.Flags != frame.FlagResponse || frame.Unmarshal(fr.Header, into) != nil {
			f.Fatal(fr.Kind, fr.Flags, err)
		}
	}
	created := new(pb.CreateTopicResponse)
	ask(frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "t", Partitions: 3}, created)
	var b batch.Builder
	b.Reset()
	if err := b.Append(1, nil, []byte("value"), nil); err != nil {
		f.Fatal(err)
	}
	raw, err := b.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		f.Fatal(err)
	}
	for i := range int32(15) {
		m := &pb.ProduceRequest{Parts: []*pb.ProducePart{{TopicId: created.TopicId, Partition: i % 3, Length: uint32(len(raw))}}}
		ask(frame.KindProduce, m, new(pb.ProduceResponse), frame.Part{Bytes: raw})
	}
	return created.TopicId, uint64(len(raw))
}
