package broker

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

func TestNextApplyVersion(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		level uint16
		known []uint16
		want  uint16
	}{
		{"no level", 0, []uint16{2}, 1},
		{"level 1", 1, []uint16{2}, 1},
		{"level 2", 2, []uint16{2}, 2},
		{"an older replica", 2, []uint16{2, 1, 2}, 1},
		{"newer replicas", 2, []uint16{3, 4}, 2},
		{"level 3", 3, []uint16{3, 4}, 3},
		{"an older replica at level 3", 3, []uint16{3, 2}, 2},
		{"one that has not said", 2, []uint16{2, 0}, 1},
		{"nobody has said", 2, nil, 1},
	}
	for _, tt := range tests {
		if got := nextApplyVersion(tt.level, tt.known); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	if top := applyVersions[metadata.MaxFeatureLevel]; top != partition.MaxApplyVersion {
		t.Errorf("the newest feature level allows apply version %d of %d", top, partition.MaxApplyVersion)
	}
}

func (r *rig) versions() (vs []uint16) {
	for id := range r.opt.Shards {
		vs = append(vs, r.carried()[replication.ShardID(id+1)].applyVersion())
	}
	return vs
}

// A fresh cluster starts at the newest feature level, and its shards at the
// newest apply version, recorded before anything that needs it is proposed; a
// restart keeps both. A replica that knows less holds its shard back.
func TestApplyVersionRaised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		var recorded []uint16
		var knows atomic.Uint32 // the other replica of shard 1
		knows.Store(1)
		tune := func(o *Options) {
			o.RecordLevel = func(level uint16) error { recorded = append(recorded, level); return nil }
			o.ReplicaVersions = func(id replication.ShardID) []uint16 {
				if id == 1 {
					return []uint16{uint16(knows.Load()), partition.MaxApplyVersion}
				}
				return ownVersion(id)
			}
		}
		r := startRig(t, fsys, tune)
		if d := cmp.Diff([]uint16{1, partition.MaxApplyVersion}, r.versions()); d != "" {
			t.Errorf("versions (-want +got):\n%s", d)
		}
		if got := r.image().FeatureLevel(); got != metadata.MaxFeatureLevel {
			t.Errorf("feature level %d", got)
		}
		// The other replica learns the version: the next pass raises the shard.
		knows.Store(2)
		r.reconciler.kick()
		time.Sleep(time.Second)
		if d := cmp.Diff([]uint16{2, partition.MaxApplyVersion}, r.versions()); d != "" {
			t.Errorf("versions (-want +got):\n%s", d)
		}
		applied := r.carried()[1].replica.Applied()
		r.stop()

		r = startRig(t, fsys, tune)
		defer r.stop()
		if d := cmp.Diff([]uint16{2, partition.MaxApplyVersion}, r.versions()); d != "" {
			t.Errorf("versions after a restart (-want +got):\n%s", d)
		}
		if now := r.carried()[1].replica.Applied(); now > applied+2 { // no-op and TermStart
			t.Errorf("a restart applied %d entries", now-applied)
		}
		if d := cmp.Diff([]uint16{metadata.MaxFeatureLevel, metadata.MaxFeatureLevel}, recorded); d != "" { // once each start
			t.Errorf("recorded (-want +got):\n%s", d)
		}
	})
}

// A level that cannot be recorded allows nothing.
func TestLevelRecordedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := tryRig(t, vfs.NewMem(1), func(o *Options) {
			o.RecordLevel = func(uint16) error { return errors.New("no room") }
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.stop()
		if d := cmp.Diff([]uint16{1, 1}, r.versions()); d != "" {
			t.Errorf("versions (-want +got):\n%s", d)
		}
	})
}

// A cluster at an older level stays there over restarts, until it is raised.
func TestOlderFeatureLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		none := func(o *Options) { o.ReplicaVersions = func(replication.ShardID) []uint16 { return nil } }
		r := startRig(t, fsys, none)
		r.stop()
		// What a build without levels leaves has none at all.
		r = startRig(t, fsys, none)
		defer func() { r.stop() }()
		im := *r.image()
		if im.FeatureLevel() != metadata.MaxFeatureLevel {
			t.Fatalf("level %d", im.FeatureLevel())
		}
		if err := r.bootstrap(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.image().Index(); got != im.Index() {
			t.Errorf("a second bootstrap took entries %d to %d", im.Index()+1, got)
		}
		if _, err := r.proposeMeta(t.Context(), metadata.SetFeatureLevel{Level: 1}); errcode.Of(err) != errcode.InvalidUpdateVersion {
			t.Errorf("lowering the level: %v", err)
		}
	})
}

func batchOf(t *testing.T, id int64, seq int32, value string) []byte {
	return records(t, batch.Producer{ID: id, Epoch: 0, Sequence: seq}, value)
}

