package kafka

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
)

// TestGone: who waits for a client's sake stops when the client is gone.
func TestGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		waited := false
		s := newTestServer(t, Options{}, pinger(func(ctx context.Context, _ *peer, _ *kmsg.DescribeClusterRequest) kmsg.Response {
			<-ctx.Done()
			waited = true
			return nil
		}))
		ours, theirs := net.Pipe()
		ended := make(chan broker.Ending, 1)
		go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
		send(ours, frameOf(ping(1), 1))
		synctest.Wait()
		_ = ours.Close()
		if end := <-ended; end != broker.EndedByPeer || !waited {
			t.Errorf("ended by %v, waited %t", end, waited)
		}
	})
}

// TestAnnouncedAllocates: a length costs little until its bytes come.
func TestAnnouncedAllocates(t *testing.T) {
	s := newTestServer(t, Options{MaxRequestBytes: 100 << 20}, pinger(echo))
	b := binary.BigEndian.AppendUint32(nil, 100<<20)
	b = append(b, frameOf(ping(1), 1)[lengthBytes:]...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	feed(t, s, b)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes allocated for %d", n, len(b))
	}
}

// TestDecodingBudget: requests that decode to much are decoded one after the
// other.
func TestDecodingBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		handling, most := 0, 0
		let := make(chan struct{})
		s := newTestServer(t, Options{}, ordinary(kmsg.DescribeTopicPartitions, 0, 0,
			func(_ *Server, _ context.Context, _ *peer, req *kmsg.DescribeTopicPartitionsRequest) kmsg.Response {
				handling++
				most = max(most, handling)
				<-let
				handling--
				return req.ResponseKind()
			}))
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		for range 50_000 { // 100 KiB, which decode to more than half of 2 MiB
			req.Topics = append(req.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: ""})
		}
		const conns = 3
		var ncs [conns]net.Conn
		for i := range ncs {
			ncs[i] = dial(t, s)
			go send(ncs[i], frameOf(req, 1))
		}
		for i := range ncs {
			synctest.Wait()
			if handling != 1 {
				t.Errorf("round %d: %d are handled, each of more than half of 2 MiB", i, handling)
			}
			let <- struct{}{}
			for j := range ncs { // one of them is answered
				go func() { _, _ = io.CopyN(io.Discard, ncs[j], 1) }()
			}
		}
		synctest.Wait()
		if most != 1 || s.decoding.Used() != 0 {
			t.Errorf("at most %d at a time; %d bytes are held", most, s.decoding.Used())
		}
	})
}

// TestAnswersBudget: what an answer takes is held until it is written, and
// others wait for it.
func TestAnswersBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		held := 0
		s := newTestServer(t, Options{}, pinger(func(ctx context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
			if !p.hold(ctx, 6<<20) { // of 8 MiB
				return nil
			}
			held++
			return echo(ctx, p, req)
		}))
		first, second := dial(t, s), dial(t, s)
		send(first, frameOf(ping(1), 1)) // whose answer is not taken
		synctest.Wait()
		send(second, frameOf(ping(1), 1))
		synctest.Wait()
		if held != 1 || s.opt.Answers.Used() != 6<<20 {
			t.Errorf("%d hold %d bytes", held, s.opt.Answers.Used())
		}
		readAnswer(t, first, ping(1))
		readAnswer(t, second, ping(1))
		synctest.Wait()
		if s.opt.Answers.Used() != 0 {
			t.Errorf("%d bytes are held in the end", s.opt.Answers.Used())
		}
	})
}

// TestImpossibleTable: a table that cannot be is a bug, and is found at once.
func TestImpossibleTable(t *testing.T) {
	t.Parallel()
	for name, apis := range map[string][]api{
		"twice":         {pinger(echo), pinger(echo)},
		"too new":       {ordinary(kmsg.DescribeCluster, 0, 3, (*Server).describeCluster)},
		"none":          {ordinary(kmsg.DescribeCluster, 2, 1, (*Server).describeCluster)},
		"no such thing": {ordinary(kmsg.Key(kmsg.MaxKey+1), 0, 0, (*Server).describeCluster)},
	} {
		func() {
			defer func() {
				if p, _ := recover().(string); !strings.Contains(p, "impossible") {
					t.Errorf("%s: %q", name, p)
				}
			}()
			newTable(apis)
		}()
	}
}

// TestLongestTimeout: a request waits as long as it asks for, and at most 15
// minutes.
func TestLongestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for ms, want := range map[int32]time.Duration{
			-1: 0, 0: 0, 1500: 1500 * time.Millisecond, 900_000: 15 * time.Minute, 900_001: 15 * time.Minute, math.MaxInt32: 15 * time.Minute,
		} {
			ctx, cancel := forMS(t.Context(), ms)
			if end, ok := ctx.Deadline(); !ok || time.Until(end) != want {
				t.Errorf("a time-out of %d ms: %v, want %v", ms, time.Until(end), want)
			}
			cancel()
			if ms > 0 && produceTimeout(ms) != want {
				t.Errorf("a Produce with a time-out of %d ms: %v, want %v", ms, produceTimeout(ms), want)
			}
		}
	})
}
