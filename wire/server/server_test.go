package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/netsim"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// patience bounds what would otherwise hang a failing test.
const patience = 30 * time.Second

// startNode starts a node that flushes at once, so that what is read lies in
// files, soon after it was appended.
func startNode(t *testing.T, memoryBytes int64) (*node.Node, string) {
	t.Helper()
	return startNodeFlushing(t, memoryBytes, time.Millisecond)
}

func startNodeFlushing(t *testing.T, memoryBytes int64, age time.Duration) (*node.Node, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(t.Context(), node.Options{
		FS: vfs.OS, Dir: t.TempDir(), NodeID: 1, Version: "test", Listener: l,
		JournalBytes: 64 << 20, JournalFileBytes: 8 << 20, MemoryBytes: memoryBytes, FlushAge: age,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error("close:", err)
		}
	})
	return n, l.Addr().String()
}

// peer is a client at the level of frames.
type peer struct {
	t  *testing.T
	nc net.Conn
	r  *frame.Reader
	w  *frame.Writer
	id uint32
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return netsim.Patient{Conn: nc, Patience: patience}
}

func connect(t *testing.T, addr string) *peer {
	t.Helper()
	return meet(t, dial(t, addr))
}

func meet(t *testing.T, nc net.Conn) *peer {
	t.Helper()
	p := &peer{t: t, nc: nc, r: frame.NewReader(nc), w: frame.NewWriter(nc)}
	if _, err := frame.Connect(p.r, p.w, &pb.ClientHello{ClientId: "test"}); err != nil {
		t.Fatal(err)
	}
	return p
}

