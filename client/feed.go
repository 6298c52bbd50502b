package client

import (
	"context"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/log/batch"
)

// maxFreeBuilders bounds the builders kept for the next batches.
const maxFreeBuilders = 32

// recordOverheadBytes is what a record is taken to need beside its contents, in
// its batch and in memory.
const recordOverheadBytes = 64

// feed is one partition's lane and the batch being filled for it.
type feed struct {
	lane   lane
	open   *delivery // nil: none
	active bool      // in Producer.active
}

// topicFeeds are a topic's partitions, and the one that records without a key
// go to now.
type topicFeeds struct {
	feeds  map[int32]*feed
	sticky int32 // -1: to be chosen
}

// delivery is the records of one batch, from the first Send to the callbacks.
type delivery struct {
	feed    *feed
	builder *batch.Builder // nil once built
	records []delivered
	bytes   int64 // counted in Producer.buffered
	opened  time.Time
	urgent  bool // somebody waits: do not linger
	sending sending
	flushes []*flush

	baseOffset   int64
	appendTimeMS int64 // -1: the records keep theirs
}

// delivered is one record of a delivery.
type delivered struct {
	timestampMS int64
	done        func(RecordResult)
}

// flush waits for deliveries.
type flush struct {
	left int           // guarded by Producer.mu
	done chan struct{} // closed when left reaches 0
}

func (p *Producer) send(ctx context.Context, r Record, done func(RecordResult), urgent bool) error {
	if r.Topic == "" {
		r.Topic = p.cfg.Topic
	}
	t, err := p.topic(ctx, r.Topic)
	if err != nil {
		return err
	}
	now := p.c.cfg.Now()
	if r.Timestamp.IsZero() {
		r.Timestamp = now
	}
	bytes := recordBytes(&r)
	if bytes > p.cfg.MaxBufferedBytes {
		return fmt.Errorf("%w: about %d bytes, MaxBufferedBytes is %d", ErrTooLarge, bytes, p.cfg.MaxBufferedBytes)
	}
	waited, err := p.lockWithSpace(ctx, bytes)
	if err != nil {
		return err
	}
	sealed, news, err := p.acceptLocked(&r, bytes, t, now, done, urgent)
	buffered := p.buffered
	p.mu.Unlock()
	if hook := p.c.cfg.Hooks.Throttled; hook != nil && waited > 0 {
		hook(ThrottleEvent{Topic: r.Topic, Duration: waited, Buffered: buffered})
	}
	for _, d := range sealed {
		p.build(d)
	}
	if news {
		poke(p.wake)
	}
	return err
}

// topic waits for a topic's metadata for no longer than the record may take.
func (p *Producer) topic(ctx context.Context, name string) (*topic, error) {
	if t := p.c.meta.image.Load().topics[name]; t != nil && t.err == nil {
		return t, nil
	}
	waitCtx, cancel := context.WithTimeout(ctx, p.cfg.DeliveryTimeout)
	defer cancel()
	t, err := p.c.topic(waitCtx, name)
	if err != nil && ctx.Err() == nil && waitCtx.Err() != nil {
		err = fmt.Errorf("%w: no metadata of topic %q: %w", ErrDeliveryTimeout, name, err)
	}
	return t, err
}

