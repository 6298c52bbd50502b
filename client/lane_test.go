package client

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// laneWorld is a lane, one partition, and a network that loses, delays and
// reorders as TCP connections that break and are made again can: requests of a
// connection arrive in order, but those of one that is lost to the client may
// arrive at any later time, between those of its successor.
type laneWorld struct {
	t     *rapid.T
	now   time.Time
	lane  lane
	log   fakePartition
	pid   producerID
	conns []*laneConn // the last one is open

	batches []*sending
	content map[*sending]int // the values are the batches' numbers
	values  []int            // the log's records, by offset: the batch of each
	refused map[int]error    // by batch: what the server says from now on
}

// laneConn is a connection with requests on their way to the server, and
// answers on their way back.
type laneConn struct {
	requests []attempt
	answers  []attempt
}

type attempt struct {
	b        *sending
	pid      producerID
	sequence int32
	offset   int64
	err      *pb.Error
}

func newLaneWorld(t *rapid.T) *laneWorld {
	w := &laneWorld{
		t: t, now: time.Unix(1000, 0), pid: producerID{valid: true, id: 1},
		lane:    lane{topic: "a", idempotent: true, window: rapid.IntRange(1, 5).Draw(t, "window")},
		log:     fakePartition{producers: make(map[int64]*fakeProducer)},
		content: make(map[*sending]int), refused: make(map[int]error),
		conns: []*laneConn{{}},
	}
	return w
}

func (w *laneWorld) open() *laneConn { return w.conns[len(w.conns)-1] }

func (w *laneWorld) add(count int32) {
	b := &sending{count: count, bytes: []byte{1}, deadline: w.now.Add(time.Minute)}
	w.content[b] = len(w.batches)
	w.batches = append(w.batches, b)
	w.lane.add(b)
}

// send sends what the lane wants to, and gives it a producer id.
func (w *laneWorld) send() {
	if w.lane.wantsID(w.pid) {
		if w.pid.epoch == 2 {
			w.pid = producerID{valid: true, id: w.pid.id + 1}
		} else {
			w.pid.epoch++
		}
	}
	if b := w.lane.ready(w.now, w.pid); b != nil {
		before := *b
		w.lane.send(b, TopicID{1})
		if before.unsure && (b.pid != before.pid || b.sequence != before.sequence) {
			w.t.Fatalf("batch %d, perhaps appended, is renumbered", w.content[b])
		}
		w.open().requests = append(w.open().requests, attempt{b: b, pid: b.pid, sequence: b.sequence})
	}
}

// arrive lets the server handle the next request of a connection. Only the
// open one can carry the answer back.
func (w *laneWorld) arrive(c *laneConn, lost bool) {
	if len(c.requests) == 0 {
		return
	}
	a := c.requests[0]
	c.requests = c.requests[1:]
	n := w.content[a.b]
	if err := w.refused[n]; err != nil {
		a.err = &pb.Error{Code: int32(errcode.Of(err))}
	} else {
		end := w.log.end
		a.offset, a.err = w.log.append(w.encode(a))
		for range w.log.end - end {
			w.values = append(w.values, n)
		}
	}
	if c == w.open() && !lost {
		c.answers = append(c.answers, a)
	}
}

