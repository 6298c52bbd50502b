package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
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

	noStreams     bool         // offer none
	refuseStreams errcode.Code // what Subscribe is answered with
	window        uint64       // the largest credit that a stream began with
	pauses        int          // of partitions of streams
	open          []*fakeStream
	frame         uint32 // what a server takes at most; 0: the default

	behind map[int32]int // how many partitions of a topic a node tells of at most; by node, others tell all

	// The hooks are set before the first connection, or under mu (see hook).

	// onProduce, if set, says what to do with each produce request.
	onProduce func(req *pb.ProduceRequest) fault
	// onPart, if set, may refuse one part with a code.
	onPart func(part *pb.ProducePart, h batch.Header) errcode.Code
	// onAny, if set, sees each request first; true: leave it unanswered. It is
	// called with mu held, like the others.
	onAny func(node int32, kind frame.Kind) (silent bool)
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

// fakeConn is one connection of a fake node.
type fakeConn struct {
	f        *fakeCluster
	id       int32
	nc       net.Conn
	r        *frame.Reader
	closed   chan struct{}
	handlers sync.WaitGroup
	streams  map[uint32]*fakeStream // guarded by f.mu

	mu sync.Mutex // for w, never held while the reader waits
	w  *frame.Writer
}

func (s *fakeConn) handle(fr frame.Frame) bool {
	s.f.mu.Lock()
	s.f.requests[fr.Kind]++
	silent := s.f.onAny != nil && s.f.onAny(s.id, fr.Kind)
	s.f.mu.Unlock()
	if silent {
		return true
	}
	switch fr.Kind {
	case frame.KindPing:
		return s.answer(fr, &pb.Pong{})
	case frame.KindMetadata:
		return s.answer(fr, s.f.metadata(s.id, decode(s.f.t, fr, new(pb.MetadataRequest))))
	case frame.KindCreateTopic:
		req := decode(s.f.t, fr, new(pb.CreateTopicRequest))
		if s.f.topic(req.Name) != nil {
			return s.answer(fr, frame.NewError(errcode.TopicAlreadyExists, ""))
		}
		tp := s.f.createTopic(req.Name, int(max(1, req.Partitions)))
		return s.answer(fr, &pb.CreateTopicResponse{TopicId: tp.id[:], Partitions: req.Partitions})
	case frame.KindDeleteTopic:
		req := decode(s.f.t, fr, new(pb.DeleteTopicRequest))
		if s.f.topic(req.Name) == nil {
			return s.answer(fr, frame.NewError(errcode.UnknownTopicOrPartition, ""))
		}
		s.f.mu.Lock()
		delete(s.f.topics, req.Name)
		s.f.mu.Unlock()
		return s.answer(fr, &pb.DeleteTopicResponse{})
	case frame.KindDescribeTopic:
		return s.describe(fr)
	case frame.KindAlterTopic:
		return s.answer(fr, s.f.alter(decode(s.f.t, fr, new(pb.AlterTopicRequest))))
	case frame.KindAddPartitions:
		req := decode(s.f.t, fr, new(pb.AddPartitionsRequest))
		s.f.addPartitions(req.Name, int(req.Total))
		return s.answer(fr, &pb.AddPartitionsResponse{Partitions: req.Total})
	case frame.KindDeleteRecords:
		return s.answer(fr, s.f.deleteRecords(s.id, decode(s.f.t, fr, new(pb.DeleteRecordsRequest))))
	case frame.KindInitProducer:
		req := decode(s.f.t, fr, new(pb.InitProducerRequest))
		return s.answer(fr, &pb.InitProducerResponse{Producer: s.f.producer(req.Current)})
	case frame.KindProduce:
		return s.produce(fr)
	case frame.KindFetch:
		req := decode(s.f.t, fr, new(pb.FetchRequest))
		s.handlers.Go(func() { s.fetch(fr, req) })
		return true
	case frame.KindListOffsets:
		return s.answer(fr, s.f.listOffsets(s.id, decode(s.f.t, fr, new(pb.ListOffsetsRequest))))
	case frame.KindSubscribe, frame.KindChangeStream, frame.KindUnsubscribe, frame.KindCredit:
		return s.stream(fr)
	}
	s.f.t.Errorf("request of %s", fr.Kind)
	return false
}

