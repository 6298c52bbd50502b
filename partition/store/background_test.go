package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// rig is a store in a synctest bubble whose events are kept.
type rig struct {
	t   *testing.T
	mem *vfs.Mem
	st  *Store
	sh  *Shard

	mu     sync.Mutex
	events []string
	failed []error
}

func inBubble(t *testing.T, opt Options, test func(t *testing.T, r *rig)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, mem: vfs.NewMem(1)}
		names := map[EventKind]string{
			EventFlushStart: "flush", EventRoll: "roll", EventSync: "sync", EventUnlink: "unlink", EventFullDisk: "full",
		}
		opt.OnEvent = func(e Event) {
			if names[e.Kind] != "" {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.events = append(r.events, fmt.Sprintf("%s %d@%d", names[e.Kind], e.Index, e.Offset))
			}
		}
		opt.OnFailed = func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.failed = append(r.failed, err)
		}
		st, err := Open(r.mem, testDir, opt)
		if err != nil {
			t.Fatal(err)
		}
		r.st, r.sh = st, st.Shard(1)
		test(t, r)
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
}

// did waits until all is quiet and compares what was done since the last call.
func (r *rig) did(want string) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := strings.Join(r.events, ", "); got != want {
		r.t.Errorf("after %v: did %q, want %q", time.Since(bubbleStart), got, want)
	}
	r.events = nil
}

// bubbleStart is when a bubble's clock begins.
var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// put appends one batch of about size bytes.
func (r *rig) put(key uint32, size int, pin *Pin) {
	r.t.Helper()
	_, end, err := r.sh.Bounds(key)
	if err != nil {
		r.t.Fatal(err)
	}
	appendRec(r.sh, key, makeRec(r.t, end, 1, size), pin)
}

func (r *rig) create(n uint32) {
	for key := range n {
		r.sh.Create(key, topic, int32(key), Config{})
	}
}

func (r *rig) script(text string) {
	r.t.Helper()
	in, err := vfs.ParseScript(text)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mem.SetInjector(in)
}

func TestFlushBySize(t *testing.T) {
	inBubble(t, Options{TailFlushBytes: 10_000}, func(t *testing.T, r *rig) {
		r.create(2)
		r.put(0, 5000, nil)
		r.put(1, 100, nil)
		r.did("")
		r.put(0, 5000, nil)
		r.did("flush 0@0, roll 0@0")
		r.put(0, 9000, nil)
		r.did("")
		r.put(0, 9000, nil)
		r.did("flush 0@2")
	})
}

func TestFlushByAge(t *testing.T) {
	inBubble(t, Options{TailMaxAge: 10 * time.Second}, func(t *testing.T, r *rig) {
		r.create(2)
		r.put(1, 10, nil)
		time.Sleep(4 * time.Second)
		r.put(0, 10, nil)
		r.put(1, 10, nil)
		time.Sleep(6*time.Second - time.Nanosecond)
		r.did("")
		if s := r.st.Stats(); s.OldestUnflushed != 10*time.Second-time.Nanosecond {
			t.Errorf("the oldest batch is %v old", s.OldestUnflushed)
		}
		time.Sleep(time.Nanosecond)
		r.did("flush 1@0, roll 1@0")
		time.Sleep(4 * time.Second)
		r.did("flush 0@0, roll 0@0")
		time.Sleep(time.Hour)
		r.did("")
		if r.st.MemoryUsed() != 0 {
			t.Errorf("MemoryUsed = %d with empty tails", r.st.MemoryUsed())
		}
	})
}

// TestRest: partitions that grow old together are flushed one after the other with rests,
// whose length hangs on what a flush takes and has a limit; who waits for memory ends them.
func TestRest(t *testing.T) {
	for _, tt := range []struct {
		delay       string        // of a write
		flush, rest time.Duration // the former writes four times
	}{
		{"10ms", 40 * time.Millisecond, 320 * time.Millisecond},
		{"50ms", 200 * time.Millisecond, time.Second},
	} {
		t.Run(tt.delay, func(t *testing.T) {
			inBubble(t, Options{TailMaxAge: 10 * time.Second, MemoryBytes: 40_000, Flushers: 2}, func(t *testing.T, r *rig) {
				r.create(3)
				for key := range uint32(3) {
					r.put(key, 10, nil)
				}
				r.script("write delay=" + tt.delay)
				time.Sleep(10 * time.Second)
				r.did("flush 0@0")
				time.Sleep(tt.flush)
				r.did("roll 0@0")
				time.Sleep(tt.rest - time.Nanosecond)
				r.did("")
				time.Sleep(time.Nanosecond)
				r.did("flush 1@0")
				time.Sleep(tt.flush)
				r.did("roll 1@0")
				r.put(2, 31_000, nil) // over the mark
				r.did("flush 2@0")
				time.Sleep(time.Hour)
				r.did("roll 2@0")
			})
		})
	}
}

