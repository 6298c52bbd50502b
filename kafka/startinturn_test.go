package kafka

import (
	"io"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// begun is what requests of a connection have begun, in their order, and what lets
// their start and their answer go on.
type begun struct {
	started  []int32 // correlation ids
	starting chan struct{}
	answer   map[int32]chan struct{}
}

// fetchInTurn is an api of Fetch whose requests stand still where they start, and
// until they are answered.
func (b *begun) fetchInTurn() api {
	a := immediate(kmsg.Fetch, fetchMin, fetchMax, func(c *conn, q *request) error {
		b.started = append(b.started, q.correlationID)
		<-b.starting
		go func() {
			<-b.answer[q.correlationID]
			q.send(answer{})
		}()
		return nil
	})
	a.inTurn = true
	return a
}

// produce is an api whose requests stand still until they are answered.
func (b *begun) produce() api {
	return immediate(kmsg.Produce, produceMin, produceMax, func(c *conn, q *request) error {
		b.started = append(b.started, q.correlationID)
		go func() {
			<-b.answer[q.correlationID]
			q.send(answer{})
		}()
		return nil
	})
}

// TestFetchInTurn: a Fetch behind a Produce is started when that is answered, and
// one behind it not before it has been started itself; from there on they are
// started as they come.
func TestFetchInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &begun{starting: make(chan struct{}), answer: make(map[int32]chan struct{})}
		for id := range int32(5) {
			b.answer[id] = make(chan struct{})
		}
		s := newTestServer(t, Options{}, b.produce(), b.fetchInTurn())
		nc := dial(t, s)
		go func() { _, _ = io.Copy(io.Discard, nc) }()
		produce, fetch := kmsg.NewPtrProduceRequest(), kmsg.NewPtrFetchRequest()
		produce.Version, fetch.Version = produceMax, fetchMax
		next := int32(0)
		sends := func(req kmsg.Request) {
			send(nc, frameOf(req, next))
			next++
			synctest.Wait()
		}
		wants := func(when string, n int) {
			t.Helper()
			synctest.Wait()
			if len(b.started) != n || n > 0 && b.started[n-1] != int32(n-1) {
				t.Errorf("%s: %v are started, want the first %d", when, b.started, n)
			}
		}
		sends(produce)
		sends(fetch)
		wants("a Fetch behind a Produce that waits", 1)
		close(b.answer[0])
		wants("the Produce is answered", 2)
		sends(fetch)
		wants("a Fetch behind one that is about to start", 2)
		close(b.starting)
		wants("the first Fetch is started", 2) // and is not answered: the second came when it was not
		close(b.answer[1])
		wants("the first Fetch is answered", 3)
		sends(fetch)
		wants("a Fetch behind one that waits", 4)
		sends(produce)
		wants("a Produce behind Fetches that wait", 5)
		for id := range int32(3) {
			close(b.answer[id+2])
		}
		synctest.Wait()
		wantNothingHeld(t, s, "in the end")
	})
}
