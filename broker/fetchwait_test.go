package broker

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// reads are the parts that fetches have looked at, as "index@offset".
type reads struct {
	mu  sync.Mutex
	all []string
}

func (r *reads) note(p *FetchPart) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, fmt.Sprintf("%d@%d", p.Index, p.Offset))
}

func (r *reads) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return fmt.Sprint(all)
}

// waitingRig gives a test a broker whose reads are noted.
func waitingRig(t *testing.T, test func(t *testing.T, r *rig, seen *reads)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		seen := new(reads)
		r := startRig(t, vfs.NewMem(1), func(o *Options) { o.reads = seen.note })
		defer func() { r.stop() }()
		test(t, r, seen)
	})
}

// fetchAll begins a fetch of all partitions of a topic from its first offset on.
func (r *rig) fetchAll(topic Topic, minBytes, maxPartBytes int) (*Fetch, chan []FetchResult) {
	parts := make([]FetchPart, topic.Partitions)
	for i := range parts {
		parts[i] = FetchPart{Topic: topic.ID, Index: int32(i), MaxBytes: maxPartBytes, Epoch: -1}
	}
	got := make(chan []FetchResult, 1)
	f := r.Fetch(FetchRequest{MaxWait: time.Hour, MinBytes: minBytes, MaxBytes: 1 << 20, Parts: parts}, func(res []FetchResult) { got <- res })
	return f, got
}

// TestFetchLooksAtWhatMoved has a fetch of three partitions wait for five batches:
// each that comes has its own partition looked at, from behind what was there
// before, and the last one has them all read.
func TestFetchLooksAtWhatMoved(t *testing.T) {
	waitingRig(t, func(t *testing.T, r *rig, seen *reads) {
		topic := r.create("t", 3, nil)
		value := "0123456789"
		n := len(records(t, batch.NoProducer, value))
		_, got := r.fetchAll(topic, 5*n, 1<<20)
		for i, step := range []struct {
			index int32
			want  string
		}{
			{-1, "[0@0 1@0 2@0]"},
			{1, "[1@0]"},
			{1, "[1@1]"},
			{0, "[0@0]"},
			{1, "[1@2]"},
			{2, "[2@0 0@0 1@0 2@0]"},
		} {
			if step.index >= 0 {
				r.produce(topic, step.index, records(t, batch.NoProducer, value))
			}
			synctest.Wait()
			if reads := seen.take(); reads != step.want {
				t.Errorf("step %d: read %s, want %s", i, reads, step.want)
			}
			if len(got) > 0 != (i == 5) {
				t.Fatalf("step %d: answered: %t", i, len(got) > 0)
			}
		}
		for i, res := range <-got {
			if want := int64([]int{1, 3, 1}[i] * n); res.Bytes() != want {
				t.Errorf("partition %d: %d bytes, want %d", i, res.Bytes(), want)
			}
			res.Release()
		}
		for i, p := range []int32{0, 1, 2} { // nobody is told any more
			r.produce(topic, p, records(t, batch.NoProducer, value))
			synctest.Wait()
			if reads := seen.take(); reads != "[]" {
				t.Errorf("after the answer %d: read %s", i, reads)
			}
		}
		if n := r.store.Stats().Watches; n != 0 {
			t.Errorf("%d watches after the answer", n)
		}
	})
}

// TestFetchCountsNoMoreThanItAnswers waits for more than one partition may give:
// what goes beyond its limit is not counted.
func TestFetchCountsNoMoreThanItAnswers(t *testing.T) {
	waitingRig(t, func(t *testing.T, r *rig, seen *reads) {
		topic := r.create("t", 2, nil)
		value := "0123456789"
		n := len(records(t, batch.NoProducer, value))
		f, got := r.fetchAll(topic, 4*n, 2*n)
		for range 6 {
			r.produce(topic, 0, records(t, batch.NoProducer, value))
			synctest.Wait()
		}
		if len(got) > 0 {
			t.Fatalf("answered with two batches of a partition, and four are waited for")
		}
		f.Cancel()
		results := <-got
		if results[0].Bytes() != int64(2*n) || results[1].Bytes() != 0 {
			t.Errorf("cancelled: %d and %d bytes, want %d and 0", results[0].Bytes(), results[1].Bytes(), 2*n)
		}
		releaseAll(results)

		// One batch counts, whatever its partition's limit, as it is answered alone.
		_, got = r.fetchAll(r.create("u", 1, nil), 1, 10)
		u, _ := r.TopicByName("u")
		r.produce(u, 0, records(t, batch.NoProducer, value))
		results = <-got
		if results[0].Bytes() != int64(n) {
			t.Errorf("a batch above the limit: %d bytes, want %d", results[0].Bytes(), n)
		}
		releaseAll(results)
	})
}

// TestFetchPanicsWhileItWaits has the reading of what moved panic: it is told, once,
// and nothing wakes the fetch any more.
func TestFetchPanicsWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken, looks := false, 0
		r := startRig(t, vfs.NewMem(1), func(o *Options) {
			o.reads = func(*FetchPart) {
				if looks++; broken {
					panic("reads")
				}
			}
		})
		defer func() { r.stop() }()
		topic := r.create("t", 1, nil)
		panics := make(chan any, 9)
		r.Fetch(FetchRequest{
			MaxWait: time.Hour, MinBytes: 1, MaxBytes: 100, Panicked: func(p any) { panics <- p },
			Parts: []FetchPart{{Topic: topic.ID, MaxBytes: 100, Epoch: -1}},
		}, func([]FetchResult) { t.Error("answered") })
		broken = true
		for range 2 {
			r.produce(topic, 0, records(t, batch.NoProducer, "x"))
			synctest.Wait()
		}
		time.Sleep(2 * time.Hour)
		if len(panics) != 1 || looks != 2 {
			t.Errorf("%d panics and %d looks, want 1 and 2", len(panics), looks)
		}
		if n := r.store.Stats().Watches; n != 0 {
			t.Errorf("%d watches after the panic", n)
		}
	})
}
