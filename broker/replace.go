package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// MethodReplace asks the node that leads the metadata which data directory is
// registered under a node's id, or to register another one in its place: that of a
// node which has lost its directory and comes back with an empty one (R11). The
// payload is (little-endian, offsets in bytes)
//
//	0        1          2       4      8             16         24
//	+--------+----------+-------+------+-------------+----------+
//	| format | reserved | level | node | incarnation | replaces |
//	|        | 0        |       |      | 0: a query  | 0: not   |
//	|        |          |       |      |             | known    |
//	+--------+----------+-------+------+-------------+----------+
//
// and the answer
//
//	0        1          2      4             8            16
//	+--------+----------+------+-------------+------------+------+
//	| format | reserved | code | leader node | registered | text |
//	|        | 0        |      | -1: unknown | 0: none    |      |
//	+--------+----------+------+-------------+------------+------+
//
// code is errcode's. The directory asks twice: without replaces it learns which one
// it is to replace, and records that; with it, it is registered in the place of that
// one and no other. So of two directories under one id that ask, one is registered,
// and the other never: they do not take turns.
const MethodReplace transport.Method = 24

const (
	replaceFormat       = 1
	replaceBytes        = 24
	replacedHeaderBytes = 16

	// replaceAfter is for how long a directory has to be out of contact before
	// another one takes its place: a restart is shorter, or begins anew.
	replaceAfter = 5 * time.Second

	// replaceGap ends an absence: nobody has looked for so long.
	replaceGap = 5 * time.Second

	// replaceAnswer is how long an answer is waited for.
	replaceAnswer = 2 * time.Second
)

// Replacement is what a data directory asks for.
type Replacement struct {
	Node        int32
	Level       uint16 // newest feature level that it knows
	Incarnation uint64 // of the directory; 0: nothing is to change
	Replaces    uint64 // the directory whose place it takes; 0: it asks which
}

// append appends the request's bytes to dst.
func (r Replacement) append(dst []byte) []byte {
	dst = append(dst, replaceFormat, 0)
	dst = binary.LittleEndian.AppendUint16(dst, r.Level)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(r.Node))
	dst = binary.LittleEndian.AppendUint64(dst, r.Incarnation)
	return binary.LittleEndian.AppendUint64(dst, r.Replaces)
}

// errReplacement reports bytes that are no request or answer of MethodReplace.
var errReplacement = errors.New("broker: not a request to replace a data directory, or its answer")

func decodeReplacement(b []byte) (Replacement, error) {
	if len(b) == 0 || b[0] != replaceFormat || len(b) != replaceBytes || b[1] != 0 {
		return Replacement{}, fmt.Errorf("%w: %d bytes, want %d of format %d: %.16x", errReplacement, len(b), replaceBytes, replaceFormat, b)
	}
	r := Replacement{
		Level: binary.LittleEndian.Uint16(b[2:]), Node: int32(binary.LittleEndian.Uint32(b[4:])),
		Incarnation: binary.LittleEndian.Uint64(b[8:]), Replaces: binary.LittleEndian.Uint64(b[16:]),
	}
	if r.Node < 0 || r.Incarnation == 0 && r.Replaces != 0 {
		return Replacement{}, fmt.Errorf("%w: %+v", errReplacement, r)
	}
	return r, nil
}

// replaced is the answer to a Replacement.
type replaced struct {
	err        *errcode.Error // nil: done
	leader     int32          // node that leads the metadata; -1: unknown
	registered uint64         // directory that is registered then; 0: none
}

func (r replaced) append(dst []byte) []byte {
	var code errcode.Code
	text := ""
	if r.err != nil {
		code, text = r.err.Code, r.err.Detail[:min(len(r.err.Detail), maxForwardedText)]
	}
	dst = append(dst, replaceFormat, 0)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(code))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(r.leader))
	dst = binary.LittleEndian.AppendUint64(dst, r.registered)
	return append(dst, text...)
}

