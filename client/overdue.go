package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

const (
	// idleStreamProbes is how many times OverdueAfter a connection with streams
	// may be silent before it is probed: who waits for deliveries has no request
	// under way whose answer could be overdue.
	idleStreamProbes = 2

	// graceFactor is how many times OverdueAfter a node that answers probes has
	// to say by itself that it does not lead any more.
	graceFactor = 4

	// maxOverdueGap is the longest time between two questions about who leads
	// while an answer is overdue.
	maxOverdueGap = 4 * time.Second
)

// attend looks after what waits on the link until ctx ends. It is a goroutine of
// its own since the session's may be held up by a peer that reads nothing.
func (l *link) attend(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		img, changed := l.c.meta.watch()
		timer.Reset(l.inspect(l.c.cfg.Now(), img))
		select {
		case <-l.stir:
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// inspect acts on what is overdue, and returns when to look again. Whoever
// submits a call stirs it before that, if nothing waited.
//
// A request is overdue that has had no answer for OverdueAfter. That alone proves
// nothing, as a disk may be slow: other nodes are asked who leads, and the node
// is probed. Only if they name a newer leader of what the request is about is it
// given up, to be sent there: at once if it was not written or the node is
// silent, and if the node is not, when it has had its chance to say so itself. A
// node is silent that owes the answer to a probe, and from which nothing was read,
// for OverdueAfter.
func (l *link) inspect(now time.Time, img *image) (next time.Duration) {
	patience := l.c.cfg.OverdueAfter
	next = math.MaxInt64
	var oldest time.Time // since when the oldest overdue call has waited
	overdue := func(cl *call) bool {
		left := cl.since.Add(patience).Sub(now)
		if left > 0 {
			next = min(next, left)
			return false
		}
		if oldest.IsZero() || cl.since.Before(oldest) {
			oldest = cl.since
		}
		return true
	}
	led := time.Duration(-1) // how long the oldest that others lead has waited

	l.mu.Lock()
	var back []*call
	kept := l.queue[:0:0]
	for _, cl := range l.queue {
		if overdue(cl) && cl.moved != nil && cl.moved(img) {
			back = append(back, cl)
		} else {
			kept = append(kept, cl)
		}
	}
	l.queue = kept
	for _, cl := range l.pending {
		if overdue(cl) && cl.moved != nil && cl.moved(img) {
			led = max(led, now.Sub(cl.since))
		}
	}
	connected := l.session != nil
	listens := connected && len(l.pushes) > 0 && !l.c.alone(img)
	heard := time.Unix(0, l.lastRead.Load())
	late := !oldest.IsZero()
	silent := l.probing && min(now.Sub(l.probedAt), now.Sub(heard)) >= patience
	if listens {
		next = min(next, max(heard.Add(idleStreamProbes*patience).Sub(now), patience/2))
	}
	probe := connected && !l.probing && now.Sub(l.probedAt) >= patience &&
		(late || listens && now.Sub(heard) >= idleStreamProbes*patience)
	if probe {
		l.probing, l.probedAt = true, now
	}
	if late {
		next = min(next, patience)
	}
	var ends net.Conn
	if connected && led >= 0 && (silent || led >= graceFactor*patience) {
		l.verdict = fmt.Errorf("%w: %s: no answer for %v, and another node leads by now", ErrConnection, l.addr, led)
		ends = l.session.nc
	}
	l.attended = next != math.MaxInt64
	l.late.Store(late)
	l.mu.Unlock()

	if ends != nil {
		ends.Close() // also ends a Write; the session fails all its calls
	}
	for _, cl := range back {
		l.finish(cl, answer{err: fmt.Errorf("%w: %s: not sent, and another node leads by now", ErrConnection, l.addr)})
	}
	if probe {
		l.submit(&call{kind: frame.KindPing, req: &pb.Ping{}, resp: &pb.Pong{}, done: func(answer) {
			l.mu.Lock()
			l.probing = false
			l.mu.Unlock()
		}})
	}
	if late {
		l.c.askElsewhere(now, now.Sub(oldest))
	}
	return max(next, time.Millisecond) // whatever the clock does
}

// alone reports that there is one node as far as is known, and nobody else to ask.
func (c *Client) alone(img *image) bool { return len(img.nodes) < 2 && len(c.cfg.Bootstrap) < 2 }

// askElsewhere asks for metadata since an answer is overdue by so long, which
// anyLink asks nodes for that owe none. However many are overdue, it does so once
// in OverdueAfter, and less often the longer it takes, so that a cluster that is
// slow is not made slower.
func (c *Client) askElsewhere(now time.Time, waited time.Duration) {
	if c.alone(c.meta.image.Load()) {
		return
	}
	gap := min(max(waited/4, c.cfg.OverdueAfter), max(maxOverdueGap, c.cfg.OverdueAfter))
	m := &c.meta
	m.mu.Lock()
	due := now.Sub(m.askedElsewhere) >= gap
	if due {
		m.askedElsewhere = now
	}
	m.mu.Unlock()
	if due {
		poke(m.refresh)
	}
}

// patience is how long one node may take to answer a request that any other
// could answer as well, after so many failures in a row: it grows, so that a
// cluster that is slow is understood in the end.
func (c *Client) patience(failures int) time.Duration {
	d := c.cfg.OverdueAfter
	for range failures {
		if d *= 2; d >= c.cfg.RequestTimeout {
			break
		}
	}
	return min(d, c.cfg.RequestTimeout)
}

// noAnswer says what it means that l did not answer within d, if it means that.
func (l *link) noAnswer(err error, sent bool, d time.Duration) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if !sent {
		return l.lastError()
	}
	return fmt.Errorf("%w: %s: no answer within %v", ErrTimeout, l.addr, d)
}

// elsewhere reports whether img has a newer leader of a partition than node was
// under epoch, which is another node whose address is known.
func (img *image) elsewhere(topic string, id TopicID, partition, node, epoch int32) bool {
	t := img.topics[topic]
	if t == nil || t.err != nil || t.id != id || int(partition) >= len(t.leaders) {
		return false
	}
	now := t.leaders[partition]
	_, known := img.nodes[now.node]
	return known && now.node != node && now.epoch > epoch
}
