package sim

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/history"
)

// failovers are what happens to the node that coordinates a group, for less than the
// members' sessions.
var failovers = []troubleKind{
	{"power cut", (*storm).powerCut},
	{"killed", (*storm).killed},
	{"cut off", (*storm).cutOff},
	{"pause", (*storm).pause},
	{"clean stop", (*storm).cleanStop},
	{"deposed", (*storm).deposed},
	{"clients cut off", (*storm).clientsCutOff},
	{"handed over", (*storm).handedOver},
}

// handedOver hands the shards that a node leads to others.
func (st *storm) handedOver(m *member, _ time.Duration) func() bool {
	p := st.hire()
	defer p.leave()
	for _, shard := range m.node.Leads() {
		if _, err := p.c.Admin().TransferShard(context.Background(), uint32(shard), m.id%fleetNodes+1); err != nil {
			st.problem("shard %d is not handed over: %v", shard, err)
		}
	}
	return nil
}

// coordinator returns the node that coordinates a group, as a node says.
func (gs *groupStorm) coordinator(group string) *member {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey, req.CoordinatorKeys = group, []string{group}
	resp, ok := ask[*kmsg.FindCoordinatorResponse](gs.fleet, gs.members[0], req)
	if !ok || len(resp.Coordinators) != 1 || resp.Coordinators[0].NodeID < 1 {
		gs.problem("who coordinates group %s: %+v", group, resp)
		return nil
	}
	return gs.members[resp.Coordinators[0].NodeID-1]
}

// settled returns the descriptions of all groups when each is stable, with all members.
func (gs *groupStorm) settled() map[string]client.GroupDescription {
	p := gs.hire()
	defer p.leave()
	all := make(map[string]client.GroupDescription)
	for _, t := range gs.teams {
		d, err := p.c.Groups().Describe(context.Background(), t.group)
		if err != nil || d.State != "Stable" || len(d.Members) != len(t.members) {
			gs.problem("group %s is %+v, %v; want it stable, with %d members", t.group, d, err, len(t.members))
		}
		all[t.group] = d
	}
	return all
}

// failover lets the coordinator of a group fail for a moment, and wants nobody to notice
// but by having to ask another node. The seed says which group.
func (gs *groupStorm) failover(kind troubleKind) {
	gs.net.SetLatency("", "", 100*time.Microsecond, time.Millisecond)
	if !gs.startAll() || !gs.createTopics(gs.topics, int32(len(gs.keys))) {
		return
	}
	gs.until = time.Now() // nobody dies
	producing := gs.employ(time.Now().Add(time.Minute))
	time.Sleep(20 * time.Second)
	before := gs.settled()
	t := gs.teams[gs.seed%uint64(len(gs.teams))]
	m := gs.coordinator(t.group)
	if m == nil {
		return
	}
	var steady []history.Op
	for _, o := range gs.teams {
		steady = append(steady, gs.rec.Invoke(history.Op{F: history.Steady, In: &history.Membership{Group: o.group}}))
	}
	gs.trace.add(fmt.Sprintf("TROUBLE %q of node %d, which coordinates group %s", kind.name, m.id, t.group))
	const lasts = groupSession / 4
	end := kind.begin(gs.storm, m, lasts)
	time.Sleep(lasts)
	if end != nil && !end() {
		return
	}
	time.Sleep(2 * groupSession)
	for _, op := range steady {
		gs.rec.Complete(op, history.OK)
	}
	after := gs.settled()
	for _, t := range gs.teams {
		if b, a := before[t.group], after[t.group]; b.Epoch != a.Epoch || b.Assignor != a.Assignor {
			gs.problem("group %s was of epoch %d, and is of epoch %d", t.group, b.Epoch, a.Epoch)
		}
	}
	producing.wait()
	gs.drain()
	if gs.readAfterCut() {
		gs.healthy()
	}
}

// runFailover is runFleet with groups whose coordinators fail.
func runFailover(t *testing.T, seed uint64, kind troubleKind, bug func(fl *fleet)) (problems []string, tr *trace, r *history.Report) {
	var gs *groupStorm
	problems, tr, _ = runFleet(t, seed, func(fl *fleet) {
		gs = newGroupStorm(fl)
		if bug != nil {
			bug(fl)
		}
		gs.failover(kind)
	})
	problems, r = gs.verdict(problems, tr.history)
	return problems, tr, r
}

// TestGroupFailover: a node that coordinates groups fails, and comes back before any
// member's session ends. Another one coordinates them; no partition moves, and no group
// begins anew.
func TestGroupFailover(t *testing.T) {
	t.Parallel()
	kinds := failovers
	switch {
	case testing.Short():
		kinds = kinds[:1]
	case kafka848 == nil: // all of them have more members
		kinds = kinds[:2]
	}
	for i, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(i + 1)
			problems, tr, _ := runFailover(t, seed, kind, nil)
			report(t, seed, problems, tr)
		})
	}
}
