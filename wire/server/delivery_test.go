package server

import (
	"sync/atomic"
	"testing"

	"github.com/flotilla-log/flotilla/broker"
)

// TestDeliveryIsCounted: what deliveries of streams hold is counted, for as long
// as it is held.
func TestDeliveryIsCounted(t *testing.T) {
	t.Parallel()
	answers := broker.NewBudget(100)
	var all atomic.Int64
	d := &delivery{c: &conn{s: &Server{opt: Options{Answers: answers}}}, all: &all}
	for _, step := range []struct{ hold, keep, want int64 }{{60, 60, 60}, {0, 20, 20}, {30, 50, 50}, {0, 0, 0}} {
		if step.hold > 0 && !answers.TryAcquire(step.hold) {
			t.Fatal("no room")
		}
		d.hold(step.hold)
		d.keep(step.keep)
		if all.Load() != step.want || answers.Used() != step.want || d.held != step.want {
			t.Errorf("%+v: counted %d, taken %d, held %d", step, all.Load(), answers.Used(), d.held)
		}
	}
}
