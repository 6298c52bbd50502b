//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

const (
	producers  = 4
	slow       = 3 // readers that cannot keep up
	churners   = 2 // administrators of topics that come and go
	partitions = 8
	stable     = "soak"
)

// stableConfigs make retention, rolls and unlinks frequent.
var stableConfigs = map[string]string{
	"segment.bytes": "2097152", "segment.ms": "20000",
	"retention.bytes": "12582912", "retention.ms": "120000",
}

// load is everything that clients do.
type load struct {
	addr  string
	seed  uint64
	rate  int // records a second, of all producers together
	stats *stats

	ctx    context.Context // ends with stop, or the first failure, which is its cause
	cancel context.CancelCauseFunc
	group  sync.WaitGroup

	paused     atomic.Bool // producers send nothing new
	producing  sync.WaitGroup
	ledgers    []*ledger // of the stable topic, by partition
	identities atomic.Uint32
	replays    atomic.Int64 // blocks that were compared
	lives      atomic.Int64 // topics that were created, written, read and deleted
}

var errStopped = errors.New("the load was stopped")

// fail ends the soak for a reason.
func (l *load) fail(format string, args ...any) {
	if l.ctx.Err() == nil {
		l.cancel(fmt.Errorf(format, args...))
	}
}

func (l *load) chance(n uint64) *rand.Rand { return rand.New(rand.NewPCG(l.seed, n)) }

// connect makes a client that is quick to come back.
func (l *load) connect(name string) (*client.Client, error) {
	return client.New(client.Config{
		Bootstrap: []string{l.addr}, ClientID: name,
		RequestTimeout: 20 * time.Second, BackoffMin: 10 * time.Millisecond, BackoffMax: 200 * time.Millisecond,
	})
}

// wait waits for d and reports false if the load ends meanwhile.
func (l *load) wait(d time.Duration) bool { return wait(l.ctx, d) }

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// start creates the stable topic and starts everybody.
func (l *load) start() error {
	c, err := l.connect("soak-admin")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Admin().CreateTopic(l.ctx, client.TopicSpec{Name: stable, Partitions: partitions, Configs: stableConfigs}); err != nil {
		return err
	}
	for i := range partitions {
		l.ledgers = append(l.ledgers, newLedger(fmt.Sprintf("%s-%d", stable, i)))
	}
	l.group.Go(l.follow)
	for i := range producers {
		l.producing.Add(1)
		l.group.Go(func() { l.produce(i) })
	}
	for i := range slow {
		l.group.Go(func() { l.lag(i) })
	}
	l.group.Go(l.replayAll)
	l.group.Go(l.trim)
	for i := range churners {
		l.group.Go(func() { l.churn(i) })
	}
	return nil
}

// produce sends at an even rate, and takes a new identity after each record
// that was given up.
func (l *load) produce(i int) {
	defer l.producing.Done()
	chance := l.chance(100 + uint64(i))
	codecs := []batch.Codec{batch.None, batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd}
	for l.ctx.Err() == nil && !l.paused.Load() {
		l.identity(chance, codecs[chance.IntN(len(codecs))])
	}
}

// identity is one producer's life.
func (l *load) identity(chance *rand.Rand, codec batch.Codec) {
	c, err := l.connect("soak-producer")
	if err != nil {
		l.fail("producer: %w", err)
		return
	}
	defer c.Close()
	p, err := c.NewProducer(client.ProducerConfig{
		Topic: stable, Compression: codec, BatchBytes: 256 << 10, MaxBufferedBytes: 4 << 20, DeliveryTimeout: 10 * time.Minute,
	})
	if err != nil {
		l.fail("producer: %w", err)
		return
	}
	id := l.identities.Add(1)
	defer func() {
		// What is under way is answered first, so that the next life does not
		// compete with it.
		ctx, cancel := context.WithTimeout(l.ctx, 2*time.Minute)
		defer cancel()
		_ = p.Close(ctx)
	}()
	var gone atomic.Bool
	next := make([]uint64, partitions)
	const pieces = 100 // a second
	for ends := time.Now().Add(time.Duration(60+chance.IntN(240)) * time.Second); time.Now().Before(ends); {
		for range l.rate / producers / pieces {
			part := chance.Int32N(partitions)
			v := value{id, next[part]}
			sent := time.Now()
			err := p.Send(l.ctx, client.Record{Partition: part, Value: payload(v)}, func(r client.RecordResult) {
				if r.Err != nil {
					l.ledgers[part].retire(id)
					gone.Store(true)
					l.stats.given(r.Err)
					return
				}
				l.stats.acknowledged(time.Since(sent))
				if r.Offset >= 0 {
					if err := l.ledgers[part].ack(r.Offset, v); err != nil {
						l.fail("%w", err)
					}
				}
			})
			if err != nil {
				if l.ctx.Err() == nil {
					l.fail("producer %d: a record was not taken: %w", id, err)
				}
				return
			}
			next[part]++
		}
		if gone.Load() || l.paused.Load() || !l.wait(time.Second/pieces) {
			return
		}
	}
}

