package broker

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// holder holds bytes of a budget, and gives them back when it is asked to.
type holder struct {
	b     *Budget
	bytes int64
	yield *Yield
	asked []time.Duration // when, since began
	began time.Time
	keeps bool // what it is asked for
}

func hold(t *testing.T, b *Budget, bytes int64, began time.Time) *holder {
	t.Helper()
	if !b.TryAcquire(bytes) {
		t.Fatal("no room")
	}
	h := &holder{b: b, bytes: bytes, began: began}
	h.yield = b.Yield(bytes, func() {
		h.asked = append(h.asked, time.Since(began))
		if !h.keeps {
			go h.release() // as a fetch does
		}
	})
	return h
}

func (h *holder) release() {
	h.b.Release(h.bytes)
	h.yield.End()
	h.yield.End() // it may be
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
				if !slices.Equal(h.asked, want[i]) {
					t.Errorf("%s: holder %d was asked after %v, want %v", when, i, h.asked, want[i])
				}
			}
		}
		admitted := 0
		wait := func(ctx context.Context, n int64) {
			go func() {
				if b.Acquire(ctx, n) == nil {
					admitted++
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
		if admitted != 1 || b.Used() != 100 {
			t.Errorf("%d were let in, and %d bytes are taken; want 1 and 100", admitted, b.Used())
		}
		holders[1].keeps = true
		wait(t.Context(), 10)
		wait(t.Context(), 20) // of what was asked for already
		asked("at once", []time.Duration{100 * ms}, []time.Duration{1060 * ms}, nil)
		wait(t.Context(), 1)
		asked("when more is missing than was asked for", []time.Duration{100 * ms}, []time.Duration{1060 * ms}, []time.Duration{1060 * ms})
		holders[1].release()
		synctest.Wait()
		if admitted != 4 || b.asked != 0 || b.wanted != 0 || b.yields.Len() != 0 {
			t.Errorf("%d were let in, and %d bytes are asked for, %d wanted, in the end", admitted, b.asked, b.wanted)
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
		late.yield = b.Yield(20, func() {
			late.asked = append(late.asked, time.Since(began))
			go late.release()
		})
		if err := <-done; err != nil || len(over.asked) > 0 || !slices.Equal(late.asked, []time.Duration{1100 * time.Millisecond}) {
			t.Errorf("%v: asked %v, and %v of what was over", err, late.asked, over.asked)
		}
		var none *Yield
		none.End()
	})
}
