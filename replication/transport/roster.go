package transport

import (
	"fmt"
	"sync"
)

// place is where a replica is found: which incarnation is there, it knows.
type place struct {
	shard ShardID
	node  int32
}

// roster is the replicas that a Hub or a Mesh carries calls to, by their places.
// The zero value is ready.
type roster struct {
	mu      sync.Mutex
	members map[place]*Member
}

// enter takes r in, in the place of an earlier one of the same shard and node, and
// begins to deliver to it.
func (ro *roster) enter(r *Member) *Member {
	ro.mu.Lock()
	if ro.members == nil {
		ro.members = make(map[place]*Member)
	}
	ro.members[r.place()] = r
	ro.mu.Unlock()
	r.group.Go(r.deliver)
	return r
}

// leave implements carrier.
func (ro *roster) leave(r *Member) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.members[r.place()] == r {
		delete(ro.members, r.place())
	}
}

// find returns the replica that is wanted, or why it is not there.
func (ro *roster) find(shard ShardID, want ReplicaID) (*Member, error) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	m := ro.members[place{shard, want.Node}]
	if m == nil {
		return nil, fmt.Errorf("%w: %s of shard %d", ErrUnreachable, want, shard)
	}
	if m.id != want {
		return nil, fmt.Errorf("%w: to %s of shard %d, and there is %s", ErrOtherReplica, want, shard, m.id)
	}
	return m, nil
}