// consumer makes a consumer of the whole stable topic.
func (l *load) consumer(c *client.Client, offset int64, prefetch int) (*client.Consumer, error) {
	cfg := client.ConsumerConfig{OutOfRange: client.Beginning, MaxPrefetchedBytes: prefetch, MaxWait: 200 * time.Millisecond}
	for p := range int32(partitions) {
		cfg.Assignments = append(cfg.Assignments, client.Assignment{Topic: stable, Partition: p, Offset: offset})
	}
	return c.NewConsumer(cfg)
}

// poll polls once and hands each partition's records on.
func poll(ctx context.Context, co *client.Consumer, take func(partition int32, logStart int64, rs []record) error) error {
	fetched, err := co.Poll(ctx)
	if err != nil {
		return err
	}
	for i := range fetched {
		f := &fetched[i]
		if f.Err != nil {
			return f.Err
		}
		var rs []record
		for r, err := range f.Records() {
			if err != nil {
				return err
			}
			rec, ok := parse(r.Offset, r.Value)
			if !ok {
				return fmt.Errorf("%s-%d: offset %d holds %d bytes that nobody wrote", f.Topic, f.Partition, r.Offset, len(r.Value))
			}
			rs = append(rs, rec)
		}
		if err := take(f.Partition, f.LogStartOffset, rs); err != nil {
			return err
		}
	}
	return nil
}

// follow is the main reader: it reads everything, once, as it comes.
func (l *load) follow() {
	c, err := l.connect("soak-follower")
	if err != nil {
		l.fail("follower: %w", err)
		return
	}
	defer c.Close()
	co, err := l.consumer(c, 0, 16<<20)
	if err != nil {
		l.fail("follower: %w", err)
		return
	}
	defer co.Close()
	for l.ctx.Err() == nil {
		err := poll(l.ctx, co, func(p int32, start int64, rs []record) error {
			l.stats.read(len(rs))
			return l.ledgers[p].read(start, rs)
		})
		if err != nil && l.ctx.Err() == nil {
			l.fail("follower: %w", err)
		}
	}
}

// lag is a reader that takes a little now and then, from the beginning on, and
// is overtaken by retention again and again.
func (l *load) lag(i int) {
	chance := l.chance(200 + uint64(i))
	for l.ctx.Err() == nil {
		l.read(time.Duration(20+chance.IntN(100))*time.Second, 1<<20, func() bool {
			return l.wait(time.Duration(chance.IntN(3000)) * time.Millisecond)
		})
	}
}

// replayAll reads everything that is there, over and over.
func (l *load) replayAll() {
	for l.wait(5 * time.Second) {
		l.read(10*time.Second, 8<<20, func() bool { return true })
	}
}

// read replays from the beginning for a time, with a pause after each poll.
func (l *load) read(limit time.Duration, prefetch int, pause func() bool) {
	c, err := l.connect("soak-reader")
	if err != nil {
		l.fail("reader: %w", err)
		return
	}
	defer c.Close()
	co, err := l.consumer(c, client.Beginning, prefetch)
	if err != nil {
		l.fail("reader: %w", err)
		return
	}
	defer co.Close()
	var ps [partitions]*replay
	for i := range ps {
		ps[i] = newReplay(l.ledgers[i])
	}
	ctx, cancel := context.WithTimeout(l.ctx, limit)
	defer cancel()
	for ctx.Err() == nil {
		err := poll(ctx, co, func(p int32, start int64, rs []record) error {
			n, err := ps[p].read(start, rs)
			l.replays.Add(int64(n))
			return err
		})
		if err != nil && ctx.Err() == nil {
			l.fail("reader: %w", err)
		}
		if !pause() {
			return
		}
	}
}

