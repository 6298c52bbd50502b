package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
)

// TestAnswerPassedOn: what another node passes on is answered as if its client had asked
// here, if it is of what the node that leads the metadata does, and else refused.
func TestAnswerPassedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Options{}, controlled(pinger(func(ctx context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
			switch req.EndpointType {
			case 1:
				panic("planted")
			case 2:
				select {
				case <-ctx.Done():
				case <-time.After(time.Minute):
				}
			}
			return echo(ctx, p, req)
		}), always[*kmsg.DescribeClusterRequest]), ordinary(kmsg.ListGroups, 0, 5, func(*Server, context.Context, *peer, *kmsg.ListGroupsRequest) kmsg.Response {
			return kmsg.NewPtrListGroupsResponse()
		}))
		pass := func(req kmsg.Request) ([]byte, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return s.AnswerPassedOn(ctx, 3, frameOf(req, 7)[lengthBytes:])
		}
		b, err := pass(ping(5))
		if err != nil || len(b) < lengthBytes+1 {
			t.Fatalf("%x, %v", b, err)
		}
		resp := kmsg.NewPtrDescribeClusterResponse()
		resp.Version = 1
		if err := resp.ReadFrom(b[lengthBytes+1:]); err != nil || binary.BigEndian.Uint32(b) != 7 || resp.ClusterID != "test" || resp.ControllerID != 5 {
			t.Errorf("%x is %+v, %v", b, resp, err)
		}

		newer := ping(0)
		newer.Version = 2
		for name, req := range map[string]kmsg.Request{
			"not of what who leads does": kmsg.NewPtrListGroupsRequest(), "not served": kmsg.NewPtrFetchRequest(), "of a newer version": newer,
		} {
			if b, err := pass(req); !errors.Is(err, broker.ErrAnswerHere) {
				t.Errorf("%s: %x, %v, want %v", name, b, err, broker.ErrAnswerHere)
			}
		}
		if b, err := s.AnswerPassedOn(t.Context(), 3, make([]byte, fixedHeaderBytes-1)); !errors.Is(err, broker.ErrAnswerHere) {
			t.Errorf("half a header: %x, %v, want %v", b, err, broker.ErrAnswerHere)
		}

		began := time.Now()
		if b, err := pass(ping(1)); err == nil || errors.Is(err, broker.ErrAnswerHere) || time.Since(began) > 0 {
			t.Errorf("a panic: %x, %v after %v", b, err, time.Since(began))
		}
		if b, err := pass(ping(2)); err == nil || errors.Is(err, broker.ErrAnswerHere) || time.Since(began) != time.Second {
			t.Errorf("nobody waits any more: %x, %v after %v", b, err, time.Since(began))
		}
		s.Drain()
		if b, err := pass(ping(5)); !errors.Is(err, broker.ErrAnswerHere) {
			t.Errorf("to one that stops: %x, %v, want %v", b, err, broker.ErrAnswerHere)
		}
		wantNothingHeld(t, s, "when all are answered")
		if st, left := s.Stats(), len(s.all()); st.Connections != 0 || st.Accepted != 0 || left != 0 {
			t.Errorf("%d connections, of %d, are counted, and %d left", st.Connections, st.Accepted, left)
		}
	})
}
