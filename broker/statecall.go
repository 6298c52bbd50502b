package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodState is the call by which a replica with a partition in quarantine asks
// another for the state of the shard (R5). Request and answer, little-endian, sizes in
// bytes:
//
//	0        1      2          4       8       16   24
//	+--------+------+----------+-------+-------+----+--------+
//	| format | what | reserved | shard | index | at | offset |
//	+--------+------+----------+-------+-------+----+--------+
//
//	0        1          8       16      24     56
//	+--------+----------+-------+-------+------+-------
//	| format | reserved | index | total | hash | bytes
//	+--------+----------+-------+-------+------+-------
//
// what 1 asks for the bytes of a state, from offset on: a base checkpoint of total
// bytes, hash its SHA-256, which is the state hash at index. at 0 asks for one that has
// the entries up to index, at least; another at for more of the one of that index, which
// the callee keeps for stateKept. what 2 asks the leader for an entry behind index, that
// changes nothing and asks for the state hash: a checkpoint can be taken then. It is
// answered with index alone, that of an entry that is there.
//
// A replica that has a partition in quarantine itself refuses. Reserved bytes are zero.
const methodState transport.Method = 22

const (
	stateFormat       = 1
	stateRequestBytes = 32
	stateAnswerBytes  = 56

	// stateBytes is how much of a state one answer has.
	stateBytes = 1 << 20

	// maxStateBytes bounds a state, as what a replica that catches up is sent is.
	maxStateBytes = 1 << 30

	// stateKept is for how long a state is kept for who has begun to fetch it.
	stateKept = 30 * time.Second
)

type stateWhat uint8

const (
	stateContent stateWhat = iota + 1
	stateEntry
)

// errStateCall matches a request or an answer that is not one.
var errStateCall = errors.New("broker: damaged call for the state of a shard")

type stateRequest struct {
	what   stateWhat
	shard  replication.ShardID
	index  uint64
	at     uint64
	offset int64
}

func (r *stateRequest) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, stateRequestBytes), stateFormat, byte(r.what), 0, 0)
	b = le.AppendUint32(b, uint32(r.shard))
	b = le.AppendUint64(le.AppendUint64(b, r.index), r.at)
	return le.AppendUint64(b, uint64(r.offset))
}

func decodeStateRequest(b []byte) (r stateRequest, err error) {
	if len(b) > 0 && b[0] != stateFormat {
		return r, fmt.Errorf("%w: format %d, this version has %d", errStateCall, b[0], stateFormat)
	}
	if len(b) != stateRequestBytes || b[2] != 0 || b[3] != 0 {
		return r, fmt.Errorf("%w: request of %d bytes, want %d", errStateCall, len(b), stateRequestBytes)
	}
	le := binary.LittleEndian
	r = stateRequest{
		what: stateWhat(b[1]), shard: replication.ShardID(le.Uint32(b[4:])),
		index: le.Uint64(b[8:]), at: le.Uint64(b[16:]), offset: int64(le.Uint64(b[24:])),
	}
	if r.what != stateContent && r.what != stateEntry || r.offset < 0 || r.at == 0 && r.offset != 0 {
		return r, fmt.Errorf("%w: %d from offset %d of the state at %d", errStateCall, r.what, r.offset, r.at)
	}
	return r, nil
}

type stateAnswer struct {
	index uint64
	total int64
	hash  partition.Hash
	bytes []byte
}

func (a *stateAnswer) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, stateAnswerBytes+len(a.bytes)), stateFormat, 0, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint64(le.AppendUint64(b, a.index), uint64(a.total))
	return append(append(b, a.hash[:]...), a.bytes...)
}

func decodeStateAnswer(b []byte) (a stateAnswer, err error) {
	if len(b) < stateAnswerBytes || b[0] != stateFormat {
		return a, fmt.Errorf("%w: answer of %d bytes, want at least %d of format %d", errStateCall, len(b), stateAnswerBytes, stateFormat)
	}
	le := binary.LittleEndian
	a = stateAnswer{index: le.Uint64(b[8:]), total: int64(le.Uint64(b[16:])), hash: partition.Hash(b[24:56]), bytes: b[stateAnswerBytes:]}
	if a.total < 0 || a.total > maxStateBytes || int64(len(a.bytes)) > a.total {
		return stateAnswer{}, fmt.Errorf("%w: %d bytes of a state of %d", errStateCall, len(a.bytes), a.total)
	}
	return a, nil
}

// givenState is the state that this node gives to another one: one at a time.
type givenState struct {
	mu    sync.Mutex
	to    int32
	shard replication.ShardID
	until time.Time // zero: there is none
	stateAnswer
}

