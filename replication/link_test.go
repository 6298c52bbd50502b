package replication

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

var errNoCatchUp = errors.New("link: a checkpoint for the catch-up")

// testLink is a link whose replica has applied 10 entries, the last in term 3.
func testLink() *link {
	return &link{
		rpc: make(chan raft.RPC, 1), stop: make(chan struct{}), peers: newPeers(ReplicaID{Node: 1, Incarnation: 1}), started: new(atomic.Bool),
		applied: func() (uint64, uint64) { return 10, 3 },
		term:    func() uint64 { return 5 },
		reserve: func([]*raft.Log, bool) (func(), error) { return func() {}, nil },
		held:    func([]*raft.Log) int { return 1 },
		behind:  func(raft.ServerID, uint64) {},
		install: func(raft.RPC, *raft.InstallSnapshotRequest) (raft.RPCResponse, bool) {
			return raft.RPCResponse{Error: errNoCatchUp}, true
		},
		maxAppendBytes: 100,
	}
}

func logs(lo, hi uint64, bytes int) (ls []*raft.Log) {
	for i := lo; i <= hi; i++ {
		ls = append(ls, &raft.Log{Index: i, Term: 4, Data: make([]byte, bytes)})
	}
	return ls
}

func indexes(ls []*raft.Log) (out []uint64) {
	for _, l := range ls {
		out = append(out, l.Index)
	}
	return out
}

// TestLinkTrims: entries that are applied are taken off, and the commit index
// is at most the last entry that the request shows: Raft would commit whatever
// another leader has left behind it.
func TestLinkTrims(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                   string
		prev, prevTerm         uint64
		lo, hi, commit         uint64 // lo 0: no entries
		wantPrev, wantPrevTerm uint64
		want                   []uint64
		wantCommit             uint64
	}{
		{"a heartbeat", 0, 0, 0, 0, 0, 0, 0, nil, 0},
		{"what follows", 10, 3, 11, 12, 11, 10, 3, []uint64{11, 12}, 11},
		{"above what is applied", 12, 4, 13, 13, 12, 12, 4, []uint64{13}, 12},
		{"half of it is applied", 8, 2, 9, 12, 11, 10, 3, []uint64{11, 12}, 11},
		{"all of it is applied", 4, 2, 5, 8, 8, 10, 3, nil, 8},
		{"all up to the last", 8, 2, 9, 10, 10, 10, 3, nil, 10},
		{"from the first entry on", 0, 0, 1, 11, 11, 10, 3, []uint64{11}, 11},
		{"a commit index beyond the entries", 10, 3, 11, 12, 40, 10, 3, []uint64{11, 12}, 12},
		{"a commit index beyond the previous entry", 12, 4, 0, 0, 40, 12, 4, nil, 12},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: tt.prev, PrevLogTerm: tt.prevTerm, LeaderCommitIndex: tt.commit}
			if tt.lo > 0 {
				req.Entries = logs(tt.lo, tt.hi, 1)
			}
			testLink().trim(req)
			if req.PrevLogEntry != tt.wantPrev || req.PrevLogTerm != tt.wantPrevTerm || req.LeaderCommitIndex != tt.wantCommit || !slices.Equal(indexes(req.Entries), tt.want) {
				t.Errorf("prev %d of term %d, commit %d, entries %v; want %d of %d, %d, %v", req.PrevLogEntry, req.PrevLogTerm,
					req.LeaderCommitIndex, indexes(req.Entries), tt.wantPrev, tt.wantPrevTerm, tt.wantCommit, tt.want)
			}
		})
	}
}

