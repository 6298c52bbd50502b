package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodRequest has the node that leads the metadata answer a request of a client of
// another node. It is answered as methodPropose is, and without an error the answer for
// the client follows; index is that of the metadata when that was made.
const methodRequest transport.Method = 10

const (
	maxPassedOnBytes = 1 << 20 // of a request
	maxPassedOn      = 64      // requests of other nodes' clients under way at once

	// passingBytes bounds those of this node's own clients that are under way: they are
	// to leave room for what else the nodes ask of each other. Each counts as
	// passingEach more than it has.
	passingBytes = 4 << 20
	passingEach  = 1 << 10

	// passedOnTimeout bounds how long a client's request may take elsewhere.
	passedOnTimeout = time.Minute
)

// ErrAnswerHere says of a request that it is not passed on.
var ErrAnswerHere = errors.New("broker: this node answers it")

// PassedOn answers a request that came from a client of another node, in the bytes of
// the client's protocol. It does not keep request, and gives answer away. With
// ErrAnswerHere it has done nothing, and the other node is to answer.
type PassedOn func(ctx context.Context, from int32, request []byte) (answer []byte, err error)

// ServePassedOn has requests answered that other nodes pass on to this one. Until then
// they are refused.
func (b *Broker) ServePassedOn(answer PassedOn) { b.passedOn.Store(&answer) }

// PassOn has the node that leads the metadata answer a request of a client, and returns
// its answer once this node has applied the metadata that it is of, or a little later.
// ErrAnswerHere says that nothing was done: this node leads the metadata, or nobody does
// that can be reached, or would answer. After any other error the request may have taken
// effect. It does not keep request.
func (b *Broker) PassOn(ctx context.Context, request []byte) ([]byte, error) {
	if len(request) > maxPassedOnBytes {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are passed on", ErrAnswerHere, len(request), maxPassedOnBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, passedOnTimeout)
	defer cancel()
	soon, cancel := context.WithTimeout(ctx, forwardAnswer)
	defer cancel()
	n := int64(len(request)) + passingEach
	if err := b.passing.Acquire(soon, n); err != nil {
		return nil, fmt.Errorf("%w: others are under way: %w", ErrAnswerHere, err)
	}
	defer b.passing.Release(n)
	for wait := firstForward; ; wait = min(2*wait, lastForward) {
		if b.opt.Cluster == nil || b.opt.Cluster.Peers == nil || b.meta.Leading() != 0 {
			return nil, ErrAnswerHere
		}
		if node, _, known := leaderOfShard(b.meta); known && node != b.opt.NodeID {
			answer, moved, err := b.passOnTo(ctx, node, request)
			if !moved {
				return answer, err
			}
		}
		select {
		case <-time.After(wait): // another one may lead by then
		case <-soon.Done():
			return nil, ErrAnswerHere
		case <-b.stopping.Done():
			return nil, ErrAnswerHere
		}
	}
}

// passOnTo is PassOn to a node that may lead the metadata. moved says that it did nothing,
// as it cannot be reached or does not lead: by and by another one will.
func (b *Broker) passOnTo(ctx context.Context, node int32, request []byte) (answer []byte, moved bool, err error) {
	reply, err := b.opt.Cluster.Peers.Call(ctx, node, methodRequest, request)
	switch {
	case errors.Is(err, transport.ErrUnreachable):
		return nil, true, nil
	case errors.Is(err, transport.ErrRefused): // by an older version
		return nil, false, fmt.Errorf("%w: %w", ErrAnswerHere, err)
	case err != nil:
		return nil, false, err
	}
	out, answer, err := decodeOutcome(reply)
	switch {
	case err != nil:
		return nil, false, err
	case out.err != nil:
		return nil, again(out.err.Code), out.err
	}
	within, cancel := context.WithTimeout(ctx, currentTimeout)
	defer cancel()
	_ = b.awaitApplied(within, out.index) // later is not wrong: a client may ask any node next
	return answer, false, nil
}

// answerRequest answers a request of a client of another node.
func (b *Broker) answerRequest(ctx context.Context, from int32, request []byte) ([]byte, error) {
	serve := b.passedOn.Load()
	switch {
	case len(request) > maxPassedOnBytes:
		return nil, fmt.Errorf("a client's request of %d bytes of node %d, at most %d", len(request), from, maxPassedOnBytes)
	case serve == nil:
		return nil, errors.New("no requests of other nodes' clients are served")
	}
	ctx, cancel := context.WithTimeout(ctx, passedOnTimeout)
	defer cancel()
	defer context.AfterFunc(b.stopping, cancel)()
	select {
	case b.requests <- struct{}{}:
		defer func() { <-b.requests }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%d requests of other nodes' clients are under way already, or the node stops: %w", maxPassedOn, ctx.Err())
	}
	var answer []byte
	var err error
	out := b.answerNode(ctx, from, func(ctx context.Context) forwarded {
		if answer, err = (*serve)(ctx, from, request); err != nil {
			return forwarded{err: errcode.Errorf(errcode.UnknownServer, "%v", err), producerID: -1, leader: -1}
		}
		return forwarded{index: b.image().Index(), producerID: -1, leader: -1}
	})
	if errors.Is(err, ErrAnswerHere) {
		return nil, err
	}
	return append(out.append(nil), answer...), nil
}
