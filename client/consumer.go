package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"
)

// Defaults of ConsumerConfig.
const (
	DefaultMaxWait            = 500 * time.Millisecond
	DefaultMaxFetchBytes      = 8 << 20
	DefaultMaxPartitionBytes  = 1 << 20
	DefaultMaxPrefetchedBytes = 32 << 20
)

// Offsets to start from that stand for a place.
const (
	Beginning int64 = -2 // the log start offset
	End       int64 = -1 // the high watermark: only what comes from now on
)

// Assignment is a partition to be read, from an offset on.
type Assignment struct {
	Topic     string
	Partition int32
	Offset    int64 // of the first record, or Beginning, or End

	// From, if it is set, begins at the first record whose timestamp is From or
	// later, in whole milliseconds, and at the end if there is none yet. Offset
	// is 0 then.
	From time.Time
}

// ConsumerConfig is what a Consumer reads, and how far ahead.
type ConsumerConfig struct {
	// Assignments are the partitions, each at most once.
	Assignments []Assignment

	// OutOfRange says where to go on when an offset does not exist (any more):
	// Beginning or End. The default, 0, is an error.
	OutOfRange int64

	// FetchOnly asks for records by Fetch, also where servers would push them.
	FetchOnly bool

	// MaxWait is how long a server may hold a fetch that has nothing to answer;
	// default 500 ms. A stream needs none.
	MaxWait time.Duration

	// MinBytes is what a server gathers, for at most MaxWait, before it
	// answers a fetch; default 1.
	MinBytes int

	// MaxFetchBytes bounds one answer or delivery, and MaxPartitionBytes one
	// partition's part of it; defaults 8 MiB and 1 MiB. A server may send less
	// at a time. A larger batch still comes, alone.
	MaxFetchBytes     int
	MaxPartitionBytes int

	// MaxPrefetchedBytes bounds what is held for later Polls; default 32 MiB.
	// It is the credit that servers have, divided between them, and may be
	// exceeded by a batch of each; or, with fetches, by the answers under way. One partition holds at most its share of it, or
	// MaxPartitionBytes if that is more, beside what is under way.
	MaxPrefetchedBytes int

	// MaxDecompressedBytes bounds what one batch may decompress to; 0 stands
	// for batch.DefaultMaxDecompressedBytes.
	MaxDecompressedBytes int
}

func (cfg ConsumerConfig) withDefaults() (ConsumerConfig, error) {
	setDefault(&cfg.MaxWait, DefaultMaxWait)
	setDefault(&cfg.MinBytes, 1)
	setDefault(&cfg.MaxFetchBytes, DefaultMaxFetchBytes)
	setDefault(&cfg.MaxPartitionBytes, DefaultMaxPartitionBytes)
	setDefault(&cfg.MaxPrefetchedBytes, DefaultMaxPrefetchedBytes)
	if cfg.MaxWait < 0 || cfg.MaxWait > maxTimeout || cfg.MinBytes < 0 || cfg.MaxFetchBytes < 0 ||
		cfg.MaxPartitionBytes < 0 || cfg.MaxPrefetchedBytes < 0 || cfg.MaxDecompressedBytes < 0 {
		return cfg, errors.New("client: value out of range in ConsumerConfig")
	}
	if cfg.OutOfRange != 0 && cfg.OutOfRange != Beginning && cfg.OutOfRange != End {
		return cfg, fmt.Errorf("client: OutOfRange %d", cfg.OutOfRange)
	}
	return cfg, nil
}

