package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
)

// TopicConfigs returns all configs of a topic as they hold, ascending by key.
// It returns nil for a topic that does not exist.
func (b *Broker) TopicConfigs(id partition.TopicID) []TopicConfig {
	t := b.image().TopicByID(metadata.TopicID(id))
	if t == nil {
		return nil
	}
	return effective(t.Configs)
}

func effective(set []metadata.Config) []TopicConfig {
	var all []TopicConfig
	for _, d := range metadata.TopicConfigs() {
		isSet := slices.ContainsFunc(set, func(c metadata.Config) bool { return c.Key == d.Key })
		all = append(all, TopicConfig{Key: d.Key, Value: metadata.ConfigValue(set, d.Key), Default: !isSet})
	}
	return all
}

// AlterTopic changes some of a topic's configs, all or none of them, and returns
// all configs as they hold then, or, with ValidateOnly, would. The change is
// durable on return; the partitions follow within moments, and batches that are
// under way are judged by either. Changes are made one after the other, each
// from what the one before left.
func (b *Broker) AlterTopic(ctx context.Context, change TopicChange) ([]TopicConfig, error) {
	select {
	case b.altering <- struct{}{}:
		defer func() { <-b.altering }()
	case <-ctx.Done():
		return nil, errcode.Errorf(errcode.RequestTimedOut, "other changes of topics took too long; nothing was changed")
	}
	t := b.image().TopicByID(metadata.TopicID(change.Topic))
	if t == nil {
		return nil, errcode.Errorf(errcode.UnknownTopicID, "no topic has the id %s", change.Topic)
	}
	configs, err := changed(t.Configs, &change)
	if err == nil {
		err = b.checkMaxMessageBytes(change.Set)
	}
	if err != nil {
		return nil, err
	}
	if !change.ValidateOnly && !slices.Equal(configs, t.Configs) {
		if _, err := b.proposeMeta(ctx, metadata.SetTopicConfigs{ID: t.ID, Configs: configs}); err != nil {
			return nil, err
		}
	}
	return effective(configs), nil
}

// changed returns a topic's configs after a change, ascending by key.
func changed(old []metadata.Config, change *TopicChange) ([]metadata.Config, *errcode.Error) {
	if len(change.Set)+len(change.Delete) == 0 {
		return nil, errcode.Errorf(errcode.InvalidRequest, "nothing to change: give configs to set or to delete")
	}
	for _, key := range change.Delete {
		if err := metadata.CheckConfigKey(key); err != nil {
			return nil, err
		}
		if _, both := change.Set[key]; both {
			return nil, errcode.Errorf(errcode.InvalidRequest, "%s is to be set and deleted", key)
		}
	}
	var configs []metadata.Config
	for _, c := range old {
		if _, replaced := change.Set[c.Key]; !replaced && !slices.Contains(change.Delete, c.Key) {
			configs = append(configs, c)
		}
	}
	for k, v := range change.Set {
		configs = append(configs, metadata.Config{Key: k, Value: v})
	}
	slices.SortFunc(configs, func(x, y metadata.Config) int { return strings.Compare(x.Key, y.Key) })
	return configs, metadata.CheckConfigs(configs)
}

// AddPartitions gives a topic more partitions, total in all, and returns when
// the new ones take records. They are empty; records of a key may go to another
// partition from then on than before. A time-out leaves partitions that are
// completed later.
func (b *Broker) AddPartitions(ctx context.Context, topic partition.TopicID, total int32, validateOnly bool) (Topic, error) {
	im := b.image()
	t := im.TopicByID(metadata.TopicID(topic))
	if t == nil {
		return Topic{}, errcode.Errorf(errcode.UnknownTopicID, "no topic has the id %s", topic)
	}
	have := len(t.Assignment)
	if most := b.opt.Limits.TopicPartitions; int(total) <= have || int(total) > most {
		return Topic{}, errcode.Errorf(errcode.InvalidPartitions,
			"topic %s has %d partitions; give a total above that, up to %d (topics.partitions.max; partitions cannot be taken away)", t.Name, have, most)
	}
	replicas := 0
	if s := im.Shard(t.Assignment[0]); s != nil {
		replicas = len(s.Replicas)
	}
	c := metadata.AddPartitions{
		ID: t.ID, First: int32(have),
		Assignment: metadata.Place(im.Loads(replicas), t.Assignment, int(total)-have),
	}
	if c.Assignment == nil {
		return Topic{}, errcode.Errorf(errcode.InvalidReplicationFactor, "no shard has %d replica(s)", replicas)
	}
	if validateOnly {
		return Topic{Name: t.Name, ID: topic, Partitions: make([]PartitionLeader, total)}, nil
	}
	give, err := b.reservePartitions(len(c.Assignment))
	if err != nil {
		return Topic{}, err
	}
	_, err = b.proposeMeta(ctx, c)
	give()
	if err != nil {
		return Topic{}, err
	}
	if err := b.awaitPartitions(ctx, topic, int(total), true); err != nil {
		return Topic{}, err
	}
	now, missing := b.TopicByID(topic)
	if missing != nil {
		return Topic{}, missing // deleted meanwhile
	}
	return now, nil
}

