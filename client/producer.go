package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// Defaults and limits of ProducerConfig.
const (
	DefaultLinger           = 5 * time.Millisecond
	DefaultBatchBytes       = 1_000_000
	DefaultMaxBufferedBytes = 64 << 20
	DefaultDeliveryTimeout  = 2 * time.Minute

	// MaxIdempotentInFlight is how many batches of a producer a partition
	// remembers, and so how many may be under way at once.
	MaxIdempotentInFlight = 5

	maxTimeout = 24 * time.Hour
)

// Acks says what a produce waits for.
type Acks int

const (
	AcksAll    Acks = iota // durable on a majority of replicas
	AcksLeader             // served as AcksAll
	AcksNone               // nothing: sent is as good as delivered
)

// Record is one record, to be produced or as consumed.
type Record struct {
	Topic     string    // to be produced: "" for ProducerConfig.Topic
	Partition int32     // to be produced: AnyPartition for the partitioner's choice
	Offset    int64     // as consumed
	Timestamp time.Time // in ms; to be produced: the zero Time for now
	Key       []byte    // nil: none, which is not the same as empty
	Value     []byte    // nil: none, a tombstone in a compacted topic
	Headers   []Header
}

// Header is a name and a value beside a record. A nil Value is none.
type Header = batch.RecordHeader

// AnyPartition leaves the choice to the partitioner.
const AnyPartition int32 = -1

// RecordResult is what became of a record. With an error, Offset is -1; the
// record was not appended, unless the error matches ErrUnknownOutcome.
type RecordResult struct {
	Topic     string
	Partition int32
	Offset    int64     // -1: appended, but where is not known (AcksNone, a late duplicate)
	Timestamp time.Time // the log's, which the topic may have set
	Err       error
}

// ProducerConfig is how a Producer batches, sends and retries. The zero value
// is a good start.
type ProducerConfig struct {
	// Topic is that of records which name none.
	Topic string

	// Acks is AcksAll unless set otherwise.
	Acks Acks

	// NotIdempotent gives up the guarantee that a retry does not append twice,
	// and with it the need for AcksAll.
	NotIdempotent bool

	// Compression is of every batch; none by default.
	Compression batch.Codec

	// Linger is how long a record waits for others to share its batch, default
	// 5 ms; negative: not at all. A batch goes out earlier once it is full, or
	// in SendSync and Flush.
	Linger time.Duration

	// BatchBytes is the size of a batch, before compression, that is full;
	// default 1,000,000. A larger record is sent alone: the topic's limit
	// decides.
	BatchBytes int

	// MaxBufferedBytes bounds what was accepted and whose callback has not yet
	// returned, default 64 MiB. Beyond it Send waits.
	MaxBufferedBytes int64

	// DeliveryTimeout is how long after Send a record is given up, default 2
	// minutes.
	DeliveryTimeout time.Duration

	// MaxInFlight is how many batches of one partition may be under way at
	// once, default 5, which is also the most for an idempotent producer. One
	// that is not idempotent has a default of 1: with more, a retry can change
	// the order.
	MaxInFlight int

	// Partitioner picks partitions by key; KeyHash if nil.
	Partitioner Partitioner
}

func (cfg ProducerConfig) withDefaults() (ProducerConfig, error) {
	if cfg.Acks < AcksAll || cfg.Acks > AcksNone {
		return cfg, fmt.Errorf("client: Acks %d", cfg.Acks)
	}
	if cfg.Acks != AcksAll && !cfg.NotIdempotent {
		return cfg, errors.New("client: an idempotent producer needs AcksAll")
	}
	setDefault(&cfg.Linger, DefaultLinger)
	cfg.Linger = max(cfg.Linger, 0)
	setDefault(&cfg.BatchBytes, DefaultBatchBytes)
	setDefault(&cfg.MaxBufferedBytes, DefaultMaxBufferedBytes)
	setDefault(&cfg.DeliveryTimeout, DefaultDeliveryTimeout)
	if cfg.Partitioner == nil {
		cfg.Partitioner = KeyHash
	}
	if cfg.NotIdempotent {
		setDefault(&cfg.MaxInFlight, 1)
	} else {
		setDefault(&cfg.MaxInFlight, MaxIdempotentInFlight)
		if cfg.MaxInFlight > MaxIdempotentInFlight {
			return cfg, fmt.Errorf("client: MaxInFlight %d, at most %d if idempotent", cfg.MaxInFlight, MaxIdempotentInFlight)
		}
	}
	if cfg.BatchBytes < 0 || cfg.MaxBufferedBytes < 0 || cfg.DeliveryTimeout < 0 || cfg.MaxInFlight < 0 {
		return cfg, errors.New("client: negative value in ProducerConfig")
	}
	return cfg, nil
}

