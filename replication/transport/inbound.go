package transport

import (
	"context"
	"errors"
	"fmt"
)

// expect looks at the first frame of a message, before anything is allocated for
// it: a request has to fit in its window, an answer to be one.
func (s *session) expect(h frameHeader) (*inbound, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if h.kind == frameAnswer {
		if o := s.outs[h.number]; o == nil || o.h.op != h.op {
			return nil, fmt.Errorf("%w: an answer to what was not asked: %+v", errFrame, h)
		}
		return nil, nil
	}
	in := &inbound{h: h}
	in.class, in.weight = h.weigh()
	w := &s.windows[in.class]
	switch {
	case s.dialled:
		return nil, fmt.Errorf("%w: a request from the end that answers: %+v", errFrame, h)
	case s.ins[h.number] != nil:
		return nil, fmt.Errorf("%w: a second request of this number: %+v", errFrame, h)
	case s.owed >= maxOwed:
		return nil, fmt.Errorf("%w: node %d does not take the answers to %d requests", errFrame, s.node, maxOwed)
	case !w.fits(in.weight):
		return nil, fmt.Errorf("%w: node %d sends %d bytes on top of %d unanswered, at most %d: %+v", errFrame, s.node, in.weight, w.used, w.limit, h)
	}
	w.used += in.weight
	s.owed++
	s.ins[h.number] = in
	return in, nil
}

// take begins to answer a request that is here in full.
func (s *session) take(in *inbound, body []byte) error {
	if in.h.op == opCall {
		s.call(in, Method(body[0]), body[callHeadBytes:])
		return nil
	}
	incarnation, command, snapshot, err := decodeRequest(in.h.op, body)
	if err != nil {
		return err
	}
	m, err := s.mesh.find(ShardID(in.h.shard), ReplicaID{Node: s.mesh.opt.Node, Incarnation: incarnation})
	if err != nil {
		s.reply(in, nil, err)
		return nil
	}
	withdraw := m.take(command, snapshot, func(answer any, err error) { s.reply(in, answer, err) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.cancel = withdraw; in.gone || s.err != nil {
		withdraw() // it was cancelled meanwhile
	}
	return nil
}

// call has the node's Answerer answer, at once or when less is waiting to be
// written.
func (s *session) call(in *inbound, m Method, payload []byte) {
	ctx, cancel := context.WithCancel(s.mesh.ctx)
	begin := func() {
		s.mesh.group.Go(func() {
			defer cancel()
			answer, err := s.mesh.answer(ctx, s.node, m, payload)
			s.mu.Lock()
			defer s.mu.Unlock()
			code := codeOf(err, answerRefused)
			if err != nil {
				answer = []byte(textOf(err))
			}
			s.answerLocked(in, code, answer)
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case in.gone || s.err != nil:
		cancel()
		s.answerLocked(in, answerWithdrawn, nil)
		return
	case s.waiting > callWindowBytes:
		s.held = append(s.held, begin)
	default:
		begin()
	}
	in.cancel = cancel
}

// codeOf says what an error is called between nodes.
func codeOf(err error, other answerCode) answerCode {
	switch {
	case err == nil:
		return answerOK
	case err == errGone:
		return answerWithdrawn
	case errors.Is(err, ErrUnreachable):
		return answerUnreachable
	case errors.Is(err, ErrOtherReplica):
		return answerOther
	}
	return other
}

// errorOf is the inverse of codeOf.
func errorOf(code answerCode, text []byte) error {
	e := &farError{text: string(text)}
	switch code {
	case answerOK:
		return nil
	case answerUnreachable:
		e.is = ErrUnreachable
	case answerWithdrawn:
		return errGone
	case answerOther:
		e.is = ErrOtherReplica
	case answerRefused:
		e.is = ErrRefused
	}
	return e
}

// farError is an error that came from another node, with its text there.
type farError struct {
	text string
	is   error // the sentinel that it matches, or nil
}

func (e *farError) Error() string { return e.text }

// Is makes errors.Is say what it said at the other node.
func (e *farError) Is(target error) bool { return e.is != nil && target == e.is }

// textOf is the text of an error, within bounds.
func textOf(err error) string {
	text := err.Error()
	return text[:min(len(text), maxTextBytes)]
}

// reply answers a request of Raft's.
func (s *session) reply(in *inbound, answer any, err error) {
	var body []byte
	if err == nil {
		body, err = encodeAnswer(answer)
	}
	if err == nil && len(body) > maxAnswerBytes {
		err = fmt.Errorf("transport: answer of %d bytes, at most %d", len(body), maxAnswerBytes)
	}
	code := codeOf(err, answerError)
	if err != nil {
		body = []byte(textOf(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answerLocked(in, code, body)
}

// answerLocked sends an answer, the first of a request.
func (s *session) answerLocked(in *inbound, code answerCode, body []byte) {
	if s.err != nil || s.ins[in.h.number] != in {
		return
	}
	if in.gone || code == answerWithdrawn {
		code, body = answerWithdrawn, nil // nobody reads it: it only gives back what the request counted for
	}
	delete(s.ins, in.h.number)
	s.windows[in.class].used -= in.weight
	h := frameHeader{kind: frameAnswer, op: in.h.op, code: code, number: in.h.number, shard: in.h.shard, total: uint32(len(body))}
	l, stream := s.lanes[small], uint64(0)
	if len(body) > smallBytes {
		l, stream = s.lanes[bulk], h.stream()
	}
	if s.mesh.oneLane {
		l = s.lanes[bulk]
	}
	s.waiting += int64(len(body))
	m := &message{h: h, parts: [][]byte{body}, written: func() {
		s.owed--
		s.waiting -= int64(len(body))
		if len(s.held) > 0 && s.waiting <= callWindowBytes {
			begin := s.held[0]
			s.held = s.held[1:]
			begin()
		}
	}}
	l.pushLocked(stream, m)
}

// cancelLocked says that nobody waits for a request's answer any more. One that
// is answered already may be unknown.
func (s *session) cancelLocked(number uint64) {
	in := s.ins[number]
	if in == nil || in.gone {
		return
	}
	in.gone = true
	if in.cancel != nil {
		in.cancel()
	}
}
