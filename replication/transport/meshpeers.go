package transport

import (
	"context"
	"errors"
	"fmt"
)

// Serve implements Peers.
func (m *Mesh) Serve(a Answerer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answerer = a
}

// answer answers a call of another node.
func (m *Mesh) answer(ctx context.Context, from int32, method Method, payload []byte) ([]byte, error) {
	m.mu.Lock()
	answerer := m.answerer
	m.mu.Unlock()
	if answerer == nil {
		return nil, fmt.Errorf("%w: node %d answers no calls", ErrUnreachable, m.opt.Node)
	}
	b, err := answerer(ctx, from, method, payload)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: node %d: %w", ErrRefused, m.opt.Node, errors.New(err.Error()))
	case len(b) > MaxCallBytes:
		return nil, fmt.Errorf("%w: node %d: answer of %d bytes, at most %d", ErrRefused, m.opt.Node, len(b), MaxCallBytes)
	}
	return b, nil
}

// Call implements Peers. A call to this very node is answered by it.
func (m *Mesh) Call(ctx context.Context, node int32, method Method, payload []byte) ([]byte, error) {
	if len(payload) > MaxCallBytes {
		return nil, fmt.Errorf("transport: call of %d bytes to node %d, at most %d", len(payload), node, MaxCallBytes)
	}
	if node == m.opt.Node {
		return m.answer(ctx, node, method, append([]byte(nil), payload...))
	}
	l, err := m.link(node)
	if err != nil {
		return nil, err
	}
	answers := make(chan nodeAnswer, 1)
	o := &outbound{
		h:     frameHeader{kind: frameRequest, op: opCall, total: uint32(callHeadBytes + len(payload))},
		parts: [][]byte{append([]byte{byte(method)}, payload...)}, // its own: the caller's may change when ctx has ended
		land: func(code answerCode, body []byte, err error) {
			if err == nil {
				err = errorOf(code, body)
			}
			if err != nil {
				body = nil
			}
			answers <- nodeAnswer{body, err}
		},
	}
	o.link = l
	l.submit(o)
	select {
	case a := <-answers:
		return a.payload, a.err
	case <-ctx.Done():
		l.abandon(o)
		return nil, ctx.Err()
	}
}