// Producer appends records to partitions. Records of one partition are appended
// in the order of Send, each once, whatever is retried, as long as it is
// idempotent; after one was given up, later ones may still be appended.
//
// All methods may be called by several goroutines at once.
type Producer struct {
	c   *Client
	cfg ProducerConfig

	ctx    context.Context // ends with Close: the lifetime of the goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // 1-buffered: the sender has something to do

	mu       sync.Mutex
	closed   bool
	topics   map[string]*topicFeeds
	active   []*feed // those with anything in them, in no order
	buffered int64
	space    chan struct{} // closed and replaced whenever buffered falls
	flushing int           // Flush and Close calls under way: nothing lingers
	id       identity
	underWay map[*produceRequest]bool
	byNode   map[int32]int // number of requests under way
	free     []*batch.Builder

	finished     []*delivery   // whose callbacks are to be called
	running      *delivery     // whose callbacks are being called
	finishedWake chan struct{} // 1-buffered: finished has grown
	senderEnded  chan struct{}
}

// NewProducer returns a Producer on c's connections.
func (c *Client) NewProducer(cfg ProducerConfig) (*Producer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	var b batch.Builder
	b.Reset()
	if err := b.Append(0, nil, nil, nil); err != nil {
		return nil, err
	}
	if _, err := b.Build(nil, cfg.Compression, batch.DefaultLevel); err != nil {
		return nil, fmt.Errorf("client: compression: %w", err)
	}
	p := &Producer{
		c: c, cfg: cfg,
		wake:         make(chan struct{}, 1),
		topics:       make(map[string]*topicFeeds),
		space:        make(chan struct{}),
		underWay:     make(map[*produceRequest]bool),
		byNode:       make(map[int32]int),
		finishedWake: make(chan struct{}, 1),
		senderEnded:  make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(c.ctx)
	p.wg.Go(p.sendLoop)
	p.wg.Go(p.callbackLoop)
	return p, nil
}

// Send takes a record and calls done, which may be nil, once its outcome is
// known. Key, Value and Headers are copied.
//
// It waits while MaxBufferedBytes are taken, and for metadata the first time
// that a topic is used. An error means that the record was not taken: ctx
// ended, ErrClosed, ErrTooLarge, ErrNoPartition, or the topic does not exist;
// done is not called then.
//
// done is called from one goroutine for all records, in order for those of a
// partition. While it runs no other is called, and the record counts as taken
// for MaxBufferedBytes: a Send from done may wait for ever.
func (p *Producer) Send(ctx context.Context, r Record, done func(RecordResult)) error {
	return p.send(ctx, r, done, false)
}

// SendSync sends a record without lingering and returns when its outcome is
// known, or when ctx ends: then the record is still under way, and the error
// matches ErrUnknownOutcome and ctx's.
func (p *Producer) SendSync(ctx context.Context, r Record) (RecordResult, error) {
	result := make(chan RecordResult, 1)
	if err := p.send(ctx, r, func(r RecordResult) { result <- r }, true); err != nil {
		return RecordResult{}, err
	}
	select {
	case r := <-result:
		return r, r.Err
	case <-ctx.Done():
		return RecordResult{}, unknown(ctx.Err())
	}
}

// Flush sends what lingers, and returns when the outcome of every record sent
// before is known and its callback has returned, or when ctx ends. Failures are
// the callbacks' to see. It must not be called from a callback.
func (p *Producer) Flush(ctx context.Context) error {
	f := &flush{done: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrClosed
	}
	wait := p.beginFlushLocked(f)
	p.mu.Unlock()
	defer p.endFlush()
	if !wait {
		return nil
	}
	poke(p.wake)
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.ctx.Done():
		return ErrClosed
	}
}

// Close flushes until ctx ends, gives up what is left with ErrClosed (with
// ErrUnknownOutcome where it was sent), waits for the last callback, and for
// every goroutine of the Producer to end. Its error is that of the flush. It
// must not be called from a callback.
func (p *Producer) Close(ctx context.Context) error {
	err := p.Flush(ctx)
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.wg.Wait()
	if !first {
		return ErrClosed
	}
	return err
}

// acks returns the protocol's word for cfg.Acks.
func (p *Producer) acks() pb.Acks {
	switch p.cfg.Acks {
	case AcksLeader:
		return pb.Acks_ACKS_LEADER
	case AcksNone:
		return pb.Acks_ACKS_NONE
	}
	return pb.Acks_ACKS_ALL
}