// encode makes the batch that an attempt sends.
func (w *laneWorld) encode(a attempt) []byte {
	var b batch.Builder
	b.Reset()
	b.SetProducer(batch.Producer{ID: a.pid.id, Epoch: a.pid.epoch, Sequence: a.sequence}, false)
	for range a.b.count {
		if err := b.Append(0, nil, nil, nil); err != nil {
			w.t.Fatal(err)
		}
	}
	out, err := b.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// answer brings the i-th answer back: they come in any order.
func (w *laneWorld) answer(i int) {
	c := w.open()
	if len(c.answers) == 0 {
		return
	}
	i %= len(c.answers)
	a := c.answers[i]
	c.answers = append(c.answers[:i:i], c.answers[i+1:]...)
	o, err := appended, error(nil)
	if a.err != nil {
		err = errcode.Errorf(errcode.Code(a.err.Code), "by the server")
		switch errcode.Code(a.err.Code) {
		case errcode.OutOfOrderSequenceNumber:
			o = outOfOrder
		case errcode.NotEnoughReplicas:
			o = postponed
		default:
			o = refused
		}
	}
	w.settle(a.b, o, err)
}

func (w *laneWorld) settle(b *sending, o outcome, err error) {
	w.lane.settle(b, o, err, func(int) time.Time { return w.now.Add(time.Second) })
}

// lose breaks the open connection: everything unanswered is unclear.
func (w *laneWorld) lose() {
	w.conns = append(w.conns, &laneConn{})
	for _, b := range w.batches {
		if b.inFlight {
			w.settle(b, unclear, errors.New("connection lost"))
		}
	}
}

// check holds what the lane said against the log, when all has come to an end.
func (w *laneWorld) check() {
	at := make(map[int]int)
	last := -1
	for off, n := range w.values {
		if first, there := at[n]; !there {
			at[n] = off
		} else if off >= first+int(w.batches[n].count) {
			w.t.Fatalf("batch %d is at %d and at %d: %v", n, first, off, w.values)
		}
		if w.batches[n].err == nil {
			if n < last {
				w.t.Fatalf("batch %d, acknowledged, after %d: %v", n, last, w.values)
			}
			last = n
		}
	}
	for n, b := range w.batches {
		_, there := at[n]
		switch {
		case !b.finished:
			w.t.Fatalf("batch %d is not finished", n)
		case b.err == nil && !there:
			w.t.Fatalf("batch %d acknowledged, not in the log", n)
		case b.err != nil && !errors.Is(b.err, ErrUnknownOutcome) && there:
			w.t.Fatalf("batch %d refused (%v), in the log", n, b.err)
		}
	}
}

// TestLane checks every promise of a lane against a hostile network.
func TestLane(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newLaneWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"add":    func(t *rapid.T) { w.add(rapid.Int32Range(1, 3).Draw(t, "count")) },
			"send":   func(*rapid.T) { w.send() },
			"arrive": func(*rapid.T) { w.arrive(w.open(), false) },
			"flow": func(t *rapid.T) { // more often than not, things work
				for range rapid.IntRange(1, 4).Draw(t, "times") {
					w.add(1)
					w.send()
					w.send()
					w.arrive(w.open(), false)
				}
				w.answer(rapid.IntRange(0, 2).Draw(t, "which"))
			},
			"arrives late": func(t *rapid.T) {
				w.arrive(w.conns[rapid.IntRange(0, len(w.conns)-1).Draw(t, "connection")], false)
			},
			"answer is lost": func(*rapid.T) { w.arrive(w.open(), true) },
			"answer":         func(t *rapid.T) { w.answer(rapid.IntRange(0, 9).Draw(t, "which")) },
			"lose":           func(*rapid.T) { w.lose() },
			"tick":           func(*rapid.T) { w.now = w.now.Add(time.Second) },
			"expire": func(*rapid.T) {
				w.now = w.now.Add(25 * time.Second)
				w.lane.expire(w.now)
			},
			"refuse": func(t *rapid.T) {
				codes := []errcode.Code{errcode.InvalidRecord, errcode.NotEnoughReplicas}
				n := max(0, len(w.batches)-rapid.IntRange(0, 8).Draw(t, "batches ago"))
				w.refused[n] = errcode.Errorf(rapid.SampledFrom(codes).Draw(t, "code"), "drawn")
			},
			"accept again": func(*rapid.T) { clear(w.refused) },
		})

		clear(w.refused)
		late := w.conns[:len(w.conns)-1]
		for range 20 * (len(w.batches) + 1) { // all is well, and ends
			w.now = w.now.Add(2 * time.Second)
			w.lane.expire(w.now)
			w.send()
			w.arrive(w.open(), false)
			w.answer(0)
			if len(w.open().requests)+len(w.open().answers) == 0 && w.lane.inFlight > 0 {
				w.lose() // an answer was lost before
			}
		}
		w.check()
		for _, c := range late { // and then what lingered arrives
			for len(c.requests) > 0 {
				w.arrive(c, true)
			}
		}
		w.check()
	})
}

// sent returns a lane with window batches in flight after a first that was
// acknowledged.
func sent(t *testing.T, idempotent bool, window int) (*lane, []*sending) {
	t.Helper()
	l := &lane{idempotent: idempotent, window: window}
	var all []*sending
	for range 10 {
		b := &sending{count: 1, bytes: []byte{1}, deadline: time.Unix(100, 0)}
		l.add(b)
		all = append(all, b)
	}
	if got := sendAll(l); idempotent && got != 1 {
		t.Fatalf("%d batches in flight before the first is acknowledged, want 1", got)
	}
	settle(l, all[0], appended)
	sendAll(l)
	if l.inFlight != window {
		t.Fatalf("%d batches in flight, want %d", l.inFlight, window)
	}
	return l, all[1:]
}

// sendAll sends what is ready and returns how many those were.
func sendAll(l *lane) (n int) {
	for b := l.ready(time.Unix(1, 0), producerID{valid: true}); b != nil; b = l.ready(time.Unix(1, 0), producerID{valid: true}) {
		l.send(b, TopicID{1})
		n++
	}
	return n
}

func settle(l *lane, b *sending, o outcome) {
	var err error
	if o != appended {
		err = errors.New("by the test")
	}
	l.settle(b, o, err, func(int) time.Time { return time.Unix(1, 0) })
}

// TestLaneWaitsForOldest keeps the oldest unanswered batch within what the
// server remembers.
func TestLaneWaitsForOldest(t *testing.T) {
	t.Parallel()
	l, bs := sent(t, true, 5)
	for _, b := range bs[1:5] {
		settle(l, b, appended)
	}
	if got := sendAll(l); got != 0 {
		t.Errorf("%d more batches sent, 5 after the unanswered one", got)
	}
	settle(l, bs[0], appended)
	if got := sendAll(l); got != 4 { // all that are left
		t.Errorf("%d batches sent then, want 4", got)
	}
}

