package node

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// The pauses between two rounds of asking the others.
const (
	firstRound = 50 * time.Millisecond
	lastRound  = time.Second
)

// vigil is what a node waits for before it serves: why it does, of which the log has
// each change, and the pace at which it asks the others.
type vigil struct {
	log  *slog.Logger
	line string // in the log, with args and why
	args []any

	woken <-chan struct{} // ends a pause; nil: nothing does
	fault <-chan error    // ends the rounds; nil: nothing does

	mu   sync.Mutex
	said bool   // guarded by mu: why holds
	why  string // guarded by mu
}

// say notes why the node waits, and logs it if it is another reason than before.
func (v *vigil) say(why string) {
	v.mu.Lock()
	again := v.said && v.why == why
	v.said, v.why = true, why
	v.mu.Unlock()
	if !again {
		v.log.Warn(v.line, append(slices.Clone(v.args), "why", why)...)
	}
}

// reason returns why the node waits; "": it has not said.
func (v *vigil) reason() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.why
}

// over notes that the node waits no more.
func (v *vigil) over() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.said, v.why = false, ""
}

// outcome is that of one round.
type outcome int

const (
	waits outcome = iota // nothing could be done
	moved                // a step was taken, and there may be another
	done
)

// rounds calls round until that is done, or has an error, which it returns, as it does
// what fault says. It pauses after a round in which the node could only wait, from
// firstRound on and twice as long each time up to lastRound, and begins anew after a
// step. When ctx ends within a pause the error is late's.
func (v *vigil) rounds(ctx context.Context, round func() (outcome, error), late func() error) error {
	for pause := firstRound; ; pause = min(2*pause, lastRound) {
		out, err := round()
		switch {
		case err != nil || out == done:
			return err
		case out == moved:
			pause = firstRound / 2
			continue
		}
		select {
		case <-v.woken:
		case err := <-v.fault:
			return err
		case <-time.After(pause):
		case <-ctx.Done():
			return late()
		}
	}
}
