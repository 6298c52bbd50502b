package server

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// Bounds on what a request may ask to wait for.
const (
	defaultTimeout = 30 * time.Second
	maxTimeout     = 15 * time.Minute
)

// request is one request between its frame and its answer.
type request struct {
	*conn
	frame.Prefix
	msg     proto.Message
	payload []byte
	from    *broker.Budget // that held is of
	held    int64          // bytes of the node's request budget, until the answer
	began   time.Time      // when all of it was read
	poll    delivery.Poll  // a fetch, in conn.polls
	sent    atomic.Bool    // its answer, or what comes of a panic in its place
}

// decode reads the header as the message that the kind says.
func (q *request) decode(header []byte) error {
	switch q.Kind {
	case frame.KindPing:
		q.msg = new(pb.Ping)
	case frame.KindMetadata:
		q.msg = new(pb.MetadataRequest)
	case frame.KindCreateTopic:
		q.msg = new(pb.CreateTopicRequest)
	case frame.KindDeleteTopic:
		q.msg = new(pb.DeleteTopicRequest)
	case frame.KindDescribeTopic:
		q.msg = new(pb.DescribeTopicRequest)
	case frame.KindAlterTopic:
		q.msg = new(pb.AlterTopicRequest)
	case frame.KindAddPartitions:
		q.msg = new(pb.AddPartitionsRequest)
	case frame.KindDescribeFeatures:
		q.msg = new(pb.DescribeFeaturesRequest)
	case frame.KindUpgradeFeatures:
		q.msg = new(pb.UpgradeFeaturesRequest)
	case frame.KindDescribeCluster:
		q.msg = new(pb.DescribeClusterRequest)
	case frame.KindTransferShard:
		q.msg = new(pb.TransferShardRequest)
	case frame.KindInitProducer:
		q.msg = new(pb.InitProducerRequest)
	case frame.KindProduce:
		q.msg = new(pb.ProduceRequest)
	case frame.KindFetch:
		q.msg = new(pb.FetchRequest)
	case frame.KindListOffsets:
		q.msg = new(pb.ListOffsetsRequest)
	case frame.KindSubscribe:
		q.msg = new(pb.SubscribeRequest)
	case frame.KindChangeStream:
		q.msg = new(pb.ChangeStreamRequest)
	case frame.KindUnsubscribe:
		q.msg = new(pb.UnsubscribeRequest)
	case frame.KindCredit:
		q.msg = new(pb.Credit)
	case frame.KindDeleteRecords:
		q.msg = new(pb.DeleteRecordsRequest)
	default:
		if q.msg = groupMessage(q.Kind); q.msg == nil {
			return errcode.Errorf(errcode.InvalidRequest, "this version does not know %s", q.Kind)
		}
	}
	if err := frame.Unmarshal(header, q.msg); err != nil {
		return errcode.Errorf(errcode.InvalidRequest, "%v", err)
	}
	return nil
}