// start sends a request and returns its correlation id.
func (p *peer) start(kind frame.Kind, m proto.Message, payload ...[]byte) uint32 {
	p.t.Helper()
	p.id++
	parts := make([]frame.Part, len(payload))
	for i, b := range payload {
		parts[i].Bytes = b
	}
	err := p.w.Queue(kind, 0, p.id, m, parts...)
	if err == nil {
		err = p.w.Flush()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return p.id
}

// answer reads the next frame, and decodes it into m or returns its error.
func (p *peer) answer(m proto.Message) (frame.Frame, *pb.Error) {
	p.t.Helper()
	f, err := p.r.Read()
	if err != nil {
		p.t.Fatal(err)
	}
	if f.Flags&frame.FlagError != 0 || f.Kind == frame.KindError {
		e := new(pb.Error)
		if err := frame.Unmarshal(f.Header, e); err != nil {
			p.t.Fatal(err)
		}
		return f, e
	}
	if err := frame.Unmarshal(f.Header, m); err != nil {
		p.t.Fatal(err)
	}
	return f, nil
}

// ask sends a request and wants its answer.
func (p *peer) ask(kind frame.Kind, m, into proto.Message, payload ...[]byte) frame.Frame {
	p.t.Helper()
	id := p.start(kind, m, payload...)
	f, refused := p.answer(into)
	if refused != nil || f.CorrelationID != id || f.Kind != kind {
		p.t.Fatalf("%v answered by %v %d: %v", kind, f.Kind, f.CorrelationID, refused)
	}
	return f
}

func (p *peer) create(name string, partitions int32) []byte {
	p.t.Helper()
	resp := new(pb.CreateTopicResponse)
	p.ask(frame.KindCreateTopic, &pb.CreateTopicRequest{Name: name, Partitions: partitions}, resp)
	return resp.TopicId
}

func build(t *testing.T, values ...[]byte) []byte {
	t.Helper()
	var b batch.Builder
	b.Reset()
	for _, v := range values {
		if err := b.Append(1_700_000_000_000, []byte("k"), v, nil); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func produceRequest(topic []byte, batches ...[]byte) *pb.ProduceRequest {
	m := new(pb.ProduceRequest)
	for _, b := range batches {
		m.Parts = append(m.Parts, &pb.ProducePart{TopicId: topic, Length: uint32(len(b))})
	}
	return m
}

// mustServe checks that the node still works for a new client.
func mustServe(t *testing.T, addr string) {
	t.Helper()
	connect(t, addr).ask(frame.KindPing, &pb.Ping{}, &pb.Pong{})
}

func TestForeignProtocols(t *testing.T) {
	t.Parallel()
	_, addr := startNode(t, 64<<20)
	for name, bytes := range map[string]string{
		"HTTP":            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"TLS":             "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"Kafka":           "\x00\x00\x00\x10\x00\x12\x00\x03\x00\x00\x00\x01\x00\x01x\x00",
		"zeros":           string(make([]byte, 100)),
		"magic, then not": frame.Magic + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"half a magic":    "\xf1F",
	} {
		nc := dial(t, addr)
		if _, err := io.WriteString(nc, bytes); err != nil {
			t.Fatal(name, err)
		}
		if len(bytes) < frame.MagicBytes {
			_ = nc.(netsim.Patient).Conn.(*net.TCPConn).CloseWrite()
		}
		if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection was not closed", name)
		}
		mustServe(t, addr)
	}
}

// TestBadRequests sends requests that decode and make no sense: each is
// answered with an error, and the connection goes on.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	_, addr := startNode(t, 64<<20)
	p := connect(t, addr)
	topic := p.create("t", 1)
	good := build(t, []byte("v"))
	id16 := make([]byte, 16)
	tests := []struct {
		name    string
		kind    frame.Kind
		msg     proto.Message
		payload []byte
		want    errcode.Code
	}{
		{"unknown kind", 99, &pb.Ping{}, nil, errcode.InvalidRequest},
		{"header of another message", frame.KindProduce, &pb.MetadataRequest{Names: []string{"x"}}, nil, errcode.InvalidRequest},
		{"produce of nothing", frame.KindProduce, &pb.ProduceRequest{}, nil, errcode.InvalidRequest},
		{"part longer than the payload", frame.KindProduce, &pb.ProduceRequest{Parts: []*pb.ProducePart{{TopicId: topic, Length: 1 << 31}}}, good, errcode.InvalidRequest},
		{"payload longer than the parts", frame.KindProduce, produceRequest(topic, good[:9]), good, errcode.InvalidRequest},
		{"short topic id", frame.KindProduce, &pb.ProduceRequest{Parts: []*pb.ProducePart{{TopicId: topic[:3], Length: uint32(len(good))}}}, good, errcode.InvalidRequest},
		{"payload where none belongs", frame.KindMetadata, &pb.MetadataRequest{All: true}, good, errcode.InvalidRequest},
		{"all and names", frame.KindMetadata, &pb.MetadataRequest{All: true, Names: []string{"t"}}, nil, errcode.InvalidRequest},
		{"fetch of nothing", frame.KindFetch, &pb.FetchRequest{}, nil, errcode.InvalidRequest},
		{"config twice", frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "u", Configs: []*pb.Config{{Name: "segment.bytes", Value: "1048576"}, {Name: "segment.bytes", Value: "1048576"}}}, nil, errcode.InvalidRequest},
		{"neither name nor id", frame.KindDescribeTopic, &pb.DescribeTopicRequest{}, nil, errcode.InvalidRequest},
		{"name and id", frame.KindDeleteTopic, &pb.DeleteTopicRequest{Name: "t", TopicId: topic}, nil, errcode.InvalidRequest},
		{"first partition", frame.KindDescribeTopic, &pb.DescribeTopicRequest{Name: "t", FirstPartition: 5}, nil, errcode.InvalidRequest},
		{"unknown id", frame.KindDeleteTopic, &pb.DeleteTopicRequest{TopicId: id16}, nil, errcode.UnknownTopicID},
		{"unknown name", frame.KindDescribeTopic, &pb.DescribeTopicRequest{Name: "nope"}, nil, errcode.UnknownTopicOrPartition},
		{"producer nobody has", frame.KindInitProducer, &pb.InitProducerRequest{Current: &pb.Producer{Id: 1 << 40}}, nil, errcode.InvalidProducerIDMapping},
	}
	for _, tt := range tests {
		var payload [][]byte
		if tt.payload != nil {
			payload = [][]byte{tt.payload}
		}
		id := p.start(tt.kind, tt.msg, payload...)
		f, refused := p.answer(&pb.Ping{})
		if refused.GetCode() != int32(tt.want) || f.CorrelationID != id {
			t.Errorf("%s: answer %d %v, want code %d to %d", tt.name, f.CorrelationID, refused, tt.want, id)
		}
	}
	if f := p.ask(frame.KindProduce, produceRequest(topic, good), new(pb.ProduceResponse), good); f.CorrelationID == 0 {
		t.Error("the connection does not go on")
	}
}

