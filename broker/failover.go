package broker

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodClaim asks a node which of the sender's claims its replicas grant; see
// encodeClaims.
const methodClaim transport.Method = 16

const (
	// lossGrace is for how long a node has to be gone before its followers act: a
	// connection that merely broke is there again by then.
	lossGrace = 10 * time.Millisecond

	// claimSpacing is how much later than the one before it each voter claims, so
	// that the first one has been granted by then or cannot be.
	claimSpacing = 50 * time.Millisecond

	// claimTimeout is how long grants are waited for: less than they last.
	claimTimeout = replication.GrantWindow - 50*time.Millisecond
)

// candidate is a replica as its failover needs it, whatever its shard carries.
type candidate interface {
	Progress() replication.Progress
	Leader() (replication.ReplicaID, bool)
	Claim(now time.Time, lost int32) (replication.Claim, bool)
	Grant(now time.Time, c replication.Claim) bool
	Withdraw(c replication.Claim)
	Campaign(term uint64) bool
}

// failover has one follower of each shard campaign at once when its leader's node
// is gone: when its connections break, and a majority of the shard's voters says
// so (raft.md, trap 10). In a partition that cuts two nodes from each other alone,
// the third still sees the leader, and nobody campaigns. The voters take turns, in
// an order that differs from shard to shard, so that the shards of a lost node
// are taken over by different ones.
//
// It gives up when Raft itself has noticed, which happens an election timeout later.
// Its time is monotonic: the node's clock may be set.
type failover struct {
	b       *Broker
	changed chan struct{} // 1-buffered: a way between nodes broke, or is there again
	turns   map[replication.ShardID]turn
	began   atomic.Uint64 // campaigns
	lost    *losses
}

// turn is when a voter may claim a shard.
type turn struct {
	leader replication.ReplicaID // that is gone
	due    time.Time
	rank   time.Duration // how much later than the first voter
}

func newFailover(b *Broker) *failover {
	return &failover{b: b, changed: make(chan struct{}, 1), turns: make(map[replication.ShardID]turn), lost: newLosses()}
}

// look has the ways to other nodes looked at. It does not block.
func (f *failover) look() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// run looks at the ways to other nodes, which runMeeting watches, until the broker
// stops.
func (f *failover) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.changed:
		case <-timer.C:
		case <-f.b.stopping.Done():
			return
		}
		claims, wait := f.tick(time.Now())
		if len(claims) > 0 {
			f.b.group.Go(func() { f.claim(claims) })
		}
		if wait > 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
	}
}

// tick returns what is to be claimed now, and in how much time to look again: 0 if
// only when something changes.
func (f *failover) tick(now time.Time) (claims []contest, wait time.Duration) {
	f.b.noteLosses(now)
	for shard, r := range f.b.held() {
		leader, known := r.Leader()
		if !known || f.b.opt.Cluster.Peers.Connected(leader.Node) {
			delete(f.turns, shard)
			continue
		}
		t := f.turns[shard]
		if t.leader != leader {
			t = turn{leader: leader, rank: time.Duration(f.rank(shard, r, leader)) * claimSpacing}
			t.due = now.Add(lossGrace + t.rank)
		}
		if !now.Before(t.due) {
			if f.b.refusal() != nil || f.b.hurt(shard) {
				// The others' turns; a voter that is alone goes by Raft's own time-out.
			} else if c, ok := r.Claim(now, leader.Node); ok {
				claims = append(claims, contest{Claim: c, replica: r, voters: voterNodes(r)})
			}
			t.due = now.Add(replication.GrantWindow + t.rank)
		}
		f.turns[shard] = t
		if left := max(t.due.Sub(now), time.Millisecond); wait == 0 || left < wait {
			wait = left
		}
	}
	return claims, wait
}

// rank returns how many voters of a shard come before this node when its leader is
// lost.
func (f *failover) rank(shard replication.ShardID, r candidate, leader replication.ReplicaID) int {
	voters := slices.DeleteFunc(voterNodes(r), func(node int32) bool { return node == leader.Node })
	at := slices.Index(voters, f.b.opt.NodeID)
	if at < 0 {
		return 0 // has no claim either
	}
	n := len(voters)
	return (at + n - int(shard)%n) % n
}

