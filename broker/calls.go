package broker

import (
	"context"
	"fmt"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// Answer answers a call of another node of the cluster. It is for
// Cluster.Peers, and may be called as soon as Start has returned.
func (b *Broker) Answer(_ context.Context, from int32, m transport.Method, _ []byte) ([]byte, error) {
	if m == methodReport {
		return b.answerReport()
	}
	return nil, fmt.Errorf("node %d knows no method %d, which node %d asks for; is it of an older version?", b.opt.NodeID, m, from)
}
