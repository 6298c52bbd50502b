package boundtest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// What docs/configuration.md states that a node takes beside memory.bytes.
const (
	constantBytes   = 128 << 20
	connectionBytes = 24 << 10 // for each connection
)

// abuse is what goes on while a healthy client is served.
type abuse struct {
	name        string
	disk        int64 // bytes a second, 0: as it is
	connections int   // that the abuse opens
	resident    int64 // bytes that the node may take, if that is a promise of its own
	records     int   // that the healthy client sends and reads meanwhile, or part of them
	begin       func(t *testing.T, a *attack)
	end         func(t *testing.T, a *attack) // once it has ended; nil: nothing
}

// attack is an abuse under way.
type attack struct {
	s     *server
	ctx   context.Context // ends with the test
	group sync.WaitGroup
	done  atomic.Int64 // of whatever it counts, so that a test can tell that it went on
}

// run runs f until the attack ends.
func (a *attack) run(f func()) { a.group.Go(f) }

// part is n, or with -short a fifth of it: the abuses and the bounds are the same, but
// they go on for less time, and there are fewer idle connections.
func part(n int) int {
	if testing.Short() {
		return n / 5
	}
	return n
}

func TestBounds(t *testing.T) {
	raise(t)
	for _, ab := range []abuse{
		{name: "fast producers and a slow disk", disk: 8 << 20, connections: 4, records: 40, begin: fastProducers},
		{name: "fast producers, a slow group and a slow disk", disk: 8 << 20, connections: 10, records: 10, begin: slowGroup, end: lagIsTold},
		{name: "consumers of hot data that do not read", connections: 40, records: 200, begin: deafConsumers},
		{name: "idle connections", connections: idle(), records: 500, begin: idleConnections},
		{name: "idle Kafka connections", connections: idle(), resident: 300_000_000, records: 500, begin: idleKafkaConnections},
		{name: "giant and tiny requests", connections: 100, records: 1000, begin: giantsAndDwarfs},
		{name: "small batches that unfold to much", connections: 60, records: 20, begin: unfolding},
		{name: "Fetches of many partitions whose answers nobody takes", connections: 50, records: 20, begin: deafFetches},
	} {
		t.Run(ab.name, func(t *testing.T) {
			s := start(t, ab.disk)
			ctx, cancel := context.WithCancel(t.Context())
			a := &attack{s: s, ctx: ctx}
			defer a.group.Wait()
			defer cancel()
			ab.begin(t, a)
			healthy(t, a, part(ab.records))
			if ab.end != nil {
				cancel()
				a.group.Wait()
				ab.end(t, a)
			}
			peak, bound := s.look(t), residentFactor*int64(memoryBytes+constantBytes+ab.connections*connectionBytes)
			t.Logf("resident at most %d MiB, bound %d MiB; the abuse got %d things done", peak>>20, bound>>20, a.done.Load())
			if peak > bound {
				t.Errorf("resident %d MiB, more than %d * (memory.bytes + %d MiB + %d KiB for each of %d connections) = %d MiB",
					peak>>20, residentFactor, constantBytes>>20, connectionBytes>>10, ab.connections, bound>>20)
			}
			if promised := residentFactor * ab.resident; promised > 0 && peak > promised {
				t.Errorf("resident %d bytes, more than the %d that are promised", peak, promised)
			}
			if a.done.Load() == 0 {
				t.Error("the abuse did nothing")
			}
		})
	}
}

