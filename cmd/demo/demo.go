package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

const topic = "files"

// The journal is set small, so that its files are used many times over.
const (
	journalFileBytes    = 8 << 20
	journalFiles        = 4
	topicMaxBytes       = journalFileBytes/4 - 4096
	recordOverheadBytes = 512 // of a batch around one record, and its key
)

type options struct {
	binary, file, dataDir string
	partitions            int
	tamper                bool
	out                   io.Writer

	temporary bool // dataDir is ours to remove
}

// verdictError says that what came back is not what was sent.
type verdictError struct{ error }

func wrong(format string, args ...any) error { return verdictError{fmt.Errorf(format, args...)} }

func (o *options) printf(format string, args ...any) { fmt.Fprintf(o.out, format+"\n", args...) }

func (o *options) nextSteps() string {
	return fmt.Sprintf(`
Now by hand:
  %[1]s serve
  %[1]s topic create hello --partitions 3
  seq 10 | %[1]s produce hello
  %[1]s consume hello --from beginning --until end
`, o.binary)
}

// demo does all of it.
func demo(ctx context.Context, opt *options) error {
	if opt.file == "" {
		return errors.New("no -file to send")
	}
	if opt.dataDir == "" {
		dir, err := os.MkdirTemp("", "flotilla-demo-")
		if err != nil {
			return err
		}
		opt.temporary, opt.dataDir = true, filepath.Join(dir, "data")
	}
	opt.printf("reading %s", opt.file)
	c, err := scan(opt.file)
	if err != nil {
		return err
	}
	opt.printf("  %d files, %d lines, %.1f MB, longest line %d bytes", len(c.files), c.lines, mb(c.bytes), c.longest)
	if most := topicMaxBytes - recordOverheadBytes; c.longest > most {
		return fmt.Errorf("%s has a line of %d bytes; this demo's journal files take %d", opt.file, c.longest, most)
	}
	sent, err := send(ctx, opt, c)
	if err != nil {
		return err
	}
	if opt.tamper {
		// What lies above the newest checkpoint is written again from the journal
		// at the next start, so the record to change must lie below one.
		srv, err := opt.start(ctx, "")
		if err == nil {
			err = srv.stop()
		}
		if err != nil {
			return err
		}
		where, err := tamper(opt.dataDir)
		if err != nil {
			return err
		}
		opt.printf("changed one stored record behind the server's back: %s", where)
	}
	if err := replay(ctx, opt, c, sent); err != nil {
		return err
	}
	if opt.temporary {
		return os.RemoveAll(filepath.Dir(opt.dataDir))
	}
	return nil
}

func mb(n int64) float64 { return float64(n) / 1e6 }

func (o *options) start(ctx context.Context, addr string) (*serverProcess, error) {
	return startServer(ctx, o, addr,
		"--journal.bytes", fmt.Sprint(journalFiles*journalFileBytes),
		"--journal.file.bytes", fmt.Sprint(journalFileBytes))
}

// sender is the state of sending. offsets, acked and failed are shared with the
// callbacks.
type sender struct {
	opt     *options
	started time.Time
	said    time.Time
	offsets []atomic.Int64 // by line: the acknowledged offset + 1
	acked   atomic.Int64
	failed  atomic.Pointer[error]

	server    *serverProcess // the one to kill; restarted's sender sets it again
	restarted chan error     // 1-buffered: the server is back, or why not; nil before the kill
}

