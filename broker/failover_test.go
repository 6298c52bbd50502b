package broker

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/replication"
)

// TestFailover loses the node that leads the metadata: within a part of an
// election timeout others lead every shard, each after a single campaign, and the
// next term, no more.
func TestFailover(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		before := tr.leads(nil)
		lost := tr.controller()
		tr.lose(lost)
		began := time.Now()
		for len(tr.leads(lost)) < len(before) {
			if time.Since(began) > 400*time.Millisecond {
				t.Fatalf("%v after node %d was lost the others lead %v, of %v", time.Since(began), lost.NodeID(), tr.leads(lost), before)
			}
			tr.rest(time.Millisecond)
		}
		campaigns, moved := uint64(0), 0
		for _, r := range tr.rigs {
			campaigns += r.failover.began.Load()
		}
		for shard, now := range tr.leads(lost) {
			was := before[shard]
			if was[0] == uint64(lost.NodeID()) {
				moved++
				was[1]++
			}
			if now[1] != was[1] {
				t.Errorf("shard %d is in term %d, want %d", shard, now[1], was[1])
			}
		}
		if campaigns != uint64(moved) {
			t.Errorf("%d campaigns for %d shards", campaigns, moved)
		}
	})
}

// TestFailoverLagging: the voter whose turn is first lacks an entry that the other
// has. That one leads as soon as it would have with the first turn, but for the
// turn.
func TestFailoverLagging(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		lost := tr.leader(topic, 0)
		shard := lost.dir.find(topic.ID, 0).shard.id
		var first, second *rig
		for _, r := range tr.rigs {
			leader, _ := r.carried()[shard].replica.Leader()
			switch rank := r.failover.rank(shard, r.carried()[shard].replica, leader); {
			case r == lost:
			case rank == 0:
				first = r
			default:
				second = r
			}
		}
		tr.hub.Cut(lost.NodeID(), first.NodeID(), true)
		if got := lost.produce(topic, 0, records(t, batch.Producer{ID: -1}, "acknowledged")); got.Err != nil {
			t.Fatal(got.Err)
		}
		tr.lose(lost)
		tr.rest(400 * time.Millisecond)
		if second.carried()[shard].replica.Leading() == 0 {
			leader, known := second.carried()[shard].replica.Leader()
			t.Errorf("node %d does not lead shard %d: replica %v does, known %t", second.NodeID(), shard, leader, known)
		}
	})
}

// TestFailoverBridge cuts the leaders from one of the two other nodes alone: the
// third still sees them, so they stay, for as long as it lasts.
func TestFailoverBridge(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		before := tr.leads(nil)
		for range 3 {
			for a := int32(1); a <= 3; a++ {
				b := a%3 + 1
				tr.hub.Cut(a, b, true)
				tr.hub.Cut(b, a, true)
				tr.rest(20 * time.Second)
				if d := cmp.Diff(before, tr.leads(nil)); d != "" {
					t.Fatalf("nodes %d and %d cut from each other, the third reaches both (-before +then):\n%s", a, b, d)
				}
				tr.hub.Cut(a, b, false)
				tr.hub.Cut(b, a, false)
				tr.rest(5 * time.Second)
			}
		}
	})
}

// TestFailoverSpread: when a node is lost, each of the others is the first to claim
// some shard, and no two are for the same.
func TestFailoverSpread(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		lost := replication.ReplicaID{Node: 2}
		firsts := make(map[int32]int)
		for shard := range replication.ShardID(10) {
			var ranks []int
			for _, r := range []*rig{tr.rigs[0], tr.rigs[2]} {
				rank := r.failover.rank(shard, r.Broker.meta, lost)
				ranks = append(ranks, rank)
				if rank == 0 {
					firsts[r.NodeID()]++
				}
			}
			slices.Sort(ranks)
			if !slices.Equal(ranks, []int{0, 1}) {
				t.Errorf("shard %d: ranks %v", shard, ranks)
			}
		}
		if firsts[1] != 5 || firsts[3] != 5 {
			t.Errorf("who claims first how often: %v", firsts)
		}
	})
}

// TestClaimsRefused: a node grants nothing against a node that it is connected to,
// nor what another than the sender claims.
func TestClaimsRefused(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		lost := tr.controller()
		i := slices.Index(tr.rigs[:], lost)
		a, b := tr.rigs[(i+1)%3], tr.rigs[(i+2)%3]
		claim, ok := a.Broker.meta.Claim(time.Now(), lost.NodeID())
		if !ok {
			t.Fatal("no claim")
		}
		ask := func(from int32) byte {
			t.Helper()
			grants, err := b.Answer(t.Context(), from, methodClaim, encodeClaims([]replication.Claim{claim}))
			if err != nil || len(grants) != 1 {
				t.Fatalf("answer %v, %v", grants, err)
			}
			return grants[0]
		}
		if ask(a.NodeID()) != 0 {
			t.Error("a claim was granted although the leader is there")
		}
		if err := tr.peers[i].Close(); err != nil {
			t.Fatal(err)
		}
		if ask(lost.NodeID()) != 0 {
			t.Error("a claim was granted that is not the sender's")
		}
		if ask(a.NodeID()) != 1 {
			t.Error("a claim was refused although the leader is gone")
		}
		if _, err := b.Answer(t.Context(), a.NodeID(), methodClaim, make([]byte, claimBytes+1)); err == nil {
			t.Error("half a claim was answered")
		}
	})
}

// FuzzDecodeClaims checks, for any bytes, that what decodeClaims reads is what is
// written from it again, and that decodeGrants wants as many as were asked for.
func FuzzDecodeClaims(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(encodeClaims([]replication.Claim{{Shard: 1, By: replication.ReplicaID{Node: 2, Incarnation: 3}, Lost: 4, Term: 5, LastTerm: 6, LastIndex: 7}}))
	f.Add(make([]byte, claimBytes+1))
	f.Fuzz(func(t *testing.T, in []byte) {
		if grants, err := decodeGrants(in, 3); (err == nil) != (len(in) == 3) || err == nil && len(grants) != 3 {
			t.Fatalf("%d bytes are %d grants of 3, and error %v", len(in), len(grants), err)
		}
		claims, err := decodeClaims(in)
		if (err == nil) != (len(in)%claimBytes == 0 && len(in) <= (metadata.MaxShards+1)*claimBytes) {
			t.Fatalf("%d bytes: %v", len(in), err)
		}
		if err == nil && !bytes.Equal(encodeClaims(claims), in) {
			t.Fatalf("%x again as %x", in, encodeClaims(claims))
		}
	})
}
