package metadata

import (
	"cmp"
	"slices"
)

// Spread lays out new shards of a replication factor over nodes, beside those of that
// factor that there are: as many as it takes for each node to carry perNode of them at
// the least. Without any it is perNode times as many as there are nodes, so that each
// node is the preferred leader of perNode; a node that carries none, which has joined
// since, or was away when they were made, is the preferred leader of perNode new ones.
// nodes are ascending by id.
//
// The replicas of a shard stand on different racks as far as there are any, a
// node that names none being a rack of its own. Within that, nodes carry as even
// a share of replicas as their racks allow, those that they carry already counted, and
// the nodes that follow one leader are
// as many as there can be: when it fails, its shards go to all of them. The result
// depends on nothing but the arguments. It is nil if each node has enough, if factor is
// below 1 or above the number of nodes, or perNode is below 1.
func Spread(nodes []*Node, have []*Shard, factor, perNode int) []NewShard {
	if factor < 1 || factor > len(nodes) || perNode < 1 {
		return nil
	}
	s := spreading{nodes: nodes, carried: make([]int, len(nodes)), follows: make(map[[2]int]int)}
	s.count(have)
	lacks := make([]int, len(nodes))
	for i := range nodes {
		lacks[i] = max(perNode-s.carried[i], 0)
		s.carried[i] += lacks[i] // those that it is going to lead
	}
	var shards []NewShard
	for round := range perNode {
		for leader := range nodes {
			if round < lacks[leader] {
				shards = append(shards, NewShard{Preferred: nodes[leader].ID, Replicas: s.replicas(leader, factor)})
			}
		}
	}
	return shards
}

// spreading is what there is and was laid out so far; nodes are meant by their positions.
type spreading struct {
	nodes   []*Node
	carried []int          // replicas, by node: all that it leads, and those that follow so far
	follows map[[2]int]int // how often the second is a replica of a shard that the first leads
}

// count takes in shards that there are.
func (s *spreading) count(have []*Shard) {
	at := make(map[NodeID]int, len(s.nodes))
	for i, n := range s.nodes {
		at[n.ID] = i
	}
	for _, shard := range have {
		leader, leads := at[shard.Preferred()]
		for _, id := range shard.Replicas {
			i, here := at[id]
			if !here {
				continue
			}
			s.carried[i]++
			if leads && i != leader {
				s.follows[[2]int{leader, i}]++
			}
		}
	}
}

// replicas chooses the nodes of one more shard, ascending by id.
func (s *spreading) replicas(leader, factor int) []NodeID {
	chosen := []int{leader}
	for len(chosen) < factor {
		best := -1
		for i := range s.nodes {
			if !slices.Contains(chosen, i) && (best < 0 || s.compare(chosen, i, best) < 0) {
				best = i
			}
		}
		s.follows[[2]int{leader, best}]++
		chosen = append(chosen, best)
	}
	ids := make([]NodeID, len(chosen))
	for i, at := range chosen {
		if i > 0 {
			s.carried[at]++
		}
		ids[i] = s.nodes[at].ID
	}
	slices.Sort(ids)
	return ids
}

// compare is negative if node a is the better next replica of a shard that is on
// chosen, of which the first leads.
func (s *spreading) compare(chosen []int, a, b int) int {
	leader, n := chosen[0], len(s.nodes)
	return cmp.Or(
		cmp.Compare(s.sharing(chosen, a), s.sharing(chosen, b)),
		cmp.Compare(s.carried[a], s.carried[b]),
		cmp.Compare(s.follows[[2]int{leader, a}], s.follows[[2]int{leader, b}]),
		cmp.Compare((a-leader+n)%n, (b-leader+n)%n),
	)
}

// sharing counts those of chosen that stand on the rack of node i.
func (s *spreading) sharing(chosen []int, i int) (n int) {
	for _, c := range chosen {
		if rack := s.nodes[i].Rack; rack != "" && rack == s.nodes[c].Rack {
			n++
		}
	}
	return n
}

// NextShard returns the id above those of all shards that there are.
func (im *Image) NextShard() ShardID {
	next := ShardID(1)
	for s := range im.Shards() {
		next = max(next, s.ID+1)
	}
	return next
}

// Carried walks the shards of which a node has a replica, in the order of their
// ids.
func (im *Image) Carried(node NodeID) []*Shard {
	var shards []*Shard
	for s := range im.Shards() {
		if slices.Contains(s.Replicas, node) {
			shards = append(shards, s)
		}
	}
	return shards
}

// ShardsOf lists the shards of a number of replicas, in the order of their ids.
func (im *Image) ShardsOf(replicas int) []*Shard {
	var shards []*Shard
	for s := range im.Shards() {
		if len(s.Replicas) == replicas {
			shards = append(shards, s)
		}
	}
	return shards
}