// TestFlushOldestFirst: over the mark the tail whose first batch lies furthest
// back in the journal goes first, however short it is.
func TestFlushOldestFirst(t *testing.T) {
	inBubble(t, Options{MemoryBytes: 40_000, Flushers: 1}, func(t *testing.T, r *rig) {
		r.create(3)
		r.put(2, 10, nil)
		r.put(0, 20_000, nil)
		r.put(1, 5_000, nil)
		r.did("")
		r.put(1, 6_000, nil)
		r.did("flush 2@0, roll 2@0, flush 0@0, roll 0@0")
	})
}

// TestPinCountsWholeEntries: a small batch keeps its whole entry counted, once.
func TestPinCountsWholeEntries(t *testing.T) {
	inBubble(t, Options{MemoryBytes: 1 << 20, Flushers: 1}, func(t *testing.T, r *rig) {
		r.create(2)
		pin := r.st.Pin(500_000)
		r.put(0, 10, pin)
		r.put(1, 10, pin)
		pin.Release()
		if got := r.st.MemoryUsed(); got != 500_000+2*batchOverheadBytes {
			t.Errorf("MemoryUsed = %d", got)
		}
		if err := r.sh.FlushTo([]End{{0, 1}}); err != nil {
			t.Fatal(err)
		}
		if got := r.st.MemoryUsed(); got != 500_000+batchOverheadBytes {
			t.Errorf("MemoryUsed = %d with one batch left", got)
		}
		r.did("flush 0@0, roll 0@0, sync 0@1")
		second := r.st.Pin(400_000) // over the mark
		r.put(0, 10, second)
		second.Release()
		r.did("flush 1@0, roll 1@0")
		if got := r.st.MemoryUsed(); got != 400_000+batchOverheadBytes {
			t.Errorf("MemoryUsed = %d", got)
		}
	})
}