func recordBytes(r *Record) int64 {
	n := recordOverheadBytes + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// lockWithSpace waits until there is room for so many bytes, and then returns
// with mu held, and how long it waited.
func (p *Producer) lockWithSpace(ctx context.Context, bytes int64) (waited time.Duration, err error) {
	var since time.Time
	for {
		p.mu.Lock()
		if p.closed || p.ctx.Err() != nil {
			p.mu.Unlock()
			return 0, ErrClosed
		}
		if p.buffered+bytes <= p.cfg.MaxBufferedBytes {
			if !since.IsZero() {
				waited = p.c.cfg.Now().Sub(since)
			}
			return waited, nil
		}
		space := p.space
		p.mu.Unlock()
		if since.IsZero() {
			since = p.c.cfg.Now()
		}
		select {
		case <-space:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-p.ctx.Done():
			return 0, ErrClosed
		}
	}
}

// acceptLocked puts a record into its partition's open batch. It returns the
// batches that are full with it, to be built without the lock, and whether
// there is news for the sender.
func (p *Producer) acceptLocked(r *Record, bytes int64, t *topic, now time.Time, done func(RecordResult), urgent bool) (sealed []*delivery, news bool, err error) {
	partition, err := p.chooseLocked(r, t)
	if err != nil {
		return nil, false, err
	}
	f := p.feedLocked(r.Topic, partition)
	ts := r.Timestamp.UnixMilli()
	full := func() bool {
		return f.open != nil && f.open.builder.SizeWith(ts, r.Key, r.Value, r.Headers) > p.cfg.BatchBytes
	}
	if full() {
		sealed = append(sealed, p.sealLocked(f))
		if partition, err = p.chooseLocked(r, t); err != nil { // without a key, another one now
			return sealed, true, err
		}
		if f = p.feedLocked(r.Topic, partition); full() {
			sealed = append(sealed, p.sealLocked(f))
		}
	}
	d := f.open
	if d == nil {
		d = &delivery{feed: f, opened: now, builder: p.builderLocked(), baseOffset: -1, appendTimeMS: -1}
	}
	if err := d.builder.Append(ts, r.Key, r.Value, r.Headers); err != nil {
		return sealed, true, fmt.Errorf("client: %w", err)
	}
	f.open = d
	p.buffered += bytes
	d.records = append(d.records, delivered{timestampMS: ts, done: done})
	d.bytes += bytes
	d.urgent = d.urgent || urgent
	if !f.active {
		f.active = true
		p.active = append(p.active, f)
	}
	if d.builder.Size() >= p.cfg.BatchBytes {
		sealed = append(sealed, p.sealLocked(f))
	}
	return sealed, urgent || len(sealed) > 0 || len(d.records) == 1, nil
}

// chooseLocked returns the partition of a record.
func (p *Producer) chooseLocked(r *Record, t *topic) (int32, error) {
	n := int32(len(t.leaders))
	switch {
	case r.Partition < AnyPartition || r.Partition >= n:
		return 0, &PartitionError{Topic: r.Topic, Partition: r.Partition, Offset: -1, Err: ErrNoPartition}
	case r.Partition != AnyPartition:
		return r.Partition, nil
	case r.Key != nil:
		partition := p.cfg.Partitioner(r.Key, n)
		if partition < 0 || partition >= n {
			return 0, &PartitionError{Topic: r.Topic, Partition: partition, Offset: -1, Err: ErrNoPartition}
		}
		return partition, nil
	}
	tf := p.topicLocked(r.Topic)
	if f := tf.feeds[tf.sticky]; f == nil || f.open == nil || tf.sticky >= n {
		tf.sticky = p.nextSticky(t, tf.sticky)
	}
	return tf.sticky, nil
}

// nextSticky picks a partition other than the last, and if possible one that
// has a leader.
func (p *Producer) nextSticky(t *topic, last int32) int32 {
	var led, other []int32
	for i, l := range t.leaders {
		if int32(i) == last {
			continue
		}
		other = append(other, int32(i))
		if l.node >= 0 {
			led = append(led, int32(i))
		}
	}
	switch {
	case len(led) > 0:
		return led[p.c.chance.intN(len(led))]
	case len(other) > 0 && (last < 0 || t.leaders[last].node < 0):
		return other[p.c.chance.intN(len(other))]
	}
	return max(last, 0)
}

func (p *Producer) topicLocked(name string) *topicFeeds {
	tf := p.topics[name]
	if tf == nil {
		tf = &topicFeeds{feeds: make(map[int32]*feed), sticky: -1}
		p.topics[name] = tf
	}
	return tf
}

func (p *Producer) feedLocked(name string, partition int32) *feed {
	tf := p.topicLocked(name)
	f := tf.feeds[partition]
	if f == nil {
		f = &feed{lane: lane{
			topic: name, partition: partition,
			idempotent: !p.cfg.NotIdempotent, window: p.cfg.MaxInFlight,
		}}
		tf.feeds[partition] = f
	}
	return f
}

func (p *Producer) builderLocked() *batch.Builder {
	var b *batch.Builder
	if n := len(p.free); n > 0 {
		b, p.free = p.free[n-1], p.free[:n-1]
	} else {
		b = new(batch.Builder)
	}
	b.Reset()
	return b
}

// sealLocked moves the open batch to the lane. It can be sent once it is built.
func (p *Producer) sealLocked(f *feed) *delivery {
	d := f.open
	f.open = nil
	d.sending = sending{
		what:     d,
		count:    int32(len(d.records)),
		deadline: d.opened.Add(p.cfg.DeliveryTimeout),
	}
	f.lane.add(&d.sending)
	return d
}

// build encodes a sealed batch. It is called without the lock, by the one
// goroutine that sealed it.
func (p *Producer) build(d *delivery) {
	b, err := d.builder.Build(nil, p.cfg.Compression, batch.DefaultLevel)
	if err != nil {
		panic(fmt.Sprintf("client: a batch of %d records cannot be built: %v", len(d.records), err))
	}
	p.mu.Lock()
	d.sending.bytes = b
	if len(p.free) < maxFreeBuilders && d.builder.Size() <= 2*p.cfg.BatchBytes {
		p.free = append(p.free, d.builder)
	}
	d.builder = nil
	p.mu.Unlock()
}
