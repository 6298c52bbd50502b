package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// maxFailuresNamed bounds how many failed records are named one by one.
const maxFailuresNamed = 10

// producing is one run of produce.
type producing struct {
	p      *client.Producer
	shape  *shape
	in     *input
	report report
	stop   context.CancelFunc // ends the reading

	mu       sync.Mutex
	sent     int // accepted by the producer
	acked    int
	bytes    int64 // keys and values that were acknowledged
	failures int
	unknown  int   // of the failures, records that may have been appended
	stopped  bool  // by a failure
	readErr  error // why the reading ended before the input did
	printErr error // of stdout
}

func newProducing(p *client.Producer, s *shape, in *input, r report) *producing {
	return &producing{p: p, shape: s, in: in, report: r}
}

// run sends everything and returns when the outcome of every record is known.
func (s *producing) run(ctx context.Context, timeout time.Duration) error {
	start := s.report.now()
	readCtx, stop := context.WithCancel(ctx)
	defer stop()
	s.stop = stop
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.read(readCtx)
	}()
	s.wait(readCtx, ended, start)

	// Each record has its own deadline; this one is for a server that answers
	// nothing at all. Where the reading was cut short, a Read may still be under
	// way in its goroutine: what it yields is refused by the closed producer.
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*timeout)
	defer cancel()
	closeErr := s.p.Close(closeCtx)
	return s.finish(ctx, closeErr, s.report.now().Sub(start))
}

// wait returns when the reading has ended, or was stopped.
func (s *producing) wait(ctx context.Context, ended <-chan struct{}, start time.Time) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			if s.report.progress {
				s.mu.Lock()
				fmt.Fprintf(s.report.stderr, "\r%s\x1b[K", s.summaryLocked(s.report.now().Sub(start)))
				s.mu.Unlock()
			}
		}
	}
}

// read sends the input record after record.
func (s *producing) read(ctx context.Context) {
	for piece, err := range s.in.pieces() {
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.mu.Lock()
			s.readErr = fmt.Errorf("%s: %w", piece, err)
			s.mu.Unlock()
			return
		}
		if !s.send(ctx, piece) {
			return
		}
	}
}

// send hands a record to the producer, and reports whether to go on.
func (s *producing) send(ctx context.Context, p piece) bool {
	r := s.shape.record(p.bytes)
	bytes := int64(len(r.Key) + len(r.Value))
	p.bytes = nil
	s.mu.Lock()
	s.sent++
	s.mu.Unlock()
	err := s.p.Send(ctx, r, func(res client.RecordResult) { s.done(p, bytes, res) })
	if err == nil {
		return true
	}
	if ctx.Err() != nil { // not a failure of this record: it was not sent
		s.mu.Lock()
		s.sent--
		s.mu.Unlock()
		return false
	}
	s.done(p, bytes, client.RecordResult{Err: err})
	return ofRecordAlone(err)
}

// done notes what became of a record.
func (s *producing) done(p piece, bytes int64, res client.RecordResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if res.Err != nil {
		s.failures++
		if s.failures <= maxFailuresNamed {
			fmt.Fprintf(s.report.stderr, "%% not appended: %s: %s%s\n", p, message(res.Err), remedy(res.Err))
		}
		if errors.Is(res.Err, client.ErrUnknownOutcome) {
			s.unknown++
		}
		if !ofRecordAlone(res.Err) {
			s.stopped = true
			s.stop()
		}
		return
	}
	s.acked++
	s.bytes += bytes
	if s.report.stdout != nil && s.printErr == nil {
		s.printErr = printJSON(s.report.stdout, place{
			Topic: res.Topic, Partition: res.Partition, Offset: known(res.Offset), Timestamp: res.Timestamp.UnixMilli(),
		})
	}
}

// place is where a record was appended.
type place struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    *int64 `json:"offset"` // null: appended, but where is not known
	Timestamp int64  `json:"timestamp"`
}

// ofRecordAlone reports whether an error says nothing about other records.
func ofRecordAlone(err error) bool {
	code, _ := client.CodeOf(err)
	return code == errcode.MessageTooLarge || errors.Is(err, client.ErrTooLarge)
}

// remedy says what to do about a record that failed.
func remedy(err error) string {
	switch {
	case ofRecordAlone(err):
		return "; use --compression, or create a topic with a larger --config max.message.bytes"
	case errors.Is(err, client.ErrUnknownOutcome):
		return "; it may have been appended"
	}
	return ""
}

// finish prints the summary and returns the error of the whole.
func (s *producing) finish(ctx context.Context, closeErr error, took time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.report.progress {
		fmt.Fprint(s.report.stderr, "\r\x1b[K")
	}
	if !s.report.quiet {
		fmt.Fprintln(s.report.stderr, s.summaryLocked(took))
	}
	switch {
	case s.failures > 0:
		return s.failedLocked()
	case s.readErr != nil:
		return fmt.Errorf("%w; what came before was appended", s.readErr)
	case ctx.Err() != nil:
		return errors.New("interrupted; what had been read was appended")
	case closeErr != nil:
		return closeErr
	}
	return s.printErr
}

func (s *producing) failedLocked() error {
	text := fmt.Sprintf("%d of %d records not appended", s.failures, s.sent)
	if s.unknown > 0 {
		text += fmt.Sprintf(", though %d of them may have been", s.unknown)
	}
	if s.stopped {
		text += "; what follows was not read"
	}
	return errors.New(text)
}

func (s *producing) summaryLocked(took time.Duration) string {
	seconds := max(took.Seconds(), 1e-6)
	noun := "records"
	if s.acked == 1 {
		noun = "record"
	}
	return fmt.Sprintf("%d %s, %s, in %s (%.0f records/s, %s/s)", s.acked, noun, formatBytes(s.bytes),
		took.Round(time.Millisecond), float64(s.acked)/seconds, formatBytes(int64(float64(s.bytes)/seconds)))
}
