package killtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/history"
)

// finish kills the server once more when all is answered, and reads everything
// back. Afterwards the load has ended and the server has stopped as it should.
func (r *round) finish(ctx context.Context) error {
	if err := r.start(nil); err != nil {
		return err
	}
	if err := r.serving(ctx); err != nil {
		return err
	}
	if err := r.progress(1); err != nil {
		return err
	}
	if err := r.shut(); err != nil {
		return err
	}
	r.srv.signal(syscall.SIGKILL)
	<-r.srv.gone
	if _, err := r.bury(closedInts, nil); err != nil {
		return err
	}
	if err := r.start(nil); err != nil {
		return err
	}
	if err := r.serving(ctx); err != nil {
		return err
	}
	if err := r.load.readAll(); err != nil {
		return err
	}
	r.load.stop()
	r.srv.signal(syscall.SIGTERM)
	return r.awaitEnd()
}

// closedInts stands for a kill with nothing in flight.
var closedInts = func() <-chan int { c := make(chan int); close(c); return c }()

// awaitEnd waits until the server has stopped after SIGTERM, without a fault.
func (r *round) awaitEnd() error {
	timeout := time.NewTimer(phaseTimeout)
	defer timeout.Stop()
	select {
	case <-r.srv.gone:
	case <-timeout.C:
		return r.srv.stuck("the server does not stop after SIGTERM")
	}
	_, err := r.bury(closedInts, nil)
	return err
}

// readAll reads every partition of every topic from its beginning to its end,
// and asks which topics there are.
func (l *load) readAll() error {
	ctx, cancel := context.WithTimeoutCause(l.ctx, phaseTimeout, errors.New("the final reads do not end"))
	defer cancel()
	c, err := l.connect()
	if err != nil {
		return err
	}
	exists, err := listed(ctx, c)
	if err != nil {
		return err
	}
	for i, name := range slices.Sorted(maps.Keys(exists)) {
		err := l.readTopic(ctx, c, finalProcess+int32(i), name)
		if _, saw := judge(history.DescribeTopic, err); saw == history.Absent { // the node that has listed it was behind
			if exists, err = listed(ctx, c); exists[name] {
				err = fmt.Errorf("topic %s is listed, and its leaders do not know it", name)
			}
		}
		if err != nil {
			return err
		}
	}
	// Nothing above what is answered now may have been missing.
	if err := l.logStarts(ctx, finalProcess, c.Admin()); err != nil {
		return err
	}
	for i := range churnTopics {
		name := churnTopic(i)
		l.ask(finalProcess, c.Admin(), history.DescribeTopic, topicSpec(name, 2), !exists[name])
	}
	return nil
}

// listed returns the topics that there are, as far as the node knows that is asked.
func listed(ctx context.Context, c *client.Client) (map[string]bool, error) {
	topics, err := c.Admin().ListTopics(ctx)
	exists := make(map[string]bool)
	for _, t := range topics {
		exists[t.Name] = true
	}
	return exists, err
}

// readTopic reads a topic from its beginning to its end.
func (l *load) readTopic(ctx context.Context, c *client.Client, process int32, topic string) error {
	ends, err := c.Admin().Offsets(ctx, topic, client.Latest)
	if err != nil {
		return err
	}
	co, err := l.assign(c, process, topic, int32(len(ends)))
	if err != nil {
		return err
	}
	defer func() { _ = co.Close() }()
	for p, end := range ends {
		for end > 0 {
			if at, err := co.Position(topic, int32(p)); err != nil {
				return err
			} else if at >= end {
				break
			}
			if _, err := l.poll(ctx, process, co); err != nil {
				return fmt.Errorf("final read of %s: %w", topic, errors.Join(err, context.Cause(ctx)))
			}
		}
	}
	return nil
}
