package broker

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/replication"
)

// createWith creates a topic of a replication factor on the node that leads the
// metadata.
func (tr *trio) createWith(name string, partitions, factor int32) Topic {
	tr.t.Helper()
	topic, err := tr.controller().CreateTopic(tr.t.Context(), TopicSpec{Name: name, Partitions: partitions, Replication: factor})
	if err != nil {
		tr.t.Fatalf("topic %s: %v", name, err)
	}
	return topic
}

// on lists the shards that each node carries.
func (tr *trio) on() (shards [3][]uint32) {
	for i, r := range tr.rigs {
		for _, s := range r.carriedInOrder() {
			shards[i] = append(shards[i], uint32(s.id))
		}
	}
	return shards
}

// TestReplicationFactors: a topic has as many replicas as it asks for. The shards
// for them are made when the first topic asks, run on the nodes that they list and
// on no other, and every node knows who leads them; who has no replica says so.
func TestReplicationFactors(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		for factor := int32(1); factor <= 3; factor++ {
			topic := tr.createWith(fmt.Sprint("of", factor), 6, factor)
			tr.rest(contactInterval) // what the leaders say has arrived
			leads := map[int32]bool{}
			for i := range int32(6) {
				leader := tr.leader(topic, i)
				leads[leader.NodeID()] = true
				if res := leader.produce(topic, i, records(t, batch.NoProducer, "a")); res.Err != nil {
					t.Fatalf("factor %d, partition %d: %v", factor, i, res.Err)
				}
				for _, r := range tr.rigs {
					seen, missing := r.TopicByID(topic.ID)
					if missing != nil {
						t.Fatal(missing)
					}
					got := r.leaders(seen)[i]
					want := PartitionLeader{Node: leader.NodeID(), Epoch: leader.dir.find(topic.ID, i).epoch(), Replicas: got.Replicas, InSync: got.Replicas}
					if d := cmp.Diff(want, got); d != "" || len(want.Replicas) != int(factor) {
						t.Errorf("node %d, factor %d, partition %d: differs (-want +got):\n%s", r.NodeID(), factor, i, d)
					}
					if l, ok := r.PartitionLeader(ClientListener, topic.ID, i); !ok || l.Node != leader.NodeID() || l.Epoch != want.Epoch {
						t.Errorf("node %d, factor %d, partition %d: leader %+v, %t", r.NodeID(), factor, i, l, ok)
					}
					if r == leader {
						continue
					}
					if res := r.produce(topic, i, records(t, batch.NoProducer, "b")); errcode.Of(res.Err) != errcode.NotLeaderOrFollower {
						t.Errorf("node %d, factor %d, partition %d: produced where it is not led: %v", r.NodeID(), factor, i, res.Err)
					}
				}
			}
		}
		// 1 and 2 are the cluster's, of all three nodes; then a shard a node for each factor.
		want := [3][]uint32{{1, 2, 3, 6, 8}, {1, 2, 4, 6, 7}, {1, 2, 5, 7, 8}}
		if d := cmp.Diff(want, tr.on()); d != "" {
			t.Errorf("shards differ (-want +got):\n%s", d)
		}
		tr.createWith("again", 1, 2)
		if d := cmp.Diff(want, tr.on()); d != "" {
			t.Errorf("another topic has added shards (-want +got):\n%s", d)
		}
		if _, err := tr.controller().CreateTopic(t.Context(), TopicSpec{Name: "of4", Partitions: 1, Replication: 4}); errcode.Of(err) != errcode.InvalidReplicationFactor {
			t.Errorf("more replicas than nodes: %v", err)
		}
		if _, err := tr.controller().CreateTopic(t.Context(), TopicSpec{Name: "none", Partitions: 1, Replication: 1, ValidateOnly: true}); err != nil {
			t.Errorf("validate only: %v", err)
		}
	})
}

// TestTopicElsewhere: a topic of which the node that leads the metadata carries
// nothing is grown and deleted by it, and the answers come when that is done on the
// nodes that do.
func TestTopicElsewhere(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		controller := tr.controller()
		topic := tr.createWith("t", 3, 1)
		grown, err := controller.AddPartitions(t.Context(), topic.ID, 9, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		for i := range int32(9) {
			leader := tr.leader(topic, i)
			if replicas := controller.leaders(grown)[i].Replicas; !slices.Equal(replicas, []int32{leader.NodeID()}) {
				t.Errorf("partition %d, led by node %d, is on %v", i, leader.NodeID(), replicas)
			}
			if res := leader.produce(topic, i, records(t, batch.NoProducer, "a")); res.Err != nil {
				t.Errorf("partition %d: %v", i, res.Err)
			}
		}
		if err := controller.DeleteTopic(t.Context(), topic.ID); err != nil {
			t.Fatal(err)
		}
		for _, r := range tr.rigs {
			for i := range int32(9) {
				if r.dir.find(topic.ID, i) != nil {
					t.Errorf("node %d has partition %d of a topic that is deleted", r.NodeID(), i)
				}
			}
		}
	})
}

