package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
)

// TestClaimYields: a Fetch that waits for its memory keeps that of its request for
// half a minute while nobody else wants it, and for five seconds if somebody does.
// Its connection ends then, and the log says why.
func TestClaimYields(t *testing.T) {
	t.Parallel()
	const parts = 2000
	for _, tt := range []struct {
		name     string
		contends time.Duration // from then on others want the memory of requests
		want     time.Duration
		log      string
	}{
		{"alone", time.Hour, 30 * time.Second, fmt.Sprintf("no room in time in the node's memory for Fetches: %d bytes of 2097152 for 2000 partitions", parts*fetchPartBytes)},
		{"from the beginning on", time.Second, 5 * time.Second, "and others for that of its request"},
		{"later", 10 * time.Second, 10 * time.Second, "and others for that of its request"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log lines
			s := newTestServer(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, immediate(kmsg.Fetch, fetchMin, fetchMax, func(c *conn, q *request) error {
				if err := c.claimFetch(q, parts); err != nil {
					return err
				}
				q.send(answer{})
				return nil
			}))
			s.fetches.large.TryAcquire(s.fetches.large.Limit())
			ours, theirs := net.Pipe()
			req := kmsg.NewPtrFetchRequest()
			req.Version, req.ReplicaID = fetchMax, consumerReplica
			go send(ours, frameOf(req, 1))
			time.AfterFunc(tt.contends, func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				all := s.opt.SmallRequests.Limit()
				if s.opt.SmallRequests.Acquire(ctx, all) == nil {
					s.opt.SmallRequests.Release(all)
				}
			})
			began := time.Now()
			end := s.Serve(theirs, nil, broker.Listener{})
			if took := time.Since(began); took != tt.want || end != broker.EndedByError {
				t.Errorf("%s: a Fetch that waits for memory ended by %v after %v, want %v", tt.name, end, took, tt.want)
			}
			if out := log.String(); !strings.Contains(out, tt.log) {
				t.Errorf("%s: log %s, want %q", tt.name, out, tt.log)
			}
			s.fetches.large.Release(s.fetches.large.Limit())
			time.Sleep(time.Hour) // whoever contends has come and gone
			wantNothingHeld(t, s, tt.name)
		})
	}
}
