package broker

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// trio is three brokers that are voters of every shard.
type trio struct {
	t      *testing.T
	hub    *transport.Hub
	rigs   [3]*rig
	peers  [3]*transport.HubNode
	base   *Cluster        // without Peers
	probes [4]atomic.Int64 // that the leaders of data shards have sent, by node

	sequence int32 // of the next batch that write writes
}

// counted counts a replica's probes.
type counted struct {
	transport.Transport
	probes *atomic.Int64
}

func (c counted) Probe(ctx context.Context, to transport.ReplicaID) (uint64, error) {
	c.probes.Add(1)
	return c.Transport.Probe(ctx, to)
}

// inTrio gives a test three brokers, in a bubble.
func inTrio(t *testing.T, test func(t *testing.T, tr *trio)) {
	t.Helper()
	inTunedTrio(t, func(*Options) {}, test)
}

func inTunedTrio(t *testing.T, tune func(*Options), test func(t *testing.T, tr *trio)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tr := &trio{t: t, hub: transport.NewHub(transport.HubOptions{Seed: 1})}
		voters := func(shard replication.ShardID) []replication.ReplicaID {
			var ids []replication.ReplicaID
			for n := range int32(3) {
				ids = append(ids, replication.ReplicaID{Node: n + 1, Incarnation: uint64(shard)<<8 | uint64(n+1)})
			}
			return ids
		}
		cluster := &Cluster{
			Voters: voters,
			Replica: func(shard replication.ShardID, node int32, directory uint64) replication.ReplicaID {
				return replication.ReplicaID{Node: node, Incarnation: uint64(shard)<<8 | directory}
			},
			Connect: func(shard replication.ShardID, id replication.ReplicaID) transport.Transport {
				of := &tr.probes[id.Node]
				if shard == replication.MetadataShard {
					of = new(atomic.Int64)
				}
				return counted{tr.hub.Join(shard, id), of}
			},
		}
		for n := range int32(3) {
			cluster.Founders = append(cluster.Founders, Founder{ID: n + 1, Incarnation: uint64(n + 1)})
		}
		tr.base = cluster
		for i := range tr.rigs {
			tr.start(i, vfs.NewMem(uint64(i+1)), tune)
		}
		defer func() {
			for _, r := range tr.rigs {
				_ = r.Close() // all of them first: who is left would hold elections
			}
			for i, r := range tr.rigs {
				r.stop()
				_ = tr.peers[i].Close()
			}
		}()
		time.Sleep(30 * time.Second) // elections, and the cluster's first records
		test(t, tr)
	})
}

// start starts the broker of node i+1 on a disk.
func (tr *trio) start(i int, disk *vfs.Mem, tune ...func(*Options)) {
	tr.t.Helper()
	of := *tr.base
	tr.peers[i] = tr.hub.Node(int32(i + 1))
	of.Peers = tr.peers[i]
	tr.rigs[i] = startRig(tr.t, disk, append([]func(*Options){func(o *Options) {
		o.NodeID, o.Incarnation, o.Cluster = int32(i+1), uint64(i+1), &of
	}}, tune...)...)
	tr.peers[i].Serve(tr.rigs[i].Answer)
}

// cutPower ends a broker as a power cut does, and returns what its disk is then.
func (tr *trio) cutPower(i int) *vfs.Mem {
	r := tr.rigs[i]
	r.fs.Freeze()
	disk := r.fs.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
	r.close()
	_ = tr.peers[i].Close()
	return disk
}

// rest lets virtual time pass.
func (tr *trio) rest(d time.Duration) { time.Sleep(d) }

// controller returns the broker that leads the metadata.
func (tr *trio) controller() *rig {
	for _, r := range tr.rigs {
		if r.Broker.meta.Leading() != 0 {
			return r
		}
	}
	tr.t.Fatal("nobody leads the metadata")
	return nil
}

// leader returns the broker that leads a partition.
func (tr *trio) leader(topic Topic, index int32) *rig {
	for _, r := range tr.rigs {
		if p := r.dir.find(topic.ID, index); p != nil && p.epoch() >= 0 {
			return r
		}
	}
	tr.t.Fatalf("nobody leads partition %d of %s", index, topic.Name)
	return nil
}

// lose has the others find a broker's connections broken, and nothing of it
// reach them: its process has ended, for them.
func (tr *trio) lose(r *rig) {
	tr.cutOff(r, true)
	if err := tr.peers[r.NodeID()-1].Close(); err != nil {
		tr.t.Error(err)
	}
}

// leads returns which term of which shard which broker leads.
func (tr *trio) leads(but *rig) map[replication.ShardID][2]uint64 {
	all := make(map[replication.ShardID][2]uint64)
	for _, r := range tr.rigs {
		if r == but {
			continue
		}
		for shard, c := range r.held() {
			if p := c.Progress(); p.Leading {
				all[shard] = [2]uint64{uint64(r.NodeID()), p.Term}
			}
		}
	}
	return all
}

// cutOff keeps a broker from the others, or brings it back.
func (tr *trio) cutOff(r *rig, cut bool) {
	for n := range int32(3) {
		tr.hub.Cut(r.NodeID(), n+1, cut)
		tr.hub.Cut(n+1, r.NodeID(), cut)
	}
}
