package metadata

import "cmp"

// Load is how full a shard is.
type Load struct {
	Shard      ShardID
	Partitions int
}

// Place chooses shards for n new partitions of one topic, whose other
// partitions are on the shards in existing.
//
// A topic is spread first: no shard gets a second partition of it before every
// shard has one. Among equals the least loaded shard is next, and then the one
// of the lowest id. The choice depends on nothing but the arguments. Without
// shards it returns nil.
func Place(shards []Load, existing []ShardID, n int) []ShardID {
	if len(shards) == 0 || n <= 0 {
		return nil
	}
	type candidate struct {
		Load
		ofTopic int
	}
	all := make([]candidate, len(shards))
	at := make(map[ShardID]int, len(shards))
	for i, l := range shards {
		all[i].Load = l
		at[l.Shard] = i
	}
	for _, id := range existing {
		if i, ok := at[id]; ok {
			all[i].ofTopic++
		}
	}
	chosen := make([]ShardID, 0, n)
	for range n {
		best := 0
		for i := range all {
			a, b := &all[i], &all[best]
			if cmp.Or(cmp.Compare(a.ofTopic, b.ofTopic), cmp.Compare(a.Partitions, b.Partitions), cmp.Compare(a.Shard, b.Shard)) < 0 {
				best = i
			}
		}
		all[best].ofTopic++
		all[best].Partitions++
		chosen = append(chosen, all[best].Shard)
	}
	return chosen
}

// Loads returns the load of every shard with the wanted number of replicas, by
// id; zero wants all.
func (im *Image) Loads(replicas int) []Load {
	var loads []Load
	for s := range im.Shards() {
		if replicas == 0 || len(s.Replicas) == replicas {
			loads = append(loads, Load{s.ID, s.Partitions})
		}
	}
	return loads
}
