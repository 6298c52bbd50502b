package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// MethodWithout asks a node which of the shards that have a voter on the asking node
// can do without that one: a node whose directory is damaged gives it up for a fresh
// one only when all of them can (R20). The payload is a byte, the format, and the
// answer is (little-endian, offsets in bytes)
//
//	0        1          4
//	+--------+----------+-------+-------+-- - -
//	| format | reserved | shard | state | more of them
//	| 1      | 0        | 4     | 1     |
//	+--------+----------+-------+-------+-- - -
//
// in which shards ascend, 0 being the metadata's, and state is a needState.
const MethodWithout transport.Method = 25

const (
	withoutFormat      = 1
	withoutHeaderBytes = 4
	withoutShardBytes  = 5
)

// needState is what a node knows of whether a shard can do without another one's
// replica.
type needState uint8

const (
	needUnknown needState = iota // it does not lead the shard
	needReplica                  // it leads the shard, whose other voters are too few, or lack something
	needNothing                  // it leads the shard: without the replica a majority of the voters has all that was acknowledged
	needStates
)

// errWithout reports bytes that are no request or answer of MethodWithout.
var errWithout = errors.New("broker: not a question of who can do without a node, or its answer")

// shardNeed is needState of one shard.
type shardNeed struct {
	shard replication.ShardID
	state needState
}

func appendNeeds(dst []byte, needs []shardNeed) []byte {
	dst = append(dst, withoutFormat, 0, 0, 0)
	for _, n := range needs {
		dst = append(binary.LittleEndian.AppendUint32(dst, uint32(n.shard)), byte(n.state))
	}
	return dst
}

func decodeNeeds(b []byte) (needs []shardNeed, err error) {
	if len(b) < withoutHeaderBytes || b[0] != withoutFormat || b[1] != 0 || b[2] != 0 || b[3] != 0 ||
		(len(b)-withoutHeaderBytes)%withoutShardBytes != 0 || len(b) > withoutHeaderBytes+withoutShardBytes*(metadata.MaxShards+1) {
		return nil, fmt.Errorf("%w: %d bytes: %.16x", errWithout, len(b), b)
	}
	for rest := b[withoutHeaderBytes:]; len(rest) > 0; rest = rest[withoutShardBytes:] {
		n := shardNeed{replication.ShardID(binary.LittleEndian.Uint32(rest)), needState(rest[4])}
		if n.state >= needStates || len(needs) > 0 && n.shard <= needs[len(needs)-1].shard {
			return nil, fmt.Errorf("%w: shard %d in state %d", errWithout, n.shard, n.state)
		}
		needs = append(needs, n)
	}
	return needs, nil
}

// needs reports whether a shard of these members, of which the leader has applied all
// up to applied, needs the replica of a node: without it no majority of the voters has
// all that.
func needs(members []replication.Member, node int32, applied uint64) bool {
	voters, sound := 0, 0
	for _, m := range members {
		if !m.Voter {
			continue
		}
		voters++
		if m.ID.Node != node && m.Match >= applied {
			sound++
		}
	}
	return sound < voters/2+1
}

// answerWithout answers MethodWithout.
func (b *Broker) answerWithout(ctx context.Context, from int32, payload []byte) ([]byte, error) {
	if len(payload) != 1 || payload[0] != withoutFormat {
		return nil, fmt.Errorf("%w: %d bytes: %.16x", errWithout, len(payload), payload)
	}
	ctx, cancel := context.WithTimeout(ctx, replaceAnswer/2)
	defer cancel()
	// The metadata first: who leads it has applied all shards that there were then.
	metadataNeed := needOf(ctx, b.meta, from)
	im := b.image()
	shards := []replication.ShardID{replication.MetadataShard}
	for s := range im.Shards() {
		if slices.Contains(s.Replicas, metadata.NodeID(from)) {
			shards = append(shards, replication.ShardID(s.ID))
		}
	}
	slices.Sort(shards)
	out := make([]shardNeed, len(shards))
	var group sync.WaitGroup
	for i, id := range shards {
		out[i].shard = id
		if id == replication.MetadataShard {
			out[i].state = metadataNeed
		} else if s := b.carried()[id]; s != nil {
			group.Go(func() { out[i].state = needOf(ctx, s.replica, from) })
		}
	}
	group.Wait()
	return appendNeeds(nil, out), nil
}

// needOf says whether a replica's shard needs the one of a node.
func needOf(ctx context.Context, r interface {
	Leading() uint64
	Confirm(ctx context.Context) (uint64, error)
	Progress() replication.Progress
}, node int32) needState {
	// A deposed leader would speak for what it knew: the voters are asked.
	if r.Leading() == 0 {
		return needUnknown
	}
	if _, err := r.Confirm(ctx); err != nil {
		return needUnknown
	}
	p := r.Progress()
	switch {
	case !p.Leading:
		return needUnknown
	case needs(p.Members, node, p.Applied):
		return needReplica
	}
	return needNothing
}

// AskWithout asks the others of nodes whether every shard that has a voter on node
// self can do without it: then it returns nil, and a majority of the voters of each,
// none of them on self, has all that was acknowledged before the call. Otherwise
// the error says what is missing, for people, and it is to be asked again.
//
// The node must take no part in any shard meanwhile.
func AskWithout(ctx context.Context, peers transport.Peers, self int32, nodes []int32) error {
	ctx, cancel := context.WithTimeout(ctx, replaceAnswer)
	defer cancel()
	var mu sync.Mutex
	var silent []string
	states := map[replication.ShardID]needState{replication.MetadataShard: needUnknown}
	var group sync.WaitGroup
	for _, node := range nodes {
		if node == self {
			continue
		}
		group.Go(func() {
			b, err := peers.Call(ctx, node, MethodWithout, []byte{withoutFormat})
			var needs []shardNeed
			if err == nil {
				needs, err = decodeNeeds(b)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, fmt.Sprintf("node %d does not answer: %v", node, err))
			}
			for _, n := range needs {
				// That a shard is needed outweighs who says that it is not: two leaders
				// would be of two terms.
				if was := states[n.shard]; was != needReplica {
					states[n.shard] = max(was, n.state)
				}
				if n.state == needReplica {
					states[n.shard] = needReplica
				}
			}
		})
	}
	group.Wait()
	return withoutError(states, silent)
}

// withoutError says what keeps a node from being done without, or is nil.
func withoutError(states map[replication.ShardID]needState, silent []string) error {
	var headless, needed []string
	for id, state := range states {
		name := fmt.Sprintf("shard %d", id)
		if id == replication.MetadataShard {
			name = "the metadata"
		}
		switch state {
		case needUnknown:
			headless = append(headless, name)
		case needReplica:
			needed = append(needed, name)
		}
	}
	if len(headless) == 0 && len(needed) == 0 {
		return nil
	}
	slices.Sort(headless)
	slices.Sort(needed)
	slices.Sort(silent)
	var why []string
	if len(headless) > 0 {
		why = append(why, fmt.Sprintf("nobody else leads %s, for which a majority of its replicas has to be up without this one", strings.Join(headless, ", ")))
	}
	if len(needed) > 0 {
		why = append(why, fmt.Sprintf("the other replicas of %s do not have all of it yet", strings.Join(needed, ", ")))
	}
	return errors.New(strings.Join(append(why, silent...), "; "))
}