// Consumer reads partitions from given offsets on and follows them. Servers push
// records ahead of Poll, up to a bound; where they do not offer that, they are
// asked. It commits nothing: who reads keeps the offset.
//
// Poll and Records may be used by one goroutine at a time; the other methods by
// any.
type Consumer struct {
	c   *Client
	cfg ConsumerConfig

	ctx    context.Context // ends with Close: the lifetime of the goroutine
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // 1-buffered: the fetcher has something to do

	mu       sync.Mutex
	cursors  []*cursor // in the order of the assignments
	byName   map[partitionName]*cursor
	ready    []Fetched     // in the order of arrival
	arrived  chan struct{} // 1-buffered: ready has grown
	bytes    int           // of ready
	byNode   map[int32]int // fetches under way
	rotation int           // cursor that the next fetches begin with
	rescan   bool          // some cursor may need a request

	byStream  map[int32]*stream      // by node
	fresh     map[*stream]bool       // not yet subscribed
	joined    map[*stream][]question // cursors that the server is to be told of
	fetchOnly map[int32]bool         // nodes without streams

	// generations is the last that a cursor got. It is counted here, not by cursors: a
	// partition that is assigned again has a new one, and what was under way to the one
	// before is not to be taken for its own.
	generations uint32
}

type partitionName struct {
	topic     string
	partition int32
}

// cursor is the place in one partition.
type cursor struct {
	topic     string
	partition int32

	id       TopicID   // of the topic that the offsets are of; zero: not yet known
	group    TopicID   // of the topic that a Group was given; zero: of none
	start    int64     // as asked for: an offset, Beginning or End
	from     time.Time // as asked for, instead of start, if it is set
	fetch    int64     // offset to fetch next; -1: start has to be looked up
	position int64     // offset after what Poll or Records returned; -1: unknown
	busy     bool      // a request about it is under way
	held     int       // bytes in ready
	stopped  bool      // by an error that was reported; Seek goes on
	epoch    int       // counts Seeks: answers to what was asked before are dropped
	paused   bool

	st         *stream // that it is read by, nil: none
	generation uint32  // of its place in st
	throttled  bool    // paused at the server, since it holds much

	failures int
	retryAt  time.Time
}

// NewConsumer returns a Consumer on c's connections. It begins to read at once.
func (c *Client) NewConsumer(cfg ConsumerConfig) (*Consumer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	co := &Consumer{
		c: c, cfg: cfg,
		wake:      make(chan struct{}, 1),
		arrived:   make(chan struct{}, 1),
		byName:    make(map[partitionName]*cursor),
		byNode:    make(map[int32]int),
		byStream:  make(map[int32]*stream),
		fresh:     make(map[*stream]bool),
		joined:    make(map[*stream][]question),
		fetchOnly: make(map[int32]bool),
	}
	if err := co.Assign(cfg.Assignments...); err != nil {
		return nil, err
	}
	co.ctx, co.cancel = context.WithCancel(c.ctx)
	co.wg.Go(co.fetchLoop)
	return co, nil
}

