// Package transport carries Raft's calls between the replicas of a shard.
//
// A replica is addressed by its ReplicaID alone: the node, and the incarnation
// that was drawn when the replica was created empty. A call that reaches
// another incarnation than the one it was meant for is refused before Raft sees
// it, so that a wiped replica never answers under its old name.
//
//	   Raft of replica A                          Raft of replica B
//	AppendEntries, votes ...                         Consumer
//	         |                                          ^
//	  +------v------+   call {to, command}       +------+------+
//	  | Transport A +--------------------------->| Transport B |--> Probed
//	  |             |<---------------------------+             |
//	  +------+------+   answer or error          +-------------+
//	         v
//	      Appended
//
// Solo is the transport of a shard with one replica, Hub that of replicas in one
// process, Mesh that of replicas on nodes with a network between them. What every
// implementation has to do is held by one suite of tests.
//
// # Between nodes
//
// A node keeps two connections to each node that it calls, one for what is small
// (up to 16 KiB) and one for the rest; answers come back on them. Both together are
// a session. docs/internode.md specifies what follows here in short; numbers are
// little-endian, offsets in bytes.
//
// Who has dialled begins each connection with
//
//	0       4         6         8      9              10         12     16   20        28         36       40
//	+-------+---------+---------+------+--------------+----------+------+----+---------+----------+--------+------------+
//	| magic | minimum | maximum | lane | cluster size | reserved | from | to | session | reserved | crc32c | cluster id |
//	+-------+---------+---------+------+--------------+----------+------+----+---------+----------+--------+------------+
//
// and is answered
//
//	0       4         6         8              9         10        12            14         16
//	+-------+---------+---------+--------------+---------+---------+-------------+----------+ - -
//	| magic | minimum | maximum | cluster size | refused | version | reason size | reserved |
//	+-------+---------+---------+--------------+---------+---------+-------------+----------+ - -
//	    16     20       28      36         44       48
//	- - +------+--------+-------+----------+--------+------------+--------+
//	    | node | window | calls | reserved | crc32c | cluster id | reason |
//	- - +------+--------+-------+----------+--------+------------+--------+
//
// magic is 0xF1 'N' 'O' 'D', minimum and maximum the versions of the protocol that
// the end speaks. Then frames go in both directions:
//
//	0        4      5       6           7      8        16      20      24            28       32
//	+--------+------+-------+-----------+------+--------+-------+-------+-------------+--------+------+
//	| length | kind | flags | operation | code | number | shard | total | data crc32c | crc32c | data |
//	+--------+------+-------+-----------+------+--------+-------+-------+-------------+--------+------+
//
// A request or an answer is one frame or more, each of 256 KiB of data at most, so
// that those of other shards come in between. Checksums are CRC32C (Castagnoli), as
// TCP's is weak: of the 28 bytes before, and of the data. Over TLS, which checks
// more than that, the latter is zero. (An entry of a batch has a checksum of its
// own, but its header has none, nor has a checkpoint or a call.)
package transport

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"
)

var (
	// ErrUnreachable reports a call to a replica that nobody answers for.
	ErrUnreachable = errors.New("transport: replica is unreachable")

	// ErrOtherReplica reports a call that reached another incarnation of the
	// replica, which refused it.
	ErrOtherReplica = errors.New("transport: call was meant for another incarnation of the replica")

	// ErrTimeout reports a call that was not answered in time. It may have taken
	// effect.
	ErrTimeout = errors.New("transport: call timed out")

	// ErrClosed reports a call on, or cut short by, a closed transport.
	ErrClosed = errors.New("transport: closed")
)

// ShardID numbers a shard within a cluster.
type ShardID uint32

// ReplicaID names one replica of a shard, for ever: the node, and the
// incarnation drawn when the replica was created empty (R11). It is Raft's
// ServerID and ServerAddress.
type ReplicaID struct {
	Node        int32
	Incarnation uint64
}

// String is the form that Raft stores: "node-incarnation", the latter in hex.
func (id ReplicaID) String() string {
	return fmt.Sprintf("%d-%016x", id.Node, id.Incarnation)
}

// ParseReplicaID is the inverse of ReplicaID.String.
func ParseReplicaID(s string) (ReplicaID, error) {
	node, inc, ok := strings.Cut(s, "-")
	n, err := strconv.ParseInt(node, 10, 32)
	if !ok || err != nil || len(inc) != 16 {
		return ReplicaID{}, fmt.Errorf("transport: replica id %q is not node-incarnation", s)
	}
	i, err := strconv.ParseUint(inc, 16, 64)
	if err != nil {
		return ReplicaID{}, fmt.Errorf("transport: replica id %q: %w", s, err)
	}
	return ReplicaID{Node: int32(n), Incarnation: i}, nil
}

// Transport carries one replica's calls to the other replicas of its shard, and
// theirs to it. An implementation
//   - addresses replicas by ServerID and looks at no ServerAddress;
//   - refuses a call for another ReplicaID than its own (R11);
//   - delivers heartbeats through Consumer like everything else: a fast path
//     would change Raft's state beside its main loop;
//   - ends a pipeline at the first call that failed or was rejected, and hands
//     out no answer that it did not get: Raft takes one for contact;
//   - gives who still waits for a pipeline's answers an unsuccessful one at its
//     Close: Raft leaves such a goroutine behind if an error of the log ends the
//     one that sends;
//   - hands over copies: what the receiver keeps, the sender may change;
//   - bounds the bytes of a replica's unanswered calls to another; a call beyond
//     waits, and one alone may be larger;
//   - aborts everything that waits on Close, and has joined its goroutines when
//     Close returns.
type Transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose

	// Inject delivers rpc to this replica's own Raft, as if a peer had sent it.
	Inject(rpc raft.RPC)

	// Handle says who is told of what Raft does not see. It is called once,
	// before Raft starts.
	Handle(h Handler)

	// Probe asks a replica for its term, after Probe was called and without a
	// way through its Raft's queue (R19). It is an error if the replica does not
	// answer before ctx ends or the call times out.
	Probe(ctx context.Context, to ReplicaID) (term uint64, err error)
}

// Handler is told what passes a transport beside Raft. Its functions must not
// block; they may be called from several goroutines at once.
type Handler struct {
	// Probed answers a probe with the replica's present term.
	Probed func() (term uint64)

	// Appended is told of each answer to an AppendEntries of this replica's. It
	// keeps neither.
	Appended func(to ReplicaID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse)
}
