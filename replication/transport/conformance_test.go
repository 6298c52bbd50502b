package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// network is what a conformance test knows of an implementation: how a replica
// joins, and how the way between two nodes is cut. Calls take 500 ms at most,
// and 64 KiB may be under way.
type network struct {
	join  func(shard ShardID, id ReplicaID) Transport
	cut   func(from, to int32, cut bool)
	close func() // once the replicas are
}

const (
	conformanceTimeout  = 500 * time.Millisecond
	conformanceInFlight = 64 << 10
)

var (
	one   = ReplicaID{Node: 1, Incarnation: 0xa1}
	two   = ReplicaID{Node: 2, Incarnation: 0xa2}
	wiped = ReplicaID{Node: 2, Incarnation: 0xb2} // two's successor
)

// name is a replica as Raft calls it.
func name(id ReplicaID) raft.ServerID { return raft.ServerID(id.String()) }

// pair is two replicas of a shard.
type pair struct {
	network
	a, b Transport // one's and two's
}

// conformance is the suite that every Transport between replicas has to pass.
func conformance(t *testing.T, open func() network) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, p pair)
	}{
		{"calls are answered", testCalls},
		{"what is handed over is a copy", testCopies},
		{"a rejected call is an answer", testRejected},
		{"an error of the receiver's is the caller's", testReceiverError},
		{"another incarnation refuses", testOtherIncarnation},
		{"another shard does not hear", testOtherShard},
		{"nobody there", testNobody},
		{"a call times out", testTimeout},
		{"a way is cut in one direction", testOneWay},
		{"probes pass Raft by", testProbe},
		{"a pipeline keeps the order", testPipelineOrder},
		{"a pipeline breaks at a rejection", testPipelineRejected},
		{"a pipeline breaks at a missing answer", testPipelineMissing},
		{"a pipeline is closed", testPipelineClose},
		{"bytes under way are bounded", testInFlight},
		{"close aborts what waits", testClose},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pair{network: open()}
				p.a, p.b = p.join(1, one), p.join(1, two)
				tt.test(t, p)
				for _, tr := range []Transport{p.a, p.b} {
					if err := tr.Close(); err != nil {
						t.Error(err)
					}
				}
				p.close()
				time.Sleep(time.Minute) // nothing is left under way
			})
		})
	}
}

// answering has tr answer each call with what answer says, until it is closed.
// It returns what has come in so far.
func answering(tr Transport, answer func(raft.RPC) (any, error)) (came func() []any) {
	var got []any
	ask, give, stop := make(chan struct{}), make(chan []any), make(chan struct{})
	tr2 := tr.Consumer()
	go func() {
		for {
			select {
			case rpc := <-tr2:
				got = append(got, rpc.Command)
				rpc.Respond(answer(rpc))
			case <-ask:
				give <- append([]any(nil), got...)
			case <-stop:
				return
			case <-time.After(30 * time.Second): // longer than any test
				return
			}
		}
	}()
	return func() []any {
		synctest.Wait()
		ask <- struct{}{}
		return <-give
	}
}

func yes(rpc raft.RPC) (any, error) {
	switch req := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		return &raft.AppendEntriesResponse{Term: req.Term, Success: true, LastLog: req.PrevLogEntry + uint64(len(req.Entries))}, nil
	case *raft.RequestVoteRequest:
		return &raft.RequestVoteResponse{Term: req.Term, Granted: true}, nil
	case *raft.RequestPreVoteRequest:
		return &raft.RequestPreVoteResponse{Term: req.Term, Granted: true}, nil
	case *raft.InstallSnapshotRequest:
		b, err := io.ReadAll(rpc.Reader)
		return &raft.InstallSnapshotResponse{Term: req.Term, Success: string(b) == "state"}, err
	case *raft.TimeoutNowRequest:
		return &raft.TimeoutNowResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: 3}}, nil
	}
	return nil, fmt.Errorf("unknown command %T", rpc.Command)
}

func appendOf(index uint64, size int) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{Term: 7, PrevLogEntry: index - 1, PrevLogTerm: 7, Entries: []*raft.Log{{
		Index: index, Term: 7, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(index)}, size), Extensions: []byte("x"),
	}}}
}

