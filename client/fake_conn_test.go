package client

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

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
	case frame.KindDescribeFeatures:
		return s.answer(fr, s.f.features())
	case frame.KindUpgradeFeatures:
		return s.answer(fr, s.f.upgrade(s.id, decode(s.f.t, fr, new(pb.UpgradeFeaturesRequest))))
	case frame.KindDescribeCluster:
		return s.cluster(fr, new(pb.DescribeClusterRequest))
	case frame.KindTransferShard:
		return s.cluster(fr, new(pb.TransferShardRequest))
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
	case frame.KindFindCoordinator, frame.KindGroupHeartbeat, frame.KindCommitOffsets, frame.KindFetchOffsets,
		frame.KindDeleteOffsets, frame.KindListGroups, frame.KindDescribeGroup, frame.KindDeleteGroup:
		return s.group(fr)
	}
	s.f.t.Errorf("request of %s", fr.Kind)
	return false
}

// cluster answers as the test says; nil: not at all.
func (s *fakeConn) cluster(fr frame.Frame, req proto.Message) bool {
	s.f.mu.Lock()
	m := s.f.onCluster(s.id, decode(s.f.t, fr, req))
	s.f.mu.Unlock()
	if m == nil {
		return false
	}
	return s.answer(fr, m)
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
		if f.behind[node] < 0 {
			resp.Topics = append(resp.Topics, &pb.Topic{Name: name, Error: frame.NewError(errcode.LeaderNotAvailable, "it may be behind")})
			continue
		}
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