// TestLinkUnproven: until something of the leader's term is known to be committed,
// what it sends may be what lets it commit at all, whichever term's entries it is.
func TestLinkUnproven(t *testing.T) {
	l := testLink()
	for name, c := range map[string]struct {
		term, commit uint64
		entries      []*raft.Log
		want         bool
	}{
		"before the entry that opens the term": {5, 10, logs(11, 13, 10), true},
		"the entry that opens the term":        {5, 10, []*raft.Log{{Index: 11, Term: 5}}, true},
		"when more is committed":               {5, 11, logs(11, 13, 10), false},
		"of the term of what is applied":       {3, 10, logs(11, 13, 10), false},
	} {
		req := &raft.AppendEntriesRequest{Term: c.term, PrevLogEntry: 10, PrevLogTerm: 3, Entries: c.entries, LeaderCommitIndex: c.commit}
		if got := l.unproven(req); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

// talk is a Transport that counts what it is to send.
type talk struct {
	Transport
	sent []*raft.AppendEntriesRequest
}

func (s *talk) AppendEntries(_ raft.ServerID, _ raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	s.sent = append(s.sent, req)
	resp.Success = true
	return nil
}

// TestLinkSparesHeartbeats: a heartbeat is answered from what the follower has said of
// the log in the same term, for a while, and never from another heartbeat.
func TestLinkSparesHeartbeats(t *testing.T) {
	const term = 5
	id := ReplicaID{Node: 2, Incarnation: 2}
	now, out := time.Now(), new(talk)
	l := testLink()
	l.Transport = out
	l.contact = func(of raft.ServerID, term uint64) bool {
		if of != raft.ServerID(id.String()) {
			t.Errorf("asked of %s, want %s", of, id)
		}
		return l.peers.contact(id, term, now)
	}
	answered := func(req *raft.AppendEntriesRequest, ok bool) {
		resp := &raft.AppendEntriesResponse{Success: ok}
		l.peers.appended(id, req, resp)
		l.peers.seen(id, req, resp, now, 10)
	}
	ping := &raft.AppendEntriesRequest{Term: term, PrevLogEntry: 10, PrevLogTerm: 3, LeaderCommitIndex: 10}
	check := func(what string, term uint64, spared bool) {
		t.Helper()
		before := len(out.sent)
		var resp raft.AppendEntriesResponse
		err := l.AppendEntries(raft.ServerID(id.String()), "", &raft.AppendEntriesRequest{Term: term}, &resp)
		if err != nil || !resp.Success || (len(out.sent) == before) != spared {
			t.Errorf("%s: %v, %+v, %d requests sent; want it spared: %t", what, err, resp, len(out.sent)-before, spared)
		}
	}
	check("before any answer", term, false)
	answered(ping, false)
	check("after a refusal", term, false)
	answered(ping, true)
	check("just after an answer", term, true)
	check("in another term", term+1, false)
	now = now.Add(heartbeatAfter - 1)
	check("at the end of its time", term, true)
	answered(&raft.AppendEntriesRequest{Term: term}, true)
	now = now.Add(1)
	check("after an answer to a heartbeat", term, false)
	answered(ping, true)
	now = now.Add(-time.Second)
	check("when the clock was set back", term, false)
	now = now.Add(time.Second)
	var resp raft.AppendEntriesResponse
	before := len(out.sent)
	if err := l.AppendEntries(raft.ServerID(id.String()), "", ping, &resp); err != nil || len(out.sent) != before+1 {
		t.Errorf("what says what is committed: %v, %d requests sent, want 1", err, len(out.sent)-before)
	}
	answered(&raft.AppendEntriesRequest{Term: term + 1, PrevLogEntry: 10}, true)
	check("in a term that is over", term, false)
	l.peers.configure(raft.Configuration{}, 11)
	check("of a replica that is no member any more", term+1, false)
}

// TestLinkCuts: a request holds maxAppendBytes, or one larger entry, and Raft
// sees how many entries went out.
func TestLinkCuts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ each, n, want int }{{10, 20, 10}, {60, 3, 1}, {500, 3, 1}, {10, 3, 3}, {0, 0, 0}} {
		l := testLink()
		req := &raft.AppendEntriesRequest{Term: 5, Entries: logs(1, uint64(tt.n), tt.each)}
		out := l.outgoing(req)
		if len(req.Entries) != tt.want || len(out.Entries) != tt.want {
			t.Errorf("%d entries of %d bytes: %d are sent and Raft sees %d, want %d", tt.n, tt.each, len(out.Entries), len(req.Entries), tt.want)
		}
	}
}