func testCalls(t *testing.T, p pair) {
	var told []string
	p.a.Handle(Handler{Appended: func(to ReplicaID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
		told = append(told, fmt.Sprintf("%s %d+%d %t", to, req.PrevLogEntry, len(req.Entries), resp.Success))
	}})
	fast := false
	p.b.SetHeartbeatHandler(func(raft.RPC) { fast = true })
	came := answering(p.b, yes)
	const nowhere raft.ServerAddress = "the address is not looked at"

	var ae raft.AppendEntriesResponse
	if err := p.a.AppendEntries(name(two), nowhere, appendOf(5, 100), &ae); err != nil || !ae.Success || ae.Term != 7 || ae.LastLog != 5 {
		t.Errorf("AppendEntries = %v, %+v", err, ae)
	}
	ae = raft.AppendEntriesResponse{}
	heartbeat := &raft.AppendEntriesRequest{Term: 8}
	if err := p.a.AppendEntries(name(two), nowhere, heartbeat, &ae); err != nil || ae.Term != 8 {
		t.Errorf("heartbeat = %v, %+v", err, ae)
	}
	var rv raft.RequestVoteResponse
	if err := p.a.RequestVote(name(two), nowhere, &raft.RequestVoteRequest{Term: 9, LeadershipTransfer: true}, &rv); err != nil || !rv.Granted || rv.Term != 9 {
		t.Errorf("RequestVote = %v, %+v", err, rv)
	}
	var pv raft.RequestPreVoteResponse
	if err := p.a.RequestPreVote(name(two), nowhere, &raft.RequestPreVoteRequest{Term: 10}, &pv); err != nil || !pv.Granted || pv.Term != 10 {
		t.Errorf("RequestPreVote = %v, %+v", err, pv)
	}
	var is raft.InstallSnapshotResponse
	if err := p.a.InstallSnapshot(name(two), nowhere, &raft.InstallSnapshotRequest{Term: 11}, &is, strings.NewReader("state")); err != nil || !is.Success {
		t.Errorf("InstallSnapshot = %v, %+v", err, is)
	}
	var tn raft.TimeoutNowResponse
	if err := p.a.TimeoutNow(name(two), nowhere, &raft.TimeoutNowRequest{}, &tn); err != nil || tn.ProtocolVersion != 3 {
		t.Errorf("TimeoutNow = %v, %+v", err, tn)
	}
	if got := len(came()); got != 6 || fast {
		t.Errorf("%d of 6 calls came through Consumer; heartbeat handler called: %t", got, fast)
	}
	want := fmt.Sprintf("[%s 4+1 true %s 0+0 true]", two, two)
	if got := fmt.Sprint(told); got != want {
		t.Errorf("told of %s, want %s", got, want)
	}
	if req, ok := came()[2].(*raft.RequestVoteRequest); !ok || !req.LeadershipTransfer {
		t.Errorf("a field was lost on the way: %+v", came()[2])
	}
	if got := p.a.LocalAddr(); got != raft.ServerAddress(one.String()) || p.a.DecodePeer(p.a.EncodePeer(name(one), got)) != got {
		t.Errorf("local address %s", got)
	}
}

func testCopies(t *testing.T, p pair) {
	came := answering(p.b, yes)
	req := appendOf(1, 8)
	var resp raft.AppendEntriesResponse
	if err := p.a.AppendEntries(name(two), "", req, &resp); err != nil {
		t.Fatal(err)
	}
	req.Entries[0].Data[0], req.Entries[0].Term = 99, 99
	got := came()[0].(*raft.AppendEntriesRequest).Entries[0]
	if got.Data[0] == 99 || got.Term == 99 {
		t.Error("the receiver sees what the sender changed after the call")
	}
}

func testRejected(t *testing.T, p pair) {
	answering(p.b, func(raft.RPC) (any, error) {
		return &raft.AppendEntriesResponse{Term: 9, LastLog: 3, NoRetryBackoff: true}, nil
	})
	var resp raft.AppendEntriesResponse
	err := p.a.AppendEntries(name(two), "", appendOf(9, 8), &resp)
	if err != nil || resp.Success || resp.Term != 9 || resp.LastLog != 3 || !resp.NoRetryBackoff {
		t.Errorf("AppendEntries = %v, %+v", err, resp)
	}
}

func testReceiverError(t *testing.T, p pair) {
	answering(p.b, func(raft.RPC) (any, error) { return nil, errors.New("no room in the journal") })
	var resp raft.AppendEntriesResponse
	err := p.a.AppendEntries(name(two), "", appendOf(1, 8), &resp)
	if err == nil || !strings.Contains(err.Error(), "no room in the journal") {
		t.Errorf("AppendEntries = %v, want the receiver's error", err)
	}
}

