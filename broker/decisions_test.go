package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker/coordinator"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

var offsetsID = TopicID{0: 0xc0}

// offsets makes an internal partition in shard 1, and returns it as this node sees it.
func (r *rig) offsets() *internalLog {
	r.t.Helper()
	config := partition.Config{SegmentBytes: 1 << 20, MaxMessageBytes: 1000, Internal: partition.InternalGroups}
	c := partition.CreatePartition{TopicID: offsetsID, MetadataIndex: 1 << 20, Config: config}
	if err := r.reconciler.proposeAll(r.t.Context(), nil, r.carried()[1], []any{c}); err != nil {
		r.t.Fatal(err)
	}
	return r.offsetsLog()
}

func (r *rig) offsetsLog() *internalLog {
	r.t.Helper()
	l, ok := r.internalLog(offsetsID, 0)
	if !ok {
		r.t.Fatal("there is no internal partition")
	}
	return l
}

// commits returns records of n committed offsets of a group.
func commits(group string, n int, offset int64) (rs []record.Record) {
	for i := range n {
		v := &record.OffsetCommitValue{Offset: offset, LeaderEpoch: -1, Metadata: strings.Repeat("m", 50), ExpireTimestampMS: -1}
		rs = append(rs, (&record.OffsetCommit{Group: group, Topic: "orders", Partition: int32(i), Value: v}).Encode())
	}
	return rs
}

// folded returns what a replica has folded, as a digest, and how many offsets.
func (r *rig) folded() (hash consumergroup.Hash, offsets int) {
	r.t.Helper()
	if err := r.offsetsLog().Groups(func(g *consumergroup.Groups) { hash, offsets = g.Hash(), g.Offsets() }); err != nil {
		r.t.Fatal(err)
	}
	return hash, offsets
}

// TestDecisionGrows extends a decision that waits while an entry is in flight: it is applied
// as what it was at last, as one decision; and once it is in an entry it stays as it is.
func TestDecisionGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, vfs.NewMem(1))
		defer func() { r.stop() }()
		l := r.offsets()
		term := l.at.shard.replica.Leading()
		gate := make(chan struct{})
		m := l.at.shard.machine
		m.mu.Lock()
		m.poison = func(*partition.Effect) { <-gate }
		m.mu.Unlock()
		made := make(chan error, 1)
		go func() {
			c := partition.CreatePartition{TopicID: TopicID{0: 1}, MetadataIndex: 1 << 20, Config: l.at.config}
			made <- r.reconciler.proposeAll(t.Context(), nil, r.carried()[1], []any{c})
		}()
		synctest.Wait() // it is in flight, and not applied

		extend := func(what string, term, number uint64, rs []record.Record, want bool) {
			t.Helper()
			if got := l.Extend(term, number, rs); got != want {
				t.Errorf("%s: extended %t, want %t", what, got, want)
			}
		}
		extend("nothing under way", term, 1, commits("a", 2, 5), false)
		decided := make(chan error, 1)
		go func() { decided <- l.Propose(t.Context(), term, 1, commits("a", 1, 5)) }()
		synctest.Wait()
		extend("it waits", term, 1, commits("a", 2, 5), true)
		extend("it waits still", term, 1, commits("a", 3, 5), true)
		extend("another number", term, 2, commits("a", 4, 5), false)
		extend("another term", term+1, 1, commits("a", 4, 5), false)
		extend("more than an entry", term, 1, commits("a", 5000, 5), false)
		close(gate)
		for _, c := range []chan error{made, decided} {
			if err := <-c; err != nil {
				t.Fatal(err)
			}
		}
		extend("it is applied", term, 1, commits("a", 4, 5), false)
		if _, n := r.folded(); n != 3 {
			t.Errorf("%d offsets are folded, want 3", n)
		}
		if decisions, offsets := l.at.traffic.batchesIn.Load(), l.at.traffic.recordsIn.Load(); decisions != 1 || offsets != 3 {
			t.Errorf("counted are %d decisions of %d records, want 1 of 3", decisions, offsets)
		}
		if err := l.Propose(t.Context(), term, 2, commits("a", 4, 6)); err != nil {
			t.Error("the next one:", err)
		}
	})
}