// TestCarryAgain: a node that comes back runs the shards that were added before,
// from its disk and under the same incarnations, and those that were added while
// it was away; not those of another directory of the node (R11).
func TestCarryAgain(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.createWith("before", 3, 2)
		for i := range int32(3) {
			if res := tr.leader(topic, i).produce(topic, i, records(t, batch.NoProducer, "a")); res.Err != nil {
				t.Fatal(res.Err)
			}
		}
		away := slices.IndexFunc(tr.rigs[:], func(r *rig) bool { return r.Broker.meta.Leading() == 0 })
		before := tr.replicas(away)
		disk := tr.cutPower(away)
		tr.rest(5 * time.Second)
		created := make(chan error, 1)
		controller := tr.controller()
		go func() {
			_, err := controller.CreateTopic(t.Context(), TopicSpec{Name: "meanwhile", Partitions: 3, Replication: 1})
			created <- err
		}()
		tr.rest(5 * time.Second)
		tr.start(away, disk)
		if err := <-created; err != nil {
			t.Fatalf("a topic, a partition of which is on the node that was away: %v", err)
		}
		tr.rest(5 * time.Second)
		after := tr.replicas(away)
		for shard, id := range before {
			if after[shard] != id {
				t.Errorf("shard %d: replica %s, was %s", shard, after[shard], id)
			}
		}
		if len(after) != len(before)+1 {
			t.Errorf("the node has %v, had %v", after, before)
		}
		for i := range int32(3) {
			if got := tr.leader(topic, i).read(topic, i, 0); !slices.Equal(got, []string{"a"}) {
				t.Errorf("partition %d: %q", i, got)
			}
		}
	})
}

// replicas returns those that a node runs, by shard.
func (tr *trio) replicas(i int) map[replication.ShardID]replication.ReplicaID {
	ids := make(map[replication.ShardID]replication.ReplicaID)
	for id, s := range tr.rigs[i].carried() {
		ids[id] = s.replica.Progress().ID
	}
	return ids
}

// TestCrashWhileShardsAreAdded cuts a node's power at every operation on its disk,
// from the moment on that it hears of new shards until they run. Whatever was
// durable by then, it comes back as the replica that the others expect, and topics
// that need it get on.
func TestCrashWhileShardsAreAdded(t *testing.T) {
	ops, step := 0, 1
	if testing.Short() {
		step = 3
	}
	for at := 1; ; at += step {
		cut := false
		inTrio(t, func(t *testing.T, tr *trio) {
			hurt := slices.IndexFunc(tr.rigs[:], func(r *rig) bool { return r.Broker.meta.Leading() == 0 })
			fsys := tr.rigs[hurt].fs
			n := 0
			fsys.OnOp(func(_ vfs.Op, phase vfs.Phase) {
				// Two of the three new shards are this node's: then it is over.
				if phase != vfs.Before || cut || len(tr.rigs[hurt].carried()) == 4 {
					return
				}
				if n++; n == at {
					cut = true
					fsys.Freeze()
				}
			})
			created := make(chan error, 1)
			controller := tr.controller()
			go func() {
				_, err := controller.CreateTopic(t.Context(), TopicSpec{Name: "t", Partitions: 6, Replication: 2})
				created <- err
			}()
			tr.rest(3 * time.Second)
			fsys.OnOp(nil)
			if cut {
				tr.start(hurt, tr.cutPower(hurt))
			}
			if err := <-created; err != nil {
				t.Errorf("cut at operation %d: %v", at, err)
			}
			tr.rest(5 * time.Second)
			im := controller.image()
			for i, r := range tr.rigs {
				for _, shard := range im.Carried(metadata.NodeID(i + 1)) {
					id := replication.ShardID(shard.ID)
					s := r.carried()[id]
					if s == nil {
						t.Errorf("cut at operation %d: node %d does not run shard %d", at, i+1, id)
						continue
					}
					p := s.replica.Progress()
					if p.ID != want(r, id) || len(p.Members) != len(shard.Replicas) || !p.HasLeader {
						t.Errorf("cut at operation %d: shard %d on node %d is %+v, want %s of %d voters, with a leader", at, id, i+1, p, want(r, id), len(shard.Replicas))
					}
				}
			}
		})
		if !cut {
			break
		}
		ops++
		if t.Failed() {
			return
		}
	}
	t.Logf("cut at each of %d operations", ops)
	if ops < 10/step {
		t.Errorf("%d operations were cut short, which cannot be all", ops)
	}
}

