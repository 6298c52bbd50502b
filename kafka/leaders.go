package kafka

import (
	"net"
	"slices"
	"strconv"

	"github.com/flotilla-log/flotilla/broker"
)

// leaderRef is a partition's leader as Produce and Fetch answer it.
type leaderRef struct{ node, epoch int32 }

// endpoint is where a node takes clients.
type endpoint struct {
	node int32
	host string
	port int32
	rack string // "" is null
}

// leaders are those that one response names, with the endpoints of their nodes,
// each once.
type leaders struct {
	broker   *broker.Broker
	listener string // whose clients are told
	nodes    []endpoint
}

func (q *request) leaders() leaders {
	return leaders{broker: q.s.broker, listener: q.peer.listener().Name}
}

// of returns who leads a partition, as far as this node knows.
func (l *leaders) of(topic broker.TopicID, index int32) (leaderRef, bool) {
	leader, ok := l.broker.PartitionLeader(l.listener, topic, index)
	if !ok {
		return leaderRef{}, false
	}
	host, portText, err := net.SplitHostPort(leader.Address)
	if err != nil {
		return leaderRef{}, false
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return leaderRef{}, false
	}
	l.add(endpoint{node: leader.Node, host: host, port: int32(port), rack: leader.Rack})
	return leaderRef{node: leader.Node, epoch: leader.Epoch}, true
}

func (l *leaders) add(e endpoint) {
	if !slices.ContainsFunc(l.nodes, func(n endpoint) bool { return n.node == e.node }) {
		l.nodes = append(l.nodes, e)
	}
}