// TestDecisions proposes what a coordinator has decided: each in its turn, whole, and
// in the term that leads; a restart finds all of it folded, from the log and from
// checkpoints.
func TestDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		r := startRig(t, fsys)
		defer func() { r.stop() }()
		l := r.offsets()
		term := l.at.shard.replica.Leading()
		ctx := t.Context()
		accepted := func(term, number uint64, rs []record.Record) {
			t.Helper()
			if err := l.Propose(ctx, term, number, rs); err != nil {
				t.Fatalf("decision %d of term %d: %v", number, term, err)
			}
		}
		refused := func(what string, term, number uint64, rs []record.Record) {
			t.Helper()
			if err := l.Propose(ctx, term, number, rs); !errors.Is(err, coordinator.ErrRefused) {
				t.Errorf("%s: %v, want ErrRefused", what, err)
			}
		}
		accepted(term, 1, commits("a", 1, 5))
		refused("a number again", term, 1, commits("a", 1, 6))
		refused("a number too early", term, 3, commits("a", 1, 6))
		refused("another term", term-1, 2, commits("a", 1, 6))
		refused("nothing", term, 2, nil)
		refused("more than an entry", term, 2, commits("a", 5000, 6))
		accepted(term, 2, commits("b", 40, 7))
		if _, n := r.folded(); n != 41 {
			t.Errorf("%d offsets are folded, want 41", n)
		}
		if err := l.Confirm(ctx, term); err != nil {
			t.Error(err)
		}
		if err := l.Confirm(ctx, term-1); !errors.Is(err, replication.ErrNotLeader) {
			t.Errorf("an older term is confirmed: %v", err)
		}

		// Readers get them as batches that are not longer than they may be.
		seen := int64(0)
		for seen < 41 {
			b := r.fetchOne(Topic{ID: offsetsID}, seen)
			h, err := batch.ParseHeader(b)
			if err == nil {
				err = batch.CheckCRC(b)
			}
			if err != nil || len(b) > 1000 || h.BaseOffset != seen {
				t.Fatalf("a batch of %d bytes at %d, of offset %d: %v", len(b), seen, h.BaseOffset, err)
			}
			seen = h.LastOffset() + 1
		}

		// A client's batch is refused, wherever it comes from.
		if got := r.produce(Topic{ID: offsetsID}, 0, records(t, batch.NoProducer, "x")); got.Err == nil || got.Err.Code.Name() != "INVALID_TOPIC_EXCEPTION" {
			t.Errorf("a client's batch: %+v", got)
		}

		for i, checkpoint := range []bool{false, true, true} {
			hash, n := r.folded()
			if checkpoint {
				r.Checkpoint()
				accepted(term, 1, commits("c", 3+i, 7)) // above the checkpoint
				hash, n = r.folded()
			}
			r.stop()
			r = startRig(t, fsys)
			synctest.Wait()
			l = r.offsetsLog()
			term = l.at.shard.replica.Leading()
			if h, m := r.folded(); h != hash || m != n {
				t.Errorf("restart %d: %d offsets, were %d, hash %v, was %v", i, m, n, h, hash)
			}
		}
	})
}

