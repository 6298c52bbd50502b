package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/history"
)

// person is one client process: it acts by its own dice, and has its own host.
type person struct {
	w       *world
	process int32
	rng     *rand.Rand
	c       *client.Client
	ends    map[history.Key]int64 // the highest that its consumer was told of

	rack   string // it reads from a follower that stands there, with Kafka; "": from leaders
	source func(node int32, topic string, partition int32)
}

// hire makes a new process. Any goroutine may call it.
func (w *world) hire() *person {
	p := &person{w: w, process: w.process.Add(1)}
	p.rng = rand.New(rand.NewPCG(w.seed, uint64(p.process)<<8))
	p.connect()
	return p
}

func (p *person) connect() {
	host := clientHost(p.process)
	c, err := client.New(client.Config{
		Bootstrap: p.w.addrs,
		ClientID:  host,
		Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return p.w.net.Dial(ctx, host, addr)
		},
		Rand:           rand.NewPCG(p.w.seed, uint64(p.process)<<8|1),
		RequestTimeout: 10 * time.Second,
		DialTimeout:    time.Second,
	})
	if err != nil {
		panic("sim: " + err.Error())
	}
	p.c = c
}

// clientHost is the host of a process.
func clientHost(process int32) string { return fmt.Sprintf("client%d", process) }

func (p *person) leave() { _ = p.c.Close() }

// rest sleeps for up to most, or until the clients are to stop, which it
// reports.
func (p *person) rest(most time.Duration) bool {
	t := time.NewTimer(time.Duration(p.rng.Int64N(int64(most) + 1)))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.w.stopping.Done():
		return false
	}
}

// record returns a record that holds a value, and noise that follows from it, so
// that any bytes but those sent are noticed.
func record(key history.Key, value int64, bytes int) client.Record {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+bytes), uint64(value))
	return client.Record{Topic: key.Topic, Partition: key.Partition, Value: append(b, noiseOf(value, bytes)...)}
}

// valueOf returns the value that a record holds, or history.Garbled.
func valueOf(b []byte) int64 {
	if len(b) < 8 || len(b) > 8+maxRecordBytes {
		return history.Garbled
	}
	v := int64(binary.LittleEndian.Uint64(b))
	if v <= 0 || !bytes.Equal(noiseOf(v, len(b)-8), b[8:]) {
		return history.Garbled
	}
	return v
}

const maxRecordBytes = 6 << 10

var noise = func() (b [4 * maxRecordBytes]byte) {
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b[:])
	return b
}()

func noiseOf(value int64, bytes int) []byte {
	at := int(uint64(value) * 0x9e3779b97f4a7c15 % (3 * maxRecordBytes))
	return noise[at : at+bytes]
}

// load is what one producer does.
type load struct {
	keys     []history.Key
	records  int
	maxBytes int           // of a record
	maxPause time.Duration // between two bursts
	timeout  time.Duration // delivery
	crashes  bool          // the client is torn down now and then
	until    time.Time     // when it is enough, however many they are; zero: when records were sent
}

// goesOn reports whether there is more to send.
func (l *load) goesOn(sent int) bool {
	if l.until.IsZero() {
		return sent < l.records
	}
	return time.Now().Before(l.until)
}

// produce sends l in bursts and waits for every outcome.
func (p *person) produce(l load) {
	pr := p.producer(l)
	for sent := 0; l.goesOn(sent); {
		burst := 1 + p.rng.IntN(8)
		if l.until.IsZero() {
			burst = min(burst, l.records-sent)
		}
		for range burst {
			p.send(pr, l.keys[p.rng.IntN(len(l.keys))], p.rng.IntN(l.maxBytes+1))
			sent++
		}
		if l.crashes && p.rng.IntN(12) == 0 {
			pr = p.crash(pr, l)
		}
		if !p.rest(l.maxPause) {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout+time.Minute)
	defer cancel()
	if err := pr.Close(ctx); err != nil {
		p.w.problem("process %d: a producer with a delivery timeout of %v could not be flushed: %v", p.process, l.timeout, err)
	}
}

func (p *person) producer(l load) *client.Producer {
	pr, err := p.c.NewProducer(client.ProducerConfig{
		DeliveryTimeout: l.timeout, NotIdempotent: p.w.notIdempotent, BatchBytes: 4 << 10, MaxBufferedBytes: 64 << 10,
		Linger: time.Duration(1+p.rng.IntN(5)) * time.Millisecond,
	})
	if err != nil {
		panic("sim: " + err.Error())
	}
	return pr
}

func (p *person) send(pr *client.Producer, key history.Key, bytes int) {
	value := p.w.value.Add(1)
	op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.Send, Mops: []history.Mop{history.Values(key, value)}})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := pr.Send(ctx, record(key, value, bytes), func(r client.RecordResult) { p.settle(op, r.Offset, r.Err) })
	if err != nil {
		p.settle(op, -1, err)
	}
}

