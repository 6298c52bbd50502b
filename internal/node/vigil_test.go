package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestVigilRounds: rounds follow on each other after pauses that double up to a second,
// begin anew after a step, which no pause follows, and end with a round's outcome, with
// a fault, or late.
func TestVigilRounds(t *testing.T) {
	t.Parallel()
	fault, late, failed := errors.New("a fault"), errors.New("late"), errors.New("failed")
	ms := func(n ...int) (ds []time.Duration) {
		for _, n := range n {
			ds = append(ds, time.Duration(n)*time.Millisecond)
		}
		return ds
	}
	for _, tt := range []struct {
		name   string
		rounds []outcome // then it fails
		wakes  time.Duration
		faults time.Duration
		within time.Duration
		at     []time.Duration // of the rounds
		want   error
	}{
		{name: "a step at once", rounds: []outcome{moved, moved, done}, at: ms(0, 0, 0)},
		{name: "waits", rounds: make([]outcome, 7), at: ms(0, 50, 150, 350, 750, 1550, 2550, 3550), want: failed},
		{name: "a step between", rounds: []outcome{waits, waits, moved, waits, waits, done}, at: ms(0, 50, 150, 150, 200, 300)},
		{name: "woken", rounds: []outcome{waits, waits, waits, done}, wakes: ms(60)[0], at: ms(0, 50, 60, 260)},
		{name: "a fault", rounds: make([]outcome, 9), faults: ms(200)[0], at: ms(0, 50, 150), want: fault},
		{name: "late", rounds: make([]outcome, 9), within: ms(400)[0], at: ms(0, 50, 150, 350), want: late},
	} {
		synctest.Test(t, func(t *testing.T) {
			woken, faults := make(chan struct{}, 1), make(chan error, 1)
			v := &vigil{woken: woken, fault: faults}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for after, do := range map[time.Duration]func(){tt.wakes: func() { woken <- struct{}{} }, tt.faults: func() { faults <- fault }, tt.within: cancel} {
				if after > 0 {
					defer time.AfterFunc(after, do).Stop()
				}
			}
			var at []time.Duration
			began := time.Now()
			err := v.rounds(ctx, func() (outcome, error) {
				at = append(at, time.Since(began))
				if n := len(at); n <= len(tt.rounds) {
					return tt.rounds[n-1], nil
				}
				return waits, failed
			}, func() error { return late })
			if !errors.Is(err, tt.want) || !slices.Equal(at, tt.at) {
				t.Errorf("%s: rounds at %v, then %v; want %v, then %v", tt.name, at, err, tt.at, tt.want)
			}
		})
	}
}

// TestVigilSays: each change of why a node waits is in the log, and no more.
func TestVigilSays(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	v := &vigil{log: slog.New(slog.NewTextHandler(&log, nil)), line: "waiting", args: []any{"for", "all"}}
	for _, why := range []string{"", "", "one", "one", "two", "one"} {
		v.say(why)
		if got := v.reason(); got != why {
			t.Errorf("it waits for %q, want %q", got, why)
		}
	}
	v.over()
	if got := v.reason(); got != "" {
		t.Errorf("when it is over it waits for %q", got)
	}
	v.say("one")
	var got []string
	for line := range strings.Lines(log.String()) {
		_, said, _ := strings.Cut(strings.TrimSpace(line), "level=WARN ")
		got = append(got, said)
	}
	want := []string{`msg=waiting for=all why=""`, "msg=waiting for=all why=one", "msg=waiting for=all why=two", "msg=waiting for=all why=one", "msg=waiting for=all why=one"}
	if !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
}
