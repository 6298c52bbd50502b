package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// MethodJoin asks to be a node of the cluster. The payload is the RegisterNode of the
// asker, as methodPropose has it, and the answer an Admission in JSON, so that two
// versions understand each other: fields that are not known are passed over.
//
// Who leads the metadata registers the node. From then on it is as any other, but that
// it founded nothing: it has no replica of the shards that there were, and its replica
// of the metadata has no vote (runReplacing adds that one). A directory that was lost is
// replaced as MethodReplace does it: asked without Replaces, the answer says which one is
// registered.
const MethodJoin transport.Method = 26

// maxAdmissionBytes bounds an Admission: MaxNodes founders and addresses.
const maxAdmissionBytes = 1 << 20

// Admission is what came of MethodJoin.
type Admission struct {
	Code   errcode.Code `json:"code"` // 0: the node is registered, by Registered
	Detail string       `json:"detail,omitempty"`
	Leader int32        `json:"leader"` // node that leads the metadata; -1: unknown

	Registered uint64 `json:"registered"` // directory of the asker's id that is registered; 0: none

	// What the cluster was founded with, and where its nodes are, by id. All answers
	// have them.
	Shards   uint32           `json:"shards"` // data shards
	Founders []Founder        `json:"founders"`
	Nodes    map[int32]string `json:"nodes"`
}

// Final reports whether asking again, with the same settings, is of no use.
func (a *Admission) Final() bool {
	switch a.Code {
	case errcode.InvalidRegistration, errcode.DuplicateBrokerRegistration, errcode.UnsupportedVersion, errcode.PolicyViolation:
		return true
	}
	return false
}

// Applicant is a node that would join.
type Applicant struct {
	Node        int32
	Incarnation uint64 // of its directory
	Replaces    uint64 // the lost directory whose place it takes; 0: none, or not known
	Level       uint16 // newest feature level that it knows
	Rack        string
	Listeners   []Listener
	NodeAddress string // host:port at which the others reach it
}

var errAdmission = errors.New("broker: not an answer to a node that would join")

// AskAdmission asks another node once to be let in.
func AskAdmission(ctx context.Context, peers transport.Peers, node int32, a Applicant) (Admission, error) {
	addrs, err := addresses(append(append([]Listener(nil), a.Listeners...), Listener{Name: metadata.NodeListener, Advertise: a.NodeAddress}))
	if err != nil {
		return Admission{}, fmt.Errorf("broker: node %d: %w", a.Node, err)
	}
	raw, err := peers.Call(ctx, node, MethodJoin, metadata.Append(nil, 0, metadata.RegisterNode{
		ID: metadata.NodeID(a.Node), Incarnation: a.Incarnation, Replaces: a.Replaces, Rack: a.Rack, Addresses: addrs, FeatureLevel: a.Level,
	}))
	if err != nil {
		return Admission{}, err
	}
	return decodeAdmission(raw)
}

// decodeAdmission reads an answer to MethodJoin. Its errors match errAdmission.
func decodeAdmission(raw []byte) (Admission, error) {
	var out Admission
	if len(raw) > maxAdmissionBytes {
		return out, fmt.Errorf("%w: %d bytes, at most %d", errAdmission, len(raw), maxAdmissionBytes)
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return Admission{}, fmt.Errorf("%w: %w", errAdmission, err)
	}
	if out.Shards == 0 || len(out.Founders) == 0 || out.Code == errcode.None && out.Registered == 0 {
		return Admission{}, fmt.Errorf("%w: incomplete: %.200s", errAdmission, raw)
	}
	for i, f := range out.Founders {
		if f.ID < 0 || f.Incarnation == 0 || i > 0 && f.ID <= out.Founders[i-1].ID {
			return Admission{}, fmt.Errorf("%w: founders %v", errAdmission, out.Founders)
		}
	}
	return out, nil
}

// answerJoin answers MethodJoin.
func (b *Broker) answerJoin(ctx context.Context, from int32, payload []byte) ([]byte, error) {
	if len(payload) > maxForwardBytes {
		return nil, fmt.Errorf("a registration of %d bytes of node %d, at most %d", len(payload), from, maxForwardBytes)
	}
	term, c, err := metadata.Decode(payload)
	r, ok := c.(metadata.RegisterNode)
	if err != nil || term != 0 || !ok || int32(r.ID) != from {
		return nil, errors.Join(err, fmt.Errorf("node %d would join with a %T, want its own registration", from, c))
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	defer context.AfterFunc(b.stopping, cancel)()
	registered, refused := b.letIn(ctx, r)
	out := Admission{Leader: -1, Registered: registered, Shards: b.opt.Shards, Founders: b.opt.Cluster.Founders, Nodes: nodeAddresses(b.image())}
	if refused != nil {
		out.Code, out.Detail = refused.Code, cut(refused.Detail)
	}
	if node, _, ok := leaderOfShard(b.meta); ok {
		out.Leader = node
	}
	return json.Marshal(out)
}

// letIn registers a node that would join, if this one leads the metadata, and returns
// the directory that is registered under its id then.
func (b *Broker) letIn(ctx context.Context, r metadata.RegisterNode) (registered uint64, refused *errcode.Error) {
	if b.founder(int32(r.ID)) { // each node knows: the leader of the metadata may be the very one
		return 0, errcode.Errorf(errcode.InvalidRegistration,
			"node %d is one of those that the cluster was founded with; give this one a node.id of its own, or, if it is that node and has lost its directory, the cluster.nodes that it had instead of join", r.ID)
	}
	if err := b.ConfirmController(ctx); err != nil {
		return 0, errcode.Errorf(errcode.NotController, "node %d does not lead the metadata", b.opt.NodeID)
	}
	im := b.image()
	n := im.Node(r.ID)
	switch {
	case im.ClusterID() == "" || im.Shard(metadata.ShardID(b.opt.Shards)) == nil:
		return 0, errcode.Errorf(errcode.RequestTimedOut, "the cluster is being founded")
	case n != nil && n.Incarnation == r.Incarnation:
		return n.Incarnation, nil
	case n != nil:
		out := b.replace(ctx, Replacement{Node: int32(r.ID), Level: r.FeatureLevel, Incarnation: r.Incarnation, Replaces: r.Replaces})
		return out.registered, out.err
	}
	r.Replaces = 0
	if _, err := b.proposeMeta(ctx, r); err != nil {
		return 0, CodeOf(err)
	}
	b.contacts.heard.note(r.ID, time.Now()) // it has until its session ends to start
	b.opt.Log.Info("a node has joined the cluster", "node", r.ID, "directory", fmt.Sprintf("%016x", r.Incarnation), "rack", r.Rack)
	return r.Incarnation, nil
}