// start starts the request. Produce is proposed before it returns, so that the
// requests of a connection take effect in their order; what may wait for long
// does so elsewhere.
func (q *request) start() {
	defer q.survive()
	switch m := q.msg.(type) {
	case *pb.Ping:
		q.reply(&pb.Pong{})
	case *pb.ProduceRequest:
		q.produce(m)
	case *pb.FetchRequest:
		q.fetch(m)
	case *pb.SubscribeRequest:
		q.subscribe(m)
	case *pb.ChangeStreamRequest:
		q.changeStream(m)
	case *pb.UnsubscribeRequest:
		q.unsubscribe(m)
	case *pb.Credit:
		q.credit(m)
	case *pb.MetadataRequest:
		q.answerWith(q.metadata(m))
	case *pb.ListOffsetsRequest:
		q.startListOffsets(m)
	case *pb.DescribeTopicRequest:
		q.answerWith(q.describeTopic(m))
	case *pb.DescribeFeaturesRequest:
		q.answerWith(q.describeFeatures())
	case *pb.UpgradeFeaturesRequest:
		go q.within(m.TimeoutMs, func(ctx context.Context) (proto.Message, error) { return q.upgradeFeatures(ctx, m) })
	case *pb.CreateTopicRequest:
		go q.within(m.TimeoutMs, func(ctx context.Context) (proto.Message, error) { return q.createTopic(ctx, m) })
	case *pb.DeleteTopicRequest:
		go q.within(m.TimeoutMs, func(ctx context.Context) (proto.Message, error) { return q.deleteTopic(ctx, m) })
	case *pb.AlterTopicRequest:
		go q.within(m.TimeoutMs, func(ctx context.Context) (proto.Message, error) { return q.alterTopic(ctx, m) })
	case *pb.AddPartitionsRequest:
		go q.within(m.TimeoutMs, func(ctx context.Context) (proto.Message, error) { return q.addPartitions(ctx, m) })
	case *pb.DescribeClusterRequest:
		go q.within(0, func(ctx context.Context) (proto.Message, error) { return q.describeCluster(ctx, m) })
	case *pb.TransferShardRequest:
		go q.within(m.TimeoutMs, func(ctx context.Context) (proto.Message, error) { return q.transferShard(ctx, m) })
	case *pb.DeleteRecordsRequest:
		go q.within(m.TimeoutMs, func(ctx context.Context) (proto.Message, error) { return q.deleteRecords(ctx, m) })
	case *pb.InitProducerRequest:
		go q.within(0, func(ctx context.Context) (proto.Message, error) { return q.initProducer(ctx, m) })
	default:
		q.startGroup()
	}
}

// within runs do with the client's time-out.
func (q *request) within(timeoutMS uint32, do func(context.Context) (proto.Message, error)) {
	defer q.survive()
	ctx, cancel := context.WithTimeout(q.ctx, timeout(timeoutMS))
	defer cancel()
	q.answerWith(do(ctx))
}

func timeout(ms uint32) time.Duration {
	if ms == 0 {
		return defaultTimeout
	}
	return min(time.Duration(ms)*time.Millisecond, maxTimeout)
}

func (q *request) answerWith(m proto.Message, err error) {
	if err != nil {
		q.fail(err)
		return
	}
	q.reply(m)
}

func (q *request) reply(m proto.Message) {
	q.send(answer{kind: q.Kind, flags: frame.FlagResponse, id: q.CorrelationID, header: m})
}

// fail answers with an error.
func (q *request) fail(err error) {
	e := broker.CodeOf(err)
	m := q.pbError(e)
	switch e.Code {
	case errcode.NotController:
		m.Leader = leaderHint(q.s.opt.Broker.Controller(q.via.Name))
	case errcode.NotLeaderOrFollower:
		if t, ok := q.msg.(*pb.TransferShardRequest); ok {
			m.Leader = leaderHint(q.s.opt.Broker.ShardLeader(q.via.Name, t.Shard))
		}
	}
	q.send(answer{kind: q.Kind, flags: frame.FlagResponse | frame.FlagError, id: q.CorrelationID, header: m})
}

// place is the request's kind, for the meter.
func (q *request) place() int { return int(meterPlace[q.Kind]) }

// pbError counts an error of the request, and returns it for the answer.
func (q *request) pbError(e *errcode.Error) *pb.Error {
	if e != nil {
		q.s.meter.Error(q.place(), e.Code)
	}
	return pbError(e)
}

func pbError(e *errcode.Error) *pb.Error {
	if e == nil {
		return nil
	}
	return frame.NewError(e.Code, e.Detail)
}

// maxDetails is how many parts an answer may have if each error is to come with
// its text: the texts of thousands would not fit in a header.
const maxDetails = 1000

// partError is pbError for one of n parts, about a partition. It says who leads
// the partition if the node does not.
func (q *request) partError(e *errcode.Error, topic []byte, index int32, n int) *pb.Error {
	m := q.pbError(e)
	id, err := topicID(topic)
	switch {
	case m == nil:
		return nil
	case n > maxDetails:
		m.Message = ""
		return m
	case err != nil:
		return m
	}
	return q.conn.partitionError(e, id, index)
}