// voterNodes returns the nodes of a shard's voters, in order.
func voterNodes(r candidate) (nodes []int32) {
	for _, m := range r.Progress().Members {
		if m.Voter {
			nodes = append(nodes, m.ID.Node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// contest is a claim of this node's that is under way.
type contest struct {
	replication.Claim
	replica candidate
	voters  []int32
	granted int
}

// claim asks the other voters, each once for all shards, and campaigns for those
// that a majority agrees to, as soon as it does. The others it withdraws: who lacks
// an entry that another has must not be in its way.
func (f *failover) claim(claims []contest) {
	ctx, cancel := context.WithTimeout(f.b.stopping, claimTimeout)
	defer cancel()
	type answer struct {
		of      []int // in claims
		granted []bool
	}
	asked := make(map[int32][]int)
	for i := range claims {
		claims[i].granted = 1 // its own
		for _, node := range claims[i].voters {
			if node != f.b.opt.NodeID && node != claims[i].Lost {
				asked[node] = append(asked[node], i)
			}
		}
	}
	answers := make(chan answer, len(asked))
	for node, of := range asked {
		f.b.group.Go(func() {
			granted, err := f.ask(ctx, node, claims, of)
			if err != nil && ctx.Err() == nil {
				f.b.opt.Log.Info("a node did not say whether this one may take over", "node", node, "err", err)
			}
			answers <- answer{of, granted}
		})
	}
	defer func() {
		for i := range claims {
			if c := &claims[i]; c.granted <= len(c.voters)/2 {
				c.replica.Withdraw(c.Claim)
			}
		}
	}()
	for range asked {
		a := <-answers
		for k, granted := range a.granted {
			c := &claims[a.of[k]]
			if !granted || ctx.Err() != nil {
				continue
			}
			if c.granted++; c.granted == len(c.voters)/2+1 && c.replica.Campaign(c.Term) {
				f.began.Add(1)
				f.b.opt.Log.Info("the leader's node is gone: this one stands for election", "shard", c.Shard, "leader", c.Lost, "term", c.Term)
			}
		}
	}
}

// ask asks a node about the claims of these numbers, and returns nil if it did not
// answer.
func (f *failover) ask(ctx context.Context, node int32, claims []contest, of []int) ([]bool, error) {
	wanted := make([]replication.Claim, len(of))
	for k, i := range of {
		wanted[k] = claims[i].Claim
	}
	raw, err := f.b.opt.Cluster.Peers.Call(ctx, node, methodClaim, encodeClaims(wanted))
	if err != nil {
		return nil, err
	}
	return decodeGrants(raw, len(of))
}

// answerClaims answers methodClaim: a claim is granted if the way to the leader's
// node is broken from here, too, and the replica agrees.
func (b *Broker) answerClaims(from int32, payload []byte) ([]byte, error) {
	claims, err := decodeClaims(payload)
	if err != nil || b.opt.Cluster == nil {
		return nil, cmp.Or(err, fmt.Errorf("node %d is in no cluster", b.opt.NodeID))
	}
	grants := make([]byte, len(claims))
	replicas := b.held()
	for i, c := range claims {
		r := replicas[c.Shard]
		if r == nil || c.By.Node != from || b.opt.Cluster.Peers.Connected(c.Lost) {
			continue
		}
		if r.Grant(time.Now(), c) {
			grants[i] = 1
		}
	}
	return grants, nil
}

// claimBytes is the size of an encoded claim.
const claimBytes = 44

// encodeClaims lays claims out, one after the other (little-endian):
//
//	0       4      8      12            20     28          36           44
//	+-------+------+------+-------------+------+-----------+------------+
//	| shard | node | lost | incarnation | term | last term | last index |
//	+-------+------+------+-------------+------+-----------+------------+
//
// The answer has a byte for each, 1 if it is granted and 0 if not.
func encodeClaims(claims []replication.Claim) []byte {
	var b []byte
	for _, c := range claims {
		b = binary.LittleEndian.AppendUint32(b, uint32(c.Shard))
		b = binary.LittleEndian.AppendUint32(b, uint32(c.By.Node))
		b = binary.LittleEndian.AppendUint32(b, uint32(c.Lost))
		b = binary.LittleEndian.AppendUint64(b, c.By.Incarnation)
		b = binary.LittleEndian.AppendUint64(b, c.Term)
		b = binary.LittleEndian.AppendUint64(b, c.LastTerm)
		b = binary.LittleEndian.AppendUint64(b, c.LastIndex)
	}
	return b
}

// decodeClaims is the inverse of encodeClaims, for any bytes.
func decodeClaims(b []byte) ([]replication.Claim, error) {
	if len(b)%claimBytes != 0 || len(b) > (metadata.MaxShards+1)*claimBytes {
		return nil, fmt.Errorf("broker: claims of %d bytes, want %d for each of at most %d", len(b), claimBytes, metadata.MaxShards+1)
	}
	claims := make([]replication.Claim, 0, len(b)/claimBytes)
	for ; len(b) > 0; b = b[claimBytes:] {
		u32, u64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
		claims = append(claims, replication.Claim{
			Shard: replication.ShardID(u32(b)),
			By:    replication.ReplicaID{Node: int32(u32(b[4:])), Incarnation: u64(b[12:])},
			Lost:  int32(u32(b[8:])), Term: u64(b[20:]), LastTerm: u64(b[28:]), LastIndex: u64(b[36:]),
		})
	}
	return claims, nil
}

// decodeGrants reads the answer to n claims.
func decodeGrants(b []byte, n int) ([]bool, error) {
	if len(b) != n {
		return nil, fmt.Errorf("broker: %d grants for %d claims", len(b), n)
	}
	grants := make([]bool, n)
	for i, g := range b {
		grants[i] = g == 1
	}
	return grants, nil
}
