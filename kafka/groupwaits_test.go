package kafka_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// joining is the JoinGroup of a member without an id, with metadata of some length.
func joining(group string, version int16, metadata int) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = version, group, 60_000, 60_000, "consumer"
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte(strings.Repeat("m", metadata))}}
	return req
}

// slowly has an empty group wait for an hour for more members.
func slowly(o *consumergroup.Options) {
	o.InitialRebalanceDelay, o.NewMemberTimeout = time.Hour, 2*time.Hour
}

// TestHeldJoinEnds: a JoinGroup that is held ends at once with its connection, and
// with the node's drain; then it is answered that there is another coordinator.
func TestHeldJoinEnds(t *testing.T) {
	t.Parallel()
	g, with := withGroups(t, slowly)
	inBubble(t, with, func(t *testing.T, b *bubble) {
		begun := time.Now()
		gone, stays := b.dial("gone"), b.dial("stays")
		for _, c := range []*rawClient{gone, stays} {
			req := joining("g", 3, 100)
			req.RebalanceTimeoutMillis = 3_600_000
			c.start(req)
			c.silent("while members are waited for")
		}
		if n := g.held(); n != 2 {
			t.Fatalf("%d requests are held, want 2", n)
		}
		_ = gone.nc.Close()
		b.pass(0)
		if n := g.held(); n != 1 || time.Since(begun) > time.Second {
			t.Errorf("%d requests are held after a connection's end, want 1; %v have passed", n, time.Since(begun))
		}
		done := make(chan error, 1)
		go func() { done <- b.Close(context.Background()) }()
		r := stays.next(1, joining("g", 3, 0)).(*kmsg.JoinGroupResponse)
		if r.ErrorCode != int16(errcode.NotCoordinator) || r.Generation != -1 {
			t.Errorf("when the node drains: %v, generation %d", errcode.Code(r.ErrorCode), r.Generation)
		}
		_ = stays.nc.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(begun); d > time.Minute {
			t.Errorf("it took %v", d)
		}
	})
}

// TestHeldJoinsHoldNoMemory: members that wait are not counted as requests under way:
// there would be no memory for the request of the one that they wait for. A large
// request stays counted.
func TestHeldJoinsHoldNoMemory(t *testing.T) {
	t.Parallel()
	g, with := withGroups(t, slowly)
	inBubble(t, with, func(t *testing.T, b *bubble) {
		const members, each = 80, 60_000 // more than a sixteenth of the node's memory
		for i := range members {
			c := b.dial(fmt.Sprint("client", i))
			c.start(joining("g", 3, each))
			c.silent("while members are waited for")
			if n := g.held(); n != i+1 {
				t.Fatalf("%d requests are held, want %d", n, i+1)
			}
		}
		if held := b.RequestBytes(); held != 0 {
			t.Errorf("%d bytes are held of small requests", held)
		}
		large := b.dial("large")
		large.start(joining("g", 3, 100_000))
		large.silent("while members are waited for")
		if held := b.RequestBytes(); held < 100_000 {
			t.Errorf("%d bytes are held of a large request", held)
		}
	})
}

// TestHeldJoinIsKept: what a member has said is told to the leader as it was, though
// the request's bytes were lent to others.
func TestHeldJoinIsKept(t *testing.T) {
	t.Parallel()
	_, with := withGroups(t, func(o *consumergroup.Options) { o.InitialRebalanceDelay = time.Second })
	inBubble(t, with, func(t *testing.T, b *bubble) {
		c, other := b.dial("client"), b.dial("other")
		req := joining("g", 3, 5000)
		c.start(req)
		c.silent("for a second")
		for range 10 {
			other.ask(joining("", 3, 5000), 3) // refused, in the same buffer
		}
		r := c.next(1, req).(*kmsg.JoinGroupResponse)
		if len(r.Members) != 1 || string(r.Members[0].ProtocolMetadata) != strings.Repeat("m", 5000) {
			t.Errorf("code %d, %d members", r.ErrorCode, len(r.Members))
		}
	})
}
