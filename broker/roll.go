package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// MethodRoll asks which nodes the cluster has, for a node that cannot look into its own
// copy of the metadata: see Roll. There is no payload, and the answer is a Roll in JSON,
// so that two versions understand each other: fields that are not known are passed over.
const MethodRoll transport.Method = 27

// maxRollBytes bounds a Roll: MaxNodes addresses.
const maxRollBytes = 1 << 20

// rollTime is how long an answer is waited for.
const rollTime = replaceAnswer / 2

// Roll is the nodes of a cluster, those among them that have joined.
type Roll struct {
	Founders []int32          `json:"founders"`        // ascending
	Nodes    map[int32]string `json:"nodes,omitempty"` // where they listen for each other, host:port; "": nobody says
}

var errRoll = errors.New("broker: not the roll of a cluster's nodes")

// decodeRoll reads an answer to MethodRoll. Its errors match errRoll.
func decodeRoll(raw []byte) (Roll, error) {
	var out Roll
	if len(raw) > maxRollBytes {
		return out, fmt.Errorf("%w: %d bytes, at most %d", errRoll, len(raw), maxRollBytes)
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return Roll{}, fmt.Errorf("%w: %w", errRoll, err)
	}
	for i, id := range out.Founders {
		if id < 0 || i > 0 && id <= out.Founders[i-1] {
			return Roll{}, fmt.Errorf("%w: founders %v", errRoll, out.Founders)
		}
	}
	if len(out.Founders) == 0 {
		return Roll{}, fmt.Errorf("%w: founded by nobody: %.200s", errRoll, raw)
	}
	for id := range out.Nodes {
		if id < 0 {
			return Roll{}, fmt.Errorf("%w: node %d", errRoll, id)
		}
	}
	return out, nil
}

// answerRoll answers MethodRoll.
func (b *Broker) answerRoll() ([]byte, error) {
	im := b.image()
	if im == nil || im.ClusterID() == "" {
		return nil, fmt.Errorf("node %d has no metadata yet", b.opt.NodeID)
	}
	out := Roll{Nodes: nodeAddresses(im)}
	for _, f := range b.opt.Cluster.Founders {
		out.Founders = append(out.Founders, f.ID)
	}
	for n := range im.Nodes() {
		if _, ok := out.Nodes[int32(n.ID)]; !ok {
			out.Nodes[int32(n.ID)] = ""
		}
	}
	return json.Marshal(out)
}

// AskRoll asks the others of nodes at once, and returns all that they know of: a node
// may be behind with the metadata. It fails if nobody answers.
func AskRoll(ctx context.Context, peers transport.Peers, self int32, nodes []int32) (Roll, error) {
	ctx, cancel := context.WithTimeout(ctx, rollTime)
	defer cancel()
	rolls, errs := make([]Roll, len(nodes)), make([]error, len(nodes))
	var group sync.WaitGroup
	for i, node := range nodes {
		if node == self {
			continue
		}
		group.Go(func() {
			raw, err := peers.Call(ctx, node, MethodRoll, nil)
			if err == nil {
				rolls[i], err = decodeRoll(raw)
			}
			if err != nil {
				errs[i] = fmt.Errorf("node %d does not say which nodes there are: %w", node, err)
			}
		})
	}
	group.Wait()
	all := Roll{Nodes: make(map[int32]string)}
	for _, r := range rolls {
		if len(r.Founders) > 0 {
			all.Founders = r.Founders // all say the same
		}
		for id, addr := range r.Nodes {
			if all.Nodes[id] == "" {
				all.Nodes[id] = addr
			}
		}
	}
	if len(all.Founders) == 0 {
		return Roll{}, errors.Join(append(errs, errors.New("nobody says which nodes the cluster has"))...)
	}
	return all, nil
}