// Idle producers are forgotten after ProducerExpiry, busy ones are not, and the
// work goes with what expires.
func TestProducersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		r := startRig(t, fsys, func(o *Options) { o.ProducerExpiry = time.Hour })
		defer func() { r.stop() }()
		topic := r.create("t", 2, nil)
		count := func() (n int) {
			for _, s := range r.carried() {
				s.machine.mu.Lock()
				n += s.machine.state.Producers()
				s.machine.mu.Unlock()
			}
			return n
		}
		const many = 3 * expiryBatch
		for id := range int64(many) {
			r.produce(topic, int32(id%2), batchOf(t, id, 0, "once"))
		}
		for seq := range int32(5) {
			r.produce(topic, 0, batchOf(t, many, seq, "busy"))
			time.Sleep(15 * time.Minute)
		}
		if got := count(); got != 1 {
			t.Errorf("%d producers after 75 minutes, want the busy one", got)
		}
		// Even in a shard to which nobody writes: the command itself moves the
		// shard clock on.
		time.Sleep(2 * time.Hour)
		if got := count(); got != 0 {
			t.Errorf("%d producers at the end", got)
		}
		applied := r.carried()[1].replica.Applied() + r.carried()[2].replica.Applied()
		time.Sleep(5 * time.Minute)
		if now := r.carried()[1].replica.Applied() + r.carried()[2].replica.Applied(); now != applied {
			t.Errorf("%d entries of an idle cluster", now-applied)
		}
		// KIP-360: a producer that was forgotten may go on.
		if got := r.produce(topic, 0, batchOf(t, many, 5, "back")); got.Err != nil {
			t.Error(got.Err)
		}
	})
}

// A shard that has not agreed on the version is not asked.
func TestProducersExpireNeedsVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, vfs.NewMem(1), func(o *Options) {
			o.ProducerExpiry, o.HashInterval = time.Hour, 1000*time.Hour
			o.ReplicaVersions = func(replication.ShardID) []uint16 { return []uint16{1} }
		})
		defer r.stop()
		topic := r.create("t", 1, nil)
		r.produce(topic, 0, batchOf(t, 7, 0, "once"))
		at := r.dir.find(topic.ID, 0).shard
		synctest.Wait() // a record is acknowledged just before its entry counts as applied
		applied := at.replica.Applied()
		time.Sleep(30 * time.Hour)
		if now := at.replica.Applied(); now != applied {
			t.Errorf("%d entries were proposed", now-applied)
		}
		at.machine.mu.Lock()
		defer at.machine.mu.Unlock()
		if got := at.machine.state.Producers(); got != 1 {
			t.Errorf("%d producers, want 1", got)
		}
	})
}

// hashLog collects state hashes.
type hashLog struct {
	mu  sync.Mutex
	all []replication.HashReport
}

func (l *hashLog) add(r replication.HashReport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, r)
}

func (l *hashLog) take() []replication.HashReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	// Shards apply side by side.
	slices.SortStableFunc(all, func(a, b replication.HashReport) int { return int(a.Shard) - int(b.Shard) })
	return all
}

// A shard that is written to reports its hash at an interval and on demand, and
// an idle one nothing. What a restart applies again has the hash that it had,
// from whatever checkpoint it came.
func TestStateHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		var log hashLog
		tune := func(o *Options) { o.HashInterval, o.OnStateHash = time.Minute, log.add }
		r := startRig(t, fsys, tune)
		defer func() { r.stop() }()
		topic := r.create("t", 2, nil)
		time.Sleep(61 * time.Second)
		if got := log.take(); len(got) != 2 || got[0].Shard == got[1].Shard {
			t.Errorf("after the first minute: %+v", got)
		}
		time.Sleep(time.Hour)
		if got := log.take(); len(got) != 0 {
			t.Errorf("in an idle hour: %+v", got)
		}
		r.produce(topic, 0, batchOf(t, 7, 0, "x"))
		time.Sleep(time.Minute)
		if got := log.take(); len(got) != 1 || got[0].Shard != r.dir.find(topic.ID, 0).shard.id {
			t.Errorf("after a produce: %+v", got)
		}
		r.Checkpoint()
		r.produce(topic, 0, batchOf(t, 7, 1, "y"))
		r.produce(topic, 1, batchOf(t, 7, 0, "y"))
		for shard := uint32(1); shard <= 2; shard++ {
			if err := r.AskStateHash(t.Context(), shard); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.AskStateHash(t.Context(), 3); errcode.Of(err) != errcode.ResourceNotFound {
			t.Errorf("a shard that is not there: %v", err)
		}
		synctest.Wait()
		first := log.take()
		if d := cmp.Diff(first, r.StateHashes()); len(first) != 2 || d != "" {
			t.Errorf("%d reports; the last ones differ:\n%s", len(first), d)
		}
		if first[0].Index == 0 || first[0].Replica.Node != 1 {
			t.Errorf("report %+v", first[0])
		}
		r.stop()

		r = startRig(t, fsys, tune)
		synctest.Wait()
		again := log.take()
		if d := cmp.Diff(first, again); d != "" {
			t.Errorf("applied again from the checkpoint (-first +again):\n%s", d)
		}
		// Two replicas that say so agree; one whose state is another is found.
		reports := append(first[:1:1], again[0], again[0])
		reports[1].Replica.Node, reports[2].Replica.Node = 2, 3
		if minority, agreed := replication.Minority(3, reports); len(minority) != 0 || !agreed {
			t.Errorf("minority %v, agreed %t", minority, agreed)
		}
		reports[2].Hash[5] ^= 1
		if minority, agreed := replication.Minority(3, reports); len(minority) != 1 || minority[0].Node != 3 || !agreed {
			t.Errorf("minority %v, agreed %t", minority, agreed)
		}
	})
}

