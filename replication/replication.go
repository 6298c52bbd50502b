// Package replication runs a node's replicas of shards.
//
// A shard is one Raft group (github.com/hashicorp/raft) that carries many
// partitions, or the cluster's metadata. A Replica is this node's copy of it:
// it gathers proposals into Raft entries, stores entries in the node's journal
// and votes in its control log, applies committed entries to an FSM, and takes
// checkpoints so that the journal's files can be reused.
//
//	    Propose                         Done(result)
//	       |                                 ^
//	+------v------+   raft.Apply      +------+------+
//	|  proposer   +-------> raft ---->|  FSM (yours) |
//	| (DRR, 1 MiB)|         |  |      +------+------+
//	+-------------+         |  |             | Capture
//	             LogStore <-+  +-> StableStore  v
//	             journal          votes    checkpoints
//
// What hashicorp/raft v1.8.0 gets wrong or leaves to its user is worked around
// here and nowhere else; each place says which trap it steps around.
package replication

import (
	"errors"

	"github.com/flotilla-log/flotilla/replication/transport"
)

var (
	// ErrNotLeader reports a proposal to a replica that does not lead its
	// shard, or does not lead it yet (R19). It was not proposed: a retry at the
	// leader is safe.
	ErrNotLeader = errors.New("replication: not the leader")

	// ErrOutcomeUnknown reports a proposal that was handed to Raft before the
	// replica lost its leadership or was stopped. It may yet be committed, or
	// never. Only an idempotent retry is safe.
	ErrOutcomeUnknown = errors.New("replication: outcome unknown")

	// ErrTooLarge reports a command that does not fit in an entry.
	ErrTooLarge = errors.New("replication: command too large")

	// ErrStopped reports a replica that was closed, or stopped by an error that
	// Options.OnFailed was told.
	ErrStopped = errors.New("replication: stopped")

	// ErrLostLog reports a replica whose log ends before what its checkpoint, or
	// its vote, has seen. It must not go on under its name (R11, R20).
	ErrLostLog = errors.New("replication: log is missing or another's")

	// ErrOldVote reports a vote from before what its replica has stored: an older
	// copy. The replica may have voted since (R11, R20).
	ErrOldVote = errors.New("replication: vote record is older than the log")

	// ErrCorrupt matches a damaged checkpoint.
	ErrCorrupt = errors.New("replication: corrupt checkpoint")

	// ErrUnsupported reports a checkpoint of a newer format.
	ErrUnsupported = errors.New("replication: unsupported checkpoint format")
)

// What names shards and replicas, and carries calls between them, is the
// transport's.
type (
	ShardID   = transport.ShardID
	ReplicaID = transport.ReplicaID
	Transport = transport.Transport
)

// MetadataShard is the shard that holds nodes, topics and placement; data shards
// count from 1.
const MetadataShard ShardID = 0
