package netsim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs f in virtual time, with a network and one connection from host a
// to host b. At its end no goroutine may be left, or synctest fails the test.
func bubble(t *testing.T, f func(t *testing.T, n *Network, a, b net.Conn)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		defer n.Close()
		l, err := n.Listen("b:0")
		check(t, err)
		a, err := n.Dial(t.Context(), "a", l.Addr().String())
		check(t, err)
		b, err := l.Accept()
		check(t, err)
		f(t, n, a, b)
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func send(t *testing.T, c net.Conn, data string) {
	t.Helper()
	n, err := c.Write([]byte(data))
	if n != len(data) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
}

// receive reads what there is within d.
func receive(t *testing.T, c net.Conn, d time.Duration) string {
	t.Helper()
	check(t, c.SetReadDeadline(time.Now().Add(d)))
	defer func() { check(t, c.SetReadDeadline(time.Time{})) }()
	b, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	return string(b)
}

func TestAddresses(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		if a.LocalAddr() != b.RemoteAddr() || a.RemoteAddr() != b.LocalAddr() || hostOf(a.LocalAddr().String()) != "a" {
			t.Errorf("addresses %v %v, %v %v", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
		}
		l, err := n.Listen("c:9092")
		check(t, err)
		_, err = n.Listen("c:9092")
		wantErr(t, "Listen", err, syscall.EADDRINUSE)
		check(t, l.Close())
		wantErr(t, "Close", l.Close(), net.ErrClosed)
		_, err = n.Dial(t.Context(), "a", "c:9092")
		wantErr(t, "Dial", err, syscall.ECONNREFUSED)
		_, err = n.Listen("c:9092")
		check(t, err)
		if _, err := n.Listen("c"); err == nil {
			t.Error("Listen without a port succeeded")
		}
	})
}

// TestTransfer moves bytes both ways at once, in writes and reads of random
// sizes, with jitter: they arrive complete and in order.
func TestTransfer(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.SetLatency("", "", time.Millisecond, 20*time.Millisecond)
		var wg sync.WaitGroup
		for i, ends := range [][2]net.Conn{{a, b}, {b, a}} {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			data := make([]byte, 1<<20)
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			wg.Go(func() {
				for rest := data; len(rest) > 0; {
					k := min(len(rest), 1+rng.IntN(100_000))
					if w, err := ends[0].Write(rest[:k]); w != k || err != nil {
						t.Errorf("Write = %d, %v", w, err)
					}
					rest = rest[k:]
				}
				check(t, ends[0].(interface{ CloseWrite() error }).CloseWrite())
			})
			wg.Go(func() {
				got, err := io.ReadAll(ends[1])
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %d bytes, %v, want the %d written", len(got), err, len(data))
				}
			})
		}
		wg.Wait()
		_, err := a.Write([]byte("x"))
		wantErr(t, "Write after CloseWrite", err, syscall.EPIPE)
	})
}

func TestLatency(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.SetLatency("a", "b", 5*time.Millisecond, 5*time.Millisecond)
		n.SetLatency("b", "", 2*time.Millisecond, 2*time.Millisecond)
		start := time.Now()
		send(t, a, "x")
		_, err := b.Read(make([]byte, 1))
		check(t, err)
		if d := time.Since(start); d != 5*time.Millisecond {
			t.Errorf("a to b took %v", d)
		}
		send(t, b, "y")
		_, err = a.Read(make([]byte, 1))
		check(t, err)
		if d := time.Since(start); d != 7*time.Millisecond {
			t.Errorf("both ways took %v", d)
		}
		_, err = n.Dial(t.Context(), "a", b.LocalAddr().String())
		check(t, err)
		if d := time.Since(start); d != 14*time.Millisecond {
			t.Errorf("both ways and a dial took %v", d)
		}
	})
}

// TestBackPressure: a writer waits for its reader, and is not mixed with
// another writer.
func TestBackPressure(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		done := 0
		for _, letter := range []string{"x", "y"} {
			wg.Go(func() {
				_, err := a.Write(bytes.Repeat([]byte(letter), 3*bufferBytes))
				check(t, err)
				mu.Lock()
				done++
				mu.Unlock()
			})
		}
		synctest.Wait()
		if mu.Lock(); done != 0 {
			t.Error("a Write returned before anybody read")
		}
		mu.Unlock()
		got := make([]byte, 6*bufferBytes)
		_, err := io.ReadFull(b, got)
		check(t, err)
		wg.Wait()
		if first := bytes.Count(got[:3*bufferBytes], got[:1]); first != 3*bufferBytes {
			t.Error("two writes were mixed")
		}
	})
}