// TestPipelined sends many produce requests before it reads an answer: each
// takes effect in the order sent.
func TestPipelined(t *testing.T) {
	t.Parallel()
	_, addr := startNode(t, 64<<20)
	p := connect(t, addr)
	topic := p.create("t", 1)
	const n = 500
	b := build(t, []byte("v"))
	go func() {
		w := frame.NewWriter(p.nc)
		w.SetLimits(frame.DefaultLimits())
		for i := range n {
			if w.Queue(frame.KindProduce, 0, uint32(1000+i), produceRequest(topic, b), frame.Part{Bytes: b}) != nil || w.Flush() != nil {
				return // the reader below fails
			}
		}
	}()
	offsets := make(map[uint32]int64)
	for range n {
		resp := new(pb.ProduceResponse)
		f, refused := p.answer(resp)
		if refused != nil || resp.Results[0].Error != nil {
			t.Fatal(refused, resp)
		}
		offsets[f.CorrelationID] = resp.Results[0].BaseOffset
	}
	for i := range n {
		if offsets[uint32(1000+i)] != int64(i) {
			t.Fatalf("request %d has offset %d", i, offsets[uint32(1000+i)])
		}
	}
}

// TestFetchFromFiles reads back more than the tails hold, in pieces of all
// sizes: from segment files, by sendfile and by copy, and from memory.
func TestFetchFromFiles(t *testing.T) {
	t.Parallel()
	_, addr := startNode(t, 4<<20)
	p := connect(t, addr)
	topic := p.create("t", 1)
	var want bytes.Buffer
	for i := range 200 {
		v := make([]byte, 100_000)
		for j := range v {
			v[j] = byte(i + j*7)
		}
		b := build(t, v)
		resp := new(pb.ProduceResponse)
		p.ask(frame.KindProduce, produceRequest(topic, b), resp, b)
		if resp.Results[0].Error != nil {
			t.Fatal(resp.Results[0].Error)
		}
		want.Write(b[batch.PrefixBytes:])
	}
	for _, maxBytes := range []uint32{1, 150_000, 1 << 20, 8 << 20} {
		var got bytes.Buffer
		for offset := int64(0); offset < 200; {
			resp := new(pb.FetchResponse)
			f := p.ask(frame.KindFetch, &pb.FetchRequest{MaxBytes: maxBytes, Parts: []*pb.FetchPart{{TopicId: topic, Offset: offset, LeaderEpoch: -1}}}, resp)
			if resp.Results[0].Error != nil || int(resp.Results[0].Length) != len(f.Payload) || len(f.Payload) == 0 {
				t.Fatalf("max bytes %d at %d: %v, %d bytes", maxBytes, offset, resp.Results[0], len(f.Payload))
			}
			for rest := f.Payload; len(rest) > 0; {
				one, next, err := batch.Split(rest)
				if err != nil {
					t.Fatal(err)
				}
				h, err := batch.ParseHeader(one)
				if err != nil || h.BaseOffset != offset {
					t.Fatalf("offset %d where %d must come, %v", h.BaseOffset, offset, err)
				}
				got.Write(one[batch.PrefixBytes:])
				offset, rest = h.LastOffset()+1, next
			}
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("max bytes %d: other bytes than were produced", maxBytes)
		}
	}
}

// TestPayloadsAreNotMixedUp sends many batches at once over some connections,
// whose payloads share buffers: each is appended as it was sent.
func TestPayloadsAreNotMixedUp(t *testing.T) {
	t.Parallel()
	const connections, rounds, pipelined = 3, 6, 10
	_, addr := startNode(t, 64<<20)
	topic := connect(t, addr).create("t", connections)
	var group sync.WaitGroup
	for c := range int32(connections) {
		p := connect(t, addr)
		group.Go(func() {
			for round := range rounds {
				for i := range pipelined {
					v := bytes.Repeat([]byte{byte(c), byte(round), byte(i)}, 30_000+i)
					b := build(t, v)
					m := produceRequest(topic, b)
					m.Parts[0].Partition = c
					p.start(frame.KindProduce, m, b)
				}
				for range pipelined {
					resp := new(pb.ProduceResponse)
					if _, refused := p.answer(resp); refused != nil || resp.Results[0].Error != nil {
						t.Errorf("%v, %v", refused, resp.Results)
						return
					}
				}
			}
		})
	}
	group.Wait()
	for c := range int32(connections) {
		p := connect(t, addr)
		for offset := int64(0); offset < rounds*pipelined && !t.Failed(); {
			resp := new(pb.FetchResponse)
			f := p.ask(frame.KindFetch, &pb.FetchRequest{MaxBytes: 8 << 20, Parts: []*pb.FetchPart{
				{TopicId: topic, Partition: c, Offset: offset, LeaderEpoch: -1},
			}}, resp)
			for rest := f.Payload; len(rest) > 0; offset++ {
				one, next, err := batch.Split(rest)
				if err == nil {
					err = batch.CheckCRC(one)
				}
				if err != nil {
					t.Fatal(err)
				}
				round, i := byte(offset/pipelined), byte(offset%pipelined)
				want := bytes.Repeat([]byte{byte(c), round, i}, 30_000+int(i))
				if !bytes.Contains(one, want) {
					t.Fatalf("connection %d: the record at offset %d is another", c, offset)
				}
				rest = next
			}
		}
	}
}

