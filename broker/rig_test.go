package broker

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition/store"
)

// rig is a broker with what is underneath it, on a disk of its own.
type rig struct {
	t       *testing.T
	fs      *vfs.Mem
	votes   *control.Votes
	meta    *control.Log
	journal *journal.Journal
	store   *store.Store
	*Broker
	failed chan error
}

func startRig(t *testing.T, fsys *vfs.Mem, tune ...func(*Options)) *rig {
	t.Helper()
	r, err := tryRig(t, fsys, tune...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tryRig returns the error of Start; the rig is to be stopped all the same.
func tryRig(t *testing.T, fsys *vfs.Mem, tune ...func(*Options)) (*rig, error) {
	t.Helper()
	r := &rig{t: t, fs: fsys, failed: make(chan error, 16)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	log := slog.New(slog.DiscardHandler)
	r.votes, err = control.OpenVotes(fsys, "votes", control.Options{})
	must(err)
	r.meta, err = control.OpenLog(fsys, "metadata", control.Options{})
	must(err)
	r.journal, err = journal.Open(fsys, "journal", journal.Options{
		FileBytes: 256 << 10, MaxBytes: 2 << 20, Rand: rand.NewChaCha8([32]byte{1}), Logger: log,
		OnFailed: func(err error) { r.failed <- err },
	})
	must(err)
	r.store, err = store.Open(fsys, "partitions", store.Options{
		TailFlushBytes: 16 << 10, MemoryBytes: 4 << 20, SegmentBytes: 1 << 20, Logger: log,
		OnFailed: func(err error) { r.failed <- err },
	})
	must(err)
	opt := Options{
		NodeID: 1, ClusterID: "c", Incarnation: 9, Listeners: []Listener{{Name: ClientListener, Advertise: "localhost:9092"}}, Shards: 2,
		FS: fsys, ShardsDir: "shards", Journal: r.journal, Votes: r.votes, MetadataLog: r.meta, Store: r.store,
		Now: time.Now, Rand: rand.NewChaCha8([32]byte{2}), Log: log,
		QuarantineDir: "quarantine",
		OnFailed:      func(err error) { r.failed <- err }, OnPhase: func(string, bool) {},
	}
	for _, f := range tune {
		f(&opt)
	}
	r.Broker, err = Start(t.Context(), opt)
	return r, err
}

// stop closes everything, and lets the goroutines end that Raft does not wait
// for.
func (r *rig) stop() {
	r.close()
	time.Sleep(time.Minute)
}

func (r *rig) close() {
	if r.Broker != nil {
		_ = r.Close()
	}
	_ = r.store.Close()
	_ = r.journal.Close()
	_ = r.meta.Close()
	_ = r.votes.Close()
}

func inBubble(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, vfs.NewMem(1))
		defer func() { r.stop() }()
		test(t, r)
	})
}

// leaders returns who leads a topic's partitions.
func (r *rig) leaders(topic Topic) (all []PartitionLeader) {
	for _, l := range r.Leaders(&topic, 0, topic.Partitions) {
		all = append(all, l)
	}
	return all
}

// create creates a topic. The ids below producerIDBlock are given out by then, so that
// a test's producers may choose theirs.
func (r *rig) create(name string, partitions int32, configs map[string]string) Topic {
	r.t.Helper()
	if r.image().NextProducerID() == 0 {
		r.giveProducer()
	}
	topic, err := r.CreateTopic(r.t.Context(), TopicSpec{Name: name, Partitions: partitions, Configs: configs})
	if err != nil {
		r.t.Fatal(err)
	}
	return topic
}

// records builds a batch of one record for each value.
func records(t *testing.T, p batch.Producer, values ...string) []byte {
	t.Helper()
	var b batch.Builder
	b.Reset()
	b.SetProducer(p, false)
	for _, v := range values {
		if err := b.Append(946_684_800_000, nil, []byte(v), nil); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rig) produceParts(timeout time.Duration, parts ...ProducePart) []ProduceResult {
	got := make(chan []ProduceResult, 1)
	r.Produce(parts, timeout, func(res []ProduceResult) { got <- res })
	return <-got
}

func (r *rig) produce(topic Topic, index int32, b []byte) ProduceResult {
	return r.produceParts(time.Minute, ProducePart{Topic: topic.ID, Index: index, Batch: b})[0]
}

func (r *rig) fetch(req FetchRequest) []FetchResult {
	got := make(chan []FetchResult, 1)
	r.Fetch(req, func(res []FetchResult) { got <- res })
	return <-got
}

// read returns the values of a partition from an offset on, and checks that
// their offsets have no gap.
func (r *rig) read(topic Topic, index int32, offset int64) []string {
	r.t.Helper()
	var values []string
	for {
		res := r.fetch(FetchRequest{MaxBytes: 1 << 20, Parts: []FetchPart{{Topic: topic.ID, Index: index, Offset: offset, MaxBytes: 1 << 20, Epoch: -1}}})
		if res[0].Err != nil {
			r.t.Fatal(res[0].Err)
		}
		var raw []byte
		for _, c := range res[0].Chunks {
			var err error
			if raw, err = c.AppendTo(raw); err != nil {
				r.t.Fatal(err)
			}
		}
		res[0].Release()
		for len(raw) > 0 {
			one, rest, err := batch.Split(raw)
			if err == nil {
				err = batch.CheckCRC(one)
			}
			if err != nil {
				r.t.Fatal(err)
			}
			var it batch.Iterator
			if err := it.Reset(one, 0); err != nil {
				r.t.Fatal(err)
			}
			for rec, ok := it.Next(); ok; rec, ok = it.Next() {
				if rec.Offset < offset {
					continue // the batch begins before what was asked for
				}
				if rec.Offset != offset {
					r.t.Fatalf("offset %d where %d must come", rec.Offset, offset)
				}
				values = append(values, string(rec.Value))
				offset++
			}
			raw = rest
		}
		if offset == res[0].HighWatermark {
			return values
		}
	}
}