// trim deletes the older half of a partition's records now and then.
func (l *load) trim() {
	chance := l.chance(300)
	c, err := l.connect("soak-trim")
	if err != nil {
		l.fail("trim: %w", err)
		return
	}
	defer c.Close()
	for l.wait(time.Duration(1+chance.IntN(10)) * time.Second) {
		part := chance.Int32N(partitions)
		// Never what the main reader has still to read.
		to := l.ledgers[part].position() - int64(chance.IntN(2000))
		if to <= 0 {
			continue
		}
		_, err := c.Admin().DeleteRecords(l.ctx, stable, map[int32]int64{part: to})
		if err != nil && !passing(err) && l.ctx.Err() == nil {
			l.fail("delete records of %s-%d below %d: %w", stable, part, to, err)
		}
	}
}

// passing reports whether an error of a request is one that a restart, a full
// disk or the load explains.
func passing(err error) bool {
	code, ok := client.CodeOf(err)
	return errors.Is(err, client.ErrUnknownOutcome) || errors.Is(err, client.ErrTimeout) || errors.Is(err, client.ErrConnection) ||
		errors.Is(err, context.DeadlineExceeded) || ok && code.Retriable() || code == errcode.OffsetOutOfRange
}

// churn creates topics, writes to them, reads them back and deletes them.
func (l *load) churn(i int) {
	chance := l.chance(400 + uint64(i))
	for n := 0; l.wait(time.Duration(chance.IntN(4000)) * time.Millisecond); n++ {
		name := fmt.Sprintf("churn-%d-%d", i, n)
		if err := l.life(name, 1+chance.Int32N(8), 1+chance.IntN(3000)); err != nil && l.ctx.Err() == nil {
			l.fail("topic %s: %w", name, err)
		}
	}
}

// life is that of one topic.
func (l *load) life(name string, parts int32, records int) error {
	c, err := l.connect("soak-" + name)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := l.insist(func(ctx context.Context) error {
		_, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: name, Partitions: parts})
		if code, _ := client.CodeOf(err); code == errcode.TopicAlreadyExists {
			return nil // by an attempt whose answer was lost: nobody else takes the name
		}
		return err
	}); err != nil {
		return err
	}
	p, err := c.NewProducer(client.ProducerConfig{Topic: name, DeliveryTimeout: 10 * time.Minute, MaxBufferedBytes: 4 << 20})
	if err != nil {
		return err
	}
	id := l.identities.Add(1)
	sent := make([]int64, parts)
	var failed atomic.Pointer[error]
	for n := range records {
		part := int32(n) % parts
		v := value{id, uint64(sent[part])}
		sent[part]++
		err := p.Send(l.ctx, client.Record{Partition: part, Value: payload(v)}, func(r client.RecordResult) {
			if r.Err == nil && r.Offset >= 0 && r.Offset != int64(v.n) {
				r.Err = fmt.Errorf("the %d-th record of partition %d got offset %d", v.n, part, r.Offset)
			}
			if r.Err != nil {
				failed.CompareAndSwap(nil, &r.Err)
			}
		})
		if err != nil {
			_ = p.Close(l.ctx)
			return err
		}
	}
	if err := p.Close(l.ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	if err := l.readTopic(c, name, id, sent); err != nil {
		return err
	}
	l.lives.Add(1)
	return l.insist(func(ctx context.Context) error {
		err := c.Admin().DeleteTopic(ctx, name)
		if code, _ := client.CodeOf(err); code == errcode.UnknownTopicOrPartition || code == errcode.UnknownTopicID {
			return nil
		}
		return err
	})
}

// readTopic reads a topic that only one producer wrote to, and wants each record
// at its place.
func (l *load) readTopic(c *client.Client, name string, id uint32, sent []int64) error {
	cfg := client.ConsumerConfig{}
	left := 0
	for p, n := range sent {
		left += int(n)
		cfg.Assignments = append(cfg.Assignments, client.Assignment{Topic: name, Partition: int32(p)})
	}
	co, err := c.NewConsumer(cfg)
	if err != nil {
		return err
	}
	defer co.Close()
	next := make([]int64, len(sent))
	for left > 0 {
		err := poll(l.ctx, co, func(p int32, _ int64, rs []record) error {
			for _, r := range rs {
				if want := (value{id, uint64(next[p])}); r.offset != next[p] || r.value != want {
					return fmt.Errorf("partition %d, offset %d: %+v, want %+v at %d", p, r.offset, r.value, want, next[p])
				}
				next[p]++
				left--
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// insist repeats a request for as long as the node's troubles explain its
// failure.
func (l *load) insist(f func(context.Context) error) error {
	for {
		ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
		err := f(ctx)
		cancel()
		if err == nil || !passing(err) {
			return err
		}
		if !l.wait(200 * time.Millisecond) {
			return l.ctx.Err()
		}
	}
}
