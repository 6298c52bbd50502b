package broker

import (
	"context"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
)

const (
	// defaultOffsetsPartitions and defaultOffsetsReplication are Kafka's.
	defaultOffsetsPartitions  = 50
	defaultOffsetsReplication = 3
)

// EnsureOffsetsTopic creates __consumer_offsets unless it is there, from any node, and
// returns when this node knows it: with Options.OffsetsPartitions partitions of
// OffsetsReplication replicas, or as many as there are nodes.
//
// It returns COORDINATOR_NOT_AVAILABLE, which can be retried, while that is not
// possible: the cluster's feature level is below 3, nobody leads the metadata, or too
// few nodes are there for a replica each. A topic of that name that a client created
// before that level is in the way, until it is deleted.
func (b *Broker) EnsureOffsetsTopic(ctx context.Context) *errcode.Error {
	notYet := func(format string, args ...any) *errcode.Error {
		return errcode.Errorf(errcode.CoordinatorNotAvailable, format, args...)
	}
	known := func() (there bool, err *errcode.Error) {
		t := b.image().TopicByName(metadata.GroupsTopic)
		if t != nil && !t.Internal() {
			return false, notYet("topic %s was created by a client, when there were no internal topics; delete it", t.Name)
		}
		return t != nil, nil
	}
	if there, err := known(); there || err != nil {
		return err
	}
	if level := b.image().FeatureLevel(); level < metadata.InternalLevel {
		return notYet("consumer groups need feature level %d, and the cluster is at %d: flotilla features upgrade", metadata.InternalLevel, level)
	}
	here := func(ctx context.Context) forwarded { return b.createHere(ctx, metadata.GroupsTopic) }
	done, failed := b.atLeader(ctx, methodTopic, []byte(metadata.GroupsTopic), here)
	if failed == nil {
		failed = b.awaitApplied(ctx, done.index)
	}
	if failed != nil {
		return notYet("%s cannot be created now: %v", metadata.GroupsTopic, failed)
	}
	switch there, err := known(); {
	case err != nil:
		return err
	case !there:
		return notYet("%s is not there yet", metadata.GroupsTopic)
	}
	return nil
}

// offsetsSpec is what __consumer_offsets is created with.
func (b *Broker) offsetsSpec() TopicSpec {
	nodes := max(b.image().NodeCount(), 1)
	return TopicSpec{
		Name: metadata.GroupsTopic, Partitions: b.opt.OffsetsPartitions, Replication: min(b.opt.OffsetsReplication, int32(nodes)),
		Configs: metadata.InternalConfigs(), internal: true,
	}
}

// internalOf says which internal topic t is, as its partitions are told.
func internalOf(t *metadata.Topic) partition.Internal {
	if t.Internal() {
		return partition.InternalGroups
	}
	return partition.NotInternal
}

// checkNotInternal refuses what a client asks of a partition of an internal topic.
func (p *placed) checkNotInternal(what string) *errcode.Error {
	if p.config.Internal == partition.NotInternal {
		return nil
	}
	return errcode.Errorf(errcode.InvalidTopic, "topic %s is internal: clients may not %s", metadata.GroupsTopic, what)
}
