package transport

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// peerNetwork is what the suite of Peers knows of an implementation.
type peerNetwork struct {
	node func(id int32) closablePeers
	cut  func(from, to int32, cut bool)
}

type closablePeers interface {
	Peers
	Close() error
}

// peersConformance is the suite that every Peers has to pass.
func peersConformance(t *testing.T, open func() peerNetwork) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, net peerNetwork, a, b closablePeers)
	}{
		{"a call is answered", testPeersAnswer},
		{"an error of the other node's", testPeersRefused},
		{"nobody answers", testPeersNobody},
		{"nobody waits any more", testPeersGivesUp},
		{"calls do not wait for each other", testPeersBeside},
		{"what is too large", testPeersTooLarge},
		{"close aborts what waits", testPeersClose},
		{"who is connected", testPeersConnected},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := open()
				a, b := net.node(1), net.node(2)
				tt.test(t, net, a, b)
				for _, p := range []closablePeers{a, b} {
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(time.Minute) // nothing is left under way
			})
		})
	}
}

func testPeersAnswer(t *testing.T, _ peerNetwork, a, b closablePeers) {
	sent := []byte("payload")
	b.Serve(func(_ context.Context, from int32, m Method, payload []byte) ([]byte, error) {
		sent[0] = 'P' // the sender's own
		if from != 1 || m != 7 || string(payload) != "payload" {
			t.Errorf("from %d, method %d, %q", from, m, payload)
		}
		return []byte("answer"), nil
	})
	got, err := a.Call(t.Context(), 2, 7, sent)
	if err != nil || string(got) != "answer" {
		t.Errorf("Call = %q, %v", got, err)
	}
	b2, err := a.Call(t.Context(), 2, 7, []byte("payload"))
	if err != nil || string(b2) != "answer" {
		t.Errorf("again: %q, %v", b2, err)
	}
}

func testPeersRefused(t *testing.T, _ peerNetwork, a, b closablePeers) {
	b.Serve(func(context.Context, int32, Method, []byte) ([]byte, error) {
		return []byte("nothing"), errors.New("no such method")
	})
	got, err := a.Call(t.Context(), 2, 1, nil)
	if got != nil || !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no such method") {
		t.Errorf("Call = %q, %v", got, err)
	}
}

func testPeersNobody(t *testing.T, _ peerNetwork, a, b closablePeers) {
	if _, err := a.Call(t.Context(), 2, 1, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("before Serve: %v", err)
	}
	if _, err := a.Call(t.Context(), 3, 1, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no such node: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Call(t.Context(), 2, 1, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("closed node: %v", err)
	}
}

// testPeersGivesUp: a call ends with its context, over a cut way too, and the
// other node learns that nobody waits.
func testPeersGivesUp(t *testing.T, net peerNetwork, a, b closablePeers) {
	ended := make(chan struct{}, 1)
	b.Serve(func(ctx context.Context, _ int32, _ Method, _ []byte) ([]byte, error) {
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	})
	const soon = conformanceTimeout // before silence ends the connection
	for _, cut := range []bool{false, true} {
		net.cut(1, 2, cut)
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		began := time.Now()
		_, err := a.Call(ctx, 2, 1, nil)
		cancel()
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != soon {
			t.Errorf("cut %t: %v after %v", cut, err, took)
		}
		if !cut {
			<-ended
		}
	}
	net.cut(1, 2, false)
}

func testPeersBeside(t *testing.T, _ peerNetwork, a, b closablePeers) {
	gate := make(chan struct{})
	b.Serve(func(_ context.Context, _ int32, m Method, _ []byte) ([]byte, error) {
		if m == 1 {
			<-gate
		}
		return []byte{byte(m)}, nil
	})
	slow := make(chan error, 1)
	go func() {
		_, err := a.Call(t.Context(), 2, 1, bytes.Repeat([]byte("x"), 1<<20))
		slow <- err
	}()
	synctest.Wait()
	if got, err := a.Call(t.Context(), 2, 2, nil); err != nil || got[0] != 2 {
		t.Errorf("beside a slow one: %v, %v", got, err)
	}
	close(gate)
	if err := <-slow; err != nil {
		t.Error(err)
	}
}

func testPeersTooLarge(t *testing.T, _ peerNetwork, a, b closablePeers) {
	b.Serve(func(_ context.Context, _ int32, m Method, payload []byte) ([]byte, error) {
		return make([]byte, len(payload)+int(m)), nil
	})
	if _, err := a.Call(t.Context(), 2, 0, make([]byte, MaxCallBytes+1)); err == nil {
		t.Error("a call above the limit went out")
	}
	if got, err := a.Call(t.Context(), 2, 0, make([]byte, MaxCallBytes)); err != nil || len(got) != MaxCallBytes {
		t.Errorf("at the limit: %d bytes, %v", len(got), err)
	}
	if _, err := a.Call(t.Context(), 2, 1, make([]byte, MaxCallBytes)); !errors.Is(err, ErrRefused) {
		t.Errorf("an answer above the limit: %v", err)
	}
}

func testPeersClose(t *testing.T, _ peerNetwork, a, b closablePeers) {
	b.Serve(func(ctx context.Context, _ int32, _ Method, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ended := make(chan error, 1)
	go func() {
		_, err := a.Call(context.Background(), 2, 1, nil)
		ended <- err
	}()
	synctest.Wait()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("the call of a closed node: %v", err)
	}
	if _, err := a.Call(t.Context(), 2, 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a call after Close: %v", err)
	}
}

// testPeersConnected: who watches learns of an end at once, of a cut in either
// direction when it has lasted, and of what is there again.
func testPeersConnected(t *testing.T, net peerNetwork, a, b closablePeers) {
	changes := make(chan struct{}, 1)
	a.Watch([]int32{1, 2}, func() {
		select {
		case changes <- struct{}{}:
		default:
		}
	})
	await := func(what string, want bool, within time.Duration) {
		t.Helper()
		began := time.Now()
		for a.Connected(2) != want {
			select {
			case <-changes:
			case <-time.After(within - time.Since(began)):
				t.Errorf("%s: connected is %t after %v, and nobody said otherwise", what, !want, within)
				return
			}
		}
	}
	await("at first", true, time.Second)
	for _, way := range [][2]int32{{1, 2}, {2, 1}} {
		net.cut(way[0], way[1], true)
		if !a.Connected(2) {
			t.Errorf("cut from %d to %d: nobody can know yet", way[0], way[1])
		}
		await("cut", false, 3*time.Second)
		net.cut(way[0], way[1], false)
		await("healed", true, 10*time.Second)
	}
	if a.Connected(3) {
		t.Error("connected to a node that there is not")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	await("closed", false, 50*time.Millisecond)
	b = net.node(2)
	await("there again", true, 10*time.Second)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestHubPeers(t *testing.T) {
	peersConformance(t, func() peerNetwork {
		hub := NewHub(HubOptions{})
		return peerNetwork{node: func(id int32) closablePeers { return hub.Node(id) }, cut: hub.Cut}
	})
}