// settle records how a send ended.
func (p *person) settle(op history.Op, offset int64, err error) {
	if err == nil {
		if p.w.acked != nil {
			p.w.acked(op.Mops[0].Key, offset)
		}
		op.Mops = []history.Mop{op.Mops[0].At(offset)}
	}
	p.w.rec.Complete(p.outcome(op, err))
}

// outcome says what an error means for what was asked.
func (p *person) outcome(op history.Op, err error) (history.Op, history.Type) {
	if err == nil {
		return op, history.OK
	}
	op.Err = err.Error()
	if errors.Is(err, client.ErrUnknownOutcome) {
		return op, history.Info
	}
	return op, history.Fail
}

// crash tears the client down with what is under way.
func (p *person) crash(pr *client.Producer, l load) *client.Producer {
	op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.Crash})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = pr.Close(ended)
	p.leave()
	p.connect()
	p.w.rec.Complete(op, history.OK)
	return p.producer(l)
}

// consume reads keys from their beginning, over and over from the start now and
// then, until the clients are to stop. Records that were there stay there, so
// no error is expected, unless the topics come and go. It rests before it starts
// over: where the network takes no time to speak of, no time passes while it
// reads what is there, and it would read that thousands of times a second.
func (p *person) consume(keys []history.Key, transient bool) {
	for p.w.stopping.Err() == nil {
		co := p.assign(keys)
		left := 5 + p.rng.IntN(40) // polls
		for ; left > 0 && p.w.stopping.Err() == nil; left-- {
			if p.rng.IntN(8) == 0 {
				p.pauseOne(co, keys)
			}
			err := p.poll(p.w.stopping, co, 200*time.Millisecond)
			if err == nil {
				continue
			}
			if !transient && !(p.w.rots && errors.Is(err, client.ErrCorrupt)) {
				p.w.problem("process %d: consumer: %v", p.process, err)
			}
			p.rest(200 * time.Millisecond)
			break
		}
		_ = co.Close()
		p.rest(20 * time.Millisecond)
	}
}

// pauseOne pauses a partition or resumes it. Whichever: no record is lost or
// comes twice for it.
func (p *person) pauseOne(co *client.Consumer, keys []history.Key) {
	k := keys[p.rng.IntN(len(keys))]
	err := co.Pause(k.Topic, k.Partition)
	if len(co.Paused()) == len(keys) || p.rng.IntN(2) == 0 {
		for _, a := range co.Paused() {
			err = errors.Join(err, co.Resume(a.Topic, a.Partition))
		}
	}
	if err != nil {
		p.w.problem("process %d: pause: %v", p.process, err)
	}
}

// assign starts over at the beginning of keys. Of three processes two are
// pushed to, and one asks.
func (p *person) assign(keys []history.Key) *client.Consumer {
	op := history.Op{Process: p.process, F: history.Assign}
	var cfg client.ConsumerConfig
	cfg.MaxWait = 100 * time.Millisecond
	cfg.MaxPartitionBytes = 32 << 10
	cfg.FetchOnly = p.process%3 == 0
	for _, k := range keys {
		op.Mops = append(op.Mops, history.Mop{Key: k, From: 0})
		cfg.Assignments = append(cfg.Assignments, client.Assignment{Topic: k.Topic, Partition: k.Partition, Offset: client.Beginning})
		if wanes(k.Topic) {
			cfg.OutOfRange = client.Beginning
		}
	}
	op = p.w.rec.Invoke(op)
	p.ends = make(map[history.Key]int64)
	co, err := p.c.NewConsumer(cfg)
	if err != nil {
		panic("sim: " + err.Error())
	}
	p.w.rec.Complete(op, history.OK)
	return co
}

// poll polls once and records what came. It returns the error of a partition.
func (p *person) poll(ctx context.Context, co *client.Consumer, wait time.Duration) (failed error) {
	op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.Poll})
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	fetched, err := co.Poll(ctx)
	if err != nil {
		op.Err = err.Error()
		p.w.rec.Complete(op, history.Fail)
		return nil // it ran out of time
	}
	for i := range fetched {
		f := &fetched[i]
		if f.Err != nil {
			failed = f.Err
			continue
		}
		m := history.Mop{Key: history.Key{Topic: f.Topic, Partition: f.Partition}}
		p.told(m.Key, f.HighWatermark)
		for r, err := range f.Records() {
			if err != nil {
				failed = err
				break
			}
			m.Records = append(m.Records, history.Record{Offset: r.Offset, Value: valueOf(r.Value)})
		}
		op.Mops = append(op.Mops, m)
	}
	p.w.rec.Complete(op, history.OK)
	return failed
}

