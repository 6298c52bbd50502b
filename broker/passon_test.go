package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestPassOn: a client's request is answered by the node that leads the metadata, once
// the node that was asked has applied what that has done.
func TestPassOn(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		lead := tr.controller()
		asked := tr.others(lead)[0]
		var creating sync.WaitGroup
		defer creating.Wait()
		if _, err := asked.PassOn(t.Context(), []byte("early")); !errors.Is(err, ErrAnswerHere) {
			t.Errorf("before requests are served: %v, want %v", err, ErrAnswerHere)
		}
		for _, r := range tr.rigs {
			r.ServePassedOn(func(_ context.Context, from int32, request []byte) ([]byte, error) {
				switch {
				case string(request) == "newer":
					return nil, fmt.Errorf("%w: too new", ErrAnswerHere)
				case string(request) == "bad":
					return nil, errors.New("it fell over")
				}
				name := string(request[:1])
				creating.Go(func() { r.create(name, 1, nil) })
				for r.image().TopicByName(name) == nil { // the disk of the node that was asked is slower
					tr.rest(time.Millisecond)
				}
				return fmt.Appendf(nil, "node %d for %d made %s", r.NodeID(), from, request), nil
			})
		}
		lead.giveProducer() // which create does first
		asked.fs.SetInjector(slowSyncs(currentTimeout / 10))
		answer, err := asked.PassOn(t.Context(), []byte("t"))
		if want := fmt.Sprintf("node %d for %d made t", lead.NodeID(), asked.NodeID()); err != nil || string(answer) != want {
			t.Fatalf("%q, %v, want %q", answer, err, want)
		}
		if _, err := asked.TopicByName("t"); err != nil {
			t.Errorf("at the node that was asked: %v", err)
		}
		if _, err := lead.PassOn(t.Context(), []byte("u")); !errors.Is(err, ErrAnswerHere) {
			t.Errorf("asked of who leads: %v, want %v", err, ErrAnswerHere)
		}
		if _, err := asked.PassOn(t.Context(), bytes.Repeat([]byte("t"), maxPassedOnBytes+1)); !errors.Is(err, ErrAnswerHere) {
			t.Errorf("a large request: %v, want %v", err, ErrAnswerHere)
		}
		if b, err := lead.Answer(t.Context(), asked.NodeID(), methodRequest, bytes.Repeat([]byte("t"), maxPassedOnBytes+1)); err == nil {
			t.Errorf("a large request is answered with %d bytes", len(b))
		}
		began := time.Now()
		if _, err := asked.PassOn(t.Context(), []byte("newer")); !errors.Is(err, ErrAnswerHere) || time.Since(began) >= firstForward {
			t.Errorf("what an older version does not serve: %v after %v, want %v at once", err, time.Since(began), ErrAnswerHere)
		}
		if err := asked.passing.Acquire(t.Context(), passingBytes-passingEach); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if _, err := asked.PassOn(t.Context(), []byte("t")); !errors.Is(err, ErrAnswerHere) || time.Since(began) != forwardAnswer {
			t.Errorf("behind many others: %v after %v, want %v after %v", err, time.Since(began), ErrAnswerHere, forwardAnswer)
		}
		asked.passing.Release(passingBytes - passingEach)
		if _, err := asked.PassOn(t.Context(), []byte("bad")); err == nil || errors.Is(err, ErrAnswerHere) || errcode.Of(err) != errcode.UnknownServer {
			t.Errorf("what came to nothing: %v, want %v", err, errcode.UnknownServer)
		}
		if n := asked.passing.Used(); n != 0 {
			t.Errorf("%d bytes of requests are under way", n)
		}
	})
}

// TestPassOnMoves: who does not lead the metadata any more passes nothing on in its turn,
// and the node that was asked waits for the next leader, for a while.
func TestPassOnMoves(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		for _, r := range tr.rigs {
			r.ServePassedOn(func(context.Context, int32, []byte) ([]byte, error) { return fmt.Append(nil, r.NodeID()), nil })
		}
		lost := tr.controller()
		asked := tr.others(lost)
		b, err := asked[0].Answer(t.Context(), asked[1].NodeID(), methodRequest, []byte("x"))
		if out, rest, bad := decodeOutcome(b); err != nil || bad != nil || len(rest) > 0 || out.err == nil || out.err.Code != errcode.NotController || out.leader != lost.NodeID() {
			t.Errorf("a node that does not lead: %+v, %v, %v", out, err, bad)
		}
		// Its process ends: it is unreachable at once, and the others elect one of them.
		if err := tr.peers[lost.NodeID()-1].Close(); err != nil {
			t.Fatal(err)
		}
		for _, r := range asked {
			switch answer, err := r.PassOn(t.Context(), []byte("x")); {
			case errors.Is(err, ErrAnswerHere) && r.Broker.meta.Leading() != 0:
			case err != nil || len(answer) == 0 || bytes.Equal(answer, fmt.Append(nil, lost.NodeID())):
				t.Errorf("node %d, the leader is lost: %q, %v", r.NodeID(), answer, err)
			}
		}
		if err := tr.peers[asked[0].NodeID()-1].Close(); err != nil {
			t.Fatal(err)
		}
		tr.rest(10 * time.Second)
		began := time.Now()
		if _, err := asked[1].PassOn(t.Context(), []byte("x")); !errors.Is(err, ErrAnswerHere) || time.Since(began) != forwardAnswer {
			t.Errorf("alone: %v after %v, want %v after %v", err, time.Since(began), ErrAnswerHere, forwardAnswer)
		}
	})
}

// TestPassedOnBounded: not more than maxPassedOn requests of other nodes' clients are
// under way, and what waits for its turn gives up with its caller.
func TestPassedOnBounded(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.ServePassedOn(func(context.Context, int32, []byte) ([]byte, error) { return []byte("done"), nil })
		for range maxPassedOn {
			r.requests <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if b, err := r.Answer(ctx, 1, methodRequest, []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%x, %v, want it to wait", b, err)
		}
		<-r.requests
		if b, err := r.Answer(t.Context(), 1, methodRequest, []byte("x")); err != nil || !bytes.HasSuffix(b, []byte("done")) {
			t.Errorf("%q, %v", b, err)
		}
	})
}
