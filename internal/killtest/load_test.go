package killtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/history"
)

// Processes of a history, by their first number.
const (
	producerProcess = 0
	followerProcess = 100
	adminProcess    = 200
	churnProcess    = 300 // producers to topics that come and go
	visitorProcess  = 400 // readers of those
	finalProcess    = 500
	waningProcess   = 600
	kafkaProcess    = 700 // producers to the stable topic, in Kafka's protocol
)

const (
	producers   = 3
	followers   = 2
	admins      = 2
	churners    = 2
	stable      = "stable" // the topic that stays
	partitions  = 4        // of it
	churnTopics = 4
)

const clientTimeout = 10 * time.Second

func churnTopic(i int) string { return fmt.Sprintf("churn-%d", i) }

// load is everything that clients do to a server while it is killed.
type load struct {
	addr string
	seed uint64
	rec  *history.Recorder
	gate *gate

	ctx    context.Context // ends with stop, or the first failure, which is its cause
	cancel context.CancelCauseFunc
	group  sync.WaitGroup
	slower int64 // how many times as long as usual the clients rest; 0: once
	acked  atomic.Int64
	kinds  [10]atomic.Int64 // of acked, by the hundreds of the process

	clients   []*client.Client
	producers []*client.Producer // to the stable topic
	churners  []*client.Producer
	consumers []*client.Consumer
	kafka     []*kgo.Client
	promised  sync.WaitGroup // records given to kafka and not told of yet
}

