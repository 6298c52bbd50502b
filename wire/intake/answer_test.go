package intake

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker"
)

// TestUntaken: an answer that nobody takes ends at its connection's write deadline
// if nobody waits for its memory; else as soon as somebody does, but not before it
// has had a second, and the time that its bytes take at a good pace.
func TestUntaken(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tt := range []struct {
		name        string
		bytes       int64
		waits, goes time.Duration // somebody does, from and until then; 0: never, for ever
		other       bool          // for other memory
		taken       time.Duration // by the peer; 0: never
		want        error
		after       time.Duration
	}{
		{name: "alone", want: os.ErrDeadlineExceeded, after: time.Minute},
		{name: "alone, and taken late", taken: 59 * time.Second, after: 59 * time.Second},
		{name: "a small one", waits: 1, want: ErrUntaken, after: time.Second},
		{name: "a large one", bytes: 32 * mib, waits: 1, want: ErrUntaken, after: 5 * time.Second},
		{name: "one that is fast enough", bytes: 32 * mib, waits: 1, taken: 4900 * time.Millisecond, after: 4900 * time.Millisecond},
		{name: "somebody comes later", waits: 5100 * time.Millisecond, want: ErrUntaken, after: 5250 * time.Millisecond},
		{name: "somebody comes and goes between two looks", waits: 5100 * time.Millisecond, goes: 5200 * time.Millisecond, want: os.ErrDeadlineExceeded, after: time.Minute},
		{name: "somebody waits for other memory", waits: 1, other: true, want: os.ErrDeadlineExceeded, after: time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer ours.Close()
				defer theirs.Close()
				budget := broker.NewBudget(1)
				if !budget.TryAcquire(1) {
					t.Fatal("no room")
				}
				if tt.waits > 0 {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					time.AfterFunc(tt.waits, func() { _ = budget.Acquire(ctx, 1) })
					if tt.goes > 0 {
						time.AfterFunc(tt.goes, cancel)
					}
				}
				if tt.taken > 0 {
					time.AfterFunc(tt.taken, func() { _, _ = theirs.Read(make([]byte, 1)) })
				}
				from := budget
				if tt.other {
					from = broker.NewBudget(1)
				}
				began := time.Now()
				if err := ours.SetWriteDeadline(began.Add(time.Minute)); err != nil {
					t.Fatal(err)
				}
				o := NewOutgoing(ours)
				o.Begin(tt.bytes, func() bool { return from.Waiting() > 0 })
				_, err := ours.Write([]byte{1})
				err = o.Taken(err)
				if took := time.Since(began); !errors.Is(err, tt.want) || took != tt.after {
					t.Errorf("%v after %v, want %v after %v", err, took, tt.want, tt.after)
				}
			})
		})
	}
}

// TestTaken: what is taken in time is no longer looked at, and nor is its
// connection, though others wait; an error of the writing is told as it is.
func TestTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		budget := broker.NewBudget(1)
		if !budget.TryAcquire(1) {
			t.Fatal("no room")
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = budget.Acquire(ctx, 1) }()
		o, why := NewOutgoing(ours), errors.New("reset")
		for _, want := range []error{nil, why} {
			o.Begin(0, func() bool { return budget.Waiting() > 0 })
			if err := o.Taken(want); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		time.AfterFunc(time.Minute, func() { _, _ = theirs.Read(make([]byte, 1)) })
		if _, err := ours.Write([]byte{1}); err != nil {
			t.Errorf("what is written a minute later: %v", err)
		}
	})
}

// TestPause: the time for which this end keeps the peer waiting is not the peer's,
// however often; and one that was too slow is written to no more, whatever
// deadlines are set.
func TestPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		o := NewOutgoing(ours)
		if err := o.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		o.Begin(0, func() bool { return true }) // a second
		for range 2 {
			time.Sleep(400 * time.Millisecond)
			resume := o.Pause()
			o.Pause()() // within it, which is nothing more
			time.Sleep(10 * time.Second)
			resume()
		}
		began := time.Now()
		if err := o.SetWriteDeadline(began.Add(time.Hour)); err != nil {
			t.Errorf("a deadline after two pauses: %v", err)
		}
		_, err := ours.Write([]byte{1})
		if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took != 200*time.Millisecond {
			t.Errorf("%v after %v, want a deadline after 200ms", err, took)
		}
		o.Pause()()
		for range 2 {
			if err := o.SetWriteDeadline(time.Now().Add(time.Hour)); !errors.Is(err, ErrUntaken) {
				t.Errorf("a deadline for one that was too slow: %v", err)
			}
		}
		if err := o.Taken(err); !errors.Is(err, ErrUntaken) {
			t.Errorf("%v, want ErrUntaken", err)
		}
		o.Pause()() // of nothing
		time.AfterFunc(time.Hour, func() { _, _ = theirs.Read(make([]byte, 1)) })
		o.Begin(0, func() bool { return false })
		if err := o.SetWriteDeadline(time.Now().Add(2 * time.Hour)); err != nil {
			t.Errorf("the next deadline: %v", err)
		}
		_, err = ours.Write([]byte{1})
		if err = o.Taken(err); err != nil {
			t.Errorf("what is written then: %v", err)
		}
	})
}
