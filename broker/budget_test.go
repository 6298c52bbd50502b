package broker

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// holder holds bytes of a budget, and gives them back when it is asked to.
type holder struct {
	b     *Budget
	bytes int64
	began time.Time

	mu    sync.Mutex
	yield *Yield
	asked []time.Duration // when, since began
	keeps bool            // what it is asked for
}

func hold(t *testing.T, b *Budget, bytes int64, began time.Time) *holder {
	t.Helper()
	if !b.TryAcquire(bytes) {
		t.Fatal("no room")
	}
	h := &holder{b: b, bytes: bytes, began: began}
	h.begin()
	return h
}

// begin yields what h holds.
func (h *holder) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.yield = h.b.Yield(h.bytes, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.asked = append(h.asked, time.Since(h.began))
		if !h.keeps {
			go h.release() // as a fetch does
		}
	})
}

func (h *holder) release() {
	h.mu.Lock()
	yield := h.yield
	h.mu.Unlock()
	h.b.Release(h.bytes)
	yield.End()
	yield.End() // it may be
}

// askedAt returns when h was asked.
func (h *holder) askedAt() []time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.asked)
}

func (h *holder) keep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keeps = true
}

// TestYield: those who yield are asked when others wait for their memory: the
// oldest first, no more than it takes, each once, and not before a tenth of a
// second has passed since they took it.
func TestYield(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, began := NewBudget(100), time.Now()
		holders := []*holder{hold(t, b, 30, began), hold(t, b, 30, began), hold(t, b, 30, began)}
		asked := func(when string, want ...[]time.Duration) {
			t.Helper()
			synctest.Wait()
			for i, h := range holders {
				if got := h.askedAt(); !slices.Equal(got, want[i]) {
					t.Errorf("%s: holder %d was asked after %v, want %v", when, i, got, want[i])
				}
			}
		}
		var admitted atomic.Int32
		wait := func(ctx context.Context, n int64) {
			go func() {
				if b.Acquire(ctx, n) == nil {
					admitted.Add(1)
				}
			}()
			synctest.Wait()
		}
		time.Sleep(40 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		wait(ctx, 40) // and goes, before anybody may be asked
		time.Sleep(20 * time.Millisecond)
		wait(t.Context(), 40)
		asked("before a tenth of a second", nil, nil, nil)
		time.Sleep(time.Second)
		ms := time.Millisecond
		asked("when 30 bytes are missing", []time.Duration{100 * ms}, nil, nil)
		if admitted.Load() != 1 || b.Used() != 100 {
			t.Errorf("%d were let in, and %d bytes are taken; want 1 and 100", admitted.Load(), b.Used())
		}
		holders[1].keep()
		wait(t.Context(), 10)
		wait(t.Context(), 20) // of what was asked for already
		asked("at once", []time.Duration{100 * ms}, []time.Duration{1060 * ms}, nil)
		wait(t.Context(), 1)
		asked("when more is missing than was asked for", []time.Duration{100 * ms}, []time.Duration{1060 * ms}, []time.Duration{1060 * ms})
		holders[1].release()
		synctest.Wait()
		if admitted.Load() != 4 || b.asked != 0 || b.wanted != 0 || b.yields.Len() != 0 {
			t.Errorf("%d were let in, and %d bytes are asked for, %d wanted, in the end", admitted.Load(), b.asked, b.wanted)
		}
	})
}

// TestYieldLater: who begins to yield while others wait already is asked, when it
// may be; one that has ended is not.
func TestYieldLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, began := NewBudget(100), time.Now()
		over, late := hold(t, b, 20, began), hold(t, b, 20, began)
		over.yield.End()
		late.yield.End()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- b.Acquire(ctx, 70) }()
		time.Sleep(time.Second)
		late.begin()
		if err := <-done; err != nil || len(over.askedAt()) > 0 || !slices.Equal(late.askedAt(), []time.Duration{1100 * time.Millisecond}) {
			t.Errorf("%v: asked %v, and %v of what was over", err, late.askedAt(), over.askedAt())
		}
		var none *Yield
		none.End()
	})
}