// startLoad creates the stable topic and starts the clients, and the loops that
// more returns, if it is not nil. stop it.
func startLoad(ctx context.Context, addr string, seed uint64, more func(*load) []func()) (*load, error) {
	l := &load{addr: addr, seed: seed, rec: history.NewRecorder(time.Now), gate: newGate()}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	if err := l.start(more); err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

// start connects everybody, and only then lets them go.
func (l *load) start(more func(*load) []func()) error {
	c, err := l.connect()
	if err != nil {
		return err
	}
	spec := topicSpec(stable, partitions)
	op := l.rec.Invoke(history.Op{Process: adminProcess, F: history.CreateTopic, Topic: stable})
	if _, err := c.Admin().CreateTopic(l.ctx, spec); err != nil {
		return err
	}
	l.rec.Complete(op, history.OK)
	op = l.rec.Invoke(history.Op{Process: adminProcess, F: history.CreateTopic, Topic: waning})
	if _, err := c.Admin().CreateTopic(l.ctx, waningSpec()); err != nil {
		return err
	}
	l.rec.Complete(op, history.OK)
	loops := []func(){func() { l.diminish(waningProcess, c.Admin()) }}
	feeder, err := c.NewProducer(client.ProducerConfig{BatchBytes: 32 << 10, MaxBufferedBytes: 1 << 20})
	if err != nil {
		return err
	}
	l.producers = append(l.producers, feeder)
	loops = append(loops, func() { l.feed(waningProcess+1, feeder) })

	for i := range producers + churners {
		c, err := l.connect()
		if err != nil {
			return err
		}
		cfg := client.ProducerConfig{BatchBytes: 32 << 10, MaxBufferedBytes: 1 << 20, Linger: time.Duration(i%3-1) * time.Millisecond}
		churns := i >= producers
		if churns {
			cfg.DeliveryTimeout = 5 * time.Second
		}
		p, err := c.NewProducer(cfg)
		if err != nil {
			return err
		}
		if churns {
			l.churners = append(l.churners, p)
			loops = append(loops, func() { l.churn(churnProcess+int32(i-producers), p) })
		} else {
			l.producers = append(l.producers, p)
			loops = append(loops, func() { l.produce(producerProcess+int32(i), p) })
		}
	}
	for i := range followers + 1 {
		c, err := l.connect()
		if err != nil {
			return err
		}
		topic, n := stable, int32(partitions)
		if i == followers {
			topic, n = waning, waningPartitions
		}
		co, err := l.assign(c, followerProcess+int32(i), topic, n)
		if err != nil {
			return err
		}
		l.consumers = append(l.consumers, co)
		loops = append(loops, func() { l.follow(followerProcess+int32(i), co) })
	}
	topics := newBeliefs()
	for i := range admins {
		c, err := l.connect()
		if err != nil {
			return err
		}
		loops = append(loops, func() { l.administer(adminProcess+1+int32(i), c.Admin(), topics) })
	}
	for i := range churnTopics {
		c, err := l.connect()
		if err != nil {
			return err
		}
		loops = append(loops, func() { l.visit(visitorProcess+int32(i), c, churnTopic(i)) })
	}
	kafka, err := l.startKafka()
	if err != nil {
		return err
	}
	loops = append(loops, kafka...)
	if more != nil {
		loops = append(loops, more(l)...)
	}
	for _, loop := range loops {
		l.group.Go(loop)
	}
	return nil
}

// connect makes a client that is quick to come back.
func (l *load) connect() (*client.Client, error) {
	c, err := client.New(client.Config{
		Bootstrap: []string{l.addr}, ClientID: fmt.Sprintf("kill-%d", len(l.clients)),
		Rand:           rand.NewPCG(l.seed, uint64(len(l.clients))),
		RequestTimeout: clientTimeout, BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
	})
	if err == nil {
		l.clients = append(l.clients, c)
	}
	return c, err
}

// stop ends the clients and waits for them. What is under way stays unknown.
func (l *load) stop() {
	l.cancel(errStopped)
	now, cancel := context.WithCancel(context.Background())
	cancel()
	for _, p := range append(l.producers, l.churners...) {
		_ = p.Close(now) // what it gives up is told to the callbacks
	}
	for _, co := range l.consumers {
		_ = co.Close()
	}
	l.group.Wait()
	l.stopKafka()
	for _, c := range l.clients {
		_ = c.Close()
	}
}

// ack counts a record that was acknowledged to a process.
func (l *load) ack(process int32) {
	l.kinds[process/100].Add(1)
	l.acked.Add(1)
}

var errStopped = errors.New("the load was stopped")

// fail ends the load for a reason that the test is told.
func (l *load) fail(format string, args ...any) {
	if l.ctx.Err() == nil {
		l.cancel(fmt.Errorf(format, args...))
	}
}

// inFlight returns how many batches are sent and not answered.
func (l *load) inFlight() (batches int) {
	for _, p := range l.producers {
		batches += p.InFlight()
	}
	for _, cl := range l.kafka {
		if cl.BufferedProduceRecords() > 0 {
			batches++ // at least: franz-go does not tell
		}
	}
	return batches
}

// chance returns the randomness of one process.
func (l *load) chance(process int32) *rand.Rand {
	return rand.New(rand.NewPCG(l.seed, 1<<32+uint64(process)))
}

// pace waits for a random time of at most limit, or more if the load is slower, and
// reports false if the load ends meanwhile.
func (l *load) pace(chance *rand.Rand, limit time.Duration) bool {
	return wait(l.ctx, time.Duration(max(l.slower, 1)*chance.Int64N(int64(limit))))
}

// wait waits for d and reports false if ctx ends meanwhile.
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

// produce sends bursts to the stable topic. Every record must get through.
func (l *load) produce(process int32, p *client.Producer) {
	chance := l.chance(process)
	for n := int64(0); l.pace(chance, 10*time.Millisecond); {
		for range 1 + chance.IntN(8) {
			key := history.Key{Topic: stable, Partition: chance.Int32N(partitions)}
			l.mustSend(process, p, key, n)
			n++
		}
	}
}

// mustSend is send of a record that must get through.
func (l *load) mustSend(process int32, p *client.Producer, key history.Key, n int64) {
	err := l.send(l.ctx, process, p, key, n, func(r client.RecordResult) {
		if r.Err != nil && !errors.Is(r.Err, client.ErrClosed) {
			l.fail("process %d: %s[%d]: a record was given up: %w", process, r.Topic, r.Partition, r.Err)
		}
	})
	if err != nil && l.ctx.Err() == nil {
		l.fail("process %d: a record was not taken: %w", process, err)
	}
}

// churn sends to topics that may not exist.
func (l *load) churn(process int32, p *client.Producer) {
	chance := l.chance(process)
	for n := int64(0); l.pace(chance, 20*time.Millisecond); {
		key := history.Key{Topic: churnTopic(chance.IntN(churnTopics)), Partition: chance.Int32N(2)}
		ctx, cancel := context.WithTimeout(l.ctx, 200*time.Millisecond)
		for range 1 + chance.IntN(4) {
			if err := l.send(ctx, process, p, key, n, func(client.RecordResult) {}); err != nil {
				break
			}
			n++
		}
		n++ // of one that was not taken
		cancel()
	}
}

// send sends the process's value number n to key, and records what becomes of
// it; done is told too. An error means that it was not taken.
func (l *load) send(ctx context.Context, process int32, p *client.Producer, key history.Key, n int64, done func(client.RecordResult)) error {
	if !l.gate.enter(l.ctx) {
		return errStopped
	}
	value := int64(process)<<32 | n
	mop := history.Values(key, value)
	op := l.rec.Invoke(history.Op{Process: process, F: history.Send, Mops: []history.Mop{mop}})
	r := client.Record{Topic: key.Topic, Partition: key.Partition, Value: payload(value)}
	err := p.Send(ctx, r, func(r client.RecordResult) {
		switch {
		case r.Err == nil:
			op.Mops = []history.Mop{mop.At(r.Offset)}
			l.rec.Complete(op, history.OK)
			l.ack(op.Process)
		case errors.Is(r.Err, client.ErrUnknownOutcome):
			op.Err = r.Err.Error()
			l.rec.Complete(op, history.Info)
		default:
			op.Err = r.Err.Error()
			l.rec.Complete(op, history.Fail)
		}
		done(r)
		l.gate.leave()
	})
	if err != nil {
		op.Err = err.Error()
		l.rec.Complete(op, history.Fail)
		l.gate.leave()
	}
	return err
}

// assign makes a consumer of a whole topic from its beginning.
func (l *load) assign(c *client.Client, process int32, topic string, partitions int32) (*client.Consumer, error) {
	op := history.Op{Process: process, F: history.Assign}
	cfg := client.ConsumerConfig{MaxWait: 100 * time.Millisecond}
	if topic == waning {
		cfg.OutOfRange = client.Beginning
	}
	for p := range partitions {
		op.Mops = append(op.Mops, history.Mop{Key: history.Key{Topic: topic, Partition: p}})
		cfg.Assignments = append(cfg.Assignments, client.Assignment{Topic: topic, Partition: p, Offset: client.Beginning})
	}
	op = l.rec.Invoke(op)
	co, err := c.NewConsumer(cfg)
	if err != nil {
		return nil, err
	}
	l.rec.Complete(op, history.OK)
	return co, nil
}

// poll polls once and records what came. The error is Poll's, or that of the
// first partition that has one.
func (l *load) poll(ctx context.Context, process int32, co *client.Consumer) ([]history.Mop, error) {
	op := l.rec.Invoke(history.Op{Process: process, F: history.Poll})
	fetched, err := co.Poll(ctx)
	for i := range fetched {
		f := &fetched[i]
		if err == nil {
			err = f.Err
		}
		m := history.Mop{Key: history.Key{Topic: f.Topic, Partition: f.Partition}}
		for r, rerr := range f.Records() {
			if rerr != nil {
				err = errors.Join(err, rerr)
				break
			}
			m.Records = append(m.Records, history.Record{Offset: r.Offset, Value: valueOf(r.Value)})
		}
		op.Mops = append(op.Mops, m)
	}
	l.rec.Complete(op, history.OK)
	return op.Mops, err
}

// follow reads a topic that stays live, across every kill.
func (l *load) follow(process int32, co *client.Consumer) {
	for {
		if _, err := l.poll(l.ctx, process, co); err != nil {
			if l.ctx.Err() == nil {
				l.fail("process %d: reading: %w", process, err)
			}
			return
		}
	}
}

// visit reads a topic that comes and goes, from its beginning each time.
func (l *load) visit(process int32, c *client.Client, topic string) {
	for chance := l.chance(process); l.pace(chance, 100*time.Millisecond); {
		co, err := l.assign(c, process, topic, 1+chance.Int32N(2))
		if err != nil {
			l.fail("process %d: %w", process, err)
			return
		}
		ctx, cancel := context.WithTimeout(l.ctx, time.Duration(1+chance.Int64N(int64(2*time.Second))))
		for err == nil {
			_, err = l.poll(ctx, process, co)
		}
		cancel()
		if errors.Is(err, client.ErrCorrupt) {
			l.fail("process %d: %w", process, err)
		}
		_ = co.Close()
	}
}
