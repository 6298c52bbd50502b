package replication

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// Transport carries a replica's Raft traffic to the other replicas of its
// shard. An implementation delivers heartbeats through Consumer like everything
// else (a fast path changes Raft's state beside its main loop), addresses
// replicas by ReplicaID alone, and refuses calls that are meant for another
// ReplicaID than its own (R11).
type Transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose

	// Inject delivers rpc to this replica's own Raft, as if a peer had sent it.
	Inject(rpc raft.RPC)
}

// errNoPeers is what a Solo transport answers to every call.
var errNoPeers = errors.New("replication: this shard has no other replica")

// Solo is the Transport of a shard with one replica: there is nobody to call.
type Solo struct {
	id  raft.ServerAddress
	rpc chan raft.RPC
}

// NewSolo returns the transport of replica id.
func NewSolo(id ReplicaID) *Solo {
	return &Solo{id: raft.ServerAddress(id.String()), rpc: make(chan raft.RPC, 1)}
}

// Inject implements Transport. It does not block as long as one call at most is
// under way.
func (s *Solo) Inject(rpc raft.RPC) { s.rpc <- rpc }

// Consumer implements raft.Transport.
func (s *Solo) Consumer() <-chan raft.RPC { return s.rpc }

// LocalAddr implements raft.Transport.
func (s *Solo) LocalAddr() raft.ServerAddress { return s.id }

// AppendEntriesPipeline implements raft.Transport.
func (s *Solo) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (s *Solo) AppendEntries(id raft.ServerID, _ raft.ServerAddress, _ *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) error {
	return unreachable(id)
}

// RequestVote implements raft.Transport.
func (s *Solo) RequestVote(id raft.ServerID, _ raft.ServerAddress, _ *raft.RequestVoteRequest, _ *raft.RequestVoteResponse) error {
	return unreachable(id)
}

// RequestPreVote implements raft.WithPreVote.
func (s *Solo) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, _ *raft.RequestPreVoteRequest, _ *raft.RequestPreVoteResponse) error {
	return unreachable(id)
}

// InstallSnapshot implements raft.Transport.
func (s *Solo) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, _ *raft.InstallSnapshotRequest, _ *raft.InstallSnapshotResponse, _ io.Reader) error {
	return unreachable(id)
}

// TimeoutNow implements raft.Transport.
func (s *Solo) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, _ *raft.TimeoutNowRequest, _ *raft.TimeoutNowResponse) error {
	return unreachable(id)
}

// EncodePeer implements raft.Transport.
func (s *Solo) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements raft.Transport.
func (s *Solo) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport; heartbeats go through Consumer.
func (s *Solo) SetHeartbeatHandler(func(raft.RPC)) {}

// Close implements raft.WithClose.
func (s *Solo) Close() error { return nil }

func unreachable(id raft.ServerID) error { return fmt.Errorf("%w: call to %s", errNoPeers, id) }