// TestSlowDisk: Append never waits for the disk, Admit does, in order.
func TestSlowDisk(t *testing.T) {
	inBubble(t, Options{MemoryBytes: 20_000, Flushers: 1}, func(t *testing.T, r *rig) {
		r.create(1)
		r.script("write delay=1s")
		start := time.Now()
		for range 10 {
			r.put(0, 4000, nil)
			r.sh.AppliedBatch()
			if _, err := r.sh.Read(0, 0, 100, true); err != nil {
				t.Error(err)
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("appends took %v of the disk's time", d)
		}
		admitted := make(chan string, 3)
		admit := func(name string, n int64, ctx context.Context) {
			err := r.st.Admit(ctx, n)
			admitted <- fmt.Sprintf("%s %v after %v", name, err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		go admit("first", 19_000, ctx)
		synctest.Wait()
		go admit("second", 15_000, t.Context())
		synctest.Wait()
		go admit("third", 100, t.Context())
		if got := <-admitted; got != "first context deadline exceeded after 1ms" {
			t.Error(got)
		}
		second, third := <-admitted, <-admitted
		if strings.HasPrefix(third, "second") {
			second, third = third, second
		}
		if !strings.HasPrefix(second, "second <nil>") || !strings.HasPrefix(third, "third <nil>") || time.Since(start) < 2*time.Second {
			t.Errorf("%s; %s", second, third)
		}
	})
}

func TestAdmitIsAnsweredByClose(t *testing.T) {
	inBubble(t, Options{MemoryBytes: 1000, Flushers: 1}, func(t *testing.T, r *rig) {
		pin := r.st.Pin(2000)
		got := make(chan error, 1)
		go func() { got <- r.st.Admit(t.Context(), 10) }()
		synctest.Wait()
		if err := r.st.Close(); err != nil {
			t.Error(err)
		}
		if err := <-got; !errors.Is(err, ErrClosed) {
			t.Errorf("Admit = %v, want ErrClosed", err)
		}
		if err := r.st.Admit(t.Context(), 10); !errors.Is(err, ErrClosed) {
			t.Errorf("Admit after Close = %v, want ErrClosed", err)
		}
		pin.Release()
	})
}

// TestFullDisk: batches stay readable in memory, nothing fails for good, and it
// goes on by itself.
func TestFullDisk(t *testing.T) {
	inBubble(t, Options{TailFlushBytes: 1000, Flushers: 1}, func(t *testing.T, r *rig) {
		r.create(1)
		r.put(0, 2000, nil)
		r.did("flush 0@0, roll 0@0")
		r.script("write err=ENOSPC short=300")
		r.put(0, 3000, nil)
		r.did("flush 0@1, full 0@1")
		if err := r.sh.FlushTo([]End{{0, 2}}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("FlushTo = %v, want ENOSPC", err)
		}
		r.did("flush 0@1, full 0@1")
		time.Sleep(time.Second)
		r.did("flush 0@1, full 0@1")
		if _, err := readFrom(r.sh, 0, 0, 5000); err != nil {
			t.Error(err)
		}
		r.mem.SetInjector(nil)
		time.Sleep(time.Second)
		r.did("flush 0@1")
		if err := r.sh.FlushTo([]End{{0, 2}}); err != nil {
			t.Error(err)
		}
		r.did("sync 0@2")
		checkLog(t, r.sh, 0, log{}.grow(t, 1, 2000).grow(t, 1, 3000))
		if s := r.st.Stats(); s.Segments != 1 || s.SegmentsMade != 1 || s.Flushes != 2 || s.FullDisk != 3 || s.FlushTimes.Count() != 2 ||
			s.SegmentBytes < 5000 || s.OldestUnflushed != 0 || s.OpenFiles == 0 || s.MemoryBytes != 0 {
			t.Errorf("%+v", s)
		}
		size := r.st.Stats().SegmentBytes
		r.sh.Delete(0)
		if err := r.sh.Checkpointed(r.sh.Capture()); err != nil {
			t.Error(err)
		}
		if s := r.st.Stats(); s.Segments != 0 || s.SegmentsUnlinked != 1 || s.SegmentBytes != 0 || s.UnlinkedBytes != size {
			t.Errorf("after the deletion: %+v", s)
		}
		if len(r.failed) > 0 {
			t.Error(r.failed)
		}
	})
}

// TestFullDiskAtRoll meets the full disk when the next segment is made.
func TestFullDiskAtRoll(t *testing.T) {
	inBubble(t, Options{TailFlushBytes: 1000, SegmentBytes: 2500, Flushers: 1}, func(t *testing.T, r *rig) {
		var l log
		put := func() {
			l = l.grow(t, 1, 2000)
			appendRec(r.sh, 0, l[len(l)-1], nil)
		}
		r.create(1)
		put()
		r.did("flush 0@0, roll 0@0")
		for _, script := range []string{"create err=ENOSPC", "write err=ENOSPC after=1", "write path=*.index err=ENOSPC after=1"} {
			r.script(script)
			put()
			synctest.Wait()
			time.Sleep(time.Second) // once more
			synctest.Wait()
			checkLog(t, r.sh, 0, l)
			r.mem.SetInjector(nil)
			time.Sleep(time.Second)
			synctest.Wait()
			if got := r.sh.parts[0].flushed; got != l.end() {
				t.Fatalf("%s: flushed to %d, want %d", script, got, l.end())
			}
		}
		if err := r.sh.FlushTo([]End{{0, l.end()}}); err != nil {
			t.Fatal(err)
		}
		again := mustOpen(t, r.mem.CrashClone(vfs.CrashOptions{}), manual())
		d, err := again.Shard(1).Restore([]Restored{{Key: 0, TopicID: topic, End: l.end()}})
		if err != nil || len(d) > 0 {
			t.Fatal(d, err)
		}
		checkLog(t, again.Shard(1), 0, l)
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestFirstErrorIsFinal (R9): after a failed write or sync nothing is written
// any more, a later sync is not believed, and reads go on.
func TestFirstErrorIsFinal(t *testing.T) {
	for _, script := range []string{
		"write path=*.seg nth=1 err=EIO",
		"write path=*.index nth=2 err=EIO",
		"fdatasync path=*.seg nth=1 err=EIO",
		"fdatasync path=*.index nth=1 err=EIO",
		"syncdir path=store nth=1 err=EIO",
		"syncdir path=*-0 nth=1 err=EIO",
		"mkdir path=*-0 nth=1 err=EROFS",
	} {
		t.Run(script, func(t *testing.T) {
			inBubble(t, manual(), func(t *testing.T, r *rig) {
				r.create(1)
				r.put(0, 100, nil)
				r.script(script)
				for range 2 {
					if err := r.sh.FlushTo([]End{{0, 1}}); !errors.Is(err, ErrFailed) || !errors.Is(err, r.st.Failed()) {
						t.Errorf("FlushTo = %v, want ErrFailed", err)
					}
				}
				if len(r.failed) != 1 || !strings.Contains(r.failed[0].Error(), testDir) {
					t.Errorf("OnFailed got %v, want one error that names a file", r.failed)
				}
				if err := r.st.Admit(t.Context(), 1); !errors.Is(err, ErrFailed) {
					t.Errorf("Admit = %v", err)
				}
				r.put(0, 100, nil)
				checkLog(t, r.sh, 0, log{}.grow(t, 1, 100).grow(t, 1, 100))
			})
		})
	}
}

// TestFlusherFails: the same from a flusher's goroutine, with a proposer
// waiting.
func TestFlusherFails(t *testing.T) {
	inBubble(t, Options{MemoryBytes: 1000}, func(t *testing.T, r *rig) {
		r.create(1)
		r.script("write err=EIO delay=1s")
		r.put(0, 2000, nil)
		if err := r.st.Admit(t.Context(), 100); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Errorf("Admit = %v", err)
		}
		synctest.Wait()
		if len(r.failed) != 1 {
			t.Errorf("OnFailed called %d times", len(r.failed))
		}
	})
}