func TestDeadlines(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		start := time.Now()
		check(t, a.SetDeadline(start.Add(time.Second)))
		_, err := a.Read(make([]byte, 1))
		wantErr(t, "Read", err, os.ErrDeadlineExceeded)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%v is no timeout", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("Read waited %v", d)
		}
		check(t, a.SetWriteDeadline(time.Now().Add(time.Second)))
		w, err := a.Write(make([]byte, bufferBytes+1))
		wantErr(t, "Write", err, os.ErrDeadlineExceeded)
		if w != bufferBytes || time.Since(start) != 2*time.Second {
			t.Errorf("Write = %d after %v", w, time.Since(start))
		}

		// A deadline that is set while a Read waits wakes it, past or future.
		check(t, a.SetDeadline(time.Time{}))
		for _, d := range []time.Duration{-time.Second, time.Second} {
			woken := make(chan error)
			go func() {
				_, err := a.Read(make([]byte, 1))
				woken <- err
			}()
			synctest.Wait()
			check(t, a.SetReadDeadline(time.Now().Add(d)))
			wantErr(t, "Read", <-woken, os.ErrDeadlineExceeded)
			check(t, a.SetReadDeadline(time.Time{}))
		}
		send(t, b, "still works")
		if got := receive(t, a, time.Second); got != "still works" {
			t.Errorf("read %q", got)
		}
	})
}

func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.SetLatency("", "", time.Millisecond, time.Millisecond)
		woken := make(chan error, 2)
		go func() { _, err := a.Read(make([]byte, 1)); woken <- err }()
		go func() { _, err := a.Write(make([]byte, 2*bufferBytes)); woken <- err }()
		synctest.Wait()
		check(t, a.Close())
		wantErr(t, "waiting", <-woken, net.ErrClosed)
		wantErr(t, "waiting", <-woken, net.ErrClosed)
		wantErr(t, "Close", a.Close(), net.ErrClosed)
		wantErr(t, "SetDeadline", a.SetDeadline(time.Now()), net.ErrClosed)

		// The peer may write until it knows, and reads what was on its way.
		send(t, b, "into the void")
		_, err := b.Write(make([]byte, 2*bufferBytes))
		wantErr(t, "Write", err, syscall.EPIPE)
		if got := receive(t, b, time.Second); len(got) != bufferBytes {
			t.Errorf("%d bytes written before Close were read, want %d", len(got), bufferBytes)
		}
		_, err = b.Read(make([]byte, 1))
		wantErr(t, "Read", err, io.EOF)
	})
}

// TestCloseWakesWriter: a Write that waits for room learns that nobody is going
// to make any.
func TestCloseWakesWriter(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.SetLatency("", "", time.Millisecond, time.Millisecond)
		woken := make(chan error)
		go func() { _, err := a.Write(make([]byte, 2*bufferBytes)); woken <- err }()
		synctest.Wait()
		start := time.Now()
		check(t, b.Close())
		wantErr(t, "waiting", <-woken, syscall.EPIPE)
		if d := time.Since(start); d != time.Millisecond {
			t.Errorf("woken after %v, want the latency", d)
		}
	})
}

// TestHealWakesWriter: the same, if the news is held by a cut.
func TestHealWakesWriter(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.Cut("b", "a")
		woken := make(chan error, 1)
		go func() { _, err := a.Write(make([]byte, 2*bufferBytes)); woken <- err }()
		synctest.Wait()
		check(t, b.Close())
		synctest.Wait()
		if len(woken) > 0 {
			t.Errorf("Write = %v through the cut", <-woken)
		}
		n.Heal()
		wantErr(t, "waiting", <-woken, syscall.EPIPE)
	})
}

