package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// A request to the node that leads the metadata shard is
//
//	methodPropose   a metadata command, as it stands in the log, decided in term 0
//	methodTopic     the name of a topic to create if it does not exist, with the
//	                leader's defaults, those of __consumer_offsets among them
//	methodCurrent   nothing: how far is the metadata? (lookup.go)
//	methodRequest   a request of a client of the asker's (passon.go)
//
// and is answered (little-endian, offsets in bytes) by
//
//	0        1          2      4       12            20            24     26
//	+--------+----------+------+-------+-------------+-------------+------+------+
//	| format | reserved | code | index | producer id | leader node | text | text |
//	|        | 0        |      |       | -1: none    | -1: unknown | size |      |
//	+--------+----------+------+-------+-------------+-------------+------+------+
//
// code is errcode's. With NOT_CONTROLLER nothing was done, and leader node is
// whom to ask. index is the metadata index at which what was asked is there.
const (
	forwardedFormat      = 1
	forwardedHeaderBytes = 26

	maxForwardedText = 1 << 10  // of an answer
	maxForwardBytes  = 64 << 10 // of a request
	maxForwarded     = 64       // requests of other nodes under way at once

	// forwardTimeout bounds the work for a request of another node, and
	// forwardAnswer how long this one waits for an answer before it asks again: who
	// leads may be another one by then.
	forwardTimeout = 10 * time.Second
	forwardAnswer  = 2 * time.Second

	// The waits between two attempts.
	firstForward = 20 * time.Millisecond
	lastForward  = 500 * time.Millisecond
)

// forwarded is the answer to what a node asked of the metadata shard's leader.
type forwarded struct {
	err        *errcode.Error // nil: done
	index      uint64
	producerID int64
	leader     int32 // node; -1: unknown
}

// append appends the answer's bytes to dst. A longer text is cut.
func (f forwarded) append(dst []byte) []byte {
	var code errcode.Code
	text := ""
	if f.err != nil {
		code, text = f.err.Code, f.err.Detail
		text = text[:min(len(text), maxForwardedText)]
	}
	dst = append(dst, forwardedFormat, 0)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(code))
	dst = binary.LittleEndian.AppendUint64(dst, f.index)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(f.producerID))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(f.leader))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(text)))
	return append(dst, text...)
}

// errForwarded reports bytes that are no answer of another node.
var errForwarded = errors.New("broker: not an answer of another node")

// decodeForwarded reads an answer that nothing follows. Its errors match errForwarded.
func decodeForwarded(b []byte) (forwarded, error) {
	f, rest, err := decodeOutcome(b)
	if err == nil && len(rest) > 0 {
		return forwarded{}, fmt.Errorf("%w: %d bytes follow it", errForwarded, len(rest))
	}
	return f, err
}

// decodeOutcome reads an answer, and returns what follows it too, which is nothing after
// an error of the other node's. Its errors match errForwarded.
func decodeOutcome(b []byte) (f forwarded, rest []byte, err error) {
	switch {
	case len(b) > 0 && b[0] != forwardedFormat:
		return forwarded{}, nil, fmt.Errorf("%w: format %d, this version reads %d", errForwarded, b[0], forwardedFormat)
	case len(b) < forwardedHeaderBytes:
		return forwarded{}, nil, fmt.Errorf("%w: %d bytes, want at least %d", errForwarded, len(b), forwardedHeaderBytes)
	}
	rest = b[forwardedHeaderBytes:]
	code := errcode.Code(binary.LittleEndian.Uint16(b[2:]))
	size := int(binary.LittleEndian.Uint16(b[24:]))
	if b[1] != 0 || size > min(len(rest), maxForwardedText) || code == errcode.None && size > 0 || code != errcode.None && size < len(rest) {
		return forwarded{}, nil, fmt.Errorf("%w: code %d, reserved %d, a text of %d bytes, %d follow", errForwarded, code, b[1], size, len(rest))
	}
	text := rest[:size]
	rest = rest[size:]
	f = forwarded{
		index: binary.LittleEndian.Uint64(b[4:]), producerID: int64(binary.LittleEndian.Uint64(b[12:])),
		leader: int32(binary.LittleEndian.Uint32(b[20:])),
	}
	if code != errcode.None {
		f.err = &errcode.Error{Code: code, Detail: string(text)}
	}
	return f, rest, nil
}