// TestDecisionsOnReplicas has followers fold what the leader's coordinator decides, and
// a new leader go on from it.
func TestDecisionsOnReplicas(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		lead := func(but *rig) *rig {
			for _, r := range tr.rigs {
				if r != but && r.carried()[1].replica.Leading() != 0 {
					return r
				}
			}
			t.Fatal("nobody leads shard 1")
			return nil
		}
		old := lead(nil)
		l := old.offsets()
		oldTerm := l.at.shard.replica.Leading()
		for i := range uint64(5) {
			if err := l.Propose(t.Context(), oldTerm, i+1, commits(fmt.Sprint("g", i), 3, 5)); err != nil {
				t.Fatal(err)
			}
		}
		tr.rest(5 * time.Second)
		same := func(want int, rigs ...*rig) {
			t.Helper()
			first, _ := rigs[0].folded()
			for _, r := range rigs {
				if hash, n := r.folded(); hash != first || n != want {
					t.Errorf("node %d: %d offsets, want %d, hash %v, want %v", r.NodeID(), n, want, hash, first)
				}
			}
		}
		same(15, tr.rigs[0], tr.rigs[1], tr.rigs[2])

		// Cut off, the old leader decides in vain: nothing of it is ever applied.
		tr.cutOff(old, true)
		gone, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := l.Propose(gone, oldTerm, 6, commits("lost", 3, 5)); err == nil {
			t.Error("a leader that is cut off decides")
		}
		if err := l.Confirm(gone, oldTerm); err == nil {
			t.Error("a leader that is cut off is confirmed")
		}
		tr.rest(time.Minute)
		next := lead(old)
		nl := next.offsetsLog()
		term := nl.at.shard.replica.Leading()
		if err := nl.Propose(t.Context(), term, 6, commits("x", 1, 5)); !errors.Is(err, coordinator.ErrRefused) {
			t.Errorf("a new term goes on with the old one's numbers: %v", err)
		}
		if err := nl.Propose(t.Context(), term, 1, commits("new", 3, 5)); err != nil {
			t.Fatal(err)
		}
		tr.cutOff(old, false)
		tr.rest(time.Minute)
		same(18, tr.rigs[0], tr.rigs[1], tr.rigs[2])
	})
}

// TestDecisionsCatchUp has a replica that lacks what the others' logs do not hold any
// more get what they have folded with their checkpoint, and fold on from there: its state
// is the others', by their hashes.
func TestDecisionsCatchUp(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().ensureOffsets()
		tr.rest(time.Second)
		var l *internalLog
		var boss, behind *rig
		for i := range int32(topic.Partitions) {
			p := tr.leader(topic, i)
			if at := p.dir.find(topic.ID, i); at.shard.id == 1 {
				boss = p
				l, _ = p.internalLog(topic.ID, i)
				break
			}
		}
		for _, r := range tr.rigs {
			if r != boss {
				behind = r
			}
		}
		term, number := l.at.shard.replica.Leading(), uint64(0)
		propose := func(rs []record.Record) {
			t.Helper()
			number++
			if err := l.Propose(t.Context(), term, number, rs); err != nil {
				t.Fatal(err)
			}
		}
		propose(commits("before", 3, 1))
		tr.rest(time.Second)
		tr.cutOff(behind, true)
		for i := range 45 { // more than the journal holds
			propose(commits(fmt.Sprint("group", i%7), 400, int64(i)))
			if i%10 == 9 {
				for _, r := range tr.rigs {
					if r != behind {
						r.Checkpoint()
					}
				}
			}
		}
		propose([]record.Record{{Key: commits("before", 1, 1)[0].Key}})
		tr.cutOff(behind, false)
		tr.rest(2 * time.Minute)
		if pulled := behind.carried()[1].catchUp.bytes.Load(); pulled == 0 {
			t.Fatal("the replica got all from the log: this is no catch-up")
		}
		if boss.carried()[1].replica.Leading() != term {
			t.Fatal("another leads by now")
		}
		propose(commits("after", 1, 1))
		if err := boss.AskStateHash(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		tr.rest(10 * time.Second)
		hashes := make(map[replication.HashReport]int)
		for _, r := range tr.rigs {
			here, _ := r.internalLog(topic.ID, l.at.key.index)
			offsets := 0
			if err := here.Groups(func(g *consumergroup.Groups) { offsets = g.Offsets() }); err != nil || offsets != 7*400+3 {
				t.Errorf("node %d: %d offsets, want %d, %v", r.NodeID(), offsets, 7*400+3, err)
			}
			for _, h := range r.StateHashes() {
				if h.Shard == 1 {
					h.Replica = replication.ReplicaID{}
					hashes[h]++
				}
			}
		}
		if len(hashes) != 1 {
			t.Errorf("state hashes %v, want the same three times", hashes)
		}
		for h, n := range hashes {
			if n != 3 {
				t.Errorf("%d replicas have the hash %v, want 3", n, h)
			}
		}
	})
}
