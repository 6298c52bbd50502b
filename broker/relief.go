package broker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodRoom asks a node whether it would lead a shard now, in place of a node with
// a full disk; see encodeMandate. The answer is empty, or why not. Unlike with
// methodFit a disk that was nearly full a moment ago is no reason.
const methodRoom transport.Method = 19

const (
	// reliefTick is how often to look whether the disk is nearly full.
	reliefTick = diskInterval

	// reliefRetry is after how many ticks the others are asked again about a
	// shard that this node goes on to lead with a full disk.
	reliefRetry = 4

	// roomTicks is for how many ticks a disk that was nearly full has to have had
	// room before leaderships are brought back to its node: what filled it may do
	// so again.
	roomTicks = 120

	// reliefTimeout bounds one question, and the transfer of one leadership.
	reliefTimeout = 5 * time.Second
)

// relief has the others lead what this node leads while its disk is nearly full:
// records wait on such a leader, and a follower that takes none holds up nobody, as
// long as a majority of the voters has room. If it has not, the leader stays: with
// another one records would be proposed that nobody could commit, and the deletion
// that makes room would wait behind them.
//
// The disk moves, so that Raft itself can hand a leadership over; when it stands
// still the watchdog does. It counts ticks and has no clock.
type relief struct {
	b     *Broker
	again map[replication.ShardID]int // ticks until the others are asked once more about a shard; tick's alone
	room  atomic.Int64                // ticks since the disk was nearly full last, up to roomTicks
	moved atomic.Uint64
}

func newRelief(b *Broker) *relief {
	l := &relief{b: b, again: make(map[replication.ShardID]int)}
	l.room.Store(roomTicks)
	return l
}

// run ticks until the broker stops.
func (l *relief) run() {
	ticker := time.NewTicker(reliefTick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.tick()
		case <-l.b.stopping.Done():
			return
		}
	}
}

// tick looks at the disk once, and hands over what can be.
func (l *relief) tick() {
	if !l.b.DiskState().Low {
		l.room.Store(min(l.room.Load()+1, roomTicks))
		clear(l.again)
		return
	}
	l.room.Store(0)
	if l.b.refusal() != nil {
		return // leaderships go away otherwise
	}
	var due sync.WaitGroup
	for shard, r := range l.b.held() {
		left, asked := l.again[shard]
		if asked {
			l.again[shard] = left - 1
		}
		if r.Leading() == 0 || left > 1 {
			continue
		}
		l.again[shard] = reliefRetry
		due.Go(func() { l.handOver(shard, r, asked) })
	}
	due.Wait()
}

// recently reports that the disk is nearly full, or was a moment ago.
func (l *relief) recently() bool { return l.room.Load() < roomTicks }

// handOver has a voter lead a shard that this node leads, one that has room and
// most of the log. What keeps it from that it says once: if said is false.
func (l *relief) handOver(shard replication.ShardID, r heldReplica, said bool) {
	ctx, cancel := context.WithTimeout(l.b.stopping, reliefTimeout)
	defer cancel()
	p := r.Progress()
	to, err := l.heirs(ctx, shard, p)
	for _, node := range to {
		if err = r.TransferTo(ctx, node, maxLagEntries); err == nil {
			l.moved.Add(1)
			l.b.opt.Log.Info("a leadership was handed over, as the disk is nearly full", "shard", shard, "node", node)
			return
		}
	}
	if err != nil && !said && l.b.stopping.Err() == nil {
		l.b.opt.Log.Info("a leadership stays although the disk is nearly full", "shard", shard, "why", err)
	}
}

// heirs lists the nodes that can lead a shard in place of this one, those that have
// most of its log first. Its error says why there are none.
func (l *relief) heirs(ctx context.Context, shard replication.ShardID, p replication.Progress) (nodes []int32, err error) {
	voters := heirsOf(p)
	if len(voters) == 0 {
		return nil, fmt.Errorf("shard %d has no other voter", shard)
	}
	refusals := make([]error, len(voters))
	var asked sync.WaitGroup
	for i, v := range voters {
		asked.Go(func() {
			m := mandate{shard: shard, replica: v.ID, term: p.Term}
			_, refusals[i] = l.b.opt.Cluster.Peers.Call(ctx, v.ID.Node, methodRoom, encodeMandate(m))
		})
	}
	asked.Wait()
	have, all := 0, len(voters)+1
	for i, v := range voters {
		if refusals[i] != nil {
			err = refusals[i]
			continue
		}
		if have++; !v.Behind {
			nodes = append(nodes, v.ID.Node)
		}
	}
	if have <= all/2 {
		return nil, fmt.Errorf("%d of %d voters have room and would lead, too few to commit records without this node: %w", have, all, err)
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("no voter of shard %d that has room has its log", shard)
	}
	return nodes, nil
}

// answerRoom answers methodRoom.
func (b *Broker) answerRoom(payload []byte) ([]byte, error) {
	m, err := decodeMandate(payload)
	if err != nil {
		return nil, err
	}
	return nil, b.roomToLead(m.shard)
}

// roomToLead returns nil if this node would lead a shard now, and otherwise why not.
func (b *Broker) roomToLead(shard replication.ShardID) error {
	if b.held()[shard] == nil {
		return fmt.Errorf("node %d has no shard %d", b.opt.NodeID, shard)
	}
	if err := b.refusal(); err != nil {
		return err
	}
	if b.hurt(shard) {
		return fmt.Errorf("a range of shard %d is damaged on node %d", shard, b.opt.NodeID)
	}
	if d := b.DiskState(); d.Low {
		return fmt.Errorf("the disk of node %d is nearly full: %s", b.opt.NodeID, d.Cause)
	}
	return nil
}
