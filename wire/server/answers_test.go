package server

import (
	"io"
	"net"
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// watchedConn knows how much memory for answers was taken at the most when it was
// written to.
type watchedConn struct {
	net.Conn
	answers *broker.Budget
	most    int64
}

func (c *watchedConn) Write(b []byte) (int, error) {
	c.most = max(c.most, c.answers.Used())
	return c.Conn.Write(b)
}

// unserved is a connection that nobody serves, so that a test sees what is queued
// for it.
func unserved(t *testing.T) (*conn, *watchedConn) {
	t.Helper()
	s := newPoisoned(t).Server
	ours, theirs := net.Pipe()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, ours)
	}()
	t.Cleanup(func() {
		_ = theirs.Close()
		<-drained
	})
	nc := &watchedConn{Conn: theirs, answers: s.opt.Answers}
	c := newConn(s, nc, broker.Listener{})
	c.w = frame.NewWriter(nc)
	c.w.SetLimits(frame.DefaultLimits())
	return c, nc
}

// inMemory is an answer of n bytes of records that lie in memory, and those.
func inMemory(c *conn, n int64) (answer, *broker.Chunk) {
	chunk := &broker.Chunk{Vectors: [][]byte{make([]byte, n)}, Bytes: n}
	body := delivery.New(&c.peer, []broker.StreamResult{{FetchResult: broker.FetchResult{Chunks: []*broker.Chunk{chunk}}}}, nil, nil)
	return answer{kind: frame.KindFetch, flags: frame.FlagResponse, id: 1, header: &pb.FetchResponse{}, body: body}, chunk
}

// TestOneDeliveryHolds: of several answers that are there at a time one holds
// memory, the one that is being written: the one before it might wait for that
// very memory.
func TestOneDeliveryHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, nc := unserved(t)
		const n = 2 * delivery.SmallBytes
		first, _ := inMemory(c, n)
		second, _ := inMemory(c, n)
		if err := c.writeAnswers([]answer{first, second}); err != nil {
			t.Fatal(err)
		}
		if nc.most != n || nc.answers.Used() != 0 {
			t.Errorf("answers held %d bytes at the most, and %d in the end; want one's %d", nc.most, nc.answers.Used(), n)
		}
	})
}

// TestAnswersBehindOthersHoldNothing: an answer that has others before it gives
// back what was read for it; the first one keeps it.
func TestAnswersBehindOthersHoldNothing(t *testing.T) {
	t.Parallel()
	c, _ := unserved(t)
	var chunks []*broker.Chunk
	send := func() {
		a, chunk := inMemory(c, 2*delivery.SmallBytes)
		asked(c).send(a)
		chunks = append(chunks, chunk)
	}
	held := func(i int) bool { return chunks[i].Vectors != nil }
	send()
	send()
	send()
	if !held(0) || held(1) || held(2) {
		t.Errorf("the first of three answers holds its records: %t; the others: %t, %t", held(0), held(1), held(2))
	}
	for range chunks {
		if err := c.settle(<-c.answers); err != nil {
			t.Fatal(err)
		}
	}
	if send(); !held(3) {
		t.Error("an answer with none before it has given its records back")
	}
}

// oneBuffer is a lender of one buffer, if it has it.
type oneBuffer struct {
	buf   []byte
	given int
}

func (l *oneBuffer) Take(n int) []byte {
	buf := l.buf
	if cap(buf) < n {
		return nil
	}
	l.buf = nil
	return buf[:0]
}

func (l *oneBuffer) Give(buf []byte) {
	l.buf = buf
	l.given++
}

// TestPayloadsAreLent: the buffer of a payload is lent again when the log has its
// own copy of all batches, and not while one of them may be on its way to it.
func TestPayloadsAreLent(t *testing.T) {
	t.Parallel()
	for _, failed := range []bool{false, true} {
		c, _ := unserved(t)
		lent := new(oneBuffer)
		c.s.buffers = lent
		results, want := make([]broker.ProduceResult, 1), 1
		if failed {
			results[0].Err, want = errcode.Errorf(errcode.RequestTimedOut, "late"), 0
		}
		asked(c).produced(&pb.ProduceRequest{Parts: []*pb.ProducePart{{TopicId: make([]byte, 16)}}}, make([]byte, 100), results)
		if lent.given != want {
			t.Errorf("the batch failed: %t; %d buffers are lent again, want %d", failed, lent.given, want)
		}
	}
}

// TestPayloadsAreRead: a payload is read into a buffer that others gave back.
func TestPayloadsAreRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 100_000
		p := newPoisoned(t)
		lent := &oneBuffer{buf: make([]byte, n)}
		p.buffers = lent
		c := p.connects()
		c.ask(frame.KindProduce, &pb.ProduceRequest{Parts: []*pb.ProducePart{{TopicId: make([]byte, 16), Length: n}}}, frame.Part{Bytes: make([]byte, n)})
		p.survived("of a Produce", 1)
		if lent.buf != nil {
			t.Error("a buffer that was there is there still: the payload was read into another")
		}
	})
}
