package server

import (
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

const (
	// maxFetchWait bounds how long a fetch is parked.
	maxFetchWait = 5 * time.Minute

	// maxFetchBytes is the most that one fetch answers, besides a single batch.
	maxFetchBytes = 50 << 20

	// maxFetchParts bounds the partitions of one fetch.
	maxFetchParts = 10_000
)

func orMax(v, most uint32) int {
	if v == 0 || v > most {
		return int(most)
	}
	return int(v)
}

// fetch asks the broker, which answers at once or parks the request.
func (q *request) fetch(m *pb.FetchRequest) {
	if len(m.Parts) == 0 || len(m.Parts) > maxFetchParts {
		q.fail(errcode.Errorf(errcode.InvalidRequest, "a fetch of %d partitions; ask for 1 to %d", len(m.Parts), maxFetchParts))
		return
	}
	req := broker.FetchRequest{
		MaxWait:  min(time.Duration(m.MaxWaitMs)*time.Millisecond, maxFetchWait),
		MinBytes: int(min(m.MinBytes, maxFetchBytes)),
		MaxBytes: orMax(m.MaxBytes, maxFetchBytes),
		Parts:    make([]broker.FetchPart, len(m.Parts)),

		Held: []broker.Held{{Of: q.from, Bytes: q.held}, {Of: q.taking, Bytes: q.held}},
	}
	// The answer is one frame. A first batch that is larger than MaxBytes fits:
	// see New.
	room := q.s.opt.MaxFrameBytes - frame.HandshakeMaxBytes
	if len(m.Parts) > maxDetails {
		room = max(room-frame.DefaultMaxHeaderBytes, 1)
	}
	req.MaxBytes = min(req.MaxBytes, room, delivery.MostBytes(q.s.opt.Answers))
	for i, p := range m.Parts {
		id, err := topicID(p.TopicId)
		if err != nil {
			q.fail(err)
			return
		}
		req.Parts[i] = broker.FetchPart{
			Topic: id, Index: p.Partition, Offset: p.Offset,
			MaxBytes: orMax(p.MaxBytes, maxFetchBytes), Epoch: p.LeaderEpoch,
		}
	}
	if p := twice(req.Parts); p != nil {
		q.fail(errcode.Errorf(errcode.InvalidRequest, "partition %d of topic %s stands twice in one fetch", p.Index, p.Topic))
		return
	}
	req.Panicked = func(p any) {
		q.polls.Remove(&q.poll)
		q.crash(p)
	}
	q.polls.Add(&q.poll, q.s.opt.Broker.Fetch(req, func(results []broker.FetchResult) {
		q.polls.Remove(&q.poll)
		q.answerFetch(m, results)
	}))
}

// twice returns a part whose partition an earlier one names too, or nil.
func twice(parts []broker.FetchPart) *broker.FetchPart {
	type partition struct {
		topic broker.TopicID
		index int32
	}
	if len(parts) < 2 {
		return nil
	}
	seen := make(map[partition]struct{}, len(parts))
	for i := range parts {
		seen[partition{parts[i].Topic, parts[i].Index}] = struct{}{}
		if len(seen) <= i {
			return &parts[i]
		}
	}
	return nil
}

// answerFetch sends what was read, whose chunks it owns. It may be called on a
// goroutine of the broker's.
func (q *request) answerFetch(m *pb.FetchRequest, results []broker.FetchResult) {
	defer q.survive()
	owned := results // until a delivery owns them
	defer func() {   // after a panic
		for i := range owned {
			owned[i].Release()
		}
	}()
	resp := &pb.FetchResponse{Results: make([]*pb.FetchResult, len(results))}
	read := make([]broker.StreamResult, len(results))
	for i := range results {
		r := &results[i]
		r.Sent()
		resp.Results[i] = &pb.FetchResult{
			TopicId: m.Parts[i].TopicId, Partition: m.Parts[i].Partition, Error: q.partError(r.Err, m.Parts[i].TopicId, m.Parts[i].Partition, len(results)),
			HighWatermark: r.HighWatermark, LogStartOffset: r.LogStart, Length: uint32(r.Bytes()),
		}
		read[i] = broker.StreamResult{
			Topic: broker.TopicID(m.Parts[i].TopicId), Index: m.Parts[i].Partition, From: m.Parts[i].Offset, FetchResult: *r,
		}
		if n := len(r.Chunks); n > 0 {
			read[i].Next = r.Chunks[n-1].End
		}
	}
	body := delivery.New(&q.peer, read, nil, nil)
	owned = nil
	q.send(answer{kind: q.Kind, flags: frame.FlagResponse, id: q.CorrelationID, header: resp, body: body})
}