// send sends all lines, kills the server half-way, starts it again, finishes,
// and kills it once more. It returns each line's acknowledged offset.
func send(ctx context.Context, opt *options, c *corpus) (*sender, error) {
	srv, err := opt.start(ctx, "")
	if err != nil {
		return nil, err
	}
	opt.printf("server at %s, data in %s, journal of %d x %d MiB", srv.addr, opt.dataDir, journalFiles, journalFileBytes>>20)

	cl, err := client.New(client.Config{Bootstrap: []string{srv.addr}, ClientID: "demo"})
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	_, err = cl.Admin().CreateTopic(ctx, client.TopicSpec{
		Name: topic, Partitions: int32(opt.partitions),
		Configs: map[string]string{"max.message.bytes": fmt.Sprint(topicMaxBytes)},
	})
	if err != nil {
		return nil, err
	}
	p, err := cl.NewProducer(client.ProducerConfig{Topic: topic, BatchBytes: 256 << 10})
	if err != nil {
		return nil, err
	}
	s := &sender{opt: opt, started: time.Now(), offsets: make([]atomic.Int64, c.lines), server: srv}
	defer func() { s.server.kill() }()
	err = s.sendAll(ctx, p, c)
	if err == nil {
		err = p.Close(ctx)
	}
	if s.restarted != nil {
		if e := <-s.restarted; err == nil {
			err = e
		}
	}
	if e := s.failed.Load(); e != nil && err == nil {
		err = wrong("a record was refused: %w", *e)
	}
	if err != nil {
		return nil, err
	}
	took := time.Since(s.started)
	opt.printf("  all %d lines acknowledged in %.1f s: %.0f records/s, %.1f MB/s, the kill and the restart included",
		c.lines, took.Seconds(), float64(c.lines)/took.Seconds(), mb(c.bytes)/took.Seconds())
	opt.printf("killing the server again, with SIGKILL")
	return s, nil
}

// sendAll sends every line, in order, and kills the server half-way.
func (s *sender) sendAll(ctx context.Context, p *client.Producer, c *corpus) error {
	for i := range c.files {
		f := &c.files[i]
		key, line := []byte(f.key), f.first
		err := eachLine(f.path, func(b []byte) error {
			n := line
			line++
			err := p.Send(ctx, client.Record{Partition: client.AnyPartition, Key: key, Value: b}, func(r client.RecordResult) {
				if r.Err != nil {
					s.failed.CompareAndSwap(nil, &r.Err)
					return
				}
				s.offsets[n].Store(r.Offset + 1)
				s.acked.Add(1)
			})
			if err == nil && s.restarted == nil && n >= c.lines/2 && p.InFlight() > 0 {
				s.kill(ctx, p)
			}
			s.progress(c)
			return err
		})
		if err != nil {
			return err
		}
		if line != f.first+f.lines {
			return fmt.Errorf("%s changed while it was being sent", f.path)
		}
	}
	if s.restarted != nil {
		return nil
	}
	// So few lines that none was in flight while the others were sent.
	flushed := make(chan error, 1)
	go func() { flushed <- p.Flush(ctx) }()
	for p.InFlight() == 0 {
		select {
		case err := <-flushed:
			if err == nil {
				err = fmt.Errorf("%s is too small: it was sent before the server could be killed", s.opt.file)
			}
			return err
		default:
		}
	}
	s.kill(ctx, p)
	return <-flushed
}

// progress says now and then how far it is.
func (s *sender) progress(c *corpus) {
	if now := time.Now(); now.Sub(s.said) > time.Second {
		if !s.said.IsZero() {
			s.opt.printf("  %5.1f s  %d of %d lines acknowledged", now.Sub(s.started).Seconds(), s.acked.Load(), c.lines)
		}
		s.said = now
	}
}

// kill kills the server, with batches in flight, and starts it again at the same
// address, while sending goes on.
func (s *sender) kill(ctx context.Context, p *client.Producer) {
	inFlight := p.InFlight()
	s.server.kill()
	s.opt.printf("killed the server with SIGKILL at %d acknowledged lines, %d batches in flight", s.acked.Load(), inFlight)
	s.restarted = make(chan error, 1)
	go func() {
		again, err := s.opt.start(ctx, s.server.addr)
		if err == nil {
			s.server = again
			s.opt.printf("server is back at %s", again.addr)
		}
		s.restarted <- err
	}()
}