// TestEndInOrder: an end does not overtake the bytes before it, even if it was
// sent on a faster way.
func TestEndInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.SetLatency("a", "b", time.Second, time.Second)
		send(t, a, "slow")
		n.SetLatency("a", "b", 0, 0)
		check(t, a.Close())
		send(t, b, "b does not know yet")
		if got := receive(t, b, time.Minute); got != "slow" {
			t.Errorf("read %q", got)
		}
		_, err := b.Write([]byte("x"))
		wantErr(t, "Write", err, syscall.EPIPE)
	})
}

func TestReset(t *testing.T) {
	for _, who := range []string{"a", "b", "local address"} {
		t.Run(who, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
				send(t, a, "lost")
				woken := make(chan error)
				go func() { _, err := a.Read(make([]byte, 1)); woken <- err }()
				synctest.Wait()
				if who == "local address" {
					who = a.LocalAddr().String()
				}
				n.Reset("c")
				n.Reset(who)
				wantErr(t, "waiting", <-woken, syscall.ECONNRESET)
				_, err := b.Read(make([]byte, 1))
				wantErr(t, "Read", err, syscall.ECONNRESET)
				_, err = b.Write(make([]byte, 1))
				wantErr(t, "Write", err, syscall.ECONNRESET)
				_, err = n.Dial(t.Context(), "a", b.LocalAddr().String())
				check(t, err)
			})
		})
	}
}

// TestCut cuts one direction, then both. Time stands still between the calls.
func TestCut(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		addr := b.LocalAddr().String()
		n.SetLatency("", "", time.Millisecond, time.Millisecond)
		send(t, a, "arrived ")
		time.Sleep(time.Millisecond)
		send(t, a, "under way ")
		n.Cut("a", "b")
		send(t, a, "held")
		if got := receive(t, b, time.Minute); got != "arrived " {
			t.Errorf("through the cut %q", got)
		}
		send(t, b, "back")
		if got := receive(t, a, time.Minute); got != "back" {
			t.Errorf("the other direction got %q", got)
		}
		for _, from := range []string{"a", "b"} { // b's own address is within b
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := n.Dial(ctx, from, addr)
			if cancel(); (err == nil) != (from == "b") {
				t.Errorf("Dial from %s = %v", from, err)
			}
			if from == "a" {
				wantErr(t, "Dial", err, context.DeadlineExceeded)
			}
		}

		n.Cut("b", "a")
		send(t, b, "held too")
		check(t, b.Close())
		dialed := make(chan error)
		go func() { _, err := n.Dial(t.Context(), "a", addr); dialed <- err }()
		if got := receive(t, a, time.Minute); got != "" {
			t.Errorf("through the cut %q", got)
		}
		start := time.Now()
		n.Heal()
		check(t, <-dialed)
		if got := receive(t, a, time.Minute); got != "held too" {
			t.Errorf("after Heal %q", got)
		}
		if d := time.Since(start); d != time.Millisecond {
			t.Errorf("the end arrived %v after Heal", d)
		}
		_, err := a.Write([]byte("x"))
		wantErr(t, "Write", err, syscall.EPIPE)
	})
}

// TestCutBack: a Dial needs the way back too, and a host always reaches itself.
func TestCutBack(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.Cut("b", "a")
		n.Cut("b", "b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := n.Dial(ctx, "b", b.LocalAddr().String())
		check(t, err)
		_, err = n.Dial(ctx, "a:1", b.LocalAddr().String())
		wantErr(t, "Dial", err, context.DeadlineExceeded)
	})
}

// TestMend: each cut is undone by itself, and one of every host holds those that
// no other names.
func TestMend(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.Cut("a", "b")
		n.Cut("a", "")
		n.Cut("", "b")
		n.Cut("b", "c")
		send(t, a, "held")
		for _, mend := range [][2]string{{"a", "b"}, {"b", "c"}, {"", "b"}, {"", ""}} {
			n.Mend(mend[0], mend[1])
			if got := receive(t, b, time.Minute); got != "" {
				t.Errorf("%q through the cut of all that a says", got)
			}
		}
		send(t, b, "back")
		if got := receive(t, a, time.Minute); got != "back" {
			t.Errorf("the other direction got %q", got)
		}
		n.Mend("a", "")
		if got := receive(t, b, time.Minute); got != "held" {
			t.Errorf("after all were mended %q", got)
		}
		n.Cut("", "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := n.Dial(ctx, "c", b.LocalAddr().String())
		wantErr(t, "Dial", err, context.DeadlineExceeded)
	})
}

