package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// coordinators is which node looks after each group, as far as it was asked for.
type coordinators struct {
	mu      sync.Mutex
	byGroup map[string]string // address
}

func (cs *coordinators) known(group string) string {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.byGroup[group]
}

func (cs *coordinators) learn(group, addr string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.byGroup == nil {
		cs.byGroup = make(map[string]string)
	}
	cs.byGroup[group] = addr
}

// forget takes note that a node does not look after a group any more, or does not
// answer. Somebody else may have learnt of another one meanwhile.
func (cs *coordinators) forget(group, addr string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.byGroup[group] == addr {
		delete(cs.byGroup, group)
	}
}

// findCoordinator asks some node who looks after a group, once.
func (c *Client) findCoordinator(ctx context.Context, group string, patience time.Duration) (addr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l, resp := c.anyLink(), new(pb.FindCoordinatorResponse)
	_, sent, err := l.do(ctx, &call{
		kind: frame.KindFindCoordinator, req: &pb.FindCoordinatorRequest{Group: group}, resp: resp, feature: frame.FeatureGroups,
	})
	switch {
	case err != nil:
		c.links.next.Add(1)
		return "", l.noAnswer(err, sent, patience)
	case resp.GetNode().GetAddress() == "":
		return "", fmt.Errorf("%w: a coordinator without an address", ErrProtocol)
	}
	c.groups.learn(group, resp.Node.Address)
	return resp.Node.Address, nil
}

// askCoordinatorOnce sends a request to the node that looks after a group, which it
// finds out first if it is not known. sent says that the node may have seen it.
//
// As long as there is no answer, other nodes are asked whether that node still looks
// after the group; the request is given up only if another one does: what the first
// may yet do with it is refused then.
func (c *Client) askCoordinatorOnce(ctx context.Context, group string, kind frame.Kind, req, resp proto.Message, failures int) (sent bool, err error) {
	addr := c.groups.known(group)
	if addr == "" {
		if addr, err = c.findCoordinator(ctx, group, c.patience(failures)); err != nil {
			return false, c.endOf(err)
		}
	}
	result := make(chan answer, 1)
	own := resp.ProtoReflect().New().Interface() // one that is given up may be answered yet
	cl := &call{kind: kind, req: req, resp: own, feature: frame.FeatureGroups, done: func(a answer) { result <- a }}
	l := c.link(addr)
	l.submit(cl)
	for waits := 0; ; waits++ {
		timer := time.NewTimer(c.patience(waits))
		select {
		case a := <-result:
			timer.Stop()
			if a.err == nil {
				proto.Merge(resp, own)
			} else if isMoved(a.err) {
				c.groups.forget(group, addr)
			}
			return a.sent, a.err
		case <-ctx.Done():
			timer.Stop()
			return !l.unqueue(cl), c.endOf(ctx.Err())
		case <-timer.C:
		}
		if c.alone(c.meta.image.Load()) {
			continue
		}
		if now, err := c.findCoordinator(ctx, group, c.patience(0)); err == nil && now != addr {
			return !l.unqueue(cl), fmt.Errorf("%w: %s: no answer, and another node looks after the group by now", ErrConnection, addr)
		}
	}
}

// endOf is ErrClosed if the Client was closed, and err otherwise.
func (c *Client) endOf(err error) error {
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// isMoved reports errors that mean: ask again who looks after the group.
func isMoved(err error) bool {
	code, answered := CodeOf(err)
	return !answered || code == errcode.NotCoordinator || code == errcode.CoordinatorNotAvailable
}

// askCoordinator is askCoordinatorOnce until there is an answer that is not
// retriable, or ctx ends: for what does no more if it is done twice.
func (c *Client) askCoordinator(ctx context.Context, group string, kind frame.Kind, req, resp proto.Message) (sent bool, err error) {
	for failures := 1; ; failures++ {
		once, err := c.askCoordinatorOnce(ctx, group, kind, req, resp, failures-1)
		sent = sent || once
		if err == nil || !retriable(err) || c.meta.image.Load().hopeless(err) {
			return sent, noGroups(err)
		}
		if !pause(ctx, c.backoff(failures)) {
			return sent, errors.Join(c.endOf(ctx.Err()), err)
		}
	}
}

// noGroups says what is missing where a node does not know of groups.
func noGroups(err error) error {
	if errors.Is(err, errNoFeature) {
		return ErrNoGroups
	}
	return err
}
