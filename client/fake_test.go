package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// fakeCluster is a small server of the protocol: nodes that share one memory,
// partitions that deduplicate as the real ones do, and hooks that break things.
// Its connections are in memory, so that it runs inside a synctest bubble.
type fakeCluster struct {
	t testing.TB

	mu        sync.Mutex
	nodes     map[int32]string // address by id
	down      map[string]bool  // addresses that refuse connections
	conns     map[net.Conn]string
	topics    map[string]*fakeTopic
	topicsN   byte
	producers int64
	dials     map[string]int
	requests  map[frame.Kind]int
	grown     chan struct{} // closed and replaced at each append
	forget    bool          // keep no batches

	noStreams     bool          // offer none
	refuseStreams errcode.Code  // what Subscribe is answered with
	window        uint64        // the largest credit that a stream began with
	pauses        int           // of partitions of streams
	pace          time.Duration // between two deliveries of a stream; zero: as many as there is credit for, before anybody answers
	open          []*fakeStream
	frame         uint32 // what a server takes at most; 0: the default

	featureLevel uint32 // the nodes know up to 3 and 2

	groups fakeGroups

	behind map[int32]int // how many partitions of a topic a node tells of at most, -1: it knows no topic; by node, others tell all

	// The hooks are set before the first connection, or under mu (see hook).

	// onProduce, if set, says what to do with each produce request.
	onProduce func(req *pb.ProduceRequest) fault
	// onPart, if set, may refuse one part with a code.
	onPart func(part *pb.ProducePart, h batch.Header) errcode.Code
	// onAny, if set, sees each request first; true: leave it unanswered. It is
	// called with mu held, like the others.
	onAny func(node int32, kind frame.Kind) (silent bool)
	// onCluster, if set, answers what is asked about the cluster and its shards.
	onCluster func(node int32, req proto.Message) proto.Message
	// onFetch, if set, may change a partition's bytes, or refuse.
	onFetch func(part *pb.FetchPart, data []byte) ([]byte, errcode.Code)
}

// fault is what happens to a produce request.
type fault int

const (
	noFault fault = iota
	loseRequest
	loseResponse
	hang
)

type fakeTopic struct {
	name       string
	id         [16]byte
	partitions []*fakePartition
}

type fakePartition struct {
	leader, epoch int32
	start, end    int64
	batches       [][]byte
	producers     map[int64]*fakeProducer
}

type fakeProducer struct {
	epoch  int16
	window []fakeAppend
}

type fakeAppend struct {
	first, last int32
	offset      int64
}

func newFake(t testing.TB, nodes int32) *fakeCluster {
	f := &fakeCluster{
		t: t, nodes: make(map[int32]string), down: make(map[string]bool), conns: make(map[net.Conn]string),
		topics: make(map[string]*fakeTopic), producers: 100, dials: make(map[string]int),
		requests: make(map[frame.Kind]int), grown: make(chan struct{}),
	}
	for id := range nodes {
		f.nodes[id] = fmt.Sprintf("node%d:9092", id)
	}
	return f
}

// client returns a Client of the cluster, which is closed at the end.
func (f *fakeCluster) client(edit ...func(*Config)) *Client {
	f.t.Helper()
	cfg := Config{Bootstrap: []string{"node0:9092"}, ClientID: "test", Dial: f.dial}
	for _, e := range edit {
		e(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fakeCluster) createTopic(name string, partitions int) *fakeTopic {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.createLocked(name, partitions)
}

func (f *fakeCluster) createLocked(name string, partitions int) *fakeTopic {
	f.topicsN++
	tp := &fakeTopic{name: name, id: [16]byte{f.topicsN}}
	for i := range partitions {
		tp.partitions = append(tp.partitions, &fakePartition{
			leader: int32(i % len(f.nodes)), epoch: 1, producers: make(map[int64]*fakeProducer),
		})
	}
	f.topics[name] = tp
	return tp
}

// values returns what a partition's log holds, in order.
func (f *fakeCluster) values(name string, partition int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	var it batch.Iterator
	for _, b := range f.topics[name].partitions[partition].batches {
		if err := it.Reset(b, 0); err != nil {
			f.t.Fatal(err)
		}
		for r, ok := it.Next(); ok; r, ok = it.Next() {
			all = append(all, string(r.Value))
		}
	}
	return all
}

// setDown makes an address refuse connections and cuts those that it has. When
// it returns, clients have noticed.
func (f *fakeCluster) setDown(addr string, down bool) {
	f.mu.Lock()
	f.down[addr] = down
	f.mu.Unlock()
	if down {
		f.cut(addr)
		synctest.Wait()
	}
}

// cut closes an address's connections.
func (f *fakeCluster) cut(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for nc, a := range f.conns {
		if a == addr {
			nc.Close()
		}
	}
}

// move gives a partition to another leader.
func (f *fakeCluster) move(name string, partition int, leader int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.topics[name].partitions[partition]
	p.leader, p.epoch = leader, p.epoch+1
	f.changedLocked()
}

// hook changes hooks while connections are open.
func (f *fakeCluster) hook(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeCluster) count(kind frame.Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[kind]
}

func (f *fakeCluster) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials[addr]++
	for id, a := range f.nodes {
		if a == addr && !f.down[addr] {
			client, server := net.Pipe()
			f.conns[server] = addr
			go f.serve(id, server)
			return client, nil
		}
	}
	return nil, fmt.Errorf("dial %s: refused", addr)
}

func (f *fakeCluster) serve(id int32, nc net.Conn) {
	s := &fakeConn{f: f, id: id, nc: nc, r: frame.NewReader(nc), w: frame.NewWriter(nc)}
	defer s.handlers.Wait()
	defer func() {
		nc.Close()
		f.mu.Lock()
		delete(f.conns, nc)
		f.mu.Unlock()
	}()
	s.closed = make(chan struct{})
	defer close(s.closed)
	if p, _, err := frame.ReadMagic(nc); err != nil || p != frame.Native {
		return
	}
	hello := &pb.ServerHello{NodeId: id, ClusterId: "fake", IdleTimeoutMs: 60_000, MaxFrameBytes: f.frame}
	if !f.noStreams {
		hello.Features = []string{frame.FeatureStream}
	}
	if f.groups.Coordinator != nil {
		hello.Features = append(hello.Features, frame.FeatureGroups)
	}
	s.streams = make(map[uint32]*fakeStream)
	if _, err := frame.Accept(s.r, s.w, hello); err != nil {
		return
	}
	for {
		fr, err := s.r.Read()
		if err != nil {
			if err != io.EOF && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, frame.ErrTruncated) {
				f.t.Errorf("node %d reads: %v", id, err)
			}
			return
		}
		if !s.handle(fr) {
			return
		}
	}
}

// numbered returns the values "0" to "n-1", the format of most tests.
func numbered(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint(i)
	}
	return all
}

// brief shortens a run of values for a failure's text.
func brief(values []string) string {
	if len(values) > 40 {
		return strings.Join(values[:40], " ") + " ..."
	}
	return strings.Join(values, " ")
}
