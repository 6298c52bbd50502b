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

// ConfigsWith returns all configs of a topic as they would hold if it was created
// with those in set. Values that would be refused are as good as not set.
func ConfigsWith(set map[string]string) []TopicConfig {
	var configs []metadata.Config
	for k, v := range set {
		if one, err := metadata.CanonicalConfigs([]metadata.Config{{Key: k, Value: v}}); err == nil {
			configs = append(configs, one...)
		}
	}
	return effective(configs)
}

// ConfigKnown reports whether there is a topic config of a name.
func ConfigKnown(name string) bool { return metadata.CheckConfigKey(name) == nil }

// ConfigIsList reports whether there is a topic config of a name, and its value
// is a list.
func ConfigIsList(name string) bool {
	return slices.ContainsFunc(metadata.TopicConfigs(), func(d ConfigDef) bool { return d.Key == name && d.Type == metadata.ConfigList })
}

func effective(set []metadata.Config) []TopicConfig {
	defs := metadata.TopicConfigs()
	all := make([]TopicConfig, 0, len(defs))
	for i := range defs {
		d := &defs[i]
		isSet := slices.ContainsFunc(set, func(c metadata.Config) bool { return c.Key == d.Key })
		all = append(all, TopicConfig{Key: d.Key, Value: metadata.ConfigValue(set, d.Key), Default: !isSet, Def: d})
	}
	return all
}

// reportInert tells the log which of the configs that somebody has just set do
// nothing.
func (b *Broker) reportInert(topic string, set []metadata.Config) {
	var inert []string
	for _, c := range effective(set) {
		if !c.Default && c.Def.Use == metadata.ConfigIgnored {
			inert = append(inert, c.Key+"="+c.Value)
		}
	}
	if inert != nil {
		b.opt.Log.Warn("a topic has configs that do nothing here; they are kept and shown", "topic", topic, "configs", strings.Join(inert, " "))
	}
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
	configs, err := changed(t, &change)
	if err == nil {
		err = b.checkMaxMessageBytes(configs, t.Configs)
	}
	if err != nil {
		return nil, err
	}
	if !change.ValidateOnly && !slices.Equal(configs, t.Configs) {
		if _, err := b.proposeMeta(ctx, metadata.SetTopicConfigs{ID: t.ID, Configs: configs}); err != nil {
			return nil, err
		}
		b.reportInert(t.Name, slices.DeleteFunc(slices.Clone(configs), func(c metadata.Config) bool { return slices.Contains(t.Configs, c) }))
	}
	return effective(configs), nil
}

// changed returns a topic's configs after a change, ascending by key.
func changed(t *metadata.Topic, change *TopicChange) ([]metadata.Config, *errcode.Error) {
	old := t.Configs
	named := make(map[string]bool)
	name := func(key string) *errcode.Error {
		if named[key] {
			return errcode.Errorf(errcode.InvalidRequest, "%s is to be changed in two ways at once", key)
		}
		named[key] = true
		return metadata.CheckConfigKey(key)
	}
	var configs []metadata.Config
	for _, key := range change.Delete {
		if err := name(key); err != nil {
			return nil, err
		}
	}
	for k, v := range change.Set {
		if err := name(k); err != nil {
			return nil, err
		}
		configs = append(configs, metadata.Config{Key: k, Value: v})
	}
	for k, v := range change.Append {
		if err := name(k); err != nil {
			return nil, err
		}
		configs = append(configs, metadata.Config{Key: k, Value: joined(metadata.ConfigValue(old, k), v)})
	}
	for k, v := range change.Subtract {
		if err := name(k); err != nil {
			return nil, err
		}
		without := metadata.ConfigElements(v)
		left := slices.DeleteFunc(metadata.ConfigElements(metadata.ConfigValue(old, k)), func(e string) bool { return slices.Contains(without, e) })
		configs = append(configs, metadata.Config{Key: k, Value: strings.Join(left, ",")})
	}
	if len(named) == 0 && !change.Replace {
		return nil, errcode.Errorf(errcode.InvalidRequest, "nothing to change: give configs to set or to delete")
	}
	for _, c := range old {
		if !named[c.Key] && !change.Replace {
			configs = append(configs, c)
		}
	}
	slices.SortFunc(configs, func(x, y metadata.Config) int { return strings.Compare(x.Key, y.Key) })
	if t.Internal() {
		return metadata.CanonicalInternalConfigs(configs)
	}
	return metadata.CanonicalConfigs(configs)
}

// joined returns a list's value with more elements.
func joined(value, more string) string {
	if value == "" {
		return more
	}
	return value + "," + more
}

// AddPartitions gives a topic more partitions, total in all, and returns when
// the new ones take records. They have as many replicas as the others, on the nodes
// that replicas lists for each new one; nil: on any. They are empty; records of a key may go to another
// partition from then on than before. A time-out leaves partitions that are
// completed later.
func (b *Broker) AddPartitions(ctx context.Context, topic partition.TopicID, total int32, replicas [][]int32, validateOnly bool) (Topic, error) {
	im := b.image()
	t := im.TopicByID(metadata.TopicID(topic))
	if t == nil {
		return Topic{}, errcode.Errorf(errcode.UnknownTopicID, "no topic has the id %s", topic)
	}
	if err := t.CheckNotInternal("add partitions"); err != nil {
		return Topic{}, err
	}
	have := len(t.Assignment)
	if most := b.opt.Limits.TopicPartitions; int(total) <= have || int(total) > most {
		return Topic{}, errcode.Errorf(errcode.InvalidPartitions,
			"topic %s has %d partitions; give a total above that, up to %d (topics.partitions.max; partitions cannot be taken away)", t.Name, have, most)
	}
	c := metadata.AddPartitions{ID: t.ID, First: int32(have)}
	// A topic's shards are of one replication factor, and are never taken away.
	factor := len(b.replicasOf(t.Assignment[0]))
	var planned []metadata.NewShard
	if validateOnly {
		planned = b.lacking(im, factor)
	} else if err := b.shardsFor(ctx, factor); err != nil {
		return Topic{}, err
	}
	im = b.image()
	var err error
	if c.Assignment, err = assign(im, planned, factor, t.Assignment, int(total)-have, replicas); err != nil {
		return Topic{}, err
	}
	if validateOnly {
		return Topic{Name: t.Name, ID: topic, Partitions: int(total)}, nil
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
	if err := b.awaitPartitions(ctx, topic, slices.Concat(t.Assignment, c.Assignment), true); err != nil {
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
	confirm := b.confirmations(ctx)
	for i := range parts {
		answers[i] = make(chan DeleteResult, 1)
		b.deleteRecords(&parts[i], confirm, answers[i])
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
func (b *Broker) deleteRecords(part *DeletePart, confirm func(*placed) *errcode.Error, answer chan<- DeleteResult) {
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
	if err := p.checkNotInternal("delete its records"); err != nil {
		refuse(err)
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
		if err := confirm(p); err != nil {
			refuse(err)
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
