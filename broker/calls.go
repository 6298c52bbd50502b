package broker

import (
	"context"
	"fmt"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// Methods of calls between nodes; methodPull, 4, methodReport, 5, methodContact, 6,
// methodPresent, 7, methodAlive, 8, methodCurrent, 9, methodClaim, 16, methodTakeOver, 17, methodFit, 18, methodRoom, 19,
// methodElect, 20, methodEnds, 21, and methodState, 22, are others.
// MethodReplace, 24, and MethodJoin, 25, are for nodes that have no place in the cluster yet.
// MethodStanding is internal/node's: what a node says of itself before it has a cluster.
const (
	MethodStanding transport.Method = 1
	methodPropose  transport.Method = 2
	methodTopic    transport.Method = 3
)

// Answer answers a call of another node of the cluster. It is for
// Cluster.Peers, and may be called as soon as Start has returned. ctx ends when
// nobody waits for the answer any more.
func (b *Broker) Answer(ctx context.Context, from int32, m transport.Method, payload []byte) ([]byte, error) {
	switch m {
	case methodPropose, methodTopic, methodCurrent:
		return b.answerForwarded(ctx, from, m, payload)
	case methodRequest:
		return b.answerRequest(ctx, from, payload)
	case methodReport:
		return b.answerReport()
	case MethodReplace:
		return b.answerReplace(ctx, from, payload)
	case MethodWithout:
		return b.answerWithout(ctx, from, payload)
	case MethodRoll:
		return b.answerRoll()
	case MethodJoin:
		return b.answerJoin(ctx, from, payload)
	case methodContact:
		return b.contacts.answer(from, payload)
	case methodAlive:
		return nil, nil
	case methodPresent:
		return b.answerPresent(payload)
	case methodPull:
		return b.answerPull(ctx, payload)
	case methodClaim:
		return b.answerClaims(from, payload)
	case methodTakeOver:
		return b.answerTakeOver(ctx, from, payload)
	case methodFit:
		return b.answerFit(payload)
	case methodRoom:
		return b.answerRoom(payload)
	case methodElect:
		return b.answerElect(ctx, payload)
	case methodState:
		return b.answerState(ctx, from, payload)
	case methodEnds:
		return b.answerEnds(payload)
	}
	return nil, fmt.Errorf("node %d knows no method %d, which node %d asks for; is it of an older version?", b.opt.NodeID, m, from)
}
