package broker

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestDiskStep decides when a disk is low: from below the reserve until an eighth
// above it, and while writes find no room whatever it says.
func TestDiskStep(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	d := newDiskWatch(&Options{DiskReserveBytes: 800, Now: func() time.Time { return at }})
	for i, step := range []struct {
		free  int64
		full  error
		low   bool
		cause string
	}{
		{800, nil, false, ""},
		{799, nil, true, "799 bytes are free, below disk.reserve.bytes (800)"},
		{0, nil, true, "0 bytes are free"},
		{800, nil, true, "an eighth above"},
		{899, nil, true, "an eighth above"},
		{900, nil, false, ""},
		{800, nil, false, ""},
		{9000, syscall.EDQUOT, true, "quota"},
		{9000, nil, false, ""},
	} {
		at = at.Add(time.Second)
		was := d.now.Low
		d.stepLocked(at, vfs.Usage{FreeBytes: step.free, TotalBytes: 10_000}, step.full)
		if d.now.Low != step.low || !strings.Contains(d.now.Cause, step.cause) || (d.now.Cause == "") == step.low {
			t.Errorf("step %d, %d free, %v: %+v", i, step.free, step.full, d.now)
		}
		if changed := d.now.Low != was; changed != d.now.Since.Equal(at) {
			t.Errorf("step %d: since %v", i, d.now.Since)
		}
	}
	if d.now.Entered != 2 {
		t.Errorf("entered %d times, want twice", d.now.Entered)
	}
}

// TestDiskLow lets the disk become nearly full. Produce waits until its time is
// up, and is told why; it holds up nothing else; a topic is not created, one is
// deleted; and when there is room what waits goes on.
func TestDiskLow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := new(logLines)
		r := startRig(t, vfs.NewMem(1), func(opt *Options) {
			opt.Log = slog.New(slog.NewTextHandler(lines, nil))
			opt.DiskDir, opt.DiskReserveBytes = "/", 1<<20
		})
		defer func() { r.stop() }()
		topic, doomed := r.create("t", 1, nil), r.create("doomed", 1, nil)
		if res := r.produce(topic, 0, records(t, batch.NoProducer, "before")); res.Err != nil {
			t.Fatal(res.Err)
		}
		r.fs.SetCapacity(1) // full
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.DiskState(); !s.Low || s.FreeBytes != 0 || s.ReserveBytes != 1<<20 || s.Entered != 1 {
			t.Fatalf("DiskState = %+v", s)
		}
		began := time.Now()
		waits := make(chan []ProduceResult, 1)
		r.Produce([]ProducePart{{Topic: topic.ID, Batch: records(t, batch.NoProducer, "late")}}, 10*time.Minute, func(res []ProduceResult) { waits <- res })
		res := r.produceParts(5*time.Second, ProducePart{Topic: topic.ID, Batch: records(t, batch.NoProducer, "never")})[0]
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("answered after %v, want its whole 5 s", took)
		}
		if res.Err == nil || res.Err.Code != errcode.KafkaStorageError || !res.Err.Code.Retriable() ||
			!strings.Contains(res.Err.Error(), "disk.reserve.bytes (1048576)") || !strings.Contains(res.Err.Error(), "was not appended") {
			t.Errorf("Produce = %v", res.Err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := r.CreateTopic(ctx, TopicSpec{Name: "new"}); errcode.Of(err) != errcode.KafkaStorageError {
			t.Errorf("CreateTopic = %v, want KAFKA_STORAGE_ERROR", err)
		}
		if got := r.read(topic, 0, 0); len(got) != 1 {
			t.Errorf("read %q", got)
		}
		if err := r.DeleteTopic(ctx, doomed.ID); err != nil {
			t.Errorf("DeleteTopic = %v", err)
		}
		if s := r.DiskState(); s.Refused != 2 {
			t.Errorf("refused %d, want two", s.Refused)
		}
		r.fs.SetCapacity(-1)
		if res := (<-waits)[0]; res.Err != nil {
			t.Errorf("what waited: %v", res.Err)
		}
		if got := r.read(topic, 0, 0); len(got) != 2 || got[1] != "late" {
			t.Errorf("read %q", got)
		}
		if s := r.DiskState(); s.Low || s.Cause != "" {
			t.Errorf("DiskState = %+v", s)
		}
		synctest.Wait() // the line comes after what waited is let go
		if n, m := strings.Count(lines.String(), "nearly full"), strings.Count(lines.String(), "has room again"); n != 1 || m != 1 {
			t.Errorf("%d lines at entering, %d at leaving:\n%s", n, m, lines.String())
		}
		select {
		case err := <-r.failed:
			t.Error("the node stopped:", err)
		default:
		}
	})
}

// logLines keeps what is logged. Safe for concurrent use.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestDeletionWhileCreating: a topic whose partitions wait for room does not hold
// up the deletion that makes it.
func TestDeletionWhileCreating(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		doomed := r.create("doomed", 1, nil)
		r.journal.Hold(true) // between the topic and its partitions
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.CreateTopic(short, TopicSpec{Name: "waits"}); errcode.Of(err) != errcode.RequestTimedOut {
			t.Fatalf("CreateTopic = %v, want a time-out", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := r.DeleteTopic(ctx, doomed.ID); err != nil {
			t.Errorf("DeleteTopic = %v", err)
		}
		r.journal.Hold(false)
		topic, err := r.TopicByName("waits")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retryAfter)
		if res := r.produce(topic, 0, records(t, batch.NoProducer, "x")); res.Err != nil {
			t.Errorf("the topic that waited: %v", res.Err)
		}
	})
}

// TestStartCompactsFirst crashes at every place of the ring: what had been
// compacted is back, and the disk has no room for the ring to grow. All shards
// let go of it before the first one writes.
func TestStartCompactsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		r := startRig(t, fsys)
		idle, busy := r.create("t", 1, nil), r.create("u", 1, nil)
		if r.DescribePartition(idle.ID, 0).Shard != 1 { // the one that starts first
			idle, busy = busy, idle
		}
		var images []*vfs.Mem
		for i := range 400 {
			if i%100 == 0 { // keeps its file from being used again
				r.produce(idle, 0, records(t, batch.NoProducer, "x"))
			}
			if res := r.produce(busy, 0, records(t, batch.NoProducer, strings.Repeat("x", 12<<10))); res.Err != nil {
				t.Fatal(res.Err)
			}
			if i%8 == 7 {
				r.Checkpoint()
				images = append(images, fsys.KillClone())
			}
		}
		fsys.Freeze()
		r.stop()
		for i, image := range images {
			image.SetCapacity(1)
			r, err := tryRig(t, image)
			if err != nil {
				t.Errorf("image %d: a start on a full disk: %v", i, err)
			}
			select {
			case err := <-r.failed:
				t.Errorf("image %d: %v", i, err)
			default:
			}
			r.stop()
		}
	})
}