// TestLaneRewinds sends again only once everything in flight was answered.
func TestLaneRewinds(t *testing.T) {
	t.Parallel()
	for _, idempotent := range []bool{true, false} {
		l, bs := sent(t, idempotent, 3)
		settle(l, bs[0], postponed)
		settle(l, bs[1], outOfOrder)
		if got := sendAll(l); got != 0 {
			t.Errorf("idempotent=%t: %d batches sent while one is in flight", idempotent, got)
		}
		settle(l, bs[2], unclear)
		for i := range 3 {
			b := l.ready(time.Unix(1, 0), l.pid)
			if b != bs[i] || idempotent && b.sequence != int32(i)+1 {
				t.Fatalf("idempotent=%t: batch %d is not the %d. to be sent again", idempotent, i, i)
			}
			l.send(b, TopicID{1})
		}
		for _, b := range bs[:3] {
			settle(l, b, appended)
		}
		if len(l.done) != 4 || len(l.queue) != 6 {
			t.Errorf("idempotent=%t: %d done and %d left, want 4 and 6", idempotent, len(l.done), len(l.queue))
		}
	}
}

// TestLaneGap gives up one batch in flight for certain, with one lost behind it:
// that one is settled under its old number before the others get new ones.
func TestLaneGap(t *testing.T) {
	t.Parallel()
	for _, appendedBefore := range []bool{false, true} {
		l, bs := sent(t, true, 3)
		settle(l, bs[0], refused)
		settle(l, bs[1], unclear)
		settle(l, bs[2], outOfOrder)
		b := l.ready(time.Unix(1, 0), l.pid)
		if b != bs[1] || b.sequence != 2 {
			t.Fatal("the lost batch is not sent again first, as it was")
		}
		l.send(b, TopicID{1})
		if sendAll(l) != 0 {
			t.Fatal("more was sent beside it")
		}
		if appendedBefore { // a server without state took it
			settle(l, b, appended)
		} else {
			settle(l, b, outOfOrder)
		}
		if b := l.ready(time.Unix(1, 0), producerID{valid: true}); b != nil {
			t.Fatal("a batch is ready without a new id")
		}
		want := bs[1]
		if appendedBefore {
			want = bs[2]
		}
		b = l.ready(time.Unix(1, 0), producerID{valid: true, epoch: 1})
		if b != want {
			t.Fatal("the oldest is not first under the new epoch")
		}
		l.send(b, TopicID{1})
		if b.sequence != 0 || b.pid.epoch != 1 {
			t.Errorf("numbered %+v %d, want epoch 1 from 0", b.pid, b.sequence)
		}
	}
}

// TestLaneTakesNumberBack refuses the newest batch: the next takes its number,
// and no new id is needed.
func TestLaneTakesNumberBack(t *testing.T) {
	t.Parallel()
	l, bs := sent(t, true, 2)
	settle(l, bs[1], refused)
	b := l.ready(time.Unix(1, 0), l.pid)
	if b != bs[2] {
		t.Fatal("the next batch is not ready")
	}
	l.send(b, TopicID{1})
	if b.sequence != 2 || l.health != whole {
		t.Errorf("sequence %d, health %d, want 2 and whole", b.sequence, l.health)
	}
}

// TestLaneKeepsProven has a server forget a batch that must have been appended,
// since one behind it was: it must not get a new number.
func TestLaneKeepsProven(t *testing.T) {
	t.Parallel()
	l, bs := sent(t, true, 4)
	settle(l, bs[0], unclear)
	settle(l, bs[1], appended)
	settle(l, bs[2], refused)
	settle(l, bs[3], outOfOrder)
	for range 3 {
		b := l.ready(time.Unix(1, 0), producerID{valid: true, epoch: 1})
		if b != bs[0] || b.sequence != 1 || b.pid.epoch != 0 {
			t.Fatalf("ready %+v, want the first as it was", b)
		}
		l.send(b, TopicID{1})
		settle(l, b, outOfOrder)
	}
}

// TestLaneProof gives up a batch after one behind it was acknowledged.
func TestLaneProof(t *testing.T) {
	t.Parallel()
	for _, how := range []outcome{refused, abandoned, outOfOrder, unclear} {
		l, bs := sent(t, true, 3)
		settle(l, bs[1], appended)
		settle(l, bs[0], unclear) // its answer was lost
		settle(l, bs[2], appended)
		l.send(l.ready(time.Unix(1, 0), l.pid), TopicID{1})
		settle(l, bs[0], how)
		l.expire(time.Unix(99, 0))
		if how == unclear {
			l.expire(time.Unix(100, 0))
		}
		if !bs[0].finished || bs[0].err != nil || l.health != whole {
			t.Errorf("outcome %d: finished %t, error %v, health %d; want appended", how, bs[0].finished, bs[0].err, l.health)
		}
	}
}

// TestLaneRejectsMisuse finishes a batch twice, which no caller may.
func TestLaneRejectsMisuse(t *testing.T) {
	t.Parallel()
	defer func() {
		if got := fmt.Sprint(recover()); got != "client: a batch finished twice" {
			t.Errorf("panic %q", got)
		}
	}()
	var l lane
	b := new(sending)
	l.add(b)
	l.finish(b, nil)
	l.finish(b, nil)
}
