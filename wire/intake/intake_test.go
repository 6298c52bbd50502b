package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker"
)

// pace is a Reader of one end of a pipe, in virtual time.
type pace struct {
	*testing.T
	*Reader
	peer    net.Conn // the other end
	budget  *broker.Budget
	stopped atomic.Bool
	began   time.Time
}

// paced runs test in a bubble. grace is that of a request.
func paced(t *testing.T, grace time.Duration, test func(t *testing.T, p *pace)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		p := &pace{T: t, peer: theirs, budget: broker.NewBudget(100), began: time.Now()}
		p.Reader = NewReader(ours, grace, p.stopped.Load)
		t.Cleanup(func() {
			_ = ours.Close()
			_ = theirs.Close()
		})
		test(t, p)
	})
}

// expect begins the time of a request of n bytes.
func (p *pace) expect(n int64) {
	p.Helper()
	if err := p.Expect(p.budget, n); err != nil {
		p.Fatal(err)
	}
	p.began = time.Now()
}

// wait makes somebody wait for the budget, which is all taken, until the end of
// the test.
func (p *pace) wait() {
	p.Helper()
	if !p.budget.TryAcquire(p.budget.Limit()) {
		p.Fatal("no room")
	}
	ctx, cancel := context.WithCancel(p.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = p.budget.Acquire(ctx, 1)
	}()
	p.Cleanup(func() {
		cancel()
		<-ended
	})
	synctest.Wait()
}

// trickle sends a byte in each interval, from now on.
func (p *pace) trickle(every time.Duration) {
	p.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			time.Sleep(every)
			if _, err := p.peer.Write([]byte{1}); err != nil {
				return
			}
		}
	}()
	p.Cleanup(func() {
		_ = p.peer.Close()
		<-ended
	})
}

// ends reads until that fails, and wants an error at a time.
func (p *pace) ends(want error, after time.Duration) (bytes int) {
	p.Helper()
	for b := make([]byte, 10); ; {
		n, err := p.Read(b)
		bytes += n
		if err == nil {
			continue
		}
		if took := time.Since(p.began); n != 0 || !errors.Is(err, want) || took != after {
			p.Errorf("%d bytes, then %v after %v; want %v after %v", bytes, err, took, want, after)
		}
		return bytes
	}
}

// TestBudgetBySize: small requests have memory of their own.
func TestBudgetBySize(t *testing.T) {
	t.Parallel()
	small, large := broker.NewBudget(1), broker.NewBudget(2)
	for n, want := range map[int64]*broker.Budget{0: small, 1: small, SmallBytes: small, SmallBytes + 1: large, 1 << 40: large} {
		if got := Budget(n, small, large); got != want {
			t.Errorf("%d bytes are of the budget of %d", n, got.Limit())
		}
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		io.EOF: true, net.ErrClosed: true, os.ErrDeadlineExceeded: true, context.Canceled: true, ErrPanic: true,
		ErrSlow: false, io.ErrUnexpectedEOF: false, errors.New("reset"): false,
	} {
		if Quiet(err) != want || Quiet(fmt.Errorf("read: %w", err)) != want {
			t.Errorf("%v: quiet is not %t", err, want)
		}
	}
}

// TestIdleDeadline: the next request begins by then, whoever waits for memory.
func TestIdleDeadline(t *testing.T) {
	t.Parallel()
	paced(t, time.Hour, func(t *testing.T, p *pace) {
		p.wait()
		p.expect(1) // of a request that is there
		if err := p.Idle(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		p.trickle(7 * time.Second)
		if n := p.ends(os.ErrDeadlineExceeded, time.Minute); n != 8 {
			t.Errorf("%d bytes in a minute, want 8", n)
		}
	})
}

// TestRequestDeadline: a request has its grace, and the time that its bytes take
// at the slowest that they may come, to the moment; bytes that come do not make
// it longer.
func TestRequestDeadline(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		grace time.Duration
		bytes int64
		want  time.Duration
	}{
		{10 * time.Second, 0, 10 * time.Second},
		{10 * time.Second, minBytesPerSecond / 2, 10500 * time.Millisecond},
		{10 * time.Second, 4 << 20, 26 * time.Second},
		{100 * time.Millisecond, 0, 100 * time.Millisecond}, // before the first look
	} {
		for _, every := range []time.Duration{time.Hour, 33 * time.Millisecond} {
			paced(t, tt.grace, func(t *testing.T, p *pace) {
				time.Sleep(time.Hour) // for memory, which is not the peer's
				p.expect(tt.bytes)
				p.trickle(every)
				if n := p.ends(os.ErrDeadlineExceeded, tt.want); n != int(tt.want/every) {
					t.Errorf("grace %v, %d bytes: %d came, one in %v", tt.grace, tt.bytes, n, every)
				}
			})
		}
	}
}