func TestHealDelivers(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		n.Cut("a", "b")
		wrote := make(chan error)
		go func() { _, err := a.Write(make([]byte, 2*bufferBytes)); wrote <- err }()
		if got := receive(t, b, time.Minute); got != "" {
			t.Errorf("%d bytes through the cut", len(got))
		}
		n.Heal()
		if got := receive(t, b, time.Minute); len(got) != 2*bufferBytes {
			t.Errorf("%d bytes after Heal, want %d", len(got), 2*bufferBytes)
		}
		check(t, <-wrote)
	})
}

func TestBacklog(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		l, err := n.Listen("c:1")
		check(t, err)
		var conns []net.Conn
		for range backlog {
			c, err := n.Dial(t.Context(), "a", "c:1")
			check(t, err)
			conns = append(conns, c)
		}
		dialed := make(chan error)
		go func() { _, err := n.Dial(t.Context(), "a", "c:1"); dialed <- err }()
		synctest.Wait()
		select {
		case err := <-dialed:
			t.Fatalf("Dial over the backlog = %v", err)
		default:
		}
		_, err = l.Accept()
		check(t, err)
		check(t, <-dialed)
		check(t, l.Close())
		_, err = conns[backlog-1].Read(make([]byte, 1))
		wantErr(t, "Read of a connection never accepted", err, syscall.ECONNRESET)
	})
}

func TestNetworkClose(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network, a, b net.Conn) {
		l, err := n.Listen("c:1")
		check(t, err)
		n.Cut("a", "c")
		woken := make(chan error)
		go func() { _, err := l.Accept(); woken <- err }()
		go func() { _, err := a.Read(make([]byte, 1)); woken <- err }()
		go func() { _, err := a.Write(make([]byte, 2*bufferBytes)); woken <- err }()
		go func() { _, err := n.Dial(context.Background(), "a", "c:1"); woken <- err }()
		synctest.Wait()
		check(t, n.Close())
		for range 4 {
			wantErr(t, "waiting", <-woken, net.ErrClosed)
		}
		_, err = n.Listen("d:1")
		wantErr(t, "Listen", err, net.ErrClosed)
		_, err = n.Dial(t.Context(), "a", "b:1")
		wantErr(t, "Dial", err, net.ErrClosed)
		_, err = l.Accept()
		wantErr(t, "Accept", err, net.ErrClosed)
	})
}

// TestSeed: one seed, one timing.
func TestSeed(t *testing.T) {
	timing := func(seed uint64) (out []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			n := New(seed)
			defer n.Close()
			n.SetLatency("", "", 0, time.Second)
			l, err := n.Listen("b:1")
			check(t, err)
			a, err := n.Dial(t.Context(), "a", "b:1")
			check(t, err)
			b, err := l.Accept()
			check(t, err)
			start := time.Now()
			for range 20 {
				send(t, a, "x")
				_, err := b.Read(make([]byte, 1))
				check(t, err)
				out = append(out, time.Since(start))
			}
		})
		return out
	}
	one, again, other := timing(1), timing(1), timing(2)
	if !slices.Equal(one, again) || slices.Equal(one, other) {
		t.Errorf("timings %v, %v and with another seed %v", one, again, other)
	}
}

// TestConcurrent is for the race detector, in real time: everything at once.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	n := New(1)
	n.SetLatency("", "", 0, 100*time.Microsecond)
	l, err := n.Listen("b:1")
	check(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = io.Copy(c, c)
				c.Close()
			})
		}
	})
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for range 20 {
				c, err := n.Dial(t.Context(), "a", "b:1")
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(time.Second))
				_, _ = c.Write(make([]byte, 1000))
				_, _ = io.ReadFull(c, make([]byte, 1000))
				switch i {
				case 1:
					n.Reset("a")
				case 2:
					n.Cut("a", "b")
					n.Heal()
				}
				c.Close()
			}
		})
	}
	clients.Wait()
	check(t, n.Close())
	wg.Wait()
}

func BenchmarkTransfer(b *testing.B) {
	n := New(1)
	defer n.Close()
	l, err := n.Listen("b:1")
	if err != nil {
		b.Fatal(err)
	}
	c, err := n.Dial(b.Context(), "a", "b:1")
	if err != nil {
		b.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, s) }()
	p := make([]byte, 16<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