func decode[M proto.Message](t testing.TB, fr frame.Frame, m M) M {
	if err := frame.Unmarshal(fr.Header, m); err != nil {
		t.Errorf("%s: %v", fr.Kind, err)
	}
	return m
}

func (s *fakeConn) answer(fr frame.Frame, m proto.Message, payload ...frame.Part) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	flags := frame.FlagResponse
	if _, isErr := m.(*pb.Error); isErr {
		flags |= frame.FlagError
	}
	if err := s.w.Queue(fr.Kind, flags, fr.CorrelationID, m, payload...); err != nil {
		s.f.t.Errorf("answer to %s: %v", fr.Kind, err)
	}
	return s.w.Flush() == nil
}

func (f *fakeCluster) topic(name string) *fakeTopic {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.topics[name]
}

func (f *fakeCluster) metadata(node int32, req *pb.MetadataRequest) *pb.MetadataResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &pb.MetadataResponse{ClusterId: "fake"}
	for _, id := range slices.Sorted(maps.Keys(f.nodes)) {
		resp.Nodes = append(resp.Nodes, &pb.Node{Id: id, Address: f.nodes[id]})
	}
	names := req.Names
	if req.All {
		names = nil
		for _, name := range slices.Sorted(maps.Keys(f.topics)) {
			if name > req.After {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		if len(resp.Topics) == 2 { // small pages, to make clients ask again
			resp.More = true
			break
		}
		tp := f.topics[name]
		if tp == nil {
			resp.Topics = append(resp.Topics, &pb.Topic{Name: name, Error: frame.NewError(errcode.UnknownTopicOrPartition, "")})
			continue
		}
		pt := &pb.Topic{Name: name, TopicId: tp.id[:]}
		for i, p := range tp.partitions {
			if most, ok := f.behind[node]; ok && i >= most {
				break
			}
			pt.Leaders = append(pt.Leaders, p.leader)
			pt.LeaderEpochs = append(pt.LeaderEpochs, p.epoch)
		}
		resp.Topics = append(resp.Topics, pt)
	}
	return resp
}

func (s *fakeConn) describe(fr frame.Frame) bool {
	req := decode(s.f.t, fr, new(pb.DescribeTopicRequest))
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	for _, tp := range s.f.topics {
		if tp.name != req.Name && string(tp.id[:]) != string(req.TopicId) {
			continue
		}
		resp := &pb.DescribeTopicResponse{Name: tp.name, TopicId: tp.id[:], PartitionCount: int32(len(tp.partitions))}
		for i := int(req.FirstPartition); i < len(tp.partitions); i++ {
			if len(resp.Partitions) == 2 {
				resp.More = true
				break
			}
			p := tp.partitions[i]
			resp.Partitions = append(resp.Partitions, &pb.PartitionDetail{
				Partition: int32(i), Leader: p.leader, LeaderEpoch: p.epoch, LogStartOffset: p.start, HighWatermark: p.end,
			})
		}
		return s.answer(fr, resp)
	}
	return s.answer(fr, frame.NewError(errcode.UnknownTopicOrPartition, ""))
}

func (f *fakeCluster) producer(current *pb.Producer) *pb.Producer {
	f.mu.Lock()
	defer f.mu.Unlock()
	if current != nil && current.Epoch < 2 { // soon exhausted, to see new ids too
		return &pb.Producer{Id: current.Id, Epoch: current.Epoch + 1}
	}
	f.producers++
	return &pb.Producer{Id: f.producers}
}

// partitionLocked returns a partition, or why this node does not have it.
func (f *fakeCluster) partitionLocked(node int32, id []byte, partition int32) (*fakePartition, *pb.Error) {
	for _, tp := range f.topics {
		if string(tp.id[:]) != string(id) {
			continue
		}
		if partition < 0 || int(partition) >= len(tp.partitions) {
			return nil, frame.NewError(errcode.UnknownTopicOrPartition, "")
		}
		p := tp.partitions[partition]
		if p.leader != node {
			e := frame.NewError(errcode.NotLeaderOrFollower, "")
			e.Leader = &pb.LeaderHint{NodeId: p.leader, Address: f.nodes[p.leader], LeaderEpoch: p.epoch}
			return nil, e
		}
		return p, nil
	}
	return nil, frame.NewError(errcode.UnknownTopicID, "")
}

func (s *fakeConn) produce(fr frame.Frame) bool {
	req := decode(s.f.t, fr, new(pb.ProduceRequest))
	do := noFault
	s.f.mu.Lock()
	if s.f.onProduce != nil {
		do = s.f.onProduce(req)
	}
	s.f.mu.Unlock()
	if do == loseRequest {
		return false
	}
	resp := new(pb.ProduceResponse)
	rest := fr.Payload
	s.f.mu.Lock()
	for _, part := range req.Parts {
		res := &pb.ProduceResult{TopicId: part.TopicId, Partition: part.Partition, LogAppendTimeMs: -1, LogStartOffset: -1}
		b := rest[:part.Length]
		rest = rest[part.Length:]
		if _, err := batch.Validate(b, batch.Limits{}); err != nil {
			s.f.t.Errorf("produced: %v", err)
		}
		p, refused := s.f.partitionLocked(s.id, part.TopicId, part.Partition)
		if refused == nil && s.f.onPart != nil {
			h, _ := batch.ParseHeader(b)
			if code := s.f.onPart(part, h); code != errcode.None {
				refused = frame.NewError(code, "by the test")
			}
		}
		if refused != nil {
			res.Error = refused
		} else if res.BaseOffset, res.Error = p.append(slices.Clone(b)); res.Error == nil {
			if s.f.forget {
				p.batches = nil
			}
			close(s.f.grown)
			s.f.grown = make(chan struct{})
		}
		resp.Results = append(resp.Results, res)
	}
	s.f.mu.Unlock()
	switch {
	case do == loseResponse:
		return false
	case do == hang || req.Acks == pb.Acks_ACKS_NONE:
		return true
	}
	return s.answer(fr, resp)
}

// append deduplicates as a partition does.
func (p *fakePartition) append(b []byte) (int64, *pb.Error) {
	h, err := batch.ParseHeader(b)
	if err != nil {
		return 0, frame.NewError(errcode.CorruptMessage, err.Error())
	}
	if h.Idempotent() {
		pr := p.producers[h.ID]
		if pr != nil && h.Producer.Epoch < pr.epoch {
			return 0, frame.NewError(errcode.InvalidProducerEpoch, "")
		}
		if pr != nil && h.Producer.Epoch == pr.epoch {
			for _, a := range pr.window {
				if a.first == h.Sequence && a.last == h.LastSequence() {
					return a.offset, nil
				}
			}
			if last := pr.window[len(pr.window)-1].last; h.Sequence != (last+1)&0x7fffffff {
				return 0, frame.NewError(errcode.OutOfOrderSequenceNumber, fmt.Sprintf("%d after %d", h.Sequence, last))
			}
		} else {
			if pr != nil && h.Sequence != 0 {
				return 0, frame.NewError(errcode.OutOfOrderSequenceNumber, "a new epoch begins at 0")
			}
			pr = &fakeProducer{epoch: h.Producer.Epoch} // without state, at any sequence
			p.producers[h.ID] = pr
		}
		pr.window = append(pr.window, fakeAppend{h.Sequence, h.LastSequence(), p.end})
		pr.window = pr.window[max(0, len(pr.window)-5):]
	}
	batch.PutPrefix(b, p.end, h.Length, p.epoch)
	p.batches = append(p.batches, b)
	base := p.end
	p.end += int64(h.Records)
	return base, nil
}

func (s *fakeConn) fetch(fr frame.Frame, req *pb.FetchRequest) {
	deadline := time.NewTimer(time.Duration(req.MaxWaitMs) * time.Millisecond)
	defer deadline.Stop()
	for final := false; ; {
		resp, parts, n := new(pb.FetchResponse), []frame.Part(nil), 0
		s.f.mu.Lock()
		grown := s.f.grown
		for _, part := range req.Parts {
			res, data := s.f.readLocked(s.id, part)
			if res.Error != nil {
				final = true
			}
			if n > 0 && n+len(data) > int(req.MaxBytes) {
				data, res.Length = nil, 0
			}
			n += len(data)
			resp.Results = append(resp.Results, res)
			parts = append(parts, frame.Part{Bytes: data})
		}
		s.f.mu.Unlock()
		if n >= int(max(1, req.MinBytes)) || final {
			s.answer(fr, resp, parts...)
			return
		}
		select {
		case <-grown:
		case <-deadline.C:
			final = true
		case <-s.closed:
			return
		}
	}
}

func (f *fakeCluster) readLocked(node int32, part *pb.FetchPart) (*pb.FetchResult, []byte) {
	res := &pb.FetchResult{TopicId: part.TopicId, Partition: part.Partition, HighWatermark: -1, LogStartOffset: -1}
	p, refused := f.partitionLocked(node, part.TopicId, part.Partition)
	if refused == nil && (part.Offset < p.start || part.Offset > p.end) {
		refused = frame.NewError(errcode.OffsetOutOfRange, "")
	}
	if refused != nil {
		res.Error = refused
		return res, nil
	}
	res.HighWatermark, res.LogStartOffset = p.end, p.start
	var data []byte
	for _, b := range p.batches {
		h, _ := batch.ParseHeader(b)
		if h.LastOffset() < part.Offset {
			continue
		}
		if len(data) > 0 && len(data)+len(b) > int(part.MaxBytes) {
			break
		}
		data = append(data, b...)
	}
	if f.onFetch != nil {
		var code errcode.Code
		if data, code = f.onFetch(part, data); code != errcode.None {
			res.Error = frame.NewError(code, "by the test")
			return res, nil
		}
	}
	res.Length = uint32(len(data))
	return res, data
}

func (f *fakeCluster) listOffsets(node int32, req *pb.ListOffsetsRequest) *pb.ListOffsetsResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := new(pb.ListOffsetsResponse)
	for _, part := range req.Parts {
		res := &pb.ListOffsetsResult{TopicId: part.TopicId, Partition: part.Partition}
		p, refused := f.partitionLocked(node, part.TopicId, part.Partition)
		switch {
		case refused != nil:
			res.Error = refused
		case part.At == pb.OffsetAt_OFFSET_AT_EARLIEST:
			res.Offset = p.start
		case part.At == pb.OffsetAt_OFFSET_AT_TIMESTAMP && part.TimestampMs > p.end:
			res.Offset, res.TimestampMs, res.LeaderEpoch = -1, -1, -1
		case part.At == pb.OffsetAt_OFFSET_AT_TIMESTAMP: // the fake's records have their offsets for timestamps
			res.Offset, res.TimestampMs, res.LeaderEpoch = part.TimestampMs, part.TimestampMs, p.epoch
		case part.At == pb.OffsetAt_OFFSET_AT_MAX_TIMESTAMP:
			res.Offset, res.TimestampMs, res.LeaderEpoch = p.end-1, p.end-1, p.epoch
		default:
			res.Offset = p.end
		}
		resp.Results = append(resp.Results, res)
	}
	return resp
}