func decodeReplaced(b []byte) (replaced, error) {
	if len(b) < replacedHeaderBytes || b[0] != replaceFormat || b[1] != 0 || len(b) > replacedHeaderBytes+maxForwardedText {
		return replaced{}, fmt.Errorf("%w: %d bytes: %.16x", errReplacement, len(b), b)
	}
	r := replaced{leader: int32(binary.LittleEndian.Uint32(b[4:])), registered: binary.LittleEndian.Uint64(b[8:])}
	text := b[replacedHeaderBytes:]
	if code := errcode.Code(binary.LittleEndian.Uint16(b[2:])); code != errcode.None {
		r.err = &errcode.Error{Code: code, Detail: string(text)}
	} else if len(text) > 0 {
		return replaced{}, fmt.Errorf("%w: done, and %d bytes of text", errReplacement, len(text))
	}
	return r, nil
}

// AskReplacement asks the others of nodes, one after the other, until the one that
// leads the metadata has answered, and returns the directory that is registered
// then. An error that matches ErrReplaced is final: another directory has taken the
// place. After any other it is to be asked again a little later.
func AskReplacement(ctx context.Context, peers transport.Peers, self int32, nodes []int32, r Replacement) (registered uint64, err error) {
	question := r.append(nil)
	var silent, follows []string
	for _, node := range nodes {
		if node == self {
			continue
		}
		one, err := askReplacement(ctx, peers, node, question)
		switch {
		case err != nil:
			silent = append(silent, err.Error())
		case one.err == nil:
			return one.registered, nil
		case one.err.Code == errcode.DuplicateBrokerRegistration:
			return one.registered, fmt.Errorf("%w: node %d: %s", ErrReplaced, r.Node, one.err.Detail)
		case one.err.Code == errcode.NotController:
			follows = append(follows, one.err.Detail)
		default:
			return one.registered, one.err
		}
	}
	return 0, fmt.Errorf("no node leads the metadata, for which a majority of the nodes that have their directories has to be up: %q, %q", follows, silent)
}

func askReplacement(ctx context.Context, peers transport.Peers, node int32, question []byte) (replaced, error) {
	ctx, cancel := context.WithTimeout(ctx, replaceAnswer)
	defer cancel()
	b, err := peers.Call(ctx, node, MethodReplace, question)
	if err != nil {
		return replaced{}, fmt.Errorf("node %d does not answer: %w", node, err)
	}
	return decodeReplaced(b)
}

// absences are the directories that others want to replace, by node. The leader of
// the metadata has them; another one begins anew.
type absences struct {
	mu sync.Mutex
	of map[int32]absence
}

// absence is for how long a directory has been out of contact.
type absence struct {
	directory, by uint64
	since, seen   time.Time
}

// note takes note that a directory does not answer, as another one has asked for,
// and returns for how long that has been so.
func (a *absences) note(node int32, directory, by uint64, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	one := a.of[node]
	if one.directory != directory || one.by != by || now.Sub(one.seen) > replaceGap {
		one = absence{directory: directory, by: by, since: now}
	}
	one.seen = now
	if a.of == nil {
		a.of = make(map[int32]absence)
	}
	a.of[node] = one
	return now.Sub(one.since)
}

// end takes note that a node's directory is there.
func (a *absences) end(node int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.of, node)
}

// answerReplace answers MethodReplace.
func (b *Broker) answerReplace(ctx context.Context, from int32, payload []byte) ([]byte, error) {
	r, err := decodeReplacement(payload)
	if err == nil && r.Incarnation != 0 && r.Node != from {
		err = fmt.Errorf("%w: node %d asks for node %d", errReplacement, from, r.Node)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, replaceAnswer)
	defer cancel()
	out := b.replace(ctx, r)
	out.leader = -1
	if node, _, ok := leaderOfShard(b.meta); ok {
		out.leader = node
	}
	return out.append(nil), nil
}

