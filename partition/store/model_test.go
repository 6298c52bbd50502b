package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestModel lets a random history run against the model while readers read at
// random, flushers work by themselves, checkpoints come and go, and the power
// fails now and then. STORE_SEED repeats a run's choices.
func TestModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("STORE_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("STORE_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	w := &world{t: t, rng: rng, mem: vfs.NewMem(seed)}
	w.start(checkpoint{state: machine{}})
	for range 4 {
		for range 300 {
			w.step()
		}
		w.crash()
	}
	w.stopReaders()
	w.h.checkLogs()
}

// world is a history with concurrent readers.
type world struct {
	t   *testing.T
	rng *rand.Rand
	mem *vfs.Mem
	h   *history

	capturing bool
	nextKey   uint32

	mu     sync.Mutex
	model  map[uint32]log // what has ever been appended, for the readers
	stop   chan struct{}
	reader sync.WaitGroup
}

// start opens the disk at a checkpoint and lets readers loose.
func (w *world) start(cp checkpoint) {
	st := mustOpen(w.t, w.mem, Options{
		TailFlushBytes: 20_000, TailMaxAge: 20 * time.Millisecond, MemoryBytes: 200_000,
		SegmentBytes: 50_000, IdleFiles: 3, Flushers: 3,
	})
	w.h = &history{tb: w.t, st: st, sh: st.Shard(1)}
	w.h.restore(cp)
	w.capturing = false
	w.model = map[uint32]log{}
	for key, p := range cp.state {
		w.model[key] = p.log
	}
	w.stop = make(chan struct{})
	for i := range 3 {
		rng := rand.New(rand.NewPCG(w.rng.Uint64(), uint64(i)))
		w.reader.Go(func() { w.read(rng) })
	}
}

func (w *world) stopReaders() {
	close(w.stop)
	w.reader.Wait()
}

func (w *world) step() {
	keys := make([]uint32, 0, len(w.h.state))
	for key := range w.nextKey {
		if _, ok := w.h.state[key]; ok {
			keys = append(keys, key)
		}
	}
	switch n := w.rng.IntN(100); {
	case len(keys) == 0 || n < 3 && len(keys) < 6:
		w.mu.Lock()
		w.model[w.nextKey] = nil
		w.mu.Unlock()
		w.h.create(w.nextKey)
		w.nextKey++
	case n < 4:
		w.h.delete(keys[w.rng.IntN(len(keys))])
	case n < 8:
		key := keys[w.rng.IntN(len(keys))]
		p := w.h.state[key]
		if end := p.log.end(); end > p.logStart {
			w.h.setLogStart(key, w.rng.Int64N(end-p.logStart))
		}
	case n < 12 && !w.capturing:
		w.h.capture()
		w.capturing = true
	case n < 16 && w.capturing:
		if w.rng.IntN(4) == 0 {
			w.h.sh.Abandon(w.h.token)
		} else {
			w.h.persist()
		}
		w.capturing = false
	default:
		w.append(keys[w.rng.IntN(len(keys))])
	}
}

func (w *world) append(key uint32) {
	size := 1 + w.rng.IntN(300)
	if w.rng.IntN(10) == 0 {
		size = w.rng.IntN(30_000)
	}
	l := w.h.state[key].log
	r := makeRec(w.t, l.end(), 1+w.rng.IntN(3), size)
	w.mu.Lock()
	w.model[key] = append(slices.Clone(l), r) // readers hold the old array
	w.mu.Unlock()
	w.h.apply(command{do: 'a', key: key, rec: r})
	w.h.sh.AppliedBatch()
}

// crash cuts the power, restores the last durable checkpoint, and applies the
// rest again.
func (w *world) crash() {
	w.stopReaders()
	old := w.h
	old.checkLogs()
	clone := w.mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Coin, Seed: w.rng.Uint64()})
	if err := old.st.Close(); err != nil {
		w.t.Fatal(err)
	}
	old.checkCounts()
	w.mem = clone
	w.start(old.durable)
	w.h.commands = append([]command(nil), old.commands[:old.durable.applied]...)
	for _, c := range old.commands[old.durable.applied:] {
		w.mu.Lock()
		if c.do == 'a' || c.do == 'c' {
			w.model[c.key] = old.allOf(c.key)
		}
		w.mu.Unlock()
		w.h.apply(c)
	}
	w.h.checkLogs()
}

// allOf returns what was ever appended to a partition.
func (h *history) allOf(key uint32) (l log) {
	for _, c := range h.commands {
		if c.do == 'a' && c.key == key {
			l = append(l, c.rec)
		}
	}
	return l
}

// read reads at random until stopped, and compares with the model.
func (w *world) read(rng *rand.Rand) {
	for {
		select {
		case <-w.stop:
			return
		default:
		}
		w.mu.Lock()
		key := uint32(0)
		for k := range w.model {
			key = k
			break
		}
		w.mu.Unlock()
		if err := w.readOnce(rng, key); err != nil {
			w.t.Error(err)
			return
		}
	}
}

func (w *world) readOnce(rng *rand.Rand, key uint32) error {
	start, end, err := w.h.sh.Bounds(key)
	if errors.Is(err, ErrUnknownPartition) {
		return nil
	}
	if err != nil {
		return err
	}
	offset := start + rng.Int64N(end-start+1)
	c, err := w.h.sh.Read(key, offset, rng.IntN(60_000), rng.IntN(2) == 0)
	if errors.Is(err, ErrOutOfRange) || errors.Is(err, ErrUnknownPartition) {
		return nil // moved or deleted meanwhile
	}
	if err != nil {
		return fmt.Errorf("read partition %d at %d of [%d, %d): %w", key, offset, start, end, err)
	}
	defer c.Release()
	if c.Bytes == 0 { // at the end, or no whole batch fits
		return nil
	}
	got, err := c.AppendTo(nil)
	if err != nil {
		return err
	}
	w.mu.Lock()
	l := w.model[key]
	w.mu.Unlock()
	if want := l.bytes(offset, c.End); !bytes.Equal(got, want) {
		return fmt.Errorf("read partition %d at %d to %d: %d bytes, want %d", key, offset, c.End, len(got), len(want))
	}
	return nil
}