// TestLinkRetains: a follower hears from its leader what no member needs any
// more, learners among them, and not of a leader of an earlier term.
func TestLinkRetains(t *testing.T) {
	t.Parallel()
	a, b, c := ReplicaID{Node: 1, Incarnation: 1}, ReplicaID{Node: 2, Incarnation: 2}, ReplicaID{Node: 3, Incarnation: 3}
	learner := ReplicaID{Node: 9, Incarnation: 9}
	cfg := raft.Configuration{Servers: []raft.Server{
		{ID: raft.ServerID(a.String())}, {ID: raft.ServerID(b.String())}, {ID: raft.ServerID(c.String())},
		serverOf(learner, raft.Nonvoter),
	}}
	leader, follower := newPeers(a), newPeers(b)
	leader.configure(cfg, 1)
	follower.configure(cfg, 1)
	answered := func(id ReplicaID, term, prev uint64, n int, ok bool) {
		leader.appended(id, &raft.AppendEntriesRequest{Term: term, PrevLogEntry: prev, Entries: logs(prev+1, prev+uint64(n), 0)}, &raft.AppendEntriesResponse{Success: ok})
	}
	send := func(term uint64) {
		l := &link{peers: leader, maxAppendBytes: 100}
		follower.told(term, binary.LittleEndian.Uint64(*hint(l.outgoing(&raft.AppendEntriesRequest{Term: term}))))
	}
	check := func(what string, wantLeader, wantFollower uint64) {
		t.Helper()
		if got := leader.keepFrom(); got != wantLeader {
			t.Errorf("%s: the leader keeps from %d, want %d", what, got, wantLeader)
		}
		if got := follower.keepFrom(); got != wantFollower {
			t.Errorf("%s: the follower keeps from %d, want %d", what, got, wantFollower)
		}
	}
	check("at first", 0, 0)
	answered(b, 5, 10, 10, true)
	send(5)
	check("one of two has answered", 0, 0)
	answered(c, 5, 10, 2, true)
	answered(c, 5, 15, 0, false)
	send(5)
	check("both voters have, and no learner", 0, 0)
	answered(learner, 5, 10, 3, true)
	send(5)
	check("all have", 12, 12)
	answered(c, 5, 3, 1, true) // an old answer
	send(5)
	check("an old answer", 12, 12)
	answered(b, 7, 20, 1, true)
	check("a new term", 0, 12)
	send(5)
	check("a message of the old term", 0, 12)
	answered(c, 7, 30, 1, true)
	answered(learner, 7, 30, 1, true)
	send(7)
	check("the new term, answered", 21, 21)
}

// TestLinkWithoutRoom: Raft gets the request with the entries alone that are there,
// so that it learns what is committed, and the leader an error: a success would count.
func TestLinkWithoutRoom(t *testing.T) {
	t.Parallel()
	l := testLink()
	l.reserve = func([]*raft.Log, bool) (func(), error) { return nil, errNoRoom }
	answerWith := func(resp *raft.AppendEntriesResponse) (seen *raft.AppendEntriesRequest, got raft.RPCResponse) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			rpc := <-l.rpc
			seen = rpc.Command.(*raft.AppendEntriesRequest)
			rpc.Respond(resp, nil)
		}()
		got, ok := l.incoming(raft.RPC{Command: &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 12, PrevLogTerm: 4, Entries: logs(13, 14, 1), LeaderCommitIndex: 14}})
		<-done
		if !ok {
			t.Error("not answered")
		}
		return seen, got
	}
	seen, got := answerWith(&raft.AppendEntriesResponse{Term: 5, Success: true})
	if len(seen.Entries) != 1 || seen.PrevLogEntry != 12 || seen.LeaderCommitIndex != 13 {
		t.Errorf("Raft saw %d entries after %d, commit %d; want one after 12, commit 13", len(seen.Entries), seen.PrevLogEntry, seen.LeaderCommitIndex)
	}
	if !errors.Is(got.Error, errNoRoom) {
		t.Errorf("the leader is answered %+v, want an error: the entries were not taken", got)
	}
	if _, got = answerWith(&raft.AppendEntriesResponse{Term: 9}); got.Error != nil || got.Response.(*raft.AppendEntriesResponse).Term != 9 {
		t.Errorf("a newer term is answered as %+v", got)
	}
}