// Poll returns what has been read, at least one Fetched, and waits for it
// until ctx ends or the Consumer is closed (ErrClosed). What it returns is
// passed: Position moves beyond it.
func (co *Consumer) Poll(ctx context.Context) ([]Fetched, error) {
	for {
		co.mu.Lock()
		ready := co.takeLocked(len(co.ready))
		for i := range ready {
			if f := &ready[i]; f.Err == nil {
				f.cur.position = f.next
			}
		}
		co.mu.Unlock()
		if len(ready) > 0 {
			co.c.tellConsumed(ready)
			return ready, nil
		}
		if err := co.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// takeLocked removes the first n of ready.
func (co *Consumer) takeLocked(n int) []Fetched {
	taken := slices.Clone(co.ready[:n])
	co.ready = slices.Delete(co.ready, 0, n)
	for i := range taken {
		co.letGoLocked(&taken[i], len(taken[i].data))
	}
	if n > 0 {
		poke(co.wake)
	}
	return taken
}

// letGoLocked accounts for n bytes of f that are held no more, or again if n is
// negative.
func (co *Consumer) letGoLocked(f *Fetched, n int) {
	co.bytes -= n
	f.cur.held -= n
	if f.st == nil {
		co.rescan = true // there is room for another fetch
		return
	}
	f.st.consumed += uint64(n) // wraps for a negative n, and back
	if f.cur.st == f.st {
		co.evenLocked(f.cur)
	}
}

// wait returns nil when ready may have grown.
func (co *Consumer) wait(ctx context.Context) error {
	select {
	case <-co.arrived:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-co.ctx.Done():
		return ErrClosed
	}
}

// Records yields record after record of all partitions, and waits for more,
// until ctx ends, whose error is the last, or the Consumer is closed. An error
// of one partition, a *PartitionError, does not end it: the others go on.
// Position is the offset after the last record yielded.
//
// A record's bytes are valid until the next one is asked for.
func (co *Consumer) Records(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for {
			co.mu.Lock()
			taken := co.takeLocked(min(1, len(co.ready)))
			co.mu.Unlock()
			if len(taken) == 0 {
				if err := co.wait(ctx); err != nil {
					yield(Record{}, err)
					return
				}
				continue
			}
			co.c.tellConsumed(taken)
			if !co.yieldFrom(ctx, &taken[0], yield) {
				return
			}
		}
	}
}

// yieldFrom yields what f holds, and puts back what the loop left over.
func (co *Consumer) yieldFrom(ctx context.Context, f *Fetched, yield func(Record, error) bool) bool {
	if f.Err != nil {
		return yield(Record{}, f.Err)
	}
	for r, err := range f.Records() {
		if ctx.Err() != nil {
			co.putBack(f)
			yield(Record{}, ctx.Err())
			return false
		}
		if err != nil {
			co.stop(f, err)
			return yield(Record{}, err)
		}
		f.from = r.Offset + 1
		if !co.moveTo(f, f.from) {
			return true // somebody seeks
		}
		if !yield(r, nil) {
			if f.from < f.next {
				co.putBack(f)
			}
			return false
		}
	}
	co.moveTo(f, f.next)
	return true
}

// moveTo sets the position within what f holds, unless a Seek came between.
func (co *Consumer) moveTo(f *Fetched, offset int64) bool {
	co.mu.Lock()
	defer co.mu.Unlock()
	if f.cur.epoch != f.epoch {
		return false
	}
	f.cur.position = offset
	return true
}

// putBack makes f the first of ready again, from f.from on.
func (co *Consumer) putBack(f *Fetched) {
	co.mu.Lock()
	defer co.mu.Unlock()
	if f.cur.epoch != f.epoch {
		return
	}
	f.told = true
	co.ready = slices.Insert(co.ready, 0, *f)
	co.letGoLocked(f, -len(f.data))
	poke(co.arrived)
}

// stop ends a partition whose records cannot be decoded.
func (co *Consumer) stop(f *Fetched, err error) {
	co.mu.Lock()
	if f.cur.epoch == f.epoch {
		co.leaveLocked(f.cur)
		co.dropLocked(f.cur)
		f.cur.stopped = true
	}
	co.mu.Unlock()
	co.c.cfg.Logger.Warn("partition stopped", "topic", f.Topic, "partition", f.Partition, "error", err)
}

// dropLocked forgets what was read of a partition and not polled.
func (co *Consumer) dropLocked(cur *cursor) {
	co.ready = slices.DeleteFunc(co.ready, func(f Fetched) bool {
		if f.cur == cur {
			co.letGoLocked(&f, len(f.data))
		}
		return f.cur == cur
	})
}

// Buffered returns the bytes that are held for later Polls.
func (co *Consumer) Buffered() int {
	co.mu.Lock()
	defer co.mu.Unlock()
	return co.bytes
}

// Close stops reading and waits for the Consumer's goroutine to end. Poll and
// Records return ErrClosed from now on.
func (co *Consumer) Close() error {
	co.cancel()
	co.wg.Wait()
	co.mu.Lock()
	var open []*stream
	for _, st := range co.byStream {
		if !co.fresh[st] {
			open = append(open, st)
		}
		st.ended = true
	}
	clear(co.byStream)
	co.mu.Unlock()
	for _, st := range open {
		st.unsubscribe()
	}
	return nil
}