// answerForwarded answers a request of another node to the one that leads the
// metadata, which it takes this one for.
func (b *Broker) answerForwarded(ctx context.Context, from int32, m transport.Method, payload []byte) ([]byte, error) {
	var do func(context.Context) forwarded
	switch {
	case len(payload) > maxForwardBytes:
		return nil, fmt.Errorf("a request of %d bytes of node %d, at most %d", len(payload), from, maxForwardBytes)
	case m == methodCurrent && len(payload) > 0:
		return nil, fmt.Errorf("node %d asks how far the metadata is with %d bytes, want none", from, len(payload))
	case m == methodCurrent:
		do = b.currentHere
	case m == methodTopic:
		do = func(ctx context.Context) forwarded { return b.createHere(ctx, string(payload)) }
	default:
		term, c, err := metadata.Decode(payload)
		if err == nil && term != 0 {
			err = fmt.Errorf("decided in term %d", term)
		}
		if err != nil {
			return nil, fmt.Errorf("a metadata command of node %d: %w", from, err)
		}
		if err := mayPropose(from, c); err != nil {
			return forwarded{err: err, producerID: -1, leader: -1}.append(nil), nil
		}
		do = func(ctx context.Context) forwarded { return b.registerHere(ctx, c) }
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	defer context.AfterFunc(b.stopping, cancel)()
	select {
	case b.forwards <- struct{}{}:
		defer func() { <-b.forwards }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%d requests of other nodes are under way already, or the node stops: %w", maxForwarded, ctx.Err())
	}
	return b.answerNode(ctx, from, do).append(nil), nil
}

// mayPropose refuses commands that are not for another node to propose.
func mayPropose(from int32, c metadata.Command) *errcode.Error {
	switch c := c.(type) {
	case metadata.RegisterNode:
		if int32(c.ID) == from && c.Replaces == 0 {
			return nil
		}
		return errcode.Errorf(errcode.InvalidRegistration, "node %d registers node %d, in the place of %016x; each node registers itself", from, c.ID, c.Replaces)
	case metadata.AllocateProducerIDs:
		return nil
	}
	return errcode.Errorf(errcode.InvalidRequest, "node %d proposes a %T, which is not for it to propose", from, c)
}

// answerNode does what a registered node asks, if this one leads the metadata.
func (b *Broker) answerNode(ctx context.Context, from int32, do func(context.Context) forwarded) forwarded {
	out := forwarded{producerID: -1, leader: -1}
	switch {
	case b.meta.Leading() == 0:
		out.err = errcode.Errorf(errcode.NotController, "node %d does not lead the metadata", b.opt.NodeID)
	case b.image().Node(metadata.NodeID(from)) == nil:
		out.err = errcode.Errorf(errcode.BrokerIDNotRegistered, "node %d is not registered", from)
	default:
		out = do(ctx)
	}
	if out.err != nil && out.err.Code == errcode.NotController {
		out.leader = -1
		if node, _, ok := leaderOfShard(b.meta); ok && node != b.opt.NodeID {
			out.leader = node
		}
	}
	return out
}

// proposeHere proposes a command on this node.
func (b *Broker) proposeHere(ctx context.Context, c metadata.Command) forwarded {
	r, err := b.proposeMeta(ctx, c)
	if err != nil {
		return forwarded{err: CodeOf(err), index: r.Index, producerID: -1, leader: -1}
	}
	return forwarded{index: r.Index, producerID: r.ProducerID, leader: -1}
}

// registerHere proposes a command of another node on this one, unless that is a
// registration which changes nothing.
func (b *Broker) registerHere(ctx context.Context, c metadata.Command) forwarded {
	if self, ok := c.(metadata.RegisterNode); ok {
		im := b.image()
		if n := im.Node(self.ID); n != nil && registered(n, self) && b.ConfirmController(ctx) == nil {
			return forwarded{index: im.Index(), producerID: -1, leader: -1}
		}
	}
	return b.proposeHere(ctx, c)
}

// createHere creates a topic on this node, unless it is there.
func (b *Broker) createHere(ctx context.Context, name string) forwarded {
	spec := TopicSpec{Name: name}
	if name == metadata.GroupsTopic {
		spec = b.offsetsSpec()
	}
	_, err := b.CreateTopic(ctx, spec)
	out := forwarded{index: b.image().Index(), producerID: -1, leader: -1}
	switch {
	case err == nil:
		b.opt.Log.Info("a topic was created, because a client asked for it", "topic", name)
	case errcode.Of(err) != errcode.TopicAlreadyExists:
		out.err = CodeOf(err)
	}
	return out
}

// proposeAnywhere proposes a command to the node that leads the metadata, from
// any node, and tries again until that is found, or ctx ends. It may be applied
// more than once, so it is for commands of which that does no harm.
func (b *Broker) proposeAnywhere(ctx context.Context, c metadata.Command) (forwarded, error) {
	return b.atLeader(ctx, methodPropose, metadata.Append(nil, 0, c), func(ctx context.Context) forwarded { return b.proposeHere(ctx, c) })
}

// EnsureTopic creates a topic with the defaults unless it exists, from any node,
// and returns it when this node knows it.
func (b *Broker) EnsureTopic(ctx context.Context, name string) (Topic, error) {
	if err := metadata.CheckTopicName(name); err != nil {
		return Topic{}, err
	}
	done, err := b.atLeader(ctx, methodTopic, []byte(name), func(ctx context.Context) forwarded { return b.createHere(ctx, name) })
	if err != nil {
		return Topic{}, err
	}
	if err := b.awaitApplied(ctx, done.index); err != nil {
		return Topic{}, err
	}
	if t := b.image().TopicByName(name); t != nil {
		if err := b.awaitPartitions(ctx, partition.TopicID(t.ID), t.Assignment, true); err != nil {
			return Topic{}, err
		}
	}
	t, missing := b.TopicByName(name)
	if missing != nil {
		return Topic{}, missing // deleted in the meantime
	}
	return t, nil
}

// awaitApplied waits until this node has applied the metadata up to an index.
func (b *Broker) awaitApplied(ctx context.Context, index uint64) error {
	for {
		changed := b.metaState.changed.wait()
		if b.image().Index() >= index || b.meta.Applied() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errcode.Errorf(errcode.RequestTimedOut, "it is done, and this node did not hear of it in time")
		case <-b.stopping.Done():
			return errcode.Errorf(errcode.RequestTimedOut, "the node is stopping")
		}
	}
}

