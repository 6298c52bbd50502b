package consumergroup

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestTimers compares random use with a list of what is to fire when.
func TestTimers(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 2))
		var (
			ts    timers
			fired []int
			due   = make(map[int]time.Time)
			all   = make([]*timer, 20)
		)
		for i := range all {
			all[i] = newTimer(func() { fired = append(fired, i) })
		}
		now := begins
		for range 500 {
			switch i := r.IntN(len(all)); r.IntN(4) {
			case 0, 1:
				due[i] = now.Add(time.Duration(r.IntN(100)))
				ts.set(all[i], due[i])
			case 2:
				delete(due, i)
				ts.stop(all[i])
			default:
				now = now.Add(time.Duration(r.IntN(20)))
				var want []int
				for i, at := range due {
					if !at.After(now) {
						want = append(want, i)
						delete(due, i)
					}
				}
				fired = nil
				for tm := ts.pop(now); tm != nil; tm = ts.pop(now) {
					tm.fire()
				}
				slices.Sort(want)
				if slices.Sort(fired); !slices.Equal(fired, want) {
					t.Fatalf("seed %d: %v fire, want %v", seed, fired, want)
				}
			}
			next, ok := ts.next()
			for i, at := range due {
				if !ok || next.After(at) {
					t.Fatalf("seed %d: next is %v %t, timer %d is due at %v", seed, next, ok, i, at)
				}
			}
			if ok && len(due) == 0 {
				t.Fatalf("seed %d: next is %v, and nothing is to fire", seed, next)
			}
		}
	}
}
