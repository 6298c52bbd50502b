package broker

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// TestForwardedBytes holds an answer to the bytes that are written down.
func TestForwardedBytes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		f    forwarded
		want string
	}{
		{forwarded{index: 0x0102, producerID: 3000, leader: -1}, "0100" + "0000" + "0201000000000000" + "b80b000000000000" + "ffffffff" + "0000"},
		{
			forwarded{err: errcode.Errorf(errcode.NotController, "no"), producerID: -1, leader: 2},
			"0100" + "2900" + "0000000000000000" + "ffffffffffffffff" + "02000000" + "0200" + "6e6f",
		},
	} {
		if got := hex.EncodeToString(tt.f.append(nil)); got != tt.want {
			t.Errorf("%+v is %s, want %s", tt.f, got, tt.want)
		}
	}
	long := forwarded{err: &errcode.Error{Code: errcode.NotController, Detail: strings.Repeat("x", 1<<17)}, leader: 1}
	if got, err := decodeForwarded(long.append(nil)); err != nil || got.leader != 1 || len(got.err.Detail) != maxForwardedText {
		t.Errorf("an answer of a long text reads as %+v, %v", got, err)
	}
}

// FuzzForwarded gives any bytes to what reads another node's answer: it does not
// panic, refuses by name, and takes one form only.
func FuzzForwarded(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{2})
	f.Add(forwarded{index: 7, producerID: 1, leader: -1}.append(nil))
	f.Add(forwarded{err: errcode.Errorf(errcode.RequestTimedOut, "late"), producerID: -1, leader: 3}.append(nil))
	f.Add(append(forwarded{index: 7, producerID: -1, leader: -1}.append(nil), "answer"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, rest, err := decodeOutcome(b)
		if err != nil {
			if !errors.Is(err, errForwarded) {
				t.Fatalf("decodeOutcome(%x) = %v", b, err)
			}
			return
		}
		if again := append(got.append(nil), rest...); !bytes.Equal(again, b) || got.err != nil && len(rest) > 0 {
			t.Fatalf("%x reads as what is written %x, of which %x follow", b, again, rest)
		}
		if _, err := decodeForwarded(b); err == nil != (len(rest) == 0) {
			t.Fatalf("decodeForwarded(%x), of which %x follow: %v", b, rest, err)
		}
	})
}

// TestAnswer asks a node that leads the metadata for what other nodes may ask,
// and may not.
func TestAnswer(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		register := func(id int32, incarnation, replaces uint64) []byte {
			return metadata.Append(nil, 0, metadata.RegisterNode{ID: metadata.NodeID(id), Incarnation: incarnation, Replaces: replaces})
		}
		ids := metadata.Append(nil, 0, metadata.AllocateProducerIDs{Count: 10})
		tests := []struct {
			name    string
			from    int32
			m       transport.Method
			payload []byte
			code    errcode.Code
			refused string // by the call itself
		}{
			{name: "producer ids", from: 1, m: methodPropose, payload: ids},
			{name: "producer ids, of nobody", from: 2, m: methodPropose, payload: ids, code: errcode.BrokerIDNotRegistered},
			{name: "a topic", from: 1, m: methodTopic, payload: []byte("asked")},
			{name: "a topic, of nobody", from: 2, m: methodTopic, payload: []byte("not"), code: errcode.BrokerIDNotRegistered},
			{name: "a topic that is there", from: 1, m: methodTopic, payload: []byte("asked")},
			{name: "a topic of a bad name", from: 1, m: methodTopic, payload: []byte("a/b"), code: errcode.InvalidTopic},
			{name: "how far", from: 1, m: methodCurrent},
			{name: "how far, of nobody", from: 2, m: methodCurrent, code: errcode.BrokerIDNotRegistered},
			{name: "how far, with something", from: 1, m: methodCurrent, payload: []byte("x"), refused: "want none"},
			{name: "itself", from: 1, m: methodPropose, payload: register(1, 9, 0)},
			{name: "itself, from another directory", from: 1, m: methodPropose, payload: register(1, 10, 0), code: errcode.DuplicateBrokerRegistration},
			{name: "itself, in the place of another directory", from: 1, m: methodPropose, payload: register(1, 10, 9), code: errcode.InvalidRegistration},
			{name: "another one", from: 1, m: methodPropose, payload: register(2, 10, 0), code: errcode.InvalidRegistration},
			{name: "a deletion", from: 1, m: methodPropose, payload: metadata.Append(nil, 0, metadata.DeleteTopic{}), code: errcode.InvalidRequest},
			{name: "garbage", from: 1, m: methodPropose, payload: []byte("garbage, garbage"), refused: "a metadata command of node 1"},
			{name: "decided elsewhere", from: 1, m: methodPropose, payload: metadata.Append(nil, 1, metadata.AllocateProducerIDs{Count: 10}), refused: "decided in term 1"},
			{name: "too large", from: 1, m: methodTopic, payload: make([]byte, maxForwardBytes+1), refused: "at most 65536"},
			{name: "unknown", from: 1, m: 77, refused: "knows no method 77"},
		}
		for _, tt := range tests {
			answer, err := r.Answer(t.Context(), tt.from, tt.m, tt.payload)
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("%s: %x, %v, want %q", tt.name, answer, err, tt.refused)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			got, err := decodeForwarded(answer)
			code := errcode.None
			if got.err != nil {
				code = got.err.Code
			}
			if err != nil || code != tt.code {
				t.Errorf("%s: %+v, %v, want %v", tt.name, got, err, tt.code)
			}
		}
		if _, missing := r.TopicByName("asked"); missing != nil {
			t.Errorf("the topic that was asked for: %v", missing)
		}
	})
}