// everyCall makes each kind of call and returns their errors.
func everyCall(tr Transport, to ReplicaID) map[string]error {
	errs := make(map[string]error)
	errs["AppendEntries"] = tr.AppendEntries(name(to), "", appendOf(1, 8), new(raft.AppendEntriesResponse))
	errs["RequestVote"] = tr.RequestVote(name(to), "", &raft.RequestVoteRequest{Term: 1}, new(raft.RequestVoteResponse))
	errs["RequestPreVote"] = tr.RequestPreVote(name(to), "", &raft.RequestPreVoteRequest{Term: 1}, new(raft.RequestPreVoteResponse))
	errs["InstallSnapshot"] = tr.InstallSnapshot(name(to), "", &raft.InstallSnapshotRequest{}, new(raft.InstallSnapshotResponse), strings.NewReader("state"))
	errs["TimeoutNow"] = tr.TimeoutNow(name(to), "", &raft.TimeoutNowRequest{}, new(raft.TimeoutNowResponse))
	_, errs["Probe"] = tr.Probe(context.Background(), to)
	pipe, err := tr.AppendEntriesPipeline(name(to), "")
	if err != nil {
		errs["pipeline"] = err
		return errs
	}
	defer pipe.Close()
	f, err := pipe.AppendEntries(appendOf(1, 8), new(raft.AppendEntriesResponse))
	if err == nil {
		err = f.Error()
	}
	errs["pipeline"] = err
	return errs
}

// testOtherIncarnation wipes two: calls for the one that it was do not reach
// the Raft of the one that it is now (R11).
func testOtherIncarnation(t *testing.T, p pair) {
	if err := p.b.Close(); err != nil {
		t.Fatal(err)
	}
	now := p.join(1, wiped)
	defer now.Close()
	now.Handle(Handler{Probed: func() uint64 { return 1 }})
	came := answering(now, yes)
	for call, err := range everyCall(p.a, two) {
		if !errors.Is(err, ErrOtherReplica) {
			t.Errorf("%s to %s, where %s is: %v, want ErrOtherReplica", call, two, wiped, err)
		}
	}
	if got := came(); len(got) > 0 {
		t.Errorf("Raft saw %T, meant for another incarnation", got[0])
	}
	for call, err := range everyCall(p.a, wiped) {
		if err != nil {
			t.Errorf("%s to %s: %v", call, wiped, err)
		}
	}
}

func testOtherShard(t *testing.T, p pair) {
	other := p.join(2, two)
	defer other.Close()
	cameOther, came := answering(other, yes), answering(p.b, yes)
	var resp raft.RequestVoteResponse
	if err := p.a.RequestVote(name(two), "", &raft.RequestVoteRequest{Term: 1}, &resp); err != nil {
		t.Fatal(err)
	}
	if len(came()) != 1 || len(cameOther()) != 0 {
		t.Errorf("shard 1 got %d calls, shard 2 %d; want 1 and 0", len(came()), len(cameOther()))
	}
}

func testNobody(t *testing.T, p pair) {
	if err := p.b.Close(); err != nil {
		t.Fatal(err)
	}
	for call, err := range everyCall(p.a, two) {
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v, want ErrUnreachable", call, err)
		}
	}
	if err := p.a.TimeoutNow("not an id", "", &raft.TimeoutNowRequest{}, new(raft.TimeoutNowResponse)); err == nil {
		t.Error("a call to something that is no replica id succeeds")
	}
}

func testTimeout(t *testing.T, p pair) { // two's Raft takes nothing
	began := time.Now()
	err := p.a.RequestVote(name(two), "", &raft.RequestVoteRequest{Term: 1}, new(raft.RequestVoteResponse))
	if took := time.Since(began); !errors.Is(err, ErrTimeout) || took != conformanceTimeout {
		t.Errorf("RequestVote = %v after %v, want ErrTimeout after %v", err, took, conformanceTimeout)
	}
}

func testOneWay(t *testing.T, p pair) {
	came := answering(p.b, yes)
	cameA := answering(p.a, yes)
	vote := func(from Transport, to ReplicaID) error {
		return from.RequestVote(name(to), "", &raft.RequestVoteRequest{Term: 1}, new(raft.RequestVoteResponse))
	}
	p.cut(1, 2, true) // requests of one are lost, and so are its answers
	if err := vote(p.a, two); !errors.Is(err, ErrTimeout) {
		t.Errorf("over a cut way: %v", err)
	}
	if err := vote(p.b, one); !errors.Is(err, ErrTimeout) {
		t.Errorf("answer over a cut way: %v", err)
	}
	if len(came()) != 0 || len(cameA()) != 1 {
		t.Errorf("two got %d requests and one %d, want 0 and 1", len(came()), len(cameA()))
	}
	p.cut(1, 2, false)
	if err := errors.Join(vote(p.a, two), vote(p.b, one)); err != nil {
		t.Errorf("healed: %v", err)
	}
}