// TestSlowIsCutOff: while others wait for memory, a request has a second, and the
// time that its bytes take at a good pace, and is looked at each quarter of a
// second from its beginning on. Who sends nothing and who sends little are the
// same; what counts is that somebody waits then.
func TestSlowIsCutOff(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tt := range []struct {
		name  string
		bytes int64
		waits time.Duration // from then on somebody does
		want  time.Duration
	}{
		{"a small one", 0, 0, 1250 * time.Millisecond}, // the first look after its second
		{"a large one", 8 * mib, 0, 2250 * time.Millisecond},
		{"a very large one", 64 * mib, 0, 9250 * time.Millisecond},
		{"not a look's multiple", mib, 0, 1250 * time.Millisecond},
		{"somebody comes later", mib, 5100 * time.Millisecond, 5250 * time.Millisecond},
	} {
		for _, every := range []time.Duration{time.Hour, 33 * time.Millisecond} {
			paced(t, time.Hour, func(t *testing.T, p *pace) {
				p.expect(tt.bytes)
				p.trickle(every)
				time.AfterFunc(tt.waits, p.wait)
				if n := p.ends(ErrSlow, tt.want); n != int(tt.want/every) {
					t.Errorf("%s: %d bytes came, one in %v", tt.name, n, every)
				}
			})
		}
	}
}

// TestSlowAlone: nobody waits, or only for other memory, so a slow request has
// all of its time; and who waited and went does not count.
func TestSlowAlone(t *testing.T) {
	t.Parallel()
	paced(t, time.Minute, func(t *testing.T, p *pace) {
		other := &pace{T: p.T, budget: broker.NewBudget(100)}
		other.wait()
		p.expect(0)
		if !p.budget.TryAcquire(p.budget.Limit()) {
			t.Fatal("no room")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond) // between two looks
		defer cancel()
		gone := make(chan error)
		go func() {
			time.Sleep(time.Second + time.Millisecond)
			gone <- p.budget.Acquire(ctx, 1)
		}()
		time.AfterFunc(2*time.Second, func() {
			if err := <-gone; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who waited between two looks: %v", err)
			}
		})
		p.ends(os.ErrDeadlineExceeded, time.Minute)
	})
}

// TestFastEnough: a request that comes as fast as it should is read to its end,
// though others wait.
func TestFastEnough(t *testing.T) {
	t.Parallel()
	paced(t, time.Minute, func(t *testing.T, p *pace) {
		p.wait()
		p.expect(100)
		go func() {
			for range 10 {
				time.Sleep(100 * time.Millisecond)
				_, _ = p.peer.Write(make([]byte, 10))
			}
		}()
		if n, err := io.ReadFull(p.Reader, make([]byte, 100)); n != 100 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

// TestStopped: a Reader that is stopped ends what it waits for, and begins
// nothing: at once, though its deadline was set before.
func TestStopped(t *testing.T) {
	t.Parallel()
	stop := func(p *pace) {
		p.stopped.Store(true)
		if err := p.nc.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Error(err)
		}
	}
	paced(t, time.Minute, func(t *testing.T, p *pace) { // between requests
		if err := p.Idle(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(3*time.Second, func() { stop(p) })
		p.ends(os.ErrDeadlineExceeded, 3*time.Second)
		if err := p.Idle(time.Now().Add(time.Hour)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Idle of a stopped Reader: %v", err)
		}
	})
	paced(t, time.Minute, func(t *testing.T, p *pace) { // in a request
		p.expect(0)
		time.AfterFunc(3100*time.Millisecond, func() { stop(p) })
		p.ends(os.ErrDeadlineExceeded, 3100*time.Millisecond)
		if err := p.Expect(p.budget, 0); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Expect of a stopped Reader: %v", err)
		}
	})
}

// TestReadErrors: what else ends a connection is told as it is, and what came
// with an error is not lost.
func TestReadErrors(t *testing.T) {
	t.Parallel()
	paced(t, time.Minute, func(t *testing.T, p *pace) {
		p.expect(0)
		_ = p.peer.Close()
		p.ends(io.EOF, 0)
	})
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		r := NewReader(lastWords{ours}, time.Minute, func() bool { return false })
		if err := r.Expect(broker.NewBudget(1), 0); err != nil {
			t.Fatal(err)
		}
		if n, err := r.Read(make([]byte, 10)); n != 3 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v; want 3 and the error that came with them", n, err)
		}
	})
	ours, _ := net.Pipe()
	_ = ours.Close()
	r := NewReader(ours, time.Minute, func() bool { return false })
	if err := r.Idle(time.Now()); err == nil {
		t.Error("Idle of a closed connection: no error")
	}
	if err := r.Expect(broker.NewBudget(1), 0); err == nil {
		t.Error("Expect of a closed connection: no error")
	}
}

// lastWords is a connection that gives three bytes together with the end of its
// time.
type lastWords struct{ net.Conn }

func (lastWords) Read([]byte) (int, error) { return 3, os.ErrDeadlineExceeded }
