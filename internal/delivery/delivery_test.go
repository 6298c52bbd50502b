package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker"
)

// TestDeliveryIsCounted: what deliveries of streams hold is counted, for as long
// as it is held.
func TestDeliveryIsCounted(t *testing.T) {
	t.Parallel()
	answers := broker.NewBudget(100)
	var all atomic.Int64
	d := New(&Peer{Answers: answers}, nil, nil, &all)
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

// chunks are two partitions' batches in memory, of three and two vectors, and
// one without any.
func chunks() []broker.StreamResult {
	memory := func(vectors ...string) *broker.Chunk {
		c := &broker.Chunk{}
		for _, v := range vectors {
			c.Vectors = append(c.Vectors, []byte(v))
			c.Bytes += int64(len(v))
		}
		return c
	}
	return []broker.StreamResult{
		{FetchResult: broker.FetchResult{Chunks: []*broker.Chunk{memory("ab", "cde"), memory("f")}}},
		{},
		{FetchResult: broker.FetchResult{Chunks: []*broker.Chunk{memory("gh", "i")}}},
	}
}

func heads() [][]byte { return [][]byte{[]byte("<1>"), []byte("<2>"), nil, []byte("<end>")} }

const whole = "<1>abcdef<2>ghi<end>"

// TestSmallDelivery: heads and batches come out in their order, in one piece.
func TestSmallDelivery(t *testing.T) {
	t.Parallel()
	d := New(&Peer{}, chunks(), heads(), nil)
	got, err := d.Prepare()
	if err != nil || string(got) != whole || d.Len() != int64(len(whole)) {
		t.Fatalf("Prepare = %q, %v (Len %d), want %q", got, err, d.Len(), whole)
	}
}

// TestResume: wherever a write stops, what comes next is what was not written,
// and no more is held than that.
func TestResume(t *testing.T) {
	t.Parallel()
	for n := range len(whole) + 1 {
		answers := broker.NewBudget(100)
		d := New(&Peer{Answers: answers}, chunks(), heads(), nil)
		if !answers.TryAcquire(d.memory()) {
			t.Fatal("no room")
		}
		d.hold(d.memory())
		d.wrote(int64(n))
		var rest []byte
		for _, v := range d.run() {
			rest = append(rest, v...)
		}
		if got := whole[:n] + string(rest); got != whole {
			t.Errorf("after %d bytes: %q, want %q", n, got, whole)
		}
		if d.held != d.memory() || answers.Used() != d.held {
			t.Errorf("after %d bytes: held %d, taken %d, in memory %d", n, d.held, answers.Used(), d.memory())
		}
	}
}

// TestWriteTo: through a connection that takes a byte at a time.
func TestWriteTo(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer near.Close()
	answers := broker.NewBudget(100)
	d := New(&Peer{Conn: near, Ctx: t.Context(), Answers: answers, WriteTimeout: time.Minute, Hold: time.Minute}, chunks(), heads(), nil)
	d.again = true // as one that waited
	if got, err := d.Prepare(); got != nil || err != nil {
		t.Fatalf("Prepare = %q, %v", got, err)
	}
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(iotest.OneByteReader(far))
		read <- string(b)
	}()
	n, err := d.WriteTo(near)
	_ = near.Close()
	if got := <-read; err != nil || n != d.Len() || got != whole || answers.Used() != 0 {
		t.Errorf("wrote %d, %v: %q, and %d bytes stay taken", n, err, got, answers.Used())
	}
}

// store is where a delivery is read again: it makes what it made before, and
// counts.
type store struct {
	make  func() []broker.StreamResult
	reads int
}

func (s *store) Reload(r *broker.StreamResult, bytes int64) error {
	s.reads++
	for _, one := range s.make() {
		if one.Index == r.Index && one.Bytes() == bytes {
			r.Chunks = one.Chunks
		}
	}
	return nil
}

// room is the memory for answers of a paused delivery.
const room = 20_000

// paused is a delivery to a peer that takes nothing before it is read. It runs in
// a bubble.
type paused struct {
	*Delivery
	near    net.Conn
	far     net.Conn
	answers *broker.Budget
	store   store
	ended   chan error
	took    time.Duration // until it ended
}

func newPaused(t *testing.T, hold time.Duration, chunks func() []broker.StreamResult, heads [][]byte) *paused {
	t.Helper()
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	p := &paused{near: near, far: far, answers: broker.NewBudget(room), store: store{make: chunks}, ended: make(chan error, 1)}
	p.Delivery = New(&Peer{
		Conn: near, Ctx: ctx, Broker: &p.store, Answers: p.answers, WriteTimeout: time.Minute, Hold: hold,
	}, chunks(), heads, nil)
	t.Cleanup(func() {
		cancel()
		_ = near.Close()
		_ = far.Close()
	})
	return p
}

// write makes the delivery ready and begins to write it.
func (p *paused) write(t *testing.T) {
	t.Helper()
	p.again = true // too small for anything else
	if got, err := p.Prepare(); got != nil || err != nil {
		t.Fatalf("Prepare = %q, %v", got, err)
	}
	began := time.Now()
	go func() {
		n, err := p.WriteTo(p.near)
		if err == nil && n != p.Len() {
			err = io.ErrShortWrite
		}
		p.took = time.Since(began)
		if err != nil {
			_ = p.near.Close() // as who serves it does
		}
		p.ended <- err
	}()
	synctest.Wait()
}