// partitionError is pbError about a partition, with its leader if the node knows
// of another.
func (c *conn) partitionError(e *errcode.Error, topic broker.TopicID, index int32) *pb.Error {
	m := pbError(e)
	if m == nil {
		return nil
	}
	switch e.Code {
	case errcode.NotLeaderOrFollower, errcode.FencedLeaderEpoch:
		m.Leader = leaderHint(c.s.opt.Broker.PartitionLeader(c.via.Name, topic, index))
	}
	return m
}

func leaderHint(l broker.Leader, ok bool) *pb.LeaderHint {
	if !ok {
		return nil
	}
	return &pb.LeaderHint{NodeId: l.Node, Address: l.Address, LeaderEpoch: l.Epoch}
}

func topicID(b []byte) (id broker.TopicID, err error) {
	if len(b) != len(id) {
		return id, errcode.Errorf(errcode.InvalidRequest, "a topic id of %d bytes, want %d", len(b), len(id))
	}
	return broker.TopicID(b), nil
}

// produce splits the payload into its batches and hands them to the broker.
func (q *request) produce(m *pb.ProduceRequest) {
	if m.Acks < pb.Acks_ACKS_ALL || m.Acks > pb.Acks_ACKS_NONE {
		q.fail(errcode.Errorf(errcode.InvalidRequest, "this version does not know what acks %d are", m.Acks))
		return
	}
	parts := make([]broker.ProducePart, len(m.Parts))
	payload := q.payload
	rest := payload
	for i, p := range m.Parts {
		id, err := topicID(p.TopicId)
		if err == nil && uint64(p.Length) > uint64(len(rest)) {
			err = errcode.Errorf(errcode.InvalidRequest, "parts are longer than the payload of %d bytes", len(q.payload))
		}
		if err != nil {
			q.refuseProduce(m, err)
			return
		}
		parts[i] = broker.ProducePart{Topic: id, Index: p.Partition, Batch: rest[:p.Length:p.Length]}
		rest = rest[p.Length:]
	}
	if len(parts) == 0 || len(rest) > 0 {
		q.refuseProduce(m, errcode.Errorf(errcode.InvalidRequest, "%d parts, and %d bytes of payload that are none's", len(parts), len(rest)))
		return
	}
	q.s.opt.Broker.Produce(parts, timeout(m.TimeoutMs), func(results []broker.ProduceResult) { q.produced(m, payload, results) })
}

// produced answers a produce with its results. It may be called on a goroutine of
// the broker's.
func (q *request) produced(m *pb.ProduceRequest, payload []byte, results []broker.ProduceResult) {
	defer q.survive()
	if allAppended(results) {
		q.s.buffers.Give(payload)
	}
	if m.Acks == pb.Acks_ACKS_NONE {
		for i := range results {
			if err := results[i].Err; err != nil {
				q.s.meter.Error(q.place(), err.Code)
				q.failUnacknowledged(err)
			}
		}
		q.send(answer{})
		return
	}
	resp := &pb.ProduceResponse{Results: make([]*pb.ProduceResult, len(results))}
	for i := range results {
		r := &results[i]
		resp.Results[i] = &pb.ProduceResult{
			TopicId: m.Parts[i].TopicId, Partition: m.Parts[i].Partition, Error: q.partError(r.Err, m.Parts[i].TopicId, m.Parts[i].Partition, len(results)),
			BaseOffset: r.BaseOffset, LogAppendTimeMs: r.LogAppendTimeMS, LogStartOffset: r.LogStart,
		}
	}
	q.reply(resp)
}

// allAppended reports that the log holds its own copy of every batch. One that
// failed, by a time-out for example, may still be on its way.
func allAppended(results []broker.ProduceResult) bool {
	return !slices.ContainsFunc(results, func(r broker.ProduceResult) bool { return r.Err != nil })
}

// refuseProduce answers a produce that is none.
func (q *request) refuseProduce(m *pb.ProduceRequest, err error) {
	if m.Acks == pb.Acks_ACKS_NONE {
		e := broker.CodeOf(err)
		q.s.meter.Error(q.place(), e.Code)
		q.failUnacknowledged(e)
		q.send(answer{})
		return
	}
	q.fail(err)
}
