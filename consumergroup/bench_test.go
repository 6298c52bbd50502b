package consumergroup

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// started is when the members of stable have their assignments.
var started = begins.Add(10 * time.Second)

// stable returns a coordinator of groups, each with so many members that have their
// assignment, and a heartbeat of each.
func stable(t testing.TB, groups, members int) (*Coordinator, []*HeartbeatRequest) {
	opts := DefaultOptions()
	n := 0
	opts.NewID = func() string { n++; return fmt.Sprintf("%032x", n) }
	c, err := NewCoordinator(begins, NewGroups(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var (
		out  Decision
		beat []*HeartbeatRequest
		sub  = record.AppendSubscription(nil, &record.Subscription{Topics: []string{"orders", "payments"}})
	)
	for g := range groups {
		for m := range members {
			c.JoinGroup(begins, Token(g*members+m+1), &JoinRequest{
				Group: fmt.Sprintf("group-%d", g), ClientID: fmt.Sprintf("client-%d", m), ClientHost: "/10.0.0.1",
				SessionTimeoutMS: 45000, RebalanceTimeoutMS: 300000, ProtocolType: record.ConsumerProtocolType,
				Protocols: []Protocol{{"cooperative-sticky", sub}, {"range", sub}},
			}, &out)
		}
	}
	for i := range 4 {
		c.Tick(begins.Add(time.Duration(i)*3*time.Second), &out)
	}
	for _, r := range out.Replies {
		j, ok := r.Response.(*JoinReply)
		if !ok || j.Err != nil {
			t.Fatalf("%+v", r.Response)
		}
		req := &SyncRequest{MemberID: j.MemberID, Generation: j.Generation}
		for name, g := range c.live {
			if g.byID[j.MemberID] != nil {
				req.Group = name
			}
		}
		for _, m := range j.Members {
			req.Assignments = append(req.Assignments, Assignment{m.MemberID, make([]byte, 100)})
		}
		c.SyncGroup(started, r.Token, req, new(Decision))
		beat = append(beat, &HeartbeatRequest{Group: req.Group, MemberID: j.MemberID, Generation: j.Generation})
	}
	if len(beat) != groups*members || len(c.held) > 0 {
		t.Fatalf("%d members, %d requests are held", len(beat), len(c.held))
	}
	return c, beat
}

// TestHeartbeatAllocates: a heartbeat takes no memory, nor do the ticks between.
func TestHeartbeatAllocates(t *testing.T) {
	c, beats := stable(t, 10, 10)
	now := started
	var out Decision
	allocs := testing.AllocsPerRun(100, func() {
		now = now.Add(3 * time.Second)
		for i, req := range beats {
			out.Reset()
			c.Heartbeat(now, Token(i+1), req, &out)
			if r := out.Replies[0].Response.(HeartbeatReply); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		c.Tick(now, &out)
	})
	if allocs > 0 {
		t.Errorf("%v allocations for %d heartbeats and a tick", allocs, len(beats))
	}
}

// BenchmarkHeartbeat is one heartbeat among the given members, with the ticks that
// their sessions need: each member sends one in 3 s.
func BenchmarkHeartbeat(b *testing.B) {
	for _, groups := range []int{1, 1000} {
		b.Run(fmt.Sprintf("groups=%d/members=10", groups), func(b *testing.B) {
			c, beats := stable(b, groups, 10)
			now := started
			step := 3 * time.Second / time.Duration(len(beats))
			var out Decision
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				now = now.Add(step)
				out.Reset()
				if next, ok := c.Next(); ok && !next.After(now) {
					c.Tick(now, &out)
				}
				c.Heartbeat(now, 1, beats[i], &out)
				if i++; i == len(beats) {
					i = 0
				}
			}
		})
	}
}

// BenchmarkCommit is one commit of a member, of so many partitions.
func BenchmarkCommit(b *testing.B) {
	for _, partitions := range []int{1, 10} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			c, beats := stable(b, 1000, 10)
			now := started
			var out Decision
			reqs := make([]*CommitRequest, len(beats))
			for i, h := range beats {
				reqs[i] = &CommitRequest{Group: h.Group, MemberID: h.MemberID, Generation: h.Generation, RetentionMS: -1}
				for p := range partitions {
					reqs[i].Offsets = append(reqs[i].Offsets, CommitOffset{Topic: "orders", Partition: int32(p), Offset: 1, LeaderEpoch: 1})
				}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				out.Reset()
				c.CommitOffsets(now, 1, reqs[i], &out)
				if i++; i == len(reqs) {
					i = 0
				}
			}
		})
	}
}