func (f *fakeCluster) alter(req *pb.AlterTopicRequest) proto.Message {
	if len(req.Set) == 0 {
		return frame.NewError(errcode.InvalidRequest, "")
	}
	resp := &pb.AlterTopicResponse{Configs: slices.Clone(req.Set)}
	for _, name := range req.Delete {
		resp.Configs = append(resp.Configs, &pb.Config{Name: name, Value: "d", Source: pb.ConfigSource_CONFIG_SOURCE_DEFAULT})
	}
	return resp
}

func (f *fakeCluster) addPartitions(name string, total int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.topics[name]
	for len(t.partitions) < total {
		t.partitions = append(t.partitions, &fakePartition{leader: t.partitions[0].leader, epoch: 1, producers: make(map[int64]*fakeProducer)})
	}
}

func (f *fakeCluster) deleteRecords(node int32, req *pb.DeleteRecordsRequest) *pb.DeleteRecordsResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := new(pb.DeleteRecordsResponse)
	for _, part := range req.Parts {
		res := &pb.DeleteRecordsResult{TopicId: part.TopicId, Partition: part.Partition, LogStartOffset: -1}
		p, refused := f.partitionLocked(node, part.TopicId, part.Partition)
		switch {
		case refused != nil:
			res.Error = refused
		case part.BeforeOffset < 0 || part.BeforeOffset > p.end:
			res.Error = frame.NewError(errcode.OffsetOutOfRange, "")
		default:
			p.start = max(p.start, part.BeforeOffset)
			res.LogStartOffset = p.start
		}
		resp.Results = append(resp.Results, res)
	}
	return resp
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