// TestHold: memory waits for a peer that takes nothing for as long as it may, and
// is then given back, to be read again when the peer takes more.
func TestHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const hold = 20 * time.Millisecond
		first, second := bytes.Repeat([]byte("1"), 6000), bytes.Repeat([]byte("2"), 9000)
		whole := slices.Concat(first, second)
		p := newPaused(t, hold, func() []broker.StreamResult {
			return []broker.StreamResult{
				{FetchResult: broker.FetchResult{Chunks: []*broker.Chunk{{Vectors: [][]byte{first}, Bytes: 6000}}}},
				{Index: 1, FetchResult: broker.FetchResult{Chunks: []*broker.Chunk{{Vectors: [][]byte{second}, Bytes: 9000}}}},
			}
		}, nil)
		p.write(t)
		time.Sleep(hold - time.Nanosecond)
		synctest.Wait()
		if n := p.answers.Used(); n != 15_000 {
			t.Errorf("%d bytes are held before %v have passed, want 15,000", n, hold)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if n := p.answers.Used(); n != 0 || p.memory() != 0 {
			t.Errorf("%d bytes are held, and %d counted, for a peer that took nothing for %v", p.memory(), n, hold)
		}
		time.Sleep(50 * time.Second)
		got := make([]byte, len(whole))
		if _, err := io.ReadFull(p.far, got); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("%v, or other bytes than there were", err)
		}
		if err := <-p.ended; err != nil || p.store.reads != 2 || p.answers.Used() != 0 {
			t.Errorf("ended with %v, read again %d times, and %d bytes stay taken", err, p.store.reads, p.answers.Used())
		}
	})
}

// TestRoomIsTheNodes: the time that a delivery waits for the node's memory is not
// its peer's, who has as long as ever.
func TestRoomIsTheNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPaused(t, time.Minute, chunks, heads())
		if !p.answers.TryAcquire(room) {
			t.Fatal("no room")
		}
		pauses, paused := 0, time.Duration(0)
		p.peer.Pause = func() (resume func()) {
			began := time.Now()
			return func() {
				pauses++
				paused += time.Since(began)
			}
		}
		p.write(t)
		got := make([]byte, len(whole))
		if _, err := io.ReadFull(p.far, got[:3]); err != nil { // what comes before the first batch
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		p.answers.Release(room)
		synctest.Wait()
		if pauses == 0 || paused != 50*time.Second {
			t.Errorf("told of %d pauses, of %v; want 50s", pauses, paused)
		}
		time.Sleep(50 * time.Second)
		if _, err := io.ReadFull(p.far, got[3:]); err != nil || string(got) != whole {
			t.Errorf("%q, %v; want %q", got, err, whole)
		}
		if err := <-p.ended; err != nil {
			t.Errorf("a peer that took nothing for 50 of its 60 s was cut off, for it was counted that the node had no memory for 50 s: %v", err)
		}
	})
}

// TestNoRoom: a delivery waits for memory as long as its peer may take nothing,
// and no longer than its connection lives.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPaused(t, time.Minute, chunks, heads())
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			want, after := ErrNoRoom, time.Minute
			if gone {
				p.peer.Ctx, want, after = ctx, context.DeadlineExceeded, 10*time.Second
			}
			if !p.answers.TryAcquire(room) {
				t.Fatal("no room")
			}
			go func() { _, _ = io.Copy(io.Discard, p.far) }()
			p.write(t)
			time.Sleep(time.Hour)
			select {
			case err := <-p.ended:
				if !errors.Is(err, want) || p.took != after {
					t.Errorf("gone %t: %v after %v, want %v after %v", gone, err, p.took, want, after)
				}
			default:
				t.Errorf("gone %t: it waits for memory after an hour", gone)
			}
			if n := p.answers.Waiting(); n != 0 || p.answers.Used() != room {
				t.Errorf("gone %t: %d wait, and %d bytes are taken", gone, n, p.answers.Used())
			}
		})
	}
}

// sluggish takes nothing in the time that memory is held for it, and then what
// it is offered.
type sluggish struct {
	net.Conn
	deadlines int
	took      bytes.Buffer
}

func (p *sluggish) SetWriteDeadline(time.Time) error {
	p.deadlines++
	return nil
}

func (p *sluggish) Write(b []byte) (int, error) {
	if p.deadlines%2 == 1 {
		return 0, os.ErrDeadlineExceeded
	}
	return p.took.Write(b)
}

// TestCostIsLinear: to a peer that takes a few bytes at a time, twice as many
// parts cost twice as much, and not four times. It runs alone, as it measures
// what the process allocates.
func TestCostIsLinear(t *testing.T) {
	cost := func(parts int) uint64 {
		peer := new(sluggish)
		heads, want := make([][]byte, parts+1), bytes.Buffer{}
		for i := range heads {
			heads[i] = fmt.Appendf(nil, "<the head of part %d>", i)
			want.Write(heads[i])
		}
		d := New(&Peer{Conn: peer, Ctx: t.Context(), Answers: broker.NewBudget(100), WriteTimeout: time.Hour}, make([]broker.StreamResult, parts), heads, nil)
		if whole, err := d.Prepare(); whole != nil || err != nil {
			t.Fatal(len(whole), err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n, err := d.WriteTo(peer)
		runtime.ReadMemStats(&after)
		if err != nil || n != int64(want.Len()) || !bytes.Equal(peer.took.Bytes(), want.Bytes()) {
			t.Fatalf("%d bytes of %d, %v", n, want.Len(), err)
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	few, many := cost(10_000), cost(20_000)
	t.Logf("%d KiB for 10,000 parts, %d KiB for 20,000", few>>10, many>>10)
	if many > 3*few {
		t.Errorf("%d bytes allocated for 10,000 parts, %d for 20,000", few, many)
	}
}