// answerState answers a replica with a partition in quarantine.
func (b *Broker) answerState(ctx context.Context, from int32, payload []byte) ([]byte, error) {
	r, err := decodeStateRequest(payload)
	if err != nil {
		return nil, err
	}
	s := b.carried()[r.shard]
	if s == nil {
		return nil, fmt.Errorf("node %d has no replica of shard %d", b.opt.NodeID, r.shard)
	}
	if r.what == stateEntry {
		if s.replica.Applied() <= r.index {
			if err := b.AskStateHash(ctx, uint32(r.shard)); err != nil {
				return nil, err
			}
		}
		return (&stateAnswer{index: s.replica.Applied()}).encode(), nil
	}
	g := &b.given
	g.mu.Lock()
	defer g.mu.Unlock()
	now := b.opt.Now()
	if r.at == 0 {
		if now.Before(g.until) && g.to != from {
			return nil, fmt.Errorf("node %d gives a state to node %d just now", b.opt.NodeID, g.to)
		}
		if err := g.makeLocked(s, r.index); err != nil {
			return nil, fmt.Errorf("node %d: %w", b.opt.NodeID, err)
		}
		g.to, g.shard = from, r.shard
	}
	if g.to != from || g.shard != r.shard || r.at != 0 && g.index != r.at || r.offset > g.total || !now.Before(g.until) && r.at != 0 {
		return nil, fmt.Errorf("node %d has the state of shard %d at index %d no more", b.opt.NodeID, r.shard, r.at)
	}
	g.until = now.Add(stateKept)
	a := g.stateAnswer
	a.bytes = g.bytes[r.offset:min(r.offset+stateBytes, g.total)]
	if r.offset+int64(len(a.bytes)) == g.total {
		g.bytes, g.until = nil, time.Time{}
	}
	return a.encode(), nil
}

// makeLocked makes the state of a shard what is given.
func (g *givenState) makeLocked(s *dataShard, from uint64) error {
	g.bytes, g.until = nil, time.Time{}
	frozen, err := s.machine.frozen(from)
	if err != nil {
		return err
	}
	var body bytes.Buffer
	if err := frozen.WriteBase(&body); err != nil {
		return err
	}
	if body.Len() > maxStateBytes {
		return fmt.Errorf("the state of shard %d has %d bytes, at most %d are given", s.id, body.Len(), maxStateBytes)
	}
	g.stateAnswer = stateAnswer{index: frozen.Index(), total: int64(body.Len()), hash: sha256.Sum256(body.Bytes()), bytes: body.Bytes()}
	return nil
}

// fetchState asks a node for the state of a shard, with the entries up to an index at
// least. It is whole, and has the hash that the other replica's has.
func (r *repairs) fetchState(ctx context.Context, shard replication.ShardID, node int32, from uint64) (*partition.State, int, error) {
	request := stateRequest{what: stateContent, shard: shard, index: from}
	var body []byte
	var first stateAnswer
	for {
		a, err := r.b.askState(ctx, node, &request)
		if err != nil {
			return nil, len(body), err
		}
		if body == nil {
			first = a
		}
		body = append(body, a.bytes...)
		if a.index != first.index || a.total != first.total || a.hash != first.hash || len(a.bytes) == 0 || int64(len(body)) > a.total {
			return nil, len(body), fmt.Errorf("%w, node %d: %d bytes of a state at index %d, %d at index %d before", errSource, node, len(a.bytes), a.index, len(body), first.index)
		}
		if err := r.b.pulls.spend(ctx, len(a.bytes)); err != nil {
			return nil, len(body), err
		}
		if int64(len(body)) == a.total {
			break
		}
		request.at, request.offset = a.index, int64(len(body))
	}
	state, err := restoreState(bytes.NewReader(body))
	switch {
	case err != nil:
		return nil, len(body), fmt.Errorf("%w, node %d: %w", errSource, node, err)
	case state.StateHash() != first.hash || state.Index() != first.index || first.index < from:
		return nil, len(body), fmt.Errorf("%w, node %d: a state of index %d and hash %v, it says %d and %v", errSource, node, state.Index(), state.StateHash(), first.index, first.hash)
	}
	return state, len(body), nil
}

// askState makes one call of methodState. Its errors match errSource.
func (b *Broker) askState(ctx context.Context, node int32, request *stateRequest) (stateAnswer, error) {
	return askSource(ctx, b, node, methodState, request.encode(), decodeStateAnswer)
}
