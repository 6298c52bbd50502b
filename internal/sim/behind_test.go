package sim

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// metadataShard is the shard that all nodes follow for what topics there are.
const metadataShard = transport.ShardID(0)

// gates close ways between replicas that a cut between nodes would not tell
// apart. A node of 0 is none.
type gates struct {
	behind   atomic.Int32 // hears nothing of the metadata shard, and says nothing in it
	favoured atomic.Int32 // the only node that may ask for votes in the other shards
}

var errGated = errors.New("sim: a closed gate")

// gated is the transport of one replica behind gates.
type gated struct {
	transport.Transport
	gates *gates
	shard transport.ShardID
	node  int32
}

// refused returns why a call may not pass. election says that it is about who
// leads.
func (g *gated) refused(to raft.ServerID, election bool) error {
	id, err := transport.ParseReplicaID(string(to))
	if err != nil {
		return err
	}
	behind, favoured := g.gates.behind.Load(), g.gates.favoured.Load()
	switch {
	case g.shard == metadataShard && behind != 0 && (g.node == behind || id.Node == behind):
		return errGated
	case g.shard != metadataShard && election && favoured != 0 && g.node != favoured:
		return errGated
	}
	return nil
}

// AppendEntries implements raft.Transport.
func (g *gated) AppendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := g.refused(id, false); err != nil {
		return err
	}
	return g.Transport.AppendEntries(id, addr, req, resp)
}

// AppendEntriesPipeline implements raft.Transport.
func (*gated) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// RequestVote implements raft.Transport.
func (g *gated) RequestVote(id raft.ServerID, addr raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := g.refused(id, true); err != nil {
		return err
	}
	return g.Transport.RequestVote(id, addr, req, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (g *gated) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := g.refused(id, true); err != nil {
		return err
	}
	return g.Transport.RequestPreVote(id, addr, req, resp)
}

// leadsData waits until a node leads all shards but the metadata's.
func (fl *fleet) leadsData(m *member) bool {
	for range 600 {
		n := 0
		for _, shard := range m.node.Leads() {
			if shard != metadataShard {
				n++
			}
		}
		if n == fleetShards {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	fl.problem("node %d does not lead the data shards after a minute", m.id)
	return false
}

// behindHistory makes a node the leader of shards with partitions of a topic that
// it has never heard of: it votes in all shards, and hears of the metadata
// nothing. A partition goes only for a tombstone (R17), so it leaves them alone.
func behindHistory(fl *fleet) {
	g := new(gates)
	fl.lie = func(shard transport.ShardID, id transport.ReplicaID, tr transport.Transport) transport.Transport {
		return &gated{Transport: tr, gates: g, shard: shard, node: id.Node}
	}
	first := fl.members[0]
	g.favoured.Store(first.id)
	if !fl.startAll() {
		return
	}
	if !fl.leadsData(first) || !fl.createTopics([]string{"before"}, 1) {
		return
	}
	behind := fl.members[1]
	for _, shard := range behind.node.Leads() {
		if shard == metadataShard {
			behind = fl.members[2]
		}
	}
	fl.trace.add(fmt.Sprintf("NODE %d HEARS OF NO METADATA", behind.id))
	g.behind.Store(behind.id)
	const topic = "stays0"
	keys := []history.Key{{Topic: topic}, {Topic: topic, Partition: 1}}
	if !fl.createTopics([]string{topic}, int32(len(keys))) {
		return
	}
	p := fl.hire()
	p.produce(load{keys: keys, records: 20, maxBytes: 10, maxPause: 1, timeout: time.Minute})
	p.leave()
	time.Sleep(settle) // a majority has the records, but it can lead only with all of them

	g.favoured.Store(behind.id)
	fl.end(first, cutEnd(vfs.Lose))
	if !fl.leadsData(behind) {
		return
	}
	time.Sleep(settle) // time to do what it should not
	fl.trace.add("HEAL")
	g.favoured.Store(0)
	g.behind.Store(0)
	if !fl.start(first) {
		return
	}
	fl.progress(keys)
	fl.stop()
	time.Sleep(settle)
	if fl.healthy() {
		fl.readAll()
	}
}

// TestBehindDeletesNothing runs behindHistory.
func TestBehindDeletesNothing(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= 5; seed++ {
		problems, tr, acks := runFleet(t, seed, behindHistory)
		if acks < 20 {
			t.Errorf("seed %d: only %d records were acknowledged", seed, acks)
		}
		report(t, seed, fleetVerdict(problems, tr.history), tr)
	}
}
