package sim

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/kafka"
)

// forgetting acknowledges some commits that nobody hears of.
type forgetting struct {
	kafka.Groups
	n atomic.Int64
}

// CommitOffsets implements kafka.Groups.
func (f *forgetting) CommitOffsets(ctx context.Context, req *consumergroup.CommitRequest) *consumergroup.CommitReply {
	if f.n.Add(1)%8 > 0 {
		return f.Groups.CommitOffsets(ctx, req)
	}
	return &consumergroup.CommitReply{Offsets: make([]*errcode.Error, len(req.Offsets))}
}

// hasty takes what a member is to give away for given away, before it has said so.
type hasty struct{ kafka.Groups }

// ConsumerHeartbeat implements kafka.Groups.
func (h hasty) ConsumerHeartbeat(ctx context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply {
	reply := h.Groups.ConsumerHeartbeat(ctx, req)
	if reply.Err != nil || reply.Assignment == nil || req.Epoch < 0 {
		return reply
	}
	own := &consumergroup.ConsumerHeartbeatRequest{
		Group: req.Group, MemberID: reply.MemberID, Epoch: reply.Epoch, RebalanceTimeoutMS: -1,
		Owned: append(slices.Grow(reply.Assignment.Partitions[:0:0], 1), reply.Assignment.Partitions...), // not nil: it owns no more
	}
	if again := h.Groups.ConsumerHeartbeat(ctx, own); again.Err == nil {
		reply.Epoch = again.Epoch
		if again.Assignment != nil {
			reply.Assignment = again.Assignment
		}
	}
	return reply
}

// generous gives every member the first partition, whoever else has it.
type generous struct{ kafka.Groups }

// ConsumerHeartbeat implements kafka.Groups.
func (g generous) ConsumerHeartbeat(ctx context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply {
	reply := g.Groups.ConsumerHeartbeat(ctx, req)
	if reply.Assignment == nil || len(reply.Assignment.Partitions) == 0 {
		return reply
	}
	all := slices.Clone(reply.Assignment.Partitions)
	if t := &all[0]; !slices.Contains(t.Partitions, 0) {
		t.Partitions, t.Epochs = append([]int32{0}, t.Partitions...), nil
	}
	reply.Assignment = &consumergroup.ConsumerAssignment{Partitions: all}
	return reply
}

// ahead tells who begins to read a partition to begin a little later.
type ahead struct{ kafka.Groups }

// FetchOffsets implements kafka.Groups.
func (a ahead) FetchOffsets(ctx context.Context, req *consumergroup.FetchRequest) *consumergroup.FetchReply {
	reply := a.Groups.FetchOffsets(ctx, req)
	if req.All {
		return reply
	}
	for i := range reply.Offsets {
		if o := &reply.Offsets[i]; o.Offset > 0 {
			o.Offset += 2
		}
	}
	return reply
}

// strange knows no member when it begins to coordinate.
type strange struct {
	kafka.Groups
	mu    sync.Mutex
	known map[string]bool
}

// ConsumerHeartbeat implements kafka.Groups.
func (s *strange) ConsumerHeartbeat(ctx context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply {
	reply := s.Groups.ConsumerHeartbeat(ctx, req)
	s.mu.Lock()
	known := s.known[req.MemberID]
	if s.known == nil {
		s.known = make(map[string]bool)
	}
	s.known[req.MemberID] = true
	s.mu.Unlock()
	if reply.Err == nil && req.Epoch > 0 && !known {
		return &consumergroup.ConsumerHeartbeatReply{Err: errcode.Errorf(errcode.UnknownMemberID, "a seeded bug")}
	}
	return reply
}

// groupBugs are what histories with consumer groups have to find, each by itself, and
// by which of the anomalies.
var groupBugs = []struct {
	name     string
	tap      func(kafka.Groups) kafka.Groups
	kinds    []history.Kind // one of them
	failover bool           // coordinators fail, and nothing else; else it is a storm
}{
	{"a commit is acknowledged and forgotten", func(g kafka.Groups) kafka.Groups { return &forgetting{Groups: g} }, []history.Kind{history.LostCommit}, false},
	{"a partition is given away before it is revoked", func(g kafka.Groups) kafka.Groups { return hasty{g} }, []history.Kind{history.TwoOwners, history.FencedCommit}, false},
	{"a partition is given to all", func(g kafka.Groups) kafka.Groups { return generous{g} }, []history.Kind{history.TwoOwners}, false},
	{"a group goes on beyond its offset", func(g kafka.Groups) kafka.Groups { return ahead{g} }, []history.Kind{history.Unconsumed}, false},
	{"who takes over knows nobody", func(g kafka.Groups) kafka.Groups { return &strange{Groups: g} }, []history.Kind{history.NeedlessRebalance}, true},
}

// TestGroupBugs shows that histories with consumer groups see what matters: with it
// broken, one of the first fifteen seeds fails, by the anomaly that says so. In short mode
// it has the first bug alone.
func TestGroupBugs(t *testing.T) {
	if kafka848 != nil {
		t.Skip("the native members find them, with or without others")
	}
	t.Parallel()
	const most = 15
	bugs := groupBugs
	if testing.Short() {
		bugs = bugs[:1]
	}
	for _, tt := range bugs {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			bug := func(fl *fleet) { fl.tap = tt.tap }
			for seed := uint64(1); seed <= most; seed++ {
				var r *history.Report
				if tt.failover {
					_, _, r = runFailover(t, seed, failovers[int(seed)%len(failovers)], bug)
				} else {
					_, _, _, r = runGroupStorm(t, seed, bug)
				}
				for _, kind := range tt.kinds {
					if r.Counts[kind] > 0 {
						t.Logf("seed %d: %v", seed, r.Counts)
						return
					}
				}
				t.Logf("seed %d: not found: %v", seed, r.Counts)
			}
			t.Errorf("found by none of %d seeds", most)
		})
	}
}