// TestAnswersBounded: not more than maxForwarded requests of other nodes are
// under way, and what waits for its turn gives up with its caller.
func TestAnswersBounded(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		for range maxForwarded {
			r.forwards <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if b, err := r.Answer(ctx, 1, methodTopic, []byte("asked")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%x, %v, want it to wait", b, err)
		}
		<-r.forwards
		if _, err := r.Answer(t.Context(), 1, methodTopic, []byte("asked")); err != nil {
			t.Error(err)
		}
	})
}

// TestReplacedNodeStops: a node under whose id another directory is registered
// stops, and says so.
func TestReplacedNodeStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem(1)
		r := startRig(t, fs)
		r.stop()
		r = startRig(t, fs, func(o *Options) { o.Listeners[0].Advertise = "elsewhere:1" })
		defer func() { r.stop() }()
		self, err := r.self()
		if err != nil {
			t.Fatal(err)
		}
		if n := r.image().Node(1); !registered(n, self) {
			t.Errorf("a node that moved is registered as %+v", n)
		}
		other := self
		other.Incarnation, other.Replaces = 10, 9
		if _, err := r.proposeMeta(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		go r.register(self)
		time.Sleep(time.Minute)
		select {
		case err := <-r.failed:
			if !errors.Is(err, ErrReplaced) || !strings.Contains(err.Error(), "node 1, whose directory is of incarnation 0000000000000009") {
				t.Errorf("the node stops for %v", err)
			}
		default:
			t.Error("the node goes on")
		}
	})
}

// TestRefusedRegistrationWaits: a registration that is refused is tried again from time
// to time, not as soon as the refusal is applied, which is an entry of the metadata.
func TestRefusedRegistrationWaits(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		self, err := r.self()
		if err != nil {
			t.Fatal(err)
		}
		self.Rack = strings.Repeat("r", metadata.MaxStringBytes+1)
		const tries = 10
		over, before := time.After(tries*retryAfter), r.image().Index()
		go r.register(self)
		for more := true; more; {
			changed := r.metaState.changed.wait()
			if n := r.image().Index() - before; n > 2*tries {
				t.Fatalf("%d entries, want one a second", n)
			}
			select {
			case <-changed:
			case <-over:
				more = false
			}
		}
		if n := r.image().Index() - before; n < tries/2 {
			t.Errorf("%d entries in %v, want one a second", n, tries*retryAfter)
		}
	})
}