// replace does what a Replacement asks for, if this node leads the metadata.
func (b *Broker) replace(ctx context.Context, r Replacement) replaced {
	fail := func(registered uint64, code errcode.Code, format string, args ...any) replaced {
		return replaced{registered: registered, err: errcode.Errorf(code, format, args...)}
	}
	if err := b.ConfirmController(ctx); err != nil {
		return fail(0, errcode.NotController, "node %d does not lead the metadata", b.opt.NodeID)
	}
	n := b.image().Node(metadata.NodeID(r.Node))
	switch {
	case n == nil:
		return fail(0, errcode.BrokerIDNotRegistered, "node %d is not registered", r.Node)
	case r.Incarnation == 0 || r.Incarnation == n.Incarnation:
		return replaced{registered: n.Incarnation}
	case r.Replaces != 0 && r.Replaces != n.Incarnation:
		return fail(n.Incarnation, errcode.DuplicateBrokerRegistration,
			"the directory of incarnation %016x was to take the place of %016x, and %016x has taken it; it is refused for good: give the node an empty one, or stop the other process of that id",
			r.Incarnation, r.Replaces, n.Incarnation)
	case r.Level < b.image().FeatureLevel():
		return fail(n.Incarnation, errcode.UnsupportedVersion,
			"node %d knows feature levels up to %d, and the cluster is at %d; start a newer version on it", r.Node, r.Level, b.image().FeatureLevel())
	}
	if err := b.meta.Probe(ctx, b.opt.Cluster.Replica(0, r.Node, n.Incarnation)); err == nil {
		b.absences.end(r.Node)
		return fail(n.Incarnation, errcode.InvalidRegistration,
			"node %d is up with the directory of incarnation %016x; stop that process, or give this one a node.id of its own", r.Node, n.Incarnation)
	}
	if gone := b.absences.note(r.Node, n.Incarnation, r.Incarnation, time.Now()); gone < replaceAfter {
		return fail(n.Incarnation, errcode.RequestTimedOut,
			"the directory of incarnation %016x of node %d has been out of contact for %s; after %s another one can take its place", n.Incarnation, r.Node, gone.Round(time.Second), replaceAfter)
	}
	if r.Replaces == 0 {
		return replaced{registered: n.Incarnation}
	}
	// Where clients reach it, and its rack, it says by itself when it is up.
	_, err := b.proposeMeta(ctx, metadata.RegisterNode{
		ID: n.ID, Incarnation: r.Incarnation, Replaces: r.Replaces, Rack: n.Rack, Addresses: n.Addresses, FeatureLevel: r.Level,
	})
	if err != nil {
		return replaced{registered: n.Incarnation, err: CodeOf(err)}
	}
	b.opt.Log.Warn("a node has lost its data directory, and a fresh one takes its place; its replicas are replaced one by one",
		"node", r.Node, "lost", fmt.Sprintf("%016x", r.Replaces), "fresh", fmt.Sprintf("%016x", r.Incarnation))
	return replaced{registered: r.Incarnation}
}

// registeredNow returns the directory that is registered under a node's id at a
// moment after the call, as the node that leads the metadata says.
func (b *Broker) registeredNow(ctx context.Context, node int32) (uint64, error) {
	query := Replacement{Node: node}
	if b.meta.Leading() != 0 {
		if r := b.replace(ctx, query); r.err == nil {
			return r.registered, nil
		}
	}
	var nodes []int32
	if leader, _, ok := leaderOfShard(b.meta); ok {
		nodes = append(nodes, leader) // first
	}
	for _, f := range b.opt.Cluster.Founders {
		if !slices.Contains(nodes, f.ID) {
			nodes = append(nodes, f.ID)
		}
	}
	return AskReplacement(ctx, b.opt.Cluster.Peers, b.opt.NodeID, nodes, query)
}

// checkPlace returns an error that matches ErrReplaced if another directory than that
// of an incarnation is registered under this node's id, nil if that one is, and other
// errors if nobody has said.
func (b *Broker) checkPlace(ctx context.Context, incarnation uint64) error {
	registered, err := b.registeredNow(ctx, b.opt.NodeID)
	if err == nil && registered != incarnation {
		return fmt.Errorf("%w: node %d is of the directory of incarnation %016x now, and this one, %016x, is refused for good; give the node an empty directory",
			ErrReplaced, b.opt.NodeID, registered, incarnation)
	}
	return err
}

// replacedCheck is how often a node without a leader of the metadata asks whether
// its directory is still the one.
const replacedCheck = time.Second

// watchReplaced stops the node when another directory has taken its place: nobody
// tells it otherwise, since its replicas are no members any more. It asks once, and
// whenever it knows nobody who leads the metadata.
func (b *Broker) watchReplaced() {
	asked := false
	tick := time.NewTicker(replacedCheck)
	defer tick.Stop()
	for {
		if _, _, led := leaderOfShard(b.meta); !asked || !led && b.meta.Leading() == 0 {
			err := b.checkPlace(b.stopping, b.opt.Incarnation)
			if errors.Is(err, ErrReplaced) {
				b.opt.OnFailed(err)
				return
			}
			asked = asked || err == nil
		}
		select {
		case <-tick.C:
		case <-b.stopping.Done():
			return
		}
	}
}