// want is the replica of a shard that a node is to run.
func want(r *rig, shard replication.ShardID) replication.ReplicaID {
	for _, id := range r.firstVoters(shard) {
		if id.Node == r.NodeID() {
			return id
		}
	}
	return replication.ReplicaID{}
}

// TestNotFounder: a directory that a shard does not begin with never starts its
// replica, and neither does one that has lost its vote record (R11).
func TestNotFounder(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		tr.createWith("t", 3, 2)
		r := tr.rigs[0]
		var added replication.ShardID
		for _, s := range r.carriedInOrder() {
			if added = s.id; !r.founded(added) {
				break
			}
		}
		mine := want(r, added)
		if err := r.votes.Delete(uint32(added)); err != nil {
			t.Fatal(err)
		}
		if id, err := r.replicaID(added); !errors.Is(err, ErrForgotten) {
			t.Errorf("without its vote record: %v, %v, want ErrForgotten", id, err)
		}
		r.opt.Incarnation++ // as if it were another directory
		if r.place(added) != 0 {
			t.Error("another directory has the place of the one that the shard begins with")
		}
		absent := replication.ShardID(99)
		if id, err := r.replicaID(absent); !errors.Is(err, errNotFounder) {
			t.Errorf("a shard that is not there: %v, %v, want errNotFounder", id, err)
		}
		r.opt.Incarnation--
		if again := r.place(added); again != mine.Incarnation {
			t.Errorf("the directory's own place: %x, want %x", again, mine.Incarnation)
		}
	})
}

// TestBegins: an added shard begins with the directories of when it was added, and a
// directory that takes the place of a lost one has a replica of another name (R11).
func TestBegins(t *testing.T) {
	t.Parallel()
	state := metadata.New()
	for i, c := range []metadata.Command{
		metadata.RegisterNode{ID: 1, Incarnation: 11}, metadata.RegisterNode{ID: 2, Incarnation: 21}, metadata.RegisterNode{ID: 3, Incarnation: 31},
		metadata.AddShards{First: 1, Shards: []metadata.NewShard{{Preferred: 1, Replicas: []metadata.NodeID{1, 2}}}},
		metadata.RegisterNode{ID: 2, Incarnation: 22, Replaces: 21},
	} {
		if r, err := state.Apply(uint64(i+1), 1, metadata.Append(nil, 1, c)); err != nil || r.Err() != nil {
			t.Fatal(err, r.Err())
		}
	}
	im := state.Image()
	for _, tt := range []struct {
		what  string
		shard metadata.ShardID
		here  metadata.Founder
		want  bool
	}{
		{"a founder", 1, metadata.Founder{Node: 1, Directory: 11}, true},
		{"another directory of it", 1, metadata.Founder{Node: 1, Directory: 12}, false},
		{"a lost one", 1, metadata.Founder{Node: 2, Directory: 21}, true}, // which is told elsewhere that it is replaced
		{"the one that took its place", 1, metadata.Founder{Node: 2, Directory: 22}, true},
		{"a node without a replica", 1, metadata.Founder{Node: 3, Directory: 31}, false},
		{"of a shard that is not there", 2, metadata.Founder{Node: 1, Directory: 11}, false},
	} {
		if got := begins(im, tt.shard, tt.here); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.what, got, tt.want)
		}
	}
	lost, fresh := addedReplica(im, im.Shard(1), metadata.Founder{Node: 2, Directory: 21}), addedReplica(im, im.Shard(1), metadata.Founder{Node: 2, Directory: 22})
	if lost == fresh || !slices.Contains(addedVoters(im, 1), lost) || slices.Contains(addedVoters(im, 1), fresh) {
		t.Errorf("the lost replica is %s and the fresh one %s; the shard begins with %s", lost, fresh, addedVoters(im, 1))
	}
}

