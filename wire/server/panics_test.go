package server

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// poisoned is a server over a broker of nothing, which panics whatever it is asked
// for. It runs in a bubble.
type poisoned struct {
	*Server
	t      *testing.T
	logged sync.Mutex
	log    bytes.Buffer
}

func newPoisoned(t *testing.T) *poisoned {
	t.Helper()
	p := &poisoned{t: t}
	opt := Options{
		Broker: new(broker.Broker), Log: slog.New(slog.NewTextHandler(p, nil)),
		Requests: broker.NewBudget(8 << 20), SmallRequests: broker.NewBudget(1 << 20), Answers: broker.NewBudget(1 << 20),
	}.withDefaults()
	p.Server = newServer(opt, &pb.ServerHello{
		MaxFrameBytes: 1 << 20, MaxHeaderBytes: 1 << 20, MaxInFlight: uint32(opt.MaxInFlight), Features: []string{frame.FeatureStream},
	})
	return p
}

// Write makes it the log's writer.
func (p *poisoned) Write(b []byte) (int, error) {
	p.logged.Lock()
	defer p.logged.Unlock()
	return p.log.Write(b)
}

// serves begins to serve a connection, and returns the client's end of it. wrap,
// if it is not nil, wraps the server's end.
func (p *poisoned) serves(wrap func(net.Conn) net.Conn) net.Conn {
	p.t.Helper()
	ours, theirs := net.Pipe()
	if wrap != nil {
		theirs = wrap(theirs)
	}
	if err := p.start(theirs, broker.Listener{}); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = ours.Close()
		p.group.Wait()
	})
	return ours
}

// client is a connection that has shaken hands.
type client struct {
	net.Conn
	t *testing.T
	r *frame.Reader
	w *frame.Writer
}

func (p *poisoned) connects() *client {
	p.t.Helper()
	c := &client{Conn: p.serves(nil), t: p.t}
	c.r, c.w = frame.NewReader(c), frame.NewWriter(c)
	if _, err := frame.Connect(c.r, c.w, &pb.ClientHello{}); err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait() // for the server's end of it
	return c
}

// conn returns the server's end of the only connection.
func (p *poisoned) conn() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		return l.native.Load()
	}
	return nil
}

// asked is a request of a connection that is answered where a test wants it.
func asked(c *conn) *request {
	c.inflight <- struct{}{}
	c.requests.Add(1)
	c.s.meter.Begin(0)
	return &request{conn: c, Prefix: frame.Prefix{Kind: frame.KindFetch}, began: time.Now()}
}

// ask sends a request. That it was not taken shows in the answers.
func (c *client) ask(kind frame.Kind, m proto.Message, payload ...frame.Part) {
	c.t.Helper()
	if err := c.w.Queue(kind, 0, 1, m, payload...); err != nil {
		c.t.Fatal(err)
	}
	go func() { _ = c.w.Flush() }()
}

// pings wants that a connection is served.
func (c *client) pings(when string) {
	c.t.Helper()
	c.ask(frame.KindPing, &pb.Ping{})
	if f, err := c.r.Read(); err != nil || f.Kind != frame.KindPing {
		c.t.Errorf("%s, another connection: %v, %v; want a pong", when, f.Kind, err)
	}
}

// survived wants that n connections have ended by a panic, with lines in the log
// that have all of texts, and that nothing of them is counted any more.
func (p *poisoned) survived(when string, n int, texts ...string) {
	p.t.Helper()
	synctest.Wait()
	var ended uint64
	for _, s := range p.Stats() {
		ended += s.Ended["panic"]
		if s.InFlight != 0 {
			p.t.Errorf("%s: %d requests are in flight", when, s.InFlight)
		}
	}
	if ended != uint64(n) {
		p.t.Errorf("%s: %d connections ended by a panic, want %d", when, ended, n)
	}
	for name, b := range map[string]*broker.Budget{"requests": p.opt.Requests, "small requests": p.opt.SmallRequests, "answers": p.opt.Answers} {
		if b.Used() != 0 {
			p.t.Errorf("%s: %d bytes of %s are held", when, b.Used(), name)
		}
	}
	if st := p.Streams(); st.Streams != 0 || st.Partitions != 0 || st.HeldBytes != 0 {
		p.t.Errorf("%s: %+v stay counted", when, st)
	}
	p.logged.Lock()
	defer p.logged.Unlock()
	for _, text := range append(texts, "a panic; its connection is closed", "stack=", "panics.go") {
		if !strings.Contains(p.log.String(), text) {
			p.t.Errorf("%s: the log has no %q: %s", when, text, p.log.String())
		}
	}
	p.log.Reset()
}