// connect makes a client.
func connect(t *testing.T, s *server) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Bootstrap: []string{s.addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// healthy sends records, one after the other, and reads them as they come, until
// the abuse has got something done as well; all the while it looks at the server's memory.
func healthy(t *testing.T, a *attack, records int) {
	t.Helper()
	s := a.s
	c := connect(t, s)
	if _, err := c.Admin().CreateTopic(t.Context(), client.TopicSpec{Name: "healthy", Partitions: 1}); err != nil {
		t.Fatalf("a healthy client cannot create a topic: %v", err)
	}
	p, err := c.NewProducer(client.ProducerConfig{Topic: "healthy"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	co, err := c.NewConsumer(client.ConsumerConfig{Assignments: []client.Assignment{{Topic: "healthy", Offset: client.Beginning}}})
	if err != nil {
		t.Fatal(err)
	}
	defer co.Close()
	value := make([]byte, 512)
	for n, read := 0, 0; n < records || a.done.Load() == 0; n++ {
		binary.BigEndian.PutUint64(value, uint64(n))
		r, err := p.SendSync(t.Context(), client.Record{Value: value})
		if err != nil || r.Offset != int64(n) {
			t.Fatalf("a healthy client's record %d: offset %d, %v", n, r.Offset, err)
		}
		for read <= n {
			fetched, err := co.Poll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range fetched {
				if f.Err != nil {
					t.Fatal(f.Err)
				}
				for r, err := range f.Records() {
					if err != nil || binary.BigEndian.Uint64(r.Value) != uint64(read) {
						t.Fatalf("a healthy client's record %d came as %x, %v", read, r.Value[:8], err)
					}
					read++
				}
			}
		}
		s.look(t)
	}
}

// fastProducers send as much as they can.
func fastProducers(t *testing.T, a *attack) {
	create(t, a, "fast", 16)
	for range 4 {
		c := connect(t, a.s)
		p, err := c.NewProducer(client.ProducerConfig{Topic: "fast", Linger: -1})
		if err != nil {
			t.Fatal(err)
		}
		a.run(func() {
			defer p.Close(a.ctx)
			produce(a, p)
		})
	}
}

func produce(a *attack, p *client.Producer) {
	value := make([]byte, 10_000)
	for a.ctx.Err() == nil {
		_ = p.Send(a.ctx, client.Record{Partition: client.AnyPartition, Value: value}, func(r client.RecordResult) {
			if r.Err == nil {
				a.done.Add(1)
			}
		})
	}
}

func create(t *testing.T, a *attack, topic string, partitions int32) []byte {
	t.Helper()
	id, err := connect(t, a.s).Admin().CreateTopic(t.Context(), client.TopicSpec{Name: topic, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	return id[:]
}

// idle is as many connections as a node takes by default, less what the healthy
// client needs, or part of them.
func idle() int { return part(10_000 - 20) }

// raw is a connection that speaks the protocol and keeps no promise.
type raw struct {
	net.Conn
	w     *frame.Writer
	r     *frame.Reader
	hello *pb.ServerHello
}

func dial(s *server) (*raw, error) {
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	c := &raw{Conn: nc, w: frame.NewWriter(nc), r: frame.NewReader(nc)}
	if c.hello, err = frame.Connect(c.r, c.w, &pb.ClientHello{SoftwareName: "boundtest", SoftwareVersion: "1"}); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return c, nil
}

// deafConsumers ask for hot data, again and again, and read none of it, while a
// producer makes more.
func deafConsumers(t *testing.T, a *attack) {
	topic := create(t, a, "hot", 4)
	p, err := connect(t, a.s).NewProducer(client.ProducerConfig{Topic: "hot"})
	if err != nil {
		t.Fatal(err)
	}
	a.run(func() {
		defer p.Close(a.ctx)
		produce(a, p)
	})
	for i := range 40 {
		a.run(func() {
			for a.ctx.Err() == nil {
				c, err := dial(a.s)
				if err != nil {
					return
				}
				stop := context.AfterFunc(a.ctx, func() { _ = c.Close() })
				for id := uint32(1); ; id++ {
					err := c.fetch(id, &pb.FetchRequest{MaxBytes: 64 << 20, Parts: []*pb.FetchPart{{
						TopicId: topic, Partition: int32(i % 4), MaxBytes: 64 << 20, LeaderEpoch: -1,
					}}})
					if err != nil {
						break // cut off: it comes again
					}
				}
				stop()
				_ = c.Close()
			}
		})
	}
}

// idleConnections shake hands and say no more.
func idleConnections(t *testing.T, a *attack) {
	openIdle(t, a, func() (net.Conn, error) { return dial(a.s) })
}

// idleKafkaConnections ask which versions there are, as every client of Kafka's
// does first, and say no more.
func idleKafkaConnections(t *testing.T, a *attack) {
	openIdle(t, a, func() (net.Conn, error) {
		nc, err := net.Dial("tcp", a.s.addr)
		if err != nil {
			return nil, err
		}
		// Length, ApiVersions (18), version 0, correlation id, client id "idle".
		_, err = nc.Write([]byte{0, 0, 0, 14, 0, 18, 0, 0, 0, 0, 0, 1, 0, 4, 'i', 'd', 'l', 'e'})
		if err != nil {
			return nil, errors.Join(err, nc.Close())
		}
		var length [4]byte
		if _, err := io.ReadFull(nc, length[:]); err != nil {
			return nil, errors.Join(err, nc.Close())
		}
		if _, err := io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint32(length[:]))); err != nil {
			return nil, errors.Join(err, nc.Close())
		}
		return nc, nil
	})
}

// openIdle opens the idle connections.
func openIdle(t *testing.T, a *attack, dial func() (net.Conn, error)) {
	const dialers = 20
	var conns sync.WaitGroup
	for range dialers {
		conns.Go(func() {
			for range idle() / dialers {
				c, err := dial()
				if err != nil {
					t.Errorf("connection %d: %v", a.done.Load(), err)
					return
				}
				context.AfterFunc(a.ctx, func() { _ = c.Close() })
				a.done.Add(1)
			}
		})
	}
	conns.Wait()
}

// giantsAndDwarfs mix requests that claim as much as they may, some of which come
// slowly or not at all, with the largest and the smallest batches.
func giantsAndDwarfs(t *testing.T, a *attack) {
	topic := create(t, a, "mixed", 8)
	for i := range 40 {
		a.run(func() { claim(a, topic, i) })
	}
	for i := range 4 {
		c := connect(t, a.s)
		cfg := client.ProducerConfig{Topic: "mixed", Linger: -1, MaxBufferedBytes: 16 << 20}
		size := 1
		if i%2 == 0 {
			size = 900_000
		}
		p, err := c.NewProducer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		a.run(func() {
			defer p.Close(a.ctx)
			for a.ctx.Err() == nil {
				_ = p.Send(a.ctx, client.Record{Partition: client.AnyPartition, Value: make([]byte, size)}, func(r client.RecordResult) {
					if r.Err == nil {
						a.done.Add(1)
					}
				})
			}
		})
	}
}

// unfolding sends batches of some KiB that are valid, and unfold to 32 MiB each.
func unfolding(t *testing.T, a *attack) {
	create(t, a, "unfolding", 8)
	var w batch.Builder
	w.Reset()
	if err := w.Append(1, nil, make([]byte, 32<<20), nil); err != nil {
		t.Fatal(err)
	}
	bomb, err := w.Build(nil, batch.Zstd, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	w = batch.Builder{}
	for i := range 60 {
		// Produce (0), version 7, correlation id, null client id; null transactional
		// id, acks all, time-out, one topic of one partition.
		req := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 7, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255}, 60_000)
		req = append(append(req, 0, 0, 0, 1, 0, 9), "unfolding"...)
		req = append(req, 0, 0, 0, 1, 0, 0, 0, byte(i%8))
		req = append(binary.BigEndian.AppendUint32(req, uint32(len(bomb))), bomb...)
		req = append(binary.BigEndian.AppendUint32(nil, uint32(len(req))), req...)
		a.run(func() { ask(t, a, req) })
	}
}

// ask sends a Produce to one partition, again and again, and wants it answered
// without an error.
func ask(t *testing.T, a *attack, req []byte) {
	nc, err := net.Dial("tcp", a.s.addr)
	if err != nil {
		return
	}
	defer nc.Close()
	defer context.AfterFunc(a.ctx, func() { _ = nc.Close() })()
	var length [4]byte
	for {
		if _, err := nc.Write(req); err != nil {
			return
		}
		if _, err := io.ReadFull(nc, length[:]); err != nil {
			return
		}
		answer := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(nc, answer); err != nil {
			return
		}
		// Behind the correlation id one topic, its name, one partition, its index.
		if code := binary.BigEndian.Uint16(answer[4+4+2+9+4+4:]); code != 0 {
			t.Errorf("answered with the error %d", code)
			return
		}
		a.done.Add(1)
	}
}

// deafFetches ask for many partitions each, one of which has a MiB of records,
// again and again, and read none of the answers, while one that reads them asks for
// few.
func deafFetches(t *testing.T, a *attack) {
	create(t, a, "many", 1)
	p, err := connect(t, a.s).NewProducer(client.ProducerConfig{Topic: "many"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	for range 20 {
		if _, err := p.SendSync(t.Context(), client.Record{Value: make([]byte, 50_000)}); err != nil {
			t.Fatal(err)
		}
	}
	var cut atomic.Int64 // of their connections
	for i := range 50 {
		req := fetchOf(0, 73)
		if i%10 == 0 {
			req = fetchOf(0, 10_000)
		}
		a.run(func() {
			for a.ctx.Err() == nil {
				nc, err := net.Dial("tcp", a.s.addr)
				if err != nil {
					return
				}
				stop := context.AfterFunc(a.ctx, func() { _ = nc.Close() })
				_ = nc.(*net.TCPConn).SetReadBuffer(4 << 10)
				for err == nil {
					_, err = nc.Write(req) // until it is cut off: it comes again
				}
				stop()
				_ = nc.Close()
				cut.Add(1)
			}
		})
	}
	a.run(func() {
		req := fetchOf(1, 71)
		nc, err := net.Dial("tcp", a.s.addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer nc.Close()
		defer context.AfterFunc(a.ctx, func() { _ = nc.Close() })()
		for a.ctx.Err() == nil {
			var length [4]byte
			_, err := nc.Write(req)
			if err == nil {
				_, err = io.ReadFull(nc, length[:])
			}
			if err == nil {
				_, err = io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint32(length[:])))
			}
			if err != nil {
				if a.ctx.Err() == nil {
					t.Errorf("one that takes its answers is not served: %v", err)
					a.done.Add(1) // all that there will be
				}
				return
			}
			if cut.Load() > 0 { // from here on the others have filled what there is between them and the node
				a.done.Add(1)
			}
		}
	})
}

// fetchOf is a Fetch of partitions [first, end) of the topic "many", in bytes.
func fetchOf(first, end int32) []byte {
	// Fetch (1), version 4, correlation id, null client id; no replica, no wait, no
	// least bytes, 1 MiB, read uncommitted, one topic.
	b := []byte{0, 1, 0, 4, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 1}
	b = append(append(b, 0, 4), "many"...)
	b = binary.BigEndian.AppendUint32(b, uint32(end-first))
	for i := first; i < end; i++ { // from the beginning, 1 MiB of each
		b = binary.BigEndian.AppendUint32(b, uint32(i))
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// claim announces the largest payload that there may be and sends little of it.
func claim(a *attack, topic []byte, i int) {
	for a.ctx.Err() == nil {
		c, err := dial(a.s)
		if err != nil {
			return
		}
		stop := context.AfterFunc(a.ctx, func() { _ = c.Close() })
		var prefix [frame.PrefixBytes]byte
		binary.BigEndian.PutUint32(prefix[:], c.hello.MaxFrameBytes)
		prefix[8] = byte(frame.KindProduce)
		binary.BigEndian.PutUint32(prefix[12:], 1)
		if _, err := c.Write(prefix[:]); err == nil {
			drip := make([]byte, 1<<uint(i%16))
			for err == nil && a.ctx.Err() == nil {
				_, err = c.Write(drip)
				select {
				case <-time.After(10 * time.Millisecond):
				case <-a.ctx.Done():
				}
			}
		}
		stop()
		_ = c.Close()
	}
}

// fetch asks for records.
func (c *raw) fetch(id uint32, m *pb.FetchRequest) error {
	if err := c.w.Queue(frame.KindFetch, 0, id, m); err != nil {
		return err
	}
	return c.w.Flush()
}