// BenchmarkTakeOver is a new leader's beginning: a clone, and the members' sessions.
func BenchmarkTakeOver(b *testing.B) {
	c, _ := stable(b, 1000, 10)
	g := c.Decided()
	opts := DefaultOptions()
	opts.NewID = func() string { return "" }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewCoordinator(begins, g, opts); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHeldBytes: who sends JoinGroup requests with invented ids, or with long
// metadata, is refused before more than the bounds is held.
func TestHeldBytes(t *testing.T) {
	t.Parallel()
	opts := DefaultOptions()
	n := 0
	opts.NewID = func() string { n++; return fmt.Sprintf("%032x", n) }
	opts.MaxGroups, opts.MaxGroupBytes, opts.MaxBytes = 1000, 1<<20, 4<<20
	c, err := NewCoordinator(begins, NewGroups(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var out Decision
	refused := 0
	metadata := make([]byte, 10000)
	for i := range 5000 {
		req := &JoinRequest{
			Group: fmt.Sprint("group-", i), ClientID: strings.Repeat("c", 1000), SessionTimeoutMS: 10000, ProtocolType: "consumer",
			Protocols: []Protocol{{"range", metadata}}, NeedsMemberID: i%2 == 0,
		}
		if i%3 == 0 {
			req.Group = "group"
		}
		out.Reset()
		c.JoinGroup(begins, Token(i+1), req, &out)
		if len(out.Records) > 0 {
			t.Fatal("who only asks has something recorded")
		}
		for _, r := range out.Replies {
			if j := r.Response.(*JoinReply); j.Err != nil && j.MemberID == "" {
				refused++
			}
		}
		if c.bytes > opts.MaxBytes || len(c.live) > opts.MaxGroups {
			t.Fatalf("after %d requests: %+v", i, c.Stats())
		}
		if g := c.live["group"]; g != nil && g.bytes > opts.MaxGroupBytes {
			t.Fatalf("after %d requests: %d bytes of a group", i, g.bytes)
		}
	}
	if refused < 2500 {
		t.Errorf("only %d are refused", refused)
	}
	// Nobody comes back: nothing stays.
	c.Tick(begins.Add(time.Hour), &out)
	c.Tick(begins.Add(2*time.Hour), &out)
	if s := c.Stats(); s != (Stats{}) {
		t.Errorf("after an hour: %+v", s)
	}
}

// TestKeepsNoRequest: what is kept of a request is a copy, so that its buffer may be
// used again.
func TestKeepsNoRequest(t *testing.T) {
	t.Parallel()
	c := newCoordinator(t, NewGroups())
	metadata, assignment := []byte("metadata"), []byte("assignment")
	join := &JoinRequest{
		Group: "g", SessionTimeoutMS: 10000, RebalanceTimeoutMS: 10000, ProtocolType: "p", Protocols: []Protocol{{"n", metadata}},
	}
	var out Decision
	c.JoinGroup(begins, 1, join, &out)
	c.Tick(started, &out)
	id := out.Replies[0].Response.(*JoinReply).MemberID
	join.MemberID = id
	for token := Token(2); token < 4; token++ { // as a new member, and when it joins again
		copy(metadata, "spoiled!")
		c.SyncGroup(started, token, &SyncRequest{Group: "g", MemberID: id, Generation: int32(token - 1), Assignments: []Assignment{{id, assignment}}}, &out)
		copy(assignment, "spoiled!!!")
		out.Reset()
		c.DescribeGroup(started, token, "g", &out)
		m := out.Replies[0].Response.(*DescribeReply).Members[0]
		if string(m.Metadata) != "metadata" || string(m.Assignment) != "assignment" {
			t.Fatalf("%q and %q are kept", m.Metadata, m.Assignment)
		}
		copy(metadata, "metadata")
		copy(assignment, "assignment")
		c.JoinGroup(started, token+10, join, &out)
	}
}