// TestPanicOfRequest has each kind of request panic where it is handled: that
// connection ends, with a line in the log and nothing that stays counted, and
// another one goes on.
func TestPanicOfRequest(t *testing.T) {
	t.Parallel()
	topic := make([]byte, 16)
	for _, tt := range []struct {
		kind    frame.Kind
		m       proto.Message
		payload int
	}{
		{kind: frame.KindMetadata, m: &pb.MetadataRequest{}},
		{kind: frame.KindCreateTopic, m: &pb.CreateTopicRequest{Name: "t", Partitions: 1}},
		{kind: frame.KindDeleteTopic, m: &pb.DeleteTopicRequest{Name: "t"}},
		{kind: frame.KindDescribeTopic, m: &pb.DescribeTopicRequest{Name: "t"}},
		{kind: frame.KindAlterTopic, m: &pb.AlterTopicRequest{Name: "t"}},
		{kind: frame.KindAddPartitions, m: &pb.AddPartitionsRequest{Name: "t", Total: 2}},
		{kind: frame.KindProduce, m: &pb.ProduceRequest{Parts: []*pb.ProducePart{{TopicId: topic, Length: 100_000}}}, payload: 100_000},
		{kind: frame.KindFetch, m: &pb.FetchRequest{Parts: []*pb.FetchPart{{TopicId: topic}}}},
		{kind: frame.KindListOffsets, m: &pb.ListOffsetsRequest{Parts: []*pb.ListOffsetsPart{{TopicId: topic}}}},
		{kind: frame.KindListOffsets, m: &pb.ListOffsetsRequest{Parts: []*pb.ListOffsetsPart{{TopicId: topic, At: pb.OffsetAt_OFFSET_AT_TIMESTAMP}}}},
		{kind: frame.KindDeleteRecords, m: &pb.DeleteRecordsRequest{Parts: []*pb.DeleteRecordsPart{{TopicId: topic}}}},
		{kind: frame.KindSubscribe, m: &pb.SubscribeRequest{Stream: 1, CreditBytes: 1, Parts: []*pb.StreamPart{{TopicId: topic, Generation: 1}}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoisoned(t)
			good, bad := p.connects(), p.connects()
			var payload []frame.Part
			if tt.payload > 0 {
				payload = append(payload, frame.Part{Bytes: make([]byte, tt.payload)})
			}
			bad.ask(tt.kind, tt.m, payload...)
			if b, err := io.ReadAll(bad); len(b) > 0 || err != nil {
				t.Errorf("%s: read %x, %v, want a closed connection", tt.kind, b, err)
			}
			p.survived(tt.kind.String(), 1, "request="+tt.kind.String(), "server.(*request)")
			good.pings(tt.kind.String())
		})
	}
}

// TestPanicInAnswer: what panics where the broker answers, on its goroutine, ends
// the connection that had asked, and what was read for it is given back.
func TestPanicInAnswer(t *testing.T) {
	t.Parallel()
	chunk := &broker.Chunk{Vectors: [][]byte{[]byte("records")}, Bytes: 7}
	for name, answer := range map[string]func(q *request){
		"Produce": func(q *request) { q.produced(&pb.ProduceRequest{}, nil, make([]broker.ProduceResult, 1)) }, // of a part that it does not have
		"Fetch": func(q *request) {
			q.answerFetch(&pb.FetchRequest{}, []broker.FetchResult{{Chunks: []*broker.Chunk{chunk}}})
		},
		"when it was answered": func(q *request) {
			defer q.survive()
			q.send(answer{})
			panic("planted")
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoisoned(t)
			p.connects()
			q := asked(p.conn())
			good := p.connects()
			go answer(q) // as the broker does
			p.survived(name, 1, "request=Fetch")
			good.pings(name)
		})
	}
	if chunk.Vectors != nil {
		t.Error("the records are held")
	}
}

// panickyConn panics at one of its reads or writes, counted from 1; 0: at none.
type panickyConn struct {
	net.Conn
	read, write   int // where
	reads, writes int
}

func (c *panickyConn) Read(b []byte) (int, error) {
	if c.reads++; c.reads == c.read {
		panic("planted in Read")
	}
	return c.Conn.Read(b)
}

func (c *panickyConn) Write(b []byte) (int, error) {
	if c.writes++; c.writes == c.write {
		panic("planted in Write")
	}
	return c.Conn.Write(b)
}

// TestPanicOfConnection has the connection itself panic: where it says what it
// speaks, shakes hands, asks and is answered.
func TestPanicOfConnection(t *testing.T) {
	t.Parallel()
	for _, tt := range []panickyConn{{read: 1}, {read: 2}, {read: 3}, {read: 4}, {read: 5}, {write: 1}, {write: 2}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoisoned(t)
			good := p.connects()
			bad := p.serves(func(nc net.Conn) net.Conn {
				tt.Conn = nc
				return &tt
			})
			r, w := frame.NewReader(bad), frame.NewWriter(bad)
			go func() {
				if _, err := frame.Connect(r, w, &pb.ClientHello{}); err != nil {
					return
				}
				for range 3 {
					if w.Queue(frame.KindPing, 0, 1, &pb.Ping{}) != nil || w.Flush() != nil {
						return
					}
					if _, err := r.Read(); err != nil {
						return
					}
				}
			}()
			p.survived("in a connection", 1, "planted in")
			good.pings("in a connection")
		})
	}
}

// TestPanicOfDelivery has what an answer delivers panic when it is written.
func TestPanicOfDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPoisoned(t)
		bad := p.connects()
		q := asked(p.conn())
		good := p.connects()
		chunk := &broker.Chunk{Bytes: delivery.SmallBytes + 1} // in no file, and in no memory
		body := delivery.New(&q.peer, []broker.StreamResult{{FetchResult: broker.FetchResult{Chunks: []*broker.Chunk{chunk}}}}, nil, nil)
		q.send(answer{kind: q.Kind, flags: frame.FlagResponse, id: 1, header: &pb.FetchResponse{}, body: body})
		go func() { _, _ = io.Copy(io.Discard, bad) }()
		p.survived("of a delivery", 1, "delivery.")
		good.pings("of a delivery")
	})
}