// DeleteRecords moves the log start offset of each part's partition up, and
// answers them in order. On return the move is durable, as a record would be,
// and no reader gets a record below; the files go with a checkpoint that is
// taken soon. An offset at or below the present log start changes nothing. A
// part that is not answered in time may take effect yet.
//
// A node that no longer leads a partition, and does not know it yet, may answer
// that there is nothing to do for an offset at or below a log start that it
// knows: log starts never fall. For all else the voters are asked, or the
// proposal fails (R19).
func (b *Broker) DeleteRecords(ctx context.Context, parts []DeletePart) []DeleteResult {
	results := make([]DeleteResult, len(parts))
	answers := make([]chan DeleteResult, len(parts))
	for i := range parts {
		answers[i] = make(chan DeleteResult, 1)
		b.deleteRecords(ctx, &parts[i], answers[i])
	}
	for i := range answers {
		select {
		case results[i] = <-answers[i]:
			continue
		case <-ctx.Done():
		}
		select { // what was answered before the time was up is answered
		case results[i] = <-answers[i]:
		default:
			results[i] = DeleteResult{LogStart: -1, Err: errcode.Errorf(errcode.RequestTimedOut, "not answered in time; the records may be deleted yet")}
		}
	}
	return results
}

// deleteRecords proposes one part, and has its answer sent.
func (b *Broker) deleteRecords(ctx context.Context, part *DeletePart, answer chan<- DeleteResult) {
	refuse := func(err *errcode.Error) { answer <- DeleteResult{Err: err, LogStart: -1} }
	p := b.dir.find(part.Topic, part.Index)
	if p == nil {
		refuse(b.absent(part.Topic, part.Index))
		return
	}
	if p.quarantined() {
		refuse(b.quarantineError(p, p.quarantine))
		return
	}
	if err := p.checkEpoch(-1); err != nil {
		refuse(err)
		return
	}
	start, end, err := p.shard.store.Bounds(uint32(p.number))
	if err != nil {
		refuse(CodeOf(err))
		return
	}
	before, step := deletion(part.Before, start, end)
	if step.needsCurrent() {
		if _, err := p.shard.replica.Confirm(ctx); err != nil {
			refuse(errcode.Errorf(errcode.NotLeaderOrFollower, "node %d cannot tell whether it still leads partition %d: %v", b.opt.NodeID, part.Index, err))
			return
		}
		if start, end, err = p.shard.store.Bounds(uint32(p.number)); err != nil {
			refuse(CodeOf(err))
			return
		}
		before, step = deletion(part.Before, start, end)
	}
	switch step {
	case deleteAbove, deleteInvalid:
		refuse(errcode.Errorf(errcode.OffsetOutOfRange, "records before offset %d cannot be deleted: the partition holds [%d, %d)", part.Before, start, end))
		return
	case deleteDone, deleteEmpty:
		answer <- DeleteResult{LogStart: start}
		return
	}
	b.proposeLogStart(p, before, func(r partition.Result, err error) {
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			refuse(CodeOf(err))
			return
		}
		b.removed.byRequest.Add(uint64(r.Removed))
		answer <- DeleteResult{LogStart: r.LogStart}
	})
}

// deleteStep is what becomes of a part of DeleteRecords.
type deleteStep int

const (
	deletePropose deleteStep = iota
	deleteDone               // the log start is there already
	deleteEmpty              // all records are to go, and there are none
	deleteAbove              // the end lies below
	deleteInvalid
)

// needsCurrent says that s holds only if the end is that of now.
func (s deleteStep) needsCurrent() bool { return s == deleteEmpty || s == deleteAbove }

// deletion decides what becomes of the records of [start, end) that lie before an
// offset, -1 for the end, and returns the log start to propose.
func deletion(before, start, end int64) (int64, deleteStep) {
	switch {
	case before < -1:
		return 0, deleteInvalid
	case before > end:
		return 0, deleteAbove
	case before == -1 && end == start:
		return 0, deleteEmpty
	case before == -1:
		return end, deletePropose
	case before <= start:
		return 0, deleteDone
	}
	return before, deletePropose
}

// proposeLogStart proposes that p's log start moves up to offset. It is urgent,
// since it frees space (R6). done is called once, and must not block.
func (b *Broker) proposeLogStart(p *placed, offset int64, done func(partition.Result, error)) {
	proposal := &produceProposal{
		Queue:   uint32(p.number),
		Command: advanceLogStart{number: p.number, offset: offset},
		Urgent:  true,
		Done:    done,
	}
	if err := p.shard.replica.Propose(proposal); err != nil {
		done(partition.Result{}, err)
	}
}