// TestKept: what a restart runs before it knows any metadata is what the disk has
// entries or a checkpoint of.
func TestKept(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		tr.createWith("t", 1, 1)
		r := tr.rigs[0] // of which shard 3 is the only one added
		kept := func(what string, want ...replication.ShardID) {
			t.Helper()
			got, err := r.kept()
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %v, %v, want %v", what, got, err, want)
			}
		}
		kept("with entries alone", 3)
		for name, file := range map[string]string{
			"77": "00000000000000000009-base.checkpoint", "78": "00000000000000000009-base.checkpoint.tmp",
			"079": "00000000000000000009-base.checkpoint", "x": "00000000000000000009-base.checkpoint",
		} {
			if err := r.fs.MkdirAll("shards/" + name); err != nil {
				t.Fatal(err)
			}
			if err := vfs.WriteFile(r.fs, "shards/"+name+"/"+file, nil); err != nil {
				t.Fatal(err)
			}
		}
		kept("with a checkpoint alone", 3, 77)
		if id, err := r.replicaID(77); !errors.Is(err, ErrForgotten) {
			t.Errorf("a checkpoint without a vote record: %v, %v, want ErrForgotten", id, err)
		}
	})
}

// TestShardsAreAddedOnce: topics that want a factor at the same time have its shards
// made by one of them.
func TestShardsAreAddedOnce(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		controller := tr.controller()
		controller.adding <- struct{}{} // until all of them have seen that there are none
		const topics = 4
		created := make(chan error, topics)
		for i := range topics {
			go func() {
				_, err := controller.CreateTopic(t.Context(), TopicSpec{Name: fmt.Sprint("t", i), Partitions: 3, Replication: 1})
				created <- err
			}()
		}
		tr.rest(time.Second)
		<-controller.adding
		for range topics {
			if err := <-created; err != nil {
				t.Error(err)
			}
		}
		if n := len(controller.image().Loads(1)); n != 3 {
			t.Errorf("%d shards of one replica, want 3", n)
		}
	})
}

// TestAssignment: partitions go where they are said to, if there is a shard of just
// those nodes, in whatever order they are named.
func TestAssignment(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		controller := tr.controller()
		spec := TopicSpec{Name: "t", Partitions: 3, Replication: 2, Replicas: [][]int32{{3, 2}, {1, 3}, {2, 3}}}
		topic, err := controller.CreateTopic(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		on := func(topic Topic) (nodes [][]int32) {
			for _, p := range controller.leaders(topic) {
				nodes = append(nodes, p.Replicas)
			}
			return nodes
		}
		if d := cmp.Diff([][]int32{{2, 3}, {1, 3}, {2, 3}}, on(topic)); d != "" {
			t.Errorf("created: differs (-want +got):\n%s", d)
		}
		if topic, err = controller.AddPartitions(t.Context(), topic.ID, 5, [][]int32{{2, 1}, {1, 2}}, false); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([][]int32{{2, 3}, {1, 3}, {2, 3}, {1, 2}, {1, 2}}, on(topic)); d != "" {
			t.Errorf("grown: differs (-want +got):\n%s", d)
		}
		for _, validate := range []bool{true, false} {
			one := TopicSpec{Name: "u", Partitions: 1, Replication: 1, Replicas: [][]int32{{9}}, ValidateOnly: validate}
			if _, err := controller.CreateTopic(t.Context(), one); errcode.Of(err) != errcode.InvalidReplicaAssignment {
				t.Errorf("on a node that is not there: %v", err)
			}
		}
		if _, err := controller.AddPartitions(t.Context(), topic.ID, 6, [][]int32{{1, 9}}, false); errcode.Of(err) != errcode.InvalidReplicaAssignment {
			t.Errorf("grown on a node that is not there: %v", err)
		}
	})
}

// TestPreferredLeads: each new shard is led by the node that is meant to, well before
// an election after a silence, so that leaders are spread and nobody waits long for
// the first topic of a replication factor.
func TestPreferredLeads(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		for factor := int32(1); factor <= 2; factor++ {
			began := time.Now()
			tr.createWith(fmt.Sprint("of", factor), 3, factor)
			if took := time.Since(began); took > campaignAfter+500*time.Millisecond {
				t.Errorf("a topic of %d replicas took %v", factor, took)
			}
		}
		for shard := range tr.rigs[0].image().Shards() {
			if shard.CreatedAt == 0 {
				continue
			}
			r := tr.rigs[shard.Preferred()-1]
			if r.carried()[replication.ShardID(shard.ID)].replica.Leading() == 0 {
				t.Errorf("node %d does not lead shard %d of %v", shard.Preferred(), shard.ID, shard.Replicas)
			}
		}
	})
}
