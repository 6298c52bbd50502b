package transport

import (
	"context"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// Solo is the Transport of a shard with one replica: there is nobody to call,
// and every call is ErrUnreachable.
type Solo struct {
	id  raft.ServerAddress
	rpc chan raft.RPC
}

var _ Transport = (*Solo)(nil)

// NewSolo returns the transport of replica id.
func NewSolo(id ReplicaID) *Solo {
	return &Solo{id: raft.ServerAddress(id.String()), rpc: make(chan raft.RPC, 1)}
}

// Inject implements Transport. It does not block as long as one call at most is
// under way.
func (s *Solo) Inject(rpc raft.RPC) { s.rpc <- rpc }

// Handle implements Transport; there is nothing to tell.
func (s *Solo) Handle(Handler) {}

// Probe implements Transport.
func (s *Solo) Probe(_ context.Context, to ReplicaID) (uint64, error) {
	return 0, alone(raft.ServerID(to.String()))
}

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
	return alone(id)
}

// RequestVote implements raft.Transport.
func (s *Solo) RequestVote(id raft.ServerID, _ raft.ServerAddress, _ *raft.RequestVoteRequest, _ *raft.RequestVoteResponse) error {
	return alone(id)
}

// RequestPreVote implements raft.WithPreVote.
func (s *Solo) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, _ *raft.RequestPreVoteRequest, _ *raft.RequestPreVoteResponse) error {
	return alone(id)
}

// InstallSnapshot implements raft.Transport.
func (s *Solo) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, _ *raft.InstallSnapshotRequest, _ *raft.InstallSnapshotResponse, _ io.Reader) error {
	return alone(id)
}

// TimeoutNow implements raft.Transport.
func (s *Solo) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, _ *raft.TimeoutNowRequest, _ *raft.TimeoutNowResponse) error {
	return alone(id)
}

// EncodePeer implements raft.Transport.
func (s *Solo) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements raft.Transport.
func (s *Solo) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport; heartbeats go through Consumer.
func (s *Solo) SetHeartbeatHandler(func(raft.RPC)) {}

// Close implements raft.WithClose.
func (s *Solo) Close() error { return nil }

func alone(id raft.ServerID) error {
	return fmt.Errorf("%w: call to %s, and this shard has no other replica", ErrUnreachable, id)
}
