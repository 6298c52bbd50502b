package metadata

import (
	"slices"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

func (c CreateTopic) apply(a *application) {
	switch {
	case a.refuse(CheckTopicName(c.Name)):
	case a.refuse(a.im.CheckNewName(c.Name)):
	case a.refuse(checkPartitions(len(c.Assignment))):
	case a.refuse(a.checkShards(c.Assignment)):
	case a.refuse(a.im.checkConfigs(c.Name, c.Configs)):
	case c.ID == (TopicID{}):
		a.fail(errcode.InvalidRequest, "topic id is zero")
	case a.im.TopicByID(c.ID) != nil || a.im.Tombstone(c.ID) != nil:
		a.fail(errcode.InvalidRequest, "topic id %v was used before", c.ID)
	case a.im.topics.rows >= MaxTopics:
		a.fail(errcode.PolicyViolation, "the cluster has %d topics, at most %d", a.im.topics.rows, MaxTopics)
	default:
		a.put(&Topic{
			ID:         c.ID,
			Name:       c.Name,
			Assignment: c.Assignment,
			Configs:    c.Configs,
			CreatedAt:  a.res.Index,
			UpdatedAt:  a.res.Index,
		})
		a.im.folded = a.im.folded.put(c.Name, c.Name)
		a.place(c.Assignment, 1)
	}
}

func (c AddPartitions) apply(a *application) {
	old := a.im.TopicByID(c.ID)
	switch {
	case old == nil:
		a.unknown(c.ID)
	case a.refuse(old.CheckNotInternal("add partitions")):
	case c.First != int32(len(old.Assignment)) || len(c.Assignment) == 0:
		a.fail(errcode.InvalidPartitions, "%d partitions after the first %d, topic %s has %d",
			len(c.Assignment), c.First, old.Name, len(old.Assignment))
	case a.refuse(checkPartitions(len(old.Assignment) + len(c.Assignment))):
	case a.refuse(a.checkShards(c.Assignment)):
	default:
		t := *old
		t.Assignment = slices.Concat(old.Assignment, c.Assignment)
		t.Grown = append(slices.Clip(old.Grown), Growth{First: c.First, At: a.res.Index})
		t.UpdatedAt = a.res.Index
		a.put(&t)
		a.place(c.Assignment, 1)
	}
}

func (c SetTopicConfigs) apply(a *application) {
	old := a.im.TopicByID(c.ID)
	switch {
	case old == nil:
		a.unknown(c.ID)
	case old.Internal() != internal(old.Name, c.Configs):
		a.fail(errcode.InvalidConfig, "the cleanup.policy of topic %s makes it internal, or not, and stays", old.Name)
	case a.refuse(a.im.checkConfigs(old.Name, c.Configs)):
	default:
		t := *old
		t.Configs, t.UpdatedAt = c.Configs, a.res.Index
		a.put(&t)
	}
}

func (c DeleteTopic) apply(a *application) {
	t := a.im.TopicByID(c.ID)
	if t == nil {
		a.unknown(c.ID)
		return
	}
	if a.refuse(t.CheckNotInternal("delete it")) {
		return
	}
	a.im.topics = a.im.topics.remove(t.ID)
	a.im.byName = a.im.byName.remove(t.Name)
	a.im.folded = a.im.folded.remove(t.Name)
	a.im.tombstones = a.im.tombstones.put(t.ID, &Tombstone{
		ID:         t.ID,
		Name:       t.Name,
		Partitions: int32(len(t.Assignment)),
		DeletedAt:  a.res.Index,
	})
	a.place(t.Assignment, -1)
}

func (c PurgeTombstone) apply(a *application) {
	if a.im.Tombstone(c.ID) == nil {
		a.fail(errcode.ResourceNotFound, "no tombstone of topic id %v", c.ID)
		return
	}
	a.im.tombstones = a.im.tombstones.remove(c.ID)
}

// unknown answers for a topic id that no topic has. The code is the one that
// clients expect for names and ids alike.
func (a *application) unknown(id TopicID) {
	a.fail(errcode.UnknownTopicOrPartition, "no topic of id %v", id)
}

// put stores t under its id and name.
func (a *application) put(t *Topic) {
	a.im.topics = a.im.topics.put(t.ID, t)
	a.im.byName = a.im.byName.put(t.Name, t)
}

// place adds sign to the load of each shard, once for each time it is listed.
func (a *application) place(ids []ShardID, sign int) {
	a.im.shards = placed(a.im.shards, ids, sign)
}

func placed(shards table[ShardID, *Shard], ids []ShardID, sign int) table[ShardID, *Shard] {
	ids = slices.Sorted(slices.Values(ids))
	for len(ids) > 0 {
		n := 1
		for n < len(ids) && ids[n] == ids[0] {
			n++
		}
		old, _ := shards.get(ids[0])
		s := *old
		s.Partitions += sign * n
		shards = shards.put(s.ID, &s)
		ids = ids[n:]
	}
	return shards
}

// CheckNewName refuses a name that a topic has, or that differs from a topic's
// only by '.' and '_': Kafka's metric names would be the same.
func (im *Image) CheckNewName(name string) *errcode.Error {
	switch other, ok := im.folded.get(name); {
	case !ok:
		return nil
	case other == name:
		return errcode.Errorf(errcode.TopicAlreadyExists, "Topic '%s' already exists.", name)
	default:
		return errcode.Errorf(errcode.InvalidTopic, "Topic '%s' collides with existing topic: %s", name, other)
	}
}

func (a *application) checkShards(ids []ShardID) *errcode.Error {
	for _, id := range ids {
		if a.im.Shard(id) == nil {
			return errcode.Errorf(errcode.InvalidReplicaAssignment, "no shard %d", id)
		}
	}
	return nil
}
