package grouptest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Node looks after all groups of a node: wire/server's Groups. It knows the node's
// topics as they are when it is asked.
type Node struct {
	*Coordinator
	b *broker.Broker

	mu   sync.Mutex
	seen []consumergroup.TopicInfo
}

// On returns the Node of a broker, without groups.
func On(b *broker.Broker) *Node {
	n := &Node{Coordinator: New(time.Now, nil), b: b}
	n.SetTopics()
	return n
}

// FindCoordinator is always this node.
func (n *Node) FindCoordinator(_ context.Context, _ string, l broker.Listener) (broker.Node, *errcode.Error) {
	for _, node := range n.b.Nodes(l.Name) {
		if node.ID == n.b.NodeID() {
			return node, nil
		}
	}
	return broker.Node{}, errcode.Errorf(errcode.CoordinatorNotAvailable, "the node is not registered yet")
}

// ConsumerHeartbeat tells the coordinator of changed topics first.
func (n *Node) ConsumerHeartbeat(ctx context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply {
	var topics []consumergroup.TopicInfo
	for t := range n.b.Topics("") {
		topics = append(topics, consumergroup.TopicInfo{Name: t.Name, ID: record.TopicID(t.ID), Partitions: int32(t.Partitions)})
	}
	n.mu.Lock()
	if !slices.Equal(topics, n.seen) {
		n.seen = topics
		n.SetTopics(topics...)
	}
	n.mu.Unlock()
	return n.Coordinator.ConsumerHeartbeat(ctx, req)
}