// testProbe probes a replica whose Raft takes nothing.
func testProbe(t *testing.T, p pair) {
	term := uint64(41)
	p.b.Handle(Handler{Probed: func() uint64 { return term }})
	if got, err := p.a.Probe(context.Background(), two); err != nil || got != 41 {
		t.Errorf("Probe = %d, %v", got, err)
	}
	term = 42
	if got, err := p.a.Probe(context.Background(), two); err != nil || got != 42 {
		t.Errorf("Probe = %d, %v", got, err)
	}
	p.cut(2, 1, true)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := p.a.Probe(ctx, two); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 10*time.Millisecond {
		t.Errorf("Probe without an answer = %v after %v", err, time.Since(began))
	}
	if _, err := p.a.Probe(context.Background(), two); !errors.Is(err, ErrTimeout) {
		t.Errorf("Probe without an answer = %v, want ErrTimeout", err)
	}
}

func testPipelineOrder(t *testing.T, p pair) {
	var told []uint64
	p.a.Handle(Handler{Appended: func(_ ReplicaID, req *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) {
		told = append(told, req.PrevLogEntry+1)
	}})
	came := answering(p.b, yes)
	pipe, err := p.a.AppendEntriesPipeline(name(two), "")
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	const n = 50
	for i := range uint64(n) {
		if _, err := pipe.AppendEntries(appendOf(i+1, 8), new(raft.AppendEntriesResponse)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(n) {
		f := <-pipe.Consumer()
		if err := f.Error(); err != nil || f.Request().PrevLogEntry != i || f.Response().LastLog != i+1 || f.Start().IsZero() {
			t.Fatalf("answer %d: %v, %+v", i, err, f.Response())
		}
	}
	for i, c := range came() {
		if got := c.(*raft.AppendEntriesRequest).PrevLogEntry; got != uint64(i) {
			t.Fatalf("request %d came as number %d", got, i)
		}
	}
	if len(told) != n || told[0] != 1 || told[n-1] != n {
		t.Errorf("told of %v", told)
	}
}

// testPipelineRejected: what follows a rejected call is not handed out, and no
// more is taken; a pipeline that goes on wedges Raft's replication for ever.
func testPipelineRejected(t *testing.T, p pair) {
	sent := make(chan struct{}) // all of them are, before one is answered
	answering(p.b, func(rpc raft.RPC) (any, error) {
		<-sent
		req := rpc.Command.(*raft.AppendEntriesRequest)
		return &raft.AppendEntriesResponse{Term: 7, Success: req.PrevLogEntry != 1}, nil
	})
	pipe, err := p.a.AppendEntriesPipeline(name(two), "")
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	for i := range uint64(3) {
		if _, err := pipe.AppendEntries(appendOf(i+1, 8), new(raft.AppendEntriesResponse)); err != nil {
			t.Fatal(err)
		}
	}
	close(sent)
	time.Sleep(time.Second)
	if n := len(pipe.Consumer()); n != 2 {
		t.Errorf("%d answers handed out, want 2: an append and the rejection", n)
	}
	if _, err := pipe.AppendEntries(appendOf(4, 8), new(raft.AppendEntriesResponse)); err == nil {
		t.Error("a pipeline goes on after a rejection")
	}
}

// testPipelineMissing: a missing answer ends the pipeline, and is not handed
// out: Raft would take it for contact with the follower, and prolong its lease.
func testPipelineMissing(t *testing.T, p pair) {
	answering(p.b, yes)
	pipe, err := p.a.AppendEntriesPipeline(name(two), "")
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	p.cut(1, 2, true)
	f, err := pipe.AppendEntries(appendOf(1, 8), new(raft.AppendEntriesResponse))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Error(); !errors.Is(err, ErrTimeout) {
		t.Errorf("the call ended with %v, want ErrTimeout", err)
	}
	p.cut(1, 2, false)
	synctest.Wait()
	if n := len(pipe.Consumer()); n != 0 {
		t.Errorf("%d answers handed out, and there was none", n)
	}
	if _, err := pipe.AppendEntries(appendOf(2, 8), new(raft.AppendEntriesResponse)); err == nil {
		t.Error("a pipeline goes on after a missing answer")
	}
}

func testPipelineClose(t *testing.T, p pair) {
	pipe, err := p.a.AppendEntriesPipeline(name(two), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.AppendEntries(appendOf(1, 8), new(raft.AppendEntriesResponse)); err != nil {
		t.Fatal(err)
	}
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.AppendEntries(appendOf(2, 8), new(raft.AppendEntriesResponse)); !errors.Is(err, raft.ErrPipelineShutdown) {
		t.Errorf("AppendEntries on a closed pipeline = %v", err)
	}
	synctest.Wait()
	if len(pipe.Consumer()) != 1 {
		t.Fatal("who waits for answers waits for ever")
	}
	if f := <-pipe.Consumer(); f.Response().Success || f.Response().Term != 0 || f.Error() == nil || f.Request() == nil {
		t.Errorf("the last answer is %+v, want none at all", f.Response())
	}
}

// testInFlight fills the way to two, whose Raft takes nothing: what is beyond
// the bound waits until an answer, or the end of a call, makes room.
func testInFlight(t *testing.T, p pair) {
	pipe, err := p.a.AppendEntriesPipeline(name(two), "")
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	size := conformanceInFlight * 3 / 4
	if _, err := pipe.AppendEntries(appendOf(1, size), new(raft.AppendEntriesResponse)); err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := pipe.AppendEntries(appendOf(2, size), new(raft.AppendEntriesResponse))
		second <- err
	}()
	// A heartbeat does not wait behind them.
	heartbeat := make(chan error, 1)
	go func() {
		heartbeat <- p.a.AppendEntries(name(two), "", &raft.AppendEntriesRequest{Term: 7}, new(raft.AppendEntriesResponse))
	}()
	time.Sleep(conformanceTimeout / 2)
	if len(second) != 0 {
		t.Fatalf("%d bytes under way, and %d more were taken: at most %d", size, size, conformanceInFlight)
	}
	answering(p.b, yes)
	if err := <-second; err != nil {
		t.Errorf("after an answer: %v", err)
	}
	if err := <-heartbeat; err != nil {
		t.Errorf("heartbeat: %v", err)
	}
	<-pipe.Consumer()
	<-pipe.Consumer()
	if _, err := pipe.AppendEntries(appendOf(3, 2*conformanceInFlight), new(raft.AppendEntriesResponse)); err != nil {
		t.Errorf("one above the bound, alone: %v", err)
	}
	<-pipe.Consumer()
}

// testClose closes one while it waits in every way there is.
func testClose(t *testing.T, p pair) {
	began := time.Now()
	errs := make(chan error, 10)
	go func() {
		errs <- p.a.RequestVote(name(two), "", &raft.RequestVoteRequest{Term: 1}, new(raft.RequestVoteResponse))
	}()
	go func() {
		_, err := p.a.Probe(context.Background(), ReplicaID{Node: 3, Incarnation: 1})
		if err == nil {
			err = errors.New("a probe of nobody is answered")
		} else {
			err = ErrClosed // there is nobody there
		}
		errs <- err
	}()
	go func() {
		errs <- p.a.AppendEntries(name(two), "", appendOf(1, conformanceInFlight), new(raft.AppendEntriesResponse))
	}()
	time.Sleep(time.Millisecond)
	go func() { // waits for room
		errs <- p.a.AppendEntries(name(two), "", appendOf(2, conformanceInFlight), new(raft.AppendEntriesResponse))
	}()
	pipe, err := p.a.AppendEntriesPipeline(name(two), "")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Millisecond)
	if err := p.a.Close(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := <-errs; !errors.Is(err, ErrClosed) {
			t.Errorf("ended with %v, want ErrClosed", err)
		}
	}
	if _, err := pipe.AppendEntries(appendOf(3, 8), new(raft.AppendEntriesResponse)); err == nil {
		t.Error("a pipeline goes on after Close")
	}
	if err := p.a.RequestVote(name(two), "", &raft.RequestVoteRequest{Term: 1}, new(raft.RequestVoteResponse)); !errors.Is(err, ErrClosed) {
		t.Errorf("a call after Close: %v", err)
	}
	if took := time.Since(began); took >= conformanceTimeout {
		t.Errorf("it took %v", took)
	}
	_ = pipe.Close()
}