// newerFSM knows one entry more than the machine that it stands for.
type newerFSM struct {
	replication.FSM[partition.Result]
	entry, means []byte
}

func (m newerFSM) Apply(index, term uint64, entry []byte) ([]partition.Result, error) {
	if bytes.Equal(entry, m.entry) {
		entry = m.means
	}
	return m.FSM.Apply(index, term, entry)
}

// inject appends an entry to the journal of a stopped rig, as the leader of a
// newer version would have.
func inject(t *testing.T, r *rig, shard replication.ShardID, entry []byte) uint64 {
	t.Helper()
	votes, err := control.OpenVotes(r.fs, "votes", control.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer votes.Close()
	j, err := journal.Open(r.fs, "journal", journal.Options{
		FileBytes: 256 << 10, MaxBytes: 2 << 20, Rand: rand.NewChaCha8([32]byte{3}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	vote, _ := votes.Load(uint32(shard))
	log := j.Shard(journal.ShardID(shard), vote.Incarnation)
	var last journal.Record
	if err := log.Read(log.Last(), &last); err != nil {
		t.Fatal(err)
	}
	rec := journal.Record{Index: last.Index + 1, Term: last.Term, Data: entry}
	if err := log.Append([]journal.Record{rec}); err != nil {
		t.Fatal(err)
	}
	return rec.Index
}

// An entry that only a newer version understands stops the replica, clearly, and
// changes nothing; the newer version goes on from there.
func TestUnknownEntryStops(t *testing.T) {
	entry := func(version uint16, frame ...byte) []byte {
		var b partition.EntryBuilder
		b.Reset(nil, partition.EntryHeader{})
		e := b.Bytes()
		e[2], e[4] = byte(version), 1
		return append(e, frame...)
	}
	tests := []struct {
		name  string
		entry []byte
		want  string
	}{
		{"command", entry(1, 200, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0), "command kind 200"},
		{"mandatory TLV", entry(1, 2, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0x80, 0, 0), "TermStart with mandatory TLV 9"},
		{"apply version", entry(partition.MaxApplyVersion+1, 2, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0), "entry of apply version 4, this build has 3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fsys := vfs.NewMem(1)
				r := startRig(t, fsys)
				topic := r.create("t", 2, nil)
				r.produce(topic, 0, batchOf(t, 7, 0, "before"))
				shard := r.dir.find(topic.ID, 0).shard.id
				r.stop()
				index := inject(t, r, shard, tt.entry)

				for range 2 { // it is no accident, and does no harm
					r, err := tryRig(t, fsys)
					r.stop()
					want := []string{fmt.Sprintf("shard %d", shard), fmt.Sprintf("entry %d", index), tt.want, "a newer version has written it; start that one"}
					for _, w := range want {
						if err == nil || !strings.Contains(err.Error(), w) {
							t.Errorf("error = %v, want %q in it", err, w)
						}
					}
					if !errors.Is(err, partition.ErrUnsupported) {
						t.Errorf("error = %v, want ErrUnsupported", err)
					}
				}

				// The newer version, which knows it, stands in: to it, it is a no-op.
				r = startRig(t, fsys, func(o *Options) {
					o.wrap = func(m replication.FSM[partition.Result]) replication.FSM[partition.Result] {
						return newerFSM{m, tt.entry, entry(1, 2, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0)}
					}
				})
				defer r.stop()
				if got := r.read(topic, 0, 0); len(got) != 1 || got[0] != "before" {
					t.Errorf("records %q", got)
				}
				if got := r.produce(topic, 0, batchOf(t, 7, 1, "after")); got.Err != nil || got.BaseOffset != 1 {
					t.Errorf("produce: %+v", got)
				}
			})
		})
	}
}
