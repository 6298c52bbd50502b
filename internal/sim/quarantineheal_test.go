package sim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/doctor"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestQuarantineHeals puts a partition into quarantine on one of three nodes, on which
// nothing would panic, while clients write and read: the node is healed by the others,
// can lead again, and serves what all have. Power cuts on the way do no harm.
func TestQuarantineHeals(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= 8; seed++ {
		problems, tr, acks := runFleet(t, seed, func(fl *fleet) { quarantineHistory(t, fl, int(seed%3)) })
		if acks < 100 {
			t.Errorf("seed %d: %d records are acknowledged, want 100", seed, acks)
		}
		report(t, seed, fleetVerdict(problems, tr.history), tr)
	}
}

// quarantineHistory is one of TestQuarantineHeals, with so many power cuts.
func quarantineHistory(t *testing.T, fl *fleet, cuts int) {
	key, _, hurt, _, ok := fl.stage("kept0")
	if !ok {
		return
	}
	p := fl.hire()
	defer p.leave()
	p.produce(load{keys: []history.Key{key}, records: 40, maxBytes: 1000, maxPause: 1, timeout: time.Minute})
	d, err := p.c.Admin().DescribeTopic(context.Background(), key.Topic)
	if err != nil || len(d.Partitions) != 1 {
		fl.problem("describe: %+v, %v", d, err)
		return
	}
	shard := d.Partitions[0].Shard
	fl.stopNode(hurt)
	dir := path.Join(dataDir, node.QuarantineDir)
	file := path.Join(dir, fmt.Sprintf("%d-1%s", shard, node.QuarantineSuffix))
	content := quarantineFile(t, shard, 1, d.ID, 1)
	if err := errors.Join(vfs.MkdirAllSync(hurt.disk, dir), vfs.WriteFile(hurt.disk, file, content)); err != nil {
		fl.problem("plant: %v", err)
		return
	}
	rep, err := doctor.Check(hurt.disk, dataDir, doctor.Options{})
	if err != nil || len(rep.Findings) != 1 || rep.Findings[0].Remedy != doctor.RemedyStart {
		fl.problem("check does not leave a quarantine to the others: %+v, %v", rep, err)
	}
	if !fl.start(hurt) {
		return
	}
	writers := fl.employ(fleetPlan{keys: []history.Key{key}, topics: []string{key.Topic}, producers: 2, records: 100, maxBytes: 1000, events: 3, gap: 5 * time.Second})
	for range cuts {
		time.Sleep(time.Duration(fl.rng.IntN(3000)) * time.Millisecond)
		fl.cut(hurt)
		if !fl.start(hurt) {
			return
		}
	}
	if !fl.await(fmt.Sprintf("node %d is not healed", hurt.id), func() bool {
		_, err := hurt.disk.Stat(file)
		return errors.Is(err, fs.ErrNotExist) && (cuts > 0 || hurt.node.Stats().Healed == 1)
	}) {
		return
	}
	writers.wait()
	led := fl.await(fmt.Sprintf("node %d does not lead shard %d", hurt.id, shard), func() bool {
		leader, err := p.c.Admin().TransferShard(context.Background(), shard, hurt.id)
		return err == nil && leader == hurt.id
	})
	if !led {
		return
	}
	fl.conclude(key)
}