// atLeader has the node that leads the metadata do something: this one with
// here, another one by a call. What is not known to be done is tried again until
// ctx ends.
func (b *Broker) atLeader(ctx context.Context, m transport.Method, request []byte, here func(context.Context) forwarded) (forwarded, error) {
	hint := int32(-1)
	asked := 0
	for wait := firstForward; ; wait = min(2*wait, lastForward) {
		var out forwarded
		var err error
		node, _, known := leaderOfShard(b.meta)
		if hint >= 0 {
			node, known = hint, true
		}
		if !known && !b.founder(b.opt.NodeID) {
			// It may have been away while everybody moved: the founders know.
			node, known = b.opt.Cluster.Founders[asked%len(b.opt.Cluster.Founders)].ID, true
			asked++
		}
		switch {
		case b.opt.Cluster == nil || b.meta.Leading() != 0:
			out = here(ctx)
		case !known || node == b.opt.NodeID:
			err = errors.New("nobody is known to lead the metadata")
		default:
			out, err = b.askLeader(ctx, node, m, request)
		}
		hint = -1
		switch {
		case err == nil && out.err == nil:
			return out, nil
		case err == nil && (b.opt.Cluster == nil || !again(out.err.Code)):
			return out, out.err
		case err == nil:
			err = out.err
			if out.leader != b.opt.NodeID {
				hint = out.leader
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return out, errcode.Errorf(errcode.RequestTimedOut, "the node that leads the metadata did not do it in time: %v", err)
		case <-b.stopping.Done():
			return out, errcode.Errorf(errcode.RequestTimedOut, "the node is stopping")
		}
	}
}

// again reports whether an answer is no answer yet.
func again(c errcode.Code) bool {
	return c == errcode.NotController || c == errcode.BrokerIDNotRegistered || c == errcode.RequestTimedOut
}

// askLeader asks another node once.
func (b *Broker) askLeader(ctx context.Context, node int32, m transport.Method, request []byte) (forwarded, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardAnswer)
	defer cancel()
	answer, err := b.opt.Cluster.Peers.Call(ctx, node, m, request)
	if err != nil {
		return forwarded{}, fmt.Errorf("node %d, which is said to lead the metadata: %w", node, err)
	}
	return decodeForwarded(answer)
}