// TestLinkInstall: a checkpoint of what is applied is a success that changes
// nothing, one beyond is for the catch-up (R18), and Raft sees neither.
func TestLinkInstall(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		term, index   uint64
		success, fail bool
		wantTerm      uint64
	}{
		{"below what is applied", 5, 7, true, false, 5},
		{"at what is applied", 6, 10, true, false, 6},
		{"beyond", 5, 11, false, true, 0}, // as testLink's install says
		{"from an old leader", 4, 7, false, false, 5},
	} {
		l := testLink()
		got, ok := l.incoming(raft.RPC{Command: &raft.InstallSnapshotRequest{Term: tt.term, LastLogIndex: tt.index}})
		resp, _ := got.Response.(*raft.InstallSnapshotResponse)
		if !ok || (got.Error != nil) != tt.fail || !tt.fail && (resp.Success != tt.success || resp.Term != tt.wantTerm) {
			t.Errorf("%s: answered %+v, %v", tt.name, resp, got.Error)
		}
		if tt.fail && !errors.Is(got.Error, errNoCatchUp) {
			t.Errorf("%s: %v", tt.name, got.Error)
		}
		if len(l.rpc) > 0 {
			t.Errorf("%s: Raft was handed a checkpoint", tt.name)
		}
	}
}

// TestLinkUnshares: the entries of a large request reach Raft with memory of their
// own, whatever they came in.
func TestLinkUnshares(t *testing.T) {
	t.Parallel()
	whole := make([]byte, maxSharedBytes+2)
	half := len(whole) / 2
	req := &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 10, PrevLogTerm: 3, Entries: []*raft.Log{
		{Index: 11, Term: 4, Data: whole[:half:half]}, {Index: 12, Term: 4, Data: whole[half:]},
	}}
	l := testLink()
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.incoming(raft.RPC{Command: req})
	}()
	rpc := <-l.rpc
	for _, e := range rpc.Command.(*raft.AppendEntriesRequest).Entries {
		if len(e.Data) != half || &e.Data[0] == &whole[0] || &e.Data[0] == &whole[half] {
			t.Errorf("entry %d has %d bytes in the memory of the request, want %d of its own", e.Index, len(e.Data), half)
		}
	}
	rpc.RespChan <- raft.RPCResponse{Response: &raft.AppendEntriesResponse{Success: true}}
	<-done
}

// unsent is a transport that must not be asked to send a checkpoint.
type unsent struct {
	Transport
	sent int
}

func (u *unsent) InstallSnapshot(_ raft.ServerID, _ raft.ServerAddress, _ *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, _ io.Reader) error {
	u.sent++
	resp.Success = true
	return nil
}

// TestLinkUnsound: a leader whose state is not what its entries say gives its
// checkpoint to nobody.
func TestLinkUnsound(t *testing.T) {
	t.Parallel()
	var why error
	to := new(unsent)
	l := testLink()
	l.Transport, l.sound = to, func(uint64) error { return why }
	send := func() error {
		return l.InstallSnapshot("", "", &raft.InstallSnapshotRequest{Term: 5, LastLogIndex: 11}, new(raft.InstallSnapshotResponse), strings.NewReader("state"))
	}
	if err := send(); err != nil || to.sent != 1 {
		t.Fatalf("a sound state is sent %d times: %v", to.sent, err)
	}
	of := uint64(0)
	l.sound = func(index uint64) error { of = index; return why }
	why = errors.New("a partition is in quarantine")
	if err := send(); of != 11 || !errors.Is(err, errUnsound) || !errors.Is(err, why) || to.sent != 1 {
		t.Errorf("an unsound state at %d is sent %d times, want 1: %v", of, to.sent, err)
	}
}
