package client

import "time"

// Hooks are told what a Client does, for metrics and traces. Each may be nil,
// which costs nothing.
//
// They are called from the goroutines that do the work, several at a time, with
// no lock held. A hook that is slow slows these down, and one that calls the
// Client, Producer or Consumer that it is told about may never return: count,
// and return.
type Hooks struct {
	// Connected is called when a connection is made, or, with an Err, failed
	// to be.
	Connected func(ConnectEvent)

	// Disconnected is called when a connection that was made has ended.
	Disconnected func(DisconnectEvent)

	// Sent is called when a request is written, and Answered when its response
	// has come, or it failed: with a request that has no response, when it was
	// written. One that was never written is in neither.
	Sent     func(RequestEvent)
	Answered func(RequestEvent)

	// Delivered is called for what a server pushes on a stream.
	Delivered func(DeliverEvent)

	// Batch is called for each batch of records when its outcome is known, and
	// each time that it has to be sent again.
	Batch func(BatchEvent)

	// Consumed is called for what Poll or Records takes.
	Consumed func(ConsumeEvent)

	// Throttled is called when a Send has waited because
	// ProducerConfig.MaxBufferedBytes were taken.
	Throttled func(ThrottleEvent)
}

// ConnectEvent is an attempt to connect.
type ConnectEvent struct {
	Address  string
	NodeID   int32         // that answered; -1 with an Err
	Duration time.Duration // handshake included
	Err      error         // nil: connected
}

// DisconnectEvent is the end of a connection.
type DisconnectEvent struct {
	Address string
	Err     error // ErrClosed: the Client was closed
}

// RequestEvent is one request.
type RequestEvent struct {
	Address       string
	Kind          string        // its name in docs/protocol.md
	SentBytes     int64         // of payload
	ReceivedBytes int64         // of payload; 0 in Sent
	Duration      time.Duration // since it was written; 0 in Sent
	Err           error         // of the request as a whole
}

// DeliverEvent is one delivery of a stream.
type DeliverEvent struct {
	Address    string
	Partitions int
	Bytes      int64 // of payload
}

// BatchStage says what happened to a batch.
type BatchStage int

// The stages of a batch. Every batch ends in one of the last two.
const (
	BatchRetried BatchStage = iota // an attempt failed, and another follows
	BatchAcked                     // it is appended
	BatchFailed                    // it is given up
)

// BatchEvent is a batch of a Producer.
type BatchEvent struct {
	Topic     string
	Partition int32
	Stage     BatchStage
	Records   int
	Duration  time.Duration // since the first of its records was taken by Send
	Buffered  int64         // bytes that the Producer holds, this batch included
	Err       error         // nil if Stage is BatchAcked
}

// ConsumeEvent is what a Consumer hands out of one partition.
type ConsumeEvent struct {
	Topic     string
	Partition int32
	Records   int   // that the batches hold, before compaction or an offset within a batch
	Bytes     int   // as they were sent: compressed
	Lag       int64 // records behind the end, as the server last said; -1: unknown
	Err       error // that stopped the partition; then the rest is 0
}

// ThrottleEvent is a Send that had to wait.
type ThrottleEvent struct {
	Topic    string
	Duration time.Duration
	Buffered int64 // bytes that the Producer held when it went on
}

// tellConsumed tells the hook of what is handed out, each once.
func (c *Client) tellConsumed(fetched []Fetched) {
	hook := c.cfg.Hooks.Consumed
	if hook == nil {
		return
	}
	for i := range fetched {
		f := &fetched[i]
		if f.told {
			continue
		}
		f.told = true
		e := ConsumeEvent{Topic: f.Topic, Partition: f.Partition, Records: f.records, Bytes: len(f.data), Err: f.Err}
		if f.Err == nil {
			if e.Lag = -1; f.HighWatermark >= 0 {
				e.Lag = max(0, f.HighWatermark-f.next)
			}
		}
		hook(e)
	}
}

// finish ends a call, and tells the hook.
func (l *link) finish(cl *call, a answer) {
	if hook := l.c.cfg.Hooks.Answered; hook != nil && cl.told {
		e := l.event(cl)
		e.ReceivedBytes, e.Duration, e.Err = int64(len(a.payload)), l.c.cfg.Now().Sub(cl.written), a.err
		hook(e)
	}
	cl.done(a)
}

// tellSent tells the hook that a call is written.
func (l *link) tellSent(cl *call) {
	if hook := l.c.cfg.Hooks.Sent; hook != nil {
		hook(l.event(cl))
	}
	cl.told = true
}

func (l *link) event(cl *call) RequestEvent {
	e := RequestEvent{Address: l.addr, Kind: cl.kind.String()}
	for _, p := range cl.payload {
		e.SentBytes += int64(len(p.Bytes))
	}
	return e
}

// tellBatch tells the hook of a batch. The producer's lock is not held.
func (p *Producer) tellBatch(d *delivery, stage BatchStage, err error) {
	hook := p.c.cfg.Hooks.Batch
	if hook == nil {
		return
	}
	p.mu.Lock()
	e := BatchEvent{
		Topic: d.feed.lane.topic, Partition: d.feed.lane.partition, Stage: stage, Records: len(d.records),
		Duration: p.c.cfg.Now().Sub(d.opened), Buffered: p.buffered, Err: err,
	}
	p.mu.Unlock()
	hook(e)
}
