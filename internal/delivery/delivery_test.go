package delivery

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/iotest"
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

// slowPeer takes nothing in the time that memory is held for it, and then what
// it is offered.
type slowPeer struct {
	net.Conn
	deadlines int
	took      bytes.Buffer
}

func (p *slowPeer) SetWriteDeadline(time.Time) error {
	p.deadlines++
	return nil
}

func (p *slowPeer) Write(b []byte) (int, error) {
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
		peer := new(slowPeer)
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
