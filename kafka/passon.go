package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
)

// Of what the node that leads the metadata does, clients may ask any node (KIP-590):
// Java's and sarama's ask for changes of configs wherever they are connected. The bytes
// of such a request are passed on, and served there as those of a connection of its own.

// passedOn is the listener of requests that come from other nodes, and are passed on no
// further.
var passedOn = broker.Listener{Name: "passed on by another node"}

// always says of any request that the node that leads the metadata may answer it.
func always[R kmsg.Request](R) bool { return true }

// alterConfigsOfAny is false of changes of a node's own settings: it answers them itself.
func alterConfigsOfAny(req *kmsg.AlterConfigsRequest) bool {
	return !slices.ContainsFunc(req.Resources, func(r kmsg.AlterConfigsRequestResource) bool { return ofNode(r.ResourceType, r.ResourceName) })
}

// incrementalAlterConfigsOfAny is alterConfigsOfAny.
func incrementalAlterConfigsOfAny(req *kmsg.IncrementalAlterConfigsRequest) bool {
	return !slices.ContainsFunc(req.Resources, func(r kmsg.IncrementalAlterConfigsRequestResource) bool {
		return ofNode(r.ResourceType, r.ResourceName)
	})
}

func ofNode(kind kmsg.ConfigResourceType, name string) bool {
	return kind == kmsg.ConfigResourceTypeBroker && name != ""
}

// passOn has the node that leads the metadata answer q, and returns the answer's body.
// broker.ErrAnswerHere says that this node is to.
func (s *Server) passOn(q *request) ([]byte, error) {
	answer, err := s.broker.PassOn(q.ctx, q.raw)
	if err != nil {
		return nil, err
	}
	header := lengthBytes // the correlation id
	if q.flexible() {
		header++ // no tags
	}
	if len(answer) < header {
		return nil, fmt.Errorf("%w: a passed on %s version %d has an answer of %d bytes", errMalformed, q.api.name, q.version, len(answer))
	}
	if !q.peer.hold(q.ctx, int64(len(answer))) {
		return nil, errors.Join(q.refused, errUnanswered)
	}
	q.recycle()
	return answer[header:], nil
}

// AnswerPassedOn answers a request that a node passed on to this one, with all of the
// answer but its length. What it cannot serve matches broker.ErrAnswerHere.
func (s *Server) AnswerPassedOn(ctx context.Context, from int32, request []byte) ([]byte, error) {
	if err := s.mayPassOn(request); err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serve(fromNode{far, from}, nil, passedOn)
	}()
	defer func() {
		_ = near.Close()
		<-served
	}()
	defer context.AfterFunc(ctx, func() { _ = near.Close() })()
	if _, err := near.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(request))), request...)); err != nil {
		return nil, fmt.Errorf("kafka: a request that node %d passed on: %w", from, err)
	}
	var length [lengthBytes]byte
	if _, err := io.ReadFull(near, length[:]); err != nil {
		return nil, fmt.Errorf("kafka: no answer to what node %d passed on: %w", from, noEOF(err))
	}
	answer := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(near, answer); err != nil {
		return nil, fmt.Errorf("kafka: the answer to what node %d passed on: %w", from, noEOF(err))
	}
	return answer, nil
}

// mayPassOn refuses requests that are not for another node to pass on, or not now.
func (s *Server) mayPassOn(request []byte) error {
	if s.ctx.Err() != nil {
		return fmt.Errorf("%w: this one is stopping", broker.ErrAnswerHere)
	}
	if len(request) < fixedHeaderBytes {
		return fmt.Errorf("%w: a request of %d bytes", broker.ErrAnswerHere, len(request))
	}
	key, version := int16(binary.BigEndian.Uint16(request)), int16(binary.BigEndian.Uint16(request[2:]))
	if a := s.apis.find(key); a == nil || a.controlled == nil || version < a.min || version > a.max {
		return fmt.Errorf("%w: key %d version %d", broker.ErrAnswerHere, key, version)
	}
	return nil
}

// fromNode is a connection that a request of another node is served on.
type fromNode struct {
	net.Conn
	node int32
}

// RemoteAddr implements net.Conn.
func (f fromNode) RemoteAddr() net.Addr { return nodeAddr(f.node) }

// nodeAddr is where a request comes from that a node passed on.
type nodeAddr int32

// Network implements net.Addr.
func (nodeAddr) Network() string { return "node" }

// String implements net.Addr.
func (n nodeAddr) String() string { return fmt.Sprintf("a client of node %d", int32(n)) }
