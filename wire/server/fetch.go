package server

import (
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker"
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

	// sendfileBytes is from where on a range of a file is sent without a copy
	// through this process. Below it the system calls cost more than the copy.
	sendfileBytes = 64 << 10
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
	}
	// The answer is one frame. A first batch that is larger than MaxBytes fits:
	// see New.
	room := q.s.opt.MaxFrameBytes - frame.HandshakeMaxBytes
	if len(m.Parts) > maxDetails {
		room = max(room-frame.DefaultMaxHeaderBytes, 1)
	}
	req.MaxBytes = min(req.MaxBytes, room)
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
	q.polls.add(q, q.s.opt.Broker.Fetch(req, func(results []broker.FetchResult) {
		q.polls.remove(q)
		held := memoryOf(results)
		switch {
		case held == 0:
			q.answerFetch(m, results, 0)
		case q.tryHold(held):
			q.answerFetch(m, results, held)
		default:
			// Memory that waits for its turn would not be bounded: let go of it,
			// wait for room, and read again.
			releaseAll(results)
			go q.fetchLater(m, req, held)
		}
	}))
}

// answerShare is which part of the node's budget for answers one connection may
// hold: a client that does not read holds up itself.
const answerShare = 8

// tryHold takes room for an answer's memory, if there is some now.
func (q *request) tryHold(n int64) bool {
	if !q.holding.TryAcquire(n) {
		return false
	}
	if !q.s.opt.Answers.TryAcquire(n) {
		q.holding.Release(n)
		return false
	}
	return true
}

func (q *request) unhold(n int64) {
	q.holding.Release(n)
	q.s.opt.Answers.Release(n)
}

// fetchLater waits for room for n bytes, and reads again as much as fits.
func (q *request) fetchLater(m *pb.FetchRequest, req broker.FetchRequest, n int64) {
	if q.holding.Acquire(q.ctx, n) != nil {
		q.send(answer{}) // the connection is gone
		return
	}
	if q.s.opt.Answers.Acquire(q.ctx, n) != nil {
		q.holding.Release(n)
		q.send(answer{})
		return
	}
	req.MaxWait, req.MaxBytes = 0, int(n)
	q.s.opt.Broker.Fetch(req, func(results []broker.FetchResult) {
		// One batch may be larger than was asked for; the room is what it is.
		q.answerFetch(m, results, n)
	})
}

// memoryOf is the memory that results hold until they are sent.
func memoryOf(results []broker.FetchResult) (n int64) {
	for i := range results {
		for _, c := range results[i].Chunks {
			if c.File == nil {
				n += c.Bytes
			}
		}
	}
	return n
}

func releaseAll(results []broker.FetchResult) {
	for i := range results {
		results[i].Release()
	}
}

// polls are a connection's fetches under way. When it reads no more, because it
// ends or drains, they do not wait for records any longer.
type polls struct {
	mu    sync.Mutex
	of    map[*request]*broker.Fetch
	ended bool
}

func (p *polls) add(q *request, f *broker.Fetch) {
	p.mu.Lock()
	if !q.answered && !p.ended {
		p.of[q] = f
	}
	ended := p.ended
	p.mu.Unlock()
	if ended {
		f.Cancel()
	}
}

func (p *polls) remove(q *request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q.answered = true
	delete(p.of, q)
}

func (p *polls) end() {
	p.mu.Lock()
	p.ended = true
	left := slices.Collect(maps.Values(p.of))
	p.mu.Unlock()
	for _, f := range left {
		f.Cancel()
	}
}

// answerFetch sends what was read, and then gives it and held bytes back.
func (q *request) answerFetch(m *pb.FetchRequest, results []broker.FetchResult, held int64) {
	resp := &pb.FetchResponse{Results: make([]*pb.FetchResult, len(results))}
	var payload []frame.Part
	for i := range results {
		r := &results[i]
		resp.Results[i] = &pb.FetchResult{
			TopicId: m.Parts[i].TopicId, Partition: m.Parts[i].Partition, Error: q.partError(r.Err, len(results)),
			HighWatermark: r.HighWatermark, LogStartOffset: r.LogStart, Length: uint32(r.Bytes()),
		}
		for _, c := range r.Chunks {
			if c.File != nil {
				payload = append(payload, frame.Part{Source: fileRange{chunk: c}})
				continue
			}
			for _, v := range c.Vectors {
				payload = append(payload, frame.Part{Bytes: v})
			}
		}
	}
	q.send(answer{
		kind: q.Kind, flags: frame.FlagResponse, id: q.CorrelationID, header: resp, payload: payload,
		release: func() {
			releaseAll(results)
			if held > 0 {
				q.unhold(held)
			}
		},
	})
}

// fileRange is a chunk of a segment file on its way to a client, but for the
// first skip bytes.
type fileRange struct {
	chunk *broker.Chunk
	skip  int64
}

// Len implements frame.Source.
func (f fileRange) Len() int64 { return f.chunk.Bytes - f.skip }

// WriteTo implements frame.Source: by sendfile if it is worth it and can be.
func (f fileRange) WriteTo(w io.Writer) (int64, error) {
	if f.Len() >= sendfileBytes {
		conn, isTCP := w.(*net.TCPConn)
		file, isFile := f.chunk.File.(interface{ OSFile() *os.File }) // the real file system's
		if isTCP && isFile {
			return sendFile(conn, file.OSFile(), f.chunk.Pos+f.skip, f.Len())
		}
	}
	return io.CopyN(w, io.NewSectionReader(f.chunk.File, f.chunk.Pos+f.skip, f.Len()), f.Len())
}
