package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/segment"
)

// rot changes a bit in the middle of the first segment of a partition.
func (r *rig) rot(topic Topic, index int32) {
	r.t.Helper()
	file := fmt.Sprintf("partitions/%x-%d/%s", [16]byte(topic.ID), index, segment.DataName(0))
	f, err := r.fs.Open(file)
	if err != nil {
		r.t.Fatal(err)
	}
	size, err := f.Size()
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = r.fs.Corrupt(file, size/2, func(b []byte) { b[0] ^= 4 })
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// filled creates a topic of one partition and writes twenty batches to it, which
// are in files when it returns.
func (tr *trio) filled() (topic Topic, values []string) {
	topic = tr.controller().create("t", 1, nil)
	tr.rest(5 * time.Second)
	leader := tr.leader(topic, 0)
	for i := range 20 {
		v := fmt.Sprintf("%d-%s", i, strings.Repeat("x", 200))
		if res := leader.produce(topic, 0, records(tr.t, batch.NoProducer, v)); res.Err != nil {
			tr.t.Fatal(res.Err)
		}
		values = append(values, v)
	}
	tr.rest(30 * time.Second) // the flushers' time
	return topic, values
}

// TestRepairByOthers damages the leader's file: it is found by a scrub, another
// replica leads, and the batches come from there.
func TestRepairByOthers(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic, values := tr.filled()
		hurt := tr.leader(topic, 0)
		hurt.rot(topic, 0)
		if err := hurt.scrubber.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		tr.rest(10 * time.Second)
		if tr.leader(topic, 0) == hurt {
			t.Error("the damaged replica still leads")
		}
		s := hurt.Stats()
		if n, _ := hurt.damaged(); n != 0 || s.Repaired != 1 || s.RepairPulledBytes == 0 || s.ScrubbedBytes == 0 {
			t.Errorf("%d ranges are damaged, %d segments repaired with %d bytes of others, %d scrubbed", n, s.Repaired, s.RepairPulledBytes, s.ScrubbedBytes)
		}
		shard := uint32(hurt.dir.find(topic.ID, 0).shard.id)
		if _, _, err := tr.leader(topic, 0).TransferShard(t.Context(), shard, hurt.NodeID()); err != nil {
			t.Fatal(err)
		}
		tr.rest(5 * time.Second)
		if got := hurt.read(topic, 0, 0); strings.Join(got, ",") != strings.Join(values, ",") {
			t.Errorf("after the repair %d values are read, want %d", len(got), len(values))
		}
	})
}

// TestNobodyCanRepair damages the same batch on all replicas: reads of it fail, and
// no other; the leadership is not passed around; the report names it.
func TestNobodyCanRepair(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic, values := tr.filled()
		terms := func() (sum uint64) {
			for _, r := range tr.rigs {
				sum = max(sum, r.dir.find(topic.ID, 0).shard.replica.Term())
			}
			return sum
		}
		before := terms()
		for _, r := range tr.rigs {
			r.rot(topic, 0)
		}
		for _, r := range tr.rigs {
			if err := r.scrubber.pass(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		tr.rest(2 * time.Minute)
		// Each try reads the whole segment.
		tried := tr.rigs[0].repairs.tries.Load()
		tr.rest(4 * time.Minute)
		if n := tr.rigs[0].repairs.tries.Load() - tried; n < 2 || n > 6 {
			t.Errorf("%d tries in four minutes", n)
		}
		if n := terms() - before; n > 3 {
			t.Errorf("%d terms in six minutes", n)
		}
		shard := tr.rigs[0].dir.find(topic.ID, 0).shard.id
		for _, r := range tr.rigs {
			if err := r.fitToLead(shard); err == nil || !strings.Contains(err.Error(), "is damaged on node") {
				t.Errorf("node %d would lead: %v", r.NodeID(), err)
			}
			if n, _ := r.damaged(); n != 1 {
				t.Errorf("node %d knows of %d damaged ranges", r.NodeID(), n)
			}
			if text := r.ownReport().Trouble; !strings.Contains(text, "1 ranges of its partitions are damaged") || !strings.Contains(text, ".seg") {
				t.Errorf("node %d reports %q", r.NodeID(), text)
			}
		}
		leader := tr.leader(topic, 0)
		failed, read := 0, 0
		for offset := range int64(len(values)) {
			res := leader.fetch(FetchRequest{MaxBytes: 1, Parts: []FetchPart{{Topic: topic.ID, Offset: offset, MaxBytes: 1, Epoch: -1}}})[0]
			switch {
			case res.Err == nil:
				read++
				raw, err := res.Chunks[0].AppendTo(nil)
				if err == nil {
					err = batch.CheckCRC(raw)
				}
				if err != nil || !strings.Contains(string(raw), values[offset]) {
					t.Errorf("offset %d: a wrong record, %v", offset, err)
				}
			case res.Err.Code == errcode.KafkaStorageError && res.Err.Code.Retriable():
				failed++
			default:
				t.Errorf("offset %d: %v", offset, res.Err)
			}
			res.Release()
		}
		if failed == 0 || read == 0 {
			t.Errorf("%d offsets fail, %d are read", failed, read)
		}
	})
}
