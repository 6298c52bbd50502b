package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// describe asks one node for the cluster.
func (fl *fleet) describe(m *member) (d client.ClusterDescription, took time.Duration, ok bool) {
	c, err := client.New(client.Config{
		Bootstrap: []string{m.addr()}, RequestTimeout: 10 * time.Second,
		Dial: func(ctx context.Context, _, addr string) (net.Conn, error) { return fl.net.Dial(ctx, "admin", addr) },
	})
	if err != nil {
		panic(err) // of options that do not depend on anything
	}
	defer c.Close()
	began := time.Now()
	d, err = c.Admin().DescribeCluster(context.Background(), 0)
	if err != nil {
		fl.problem("node %d: %v", m.id, err)
	}
	return d, time.Since(began), err == nil && d.Asked == m.id
}

// state is what is wrong by a description: silent nodes, and by shard the
// replicas that are not well, and a missing leader.
func state(d client.ClusterDescription) (wrong []string) {
	for _, n := range d.Nodes {
		if n.Err != nil {
			wrong = append(wrong, fmt.Sprintf("node %d", n.ID))
		}
	}
	for _, s := range d.Shards {
		if s.Leader < 0 {
			wrong = append(wrong, fmt.Sprintf("shard %d has no leader", s.ID))
		}
		for _, r := range s.Replicas {
			if r.Status != client.ReplicaOK {
				wrong = append(wrong, fmt.Sprintf("shard %d on %d %s", s.ID, r.Node, r.Status))
			}
		}
	}
	return wrong
}

// TestClusterState: every node of three tells the same of the cluster; one that
// is down or cut off is silent, within a second, and what it leads has no leader
// or another one.
func TestClusterState(t *testing.T) {
	t.Parallel()
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		all, ok := fl.muster()
		if !ok || !fl.createTopics([]string{"t"}, 4) {
			return
		}
		time.Sleep(settle)
		for _, m := range all {
			d, _, ok := fl.describe(m)
			if !ok {
				return
			}
			if wrong := state(d); wrong != nil || d.ID != "sim" || d.Controller != all[0].id || len(d.Nodes) != 3 || len(d.Shards) != 1+fleetShards || d.Topics != 1 || d.Partitions != 4 {
				fl.problem("node %d says %+v (%v)", m.id, d, wrong)
			}
			for _, n := range d.Nodes {
				led := len(fl.members[n.ID-1].node.Leads())
				if n.Address != fl.members[n.ID-1].addr() || n.Leads != led || n.Replicas != 1+fleetShards || n.Version != "sim" || n.Uptime < settle {
					fl.problem("node %d says of node %d, which leads %d: %+v", m.id, n.ID, led, n)
				}
			}
			for _, s := range d.Shards {
				if len(s.Replicas) != 3 || s.LastIndex < 1 || s.Term < 1 {
					fl.problem("node %d says of shard %d: %+v", m.id, s.ID, s)
				}
				for _, r := range s.Replicas {
					if r.MatchIndex != s.LastIndex || r.LagEntries != 0 || r.AppliedIndex != s.LastIndex || !r.Voter {
						fl.problem("node %d says of shard %d: %+v", m.id, s.ID, r)
					}
				}
			}
		}
		down, left := all[0], all[1:]
		want := []string{fmt.Sprintf("node %d", down.id)}
		for shard := range uint32(1 + fleetShards) {
			want = append(want, fmt.Sprintf("shard %d on %d silent", shard, down.id))
		}
		fl.cut(down)
		time.Sleep(settle)
		for _, m := range left {
			if d, took, ok := fl.describe(m); ok && (!slices.Equal(state(d), want) || took > 2*time.Second) {
				fl.problem("node %d says after %v: %v, want %v", m.id, took, state(d), want)
			}
		}
		if !fl.start(down) {
			return
		}
		time.Sleep(settle)
		fl.isolate(down, true, true)
		time.Sleep(settle)
		for _, m := range left {
			if d, took, ok := fl.describe(m); ok && (!slices.Equal(state(d), want) || took > 2*time.Second) {
				fl.problem("node %d says after %v of one that is cut off: %v, want %v", m.id, took, state(d), want)
			}
		}
		// The one that is cut off sees nobody else, and no leader.
		if d, took, ok := fl.describe(down); ok {
			if wrong := state(d); len(wrong) != 2+(1+fleetShards)*4 || took > 2*time.Second {
				fl.problem("the one cut off says after %v: %v", took, wrong)
			}
		}
		fl.isolate(down, false, false)
		time.Sleep(settle)
		if d, _, ok := fl.describe(down); ok && state(d) != nil {
			fl.problem("after all is well: %v", state(d))
		}
		fl.healthy()
	})
	report(t, 1, problems, tr)
}

// TestClusterTransfer: each shard goes to each node by name, whichever node the
// client knows; one that is down does not get it.
func TestClusterTransfer(t *testing.T) {
	t.Parallel()
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		all, ok := fl.muster()
		if !ok {
			return
		}
		time.Sleep(settle)
		p := fl.hire()
		defer p.leave()
		for round := range int32(2) {
			for shard := range uint32(1 + fleetShards) {
				to := (int32(shard)+round)%3 + 1
				leader, err := p.c.Admin().TransferShard(context.Background(), shard, to)
				if err != nil || leader != to {
					fl.problem("shard %d to node %d: %d, %v", shard, to, leader, err)
				}
				time.Sleep(time.Second)
				if leads := fl.members[to-1].node.Leads(); !slices.ContainsFunc(leads, func(id transport.ShardID) bool { return uint32(id) == shard }) {
					fl.problem("node %d leads %v, want %d among them", to, leads, shard)
				}
			}
		}
		down := all[2]
		if _, err := p.c.Admin().TransferShard(context.Background(), 1, down.id%3+1); err != nil {
			fl.problem("away from the node that is to go down: %v", err)
		}
		fl.cut(down)
		time.Sleep(settle)
		if leader, err := p.c.Admin().TransferShard(context.Background(), 1, down.id); !isCode(err, errcode.EligibleLeadersNotAvailable) {
			fl.problem("to a node that is down: %d, %v", leader, err)
		}
		if leader, err := p.c.Admin().TransferShard(context.Background(), 1, 9); !isCode(err, errcode.InvalidReplicaAssignment) {
			fl.problem("to a node that is none: %d, %v", leader, err)
		}
		if leader, err := p.c.Admin().TransferShard(context.Background(), 99, 1); !isCode(err, errcode.ResourceNotFound) {
			fl.problem("of a shard that is none: %d, %v", leader, err)
		}
		if leader, err := p.c.Admin().TransferShard(context.Background(), 2, client.AnyNode); err != nil || leader == down.id {
			fl.problem("to any node: %d, %v", leader, err)
		}
		fl.healthy()
	})
	report(t, 1, problems, tr)
}

func isCode(err error, want errcode.Code) bool {
	var e *errcode.Error
	return errors.As(err, &e) && e.Code == want
}
