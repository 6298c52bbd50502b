package consumergroup

import (
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

func newCoordinator(t testing.TB, g *Groups) *Coordinator {
	t.Helper()
	opts := DefaultOptions()
	n := 0
	opts.NewID = func() string { n++; return fmt.Sprint(n) }
	c, err := NewCoordinator(begins, g, opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSweepSteps: what was committed to a deleted topic is forgotten in steps, and what
// is committed to its successor meanwhile stays, whether its id is known or not.
func TestSweepSteps(t *testing.T) {
	t.Parallel()
	const groups = 2*sweepGroups + 10
	g := NewGroups()
	at := func(topic, id string, ms int64) record.Record {
		return (&record.OffsetCommit{Group: "g-" + topic, Topic: topic, Value: &record.OffsetCommitValue{
			Offset: 1, CommitTimestampMS: ms, ExpireTimestampMS: -1, TopicID: topicID(id),
		}}).Encode()
	}
	for i := range groups {
		fold(t, g, offsetRecord(fmt.Sprintf("%06d", i), "t", 0, 1), offsetRecord(fmt.Sprintf("%06d", i), "u", 0, 1))
	}
	fold(t, g, at("t", "", 5), at("v", "old", 5))
	c := newCoordinator(t, g)
	now := begins.Add(time.Second)
	var out Decision
	c.TopicsDeleted(now, []Topic{{"t", topicID("id")}, {"v", topicID("old")}}, &out)
	steps := 0
	for {
		next, ok := c.Next()
		if !ok || next.After(now.Add(time.Second)) {
			break
		}
		now = next
		records := len(out.Records)
		c.Tick(now, &out)
		if n := len(out.Records) - records; n > sweepGroups {
			t.Fatalf("a step decides %d records", n)
		}
		if steps++; steps == 1 {
			commit := func(group, topic, id string) {
				c.CommitOffsets(now.Add(time.Millisecond), 1, &CommitRequest{Group: group, Generation: -1, RetentionMS: -1,
					Offsets: []CommitOffset{{Topic: topic, TopicID: topicID(id), Partition: 7, Offset: 9}}}, &out)
			}
			commit("004009", "t", "")
			commit("004009", "v", "new")
			c.TopicsDeleted(now, []Topic{{Name: "u"}}, &out) // is not forgotten: its offsets have another id
			c.TopicsDeleted(now, []Topic{{"u", topicID("id")}}, &out)
		}
	}
	if steps < 4 {
		t.Errorf("%d steps", steps)
	}
	var left []string
	for _, name := range c.Decided().Names() {
		for tp := range c.Decided().Committed(name) {
			left = append(left, fmt.Sprint(name, tp))
		}
	}
	if got, want := fmt.Sprint(left), "[004009{t 7} 004009{v 7}]"; got != want {
		t.Errorf("left: %.200s, want %s", got, want)
	}
	if c.sweeps.topics != nil || c.sweeps.more != nil {
		t.Error("a sweep goes on without groups")
	}
}

// TestRetentionSteps: the check of the retention goes in steps as well, and begins again.
func TestRetentionSteps(t *testing.T) {
	t.Parallel()
	g := NewGroups()
	for i := range 3 * sweepOffsets {
		fold(t, g, offsetRecord(fmt.Sprint("g", i/10), "t", int32(i%10), 1))
	}
	c := newCoordinator(t, g)
	now := begins.Add(DefaultOptions().OffsetsRetention + 2*time.Hour)
	var out Decision
	for want := 2 * sweepOffsets; want >= 0; want -= sweepOffsets {
		c.Tick(now, &out)
		if n := c.Decided().Offsets(); n != want {
			t.Fatalf("%d offsets are left after a step, want %d", n, want)
		}
		if next, ok := c.Next(); !ok || want > 0 && next.Sub(now) != sweepPause || want == 0 && next.Sub(now) != DefaultOptions().RetentionCheck {
			t.Fatalf("the next step is in %v", next.Sub(now))
		}
		now = now.Add(sweepPause)
	}
}

// TestReads: what tells the state is marked, so that it is told by who leads only.
func TestReads(t *testing.T) {
	t.Parallel()
	c, beats := stable(t, 1, 2)
	id, group := beats[0].MemberID, beats[0].Group
	for name, tt := range map[string]struct {
		call func(out *Decision)
		want bool
	}{
		"fetch":     {func(out *Decision) { c.FetchOffsets(started, 1, &FetchRequest{Group: group}, out) }, true},
		"list":      {func(out *Decision) { c.ListGroups(started, 1, &ListRequest{}, out) }, true},
		"describe":  {func(out *Decision) { c.DescribeGroup(started, 1, group, out) }, true},
		"no group":  {func(out *Decision) { c.DescribeGroup(started, 1, "none", out) }, true},
		"heartbeat": {func(out *Decision) { c.Heartbeat(started, 1, beats[0], out) }, false},
		"sync": {func(out *Decision) {
			c.SyncGroup(started, 1, &SyncRequest{Group: group, MemberID: id, Generation: 1}, out)
		}, true},
	} {
		var out Decision
		if tt.call(&out); out.Reads != tt.want || len(out.Replies) != 1 {
			t.Errorf("%s: reads %t, %d replies; want %t and one", name, out.Reads, len(out.Replies), tt.want)
		}
		if out.Reset(); out.Reads || len(out.Replies) > 0 {
			t.Errorf("%s: Reset leaves something", name)
		}
	}
}