// TestDrain closes a node with a parked fetch and produces under way: all are
// answered.
func TestDrain(t *testing.T) {
	t.Parallel()
	n, addr := startNode(t, 64<<20)
	p, waiting := connect(t, addr), connect(t, addr)
	topic := p.create("t", 1)
	waiting.start(frame.KindFetch, &pb.FetchRequest{MaxWaitMs: 300_000, MinBytes: 1 << 20, Parts: []*pb.FetchPart{{TopicId: topic, LeaderEpoch: -1}}})
	waiting.start(frame.KindPing, &pb.Ping{}) // when it is answered, the fetch is parked
	if f, refused := waiting.answer(&pb.Pong{}); f.Kind != frame.KindPing {
		t.Fatalf("answered by %v, %v", f.Kind, refused)
	}
	b := build(t, []byte("v"))
	for range 20 {
		p.start(frame.KindProduce, produceRequest(topic, b), b)
	}
	p.start(frame.KindPing, &pb.Ping{})
	appended := 0
	next := func() frame.Kind {
		f, err := p.r.Read()
		if err != nil {
			t.Fatalf("after %d answers: %v", appended, err)
		}
		if f.Kind == frame.KindProduce {
			resp := new(pb.ProduceResponse)
			if err := frame.Unmarshal(f.Header, resp); err != nil || f.Flags&frame.FlagError != 0 || resp.Results[0].Error != nil {
				t.Fatalf("produce answered by %v, %v", resp, err)
			}
			appended++
		}
		return f.Kind
	}
	for next() != frame.KindPing { // when it is answered, all have been read
	}
	closed := make(chan error, 1)
	go func() { closed <- n.Close(context.Background()) }()
	if f, refused := waiting.answer(new(pb.FetchResponse)); f.Kind != frame.KindFetch || refused != nil {
		t.Errorf("the parked fetch was answered by %v, %v", f.Kind, refused)
	}
	for appended < 20 {
		next()
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestMemoryIsShared lets many clients send more at once than the node may
// hold: they wait for each other, and all are served.
func TestMemoryIsShared(t *testing.T) {
	t.Parallel()
	_, addr := startNode(t, 4<<20)
	p := connect(t, addr)
	topic := p.create("t", 1)
	b := build(t, make([]byte, 900_000))
	var group sync.WaitGroup
	errs := make(chan error, 16)
	for range 16 {
		c := connect(t, addr)
		group.Go(func() {
			for range 3 {
				id := c.start(frame.KindProduce, produceRequest(topic, b), b)
				resp := new(pb.ProduceResponse)
				f, refused := c.answer(resp)
				if refused != nil || f.CorrelationID != id || resp.Results[0].Error != nil {
					errs <- fmt.Errorf("%v %v", refused, resp)
				}
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

// TestAcksNone wants no answer to a produce that is well, and the end of the
// connection for one that is not.
func TestAcksNone(t *testing.T) {
	t.Parallel()
	_, addr := startNode(t, 64<<20)
	p := connect(t, addr)
	topic := p.create("t", 1)
	b := build(t, []byte("v"))
	m := produceRequest(topic, b)
	m.Acks = pb.Acks_ACKS_NONE
	p.start(frame.KindProduce, m, b)
	p.ask(frame.KindPing, &pb.Ping{}, &pb.Pong{})
	m.Parts[0].Partition = 7
	p.start(frame.KindProduce, m, b)
	e := new(pb.Error)
	f, err := p.r.Read()
	if err == nil {
		err = frame.Unmarshal(f.Header, e)
	}
	if err != nil || f.Kind != frame.KindError || e.Code != int32(errcode.UnknownTopicOrPartition) || !strings.Contains(e.Message, "without acknowledgement") {
		t.Errorf("after a failure: %v %v, %v; want why the connection ends", f.Kind, e, err)
	}
	if f, err := p.r.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("after that: %v %v, want the end", f.Kind, err)
	}
	mustServe(t, addr)
}