// told takes it for a problem if a consumer is told of a lower end than before, of a
// topic that is never made anew. end is negative if it is not known.
func (p *person) told(key history.Key, end int64) {
	if end >= 0 && end < p.ends[key] && strings.HasPrefix(key.Topic, "stays") {
		p.w.problem("process %d: the high watermark of %s[%d] went from %d back to %d", p.process, key.Topic, key.Partition, p.ends[key], end)
	}
	p.ends[key] = max(p.ends[key], end)
}

// topicConfigs fit the small journal of the simulation.
var topicConfigs = map[string]string{"segment.bytes": "1048576", "max.message.bytes": "7000"}

// createTopic creates a topic and reports whether it certainly did.
func (p *person) createTopic(name string, partitions int32) bool {
	return p.createTopicIn(p.w.stopping, name, partitions)
}

func (p *person) createTopicIn(ctx context.Context, name string, partitions int32) bool {
	op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.CreateTopic, Topic: name})
	_, err := p.c.Admin().CreateTopic(ctx, client.TopicSpec{Name: name, Partitions: partitions, Configs: topicConfigs})
	if code, _ := client.CodeOf(err); code == errcode.TopicAlreadyExists {
		op.Saw = history.Present
	}
	p.w.rec.Complete(p.outcome(op, err))
	return err == nil
}

func (p *person) deleteTopic(name string) { p.deleteTopicIn(p.w.stopping, name) }

func (p *person) deleteTopicIn(ctx context.Context, name string) {
	op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.DeleteTopic, Topic: name})
	err := p.c.Admin().DeleteTopic(ctx, name)
	if code, _ := client.CodeOf(err); code == errcode.UnknownTopicOrPartition {
		op.Saw = history.Absent
	}
	p.w.rec.Complete(p.outcome(op, err))
}

// describeTopic asks the node, which is the only one, so its answer is current.
func (p *person) describeTopic(name string) {
	op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.DescribeTopic, Topic: name})
	_, err := p.c.Admin().DescribeTopic(p.w.stopping, name)
	switch code, _ := client.CodeOf(err); {
	case err == nil:
		op.Saw = history.Present
	case code == errcode.UnknownTopicOrPartition:
		op.Saw = history.Absent
		err = nil
	}
	p.w.rec.Complete(p.outcome(op, err))
}

// churn creates, deletes and describes topics until the clients are to stop.
func (p *person) churn(names []string, pause time.Duration) {
	for p.rest(pause) {
		name := names[p.rng.IntN(len(names))]
		switch p.rng.IntN(4) {
		case 0, 1:
			p.createTopic(name, 1+p.rng.Int32N(3))
		case 2:
			p.deleteTopic(name)
		case 3:
			p.describeTopic(name)
		}
	}
}

// readAll reads every topic of clients from its beginning to its end, when nobody
// creates or deletes any.
func (w *world) readAll() {
	w.readTopics(func(name string) bool { return !strings.HasPrefix(name, "__") })
}

// readTopics reads the topics whose names are wanted.
func (w *world) readTopics(wanted func(name string) bool) {
	p := w.hire()
	defer p.leave()
	topics, err := p.c.Admin().ListTopics(context.Background())
	if err != nil {
		w.problem("final read: list topics: %v", err)
		return
	}
	for _, t := range topics {
		if !wanted(t.Name) {
			continue
		}
		if err := p.readTopic(t); err != nil {
			w.problem("final read: topic %s: %v", t.Name, err)
		}
	}
}

func (p *person) readTopic(t client.Topic) error {
	ends, err := p.c.Admin().Offsets(context.Background(), t.Name, client.Latest)
	if err != nil {
		return fmt.Errorf("end offsets: %w", err)
	}
	if len(ends) != len(t.Leaders) {
		return fmt.Errorf("%d end offsets for %d partitions", len(ends), len(t.Leaders))
	}
	keys := make([]history.Key, len(ends))
	for i := range keys {
		keys[i] = history.Key{Topic: t.Name, Partition: int32(i)}
	}
	co := p.assign(keys)
	defer co.Close()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if err := p.poll(context.Background(), co, time.Second); err != nil {
			return err
		}
		behind := slices.ContainsFunc(keys, func(k history.Key) bool {
			at, _ := co.Position(k.Topic, k.Partition)
			return at < ends[k.Partition]
		})
		if !behind {
			return nil
		}
	}
	return fmt.Errorf("could not be read up to its end offsets %v", ends)
}
