package record

import (
	"math/rand/v2"
	"strings"
)

// randomEntry returns an entry of any kind but Unknown, with fields of any kind.
func randomEntry(rng *rand.Rand) Entry {
	r := random{rng}
	gone := rng.IntN(8) == 0
	switch rng.IntN(9) {
	case 0:
		e := &OffsetCommit{Group: r.string(), Topic: r.string(), Partition: r.int32()}
		if !gone {
			e.Value = &OffsetCommitValue{
				Offset: rng.Int64(), LeaderEpoch: r.int32(), Metadata: r.string(), CommitTimestampMS: rng.Int64(),
				ExpireTimestampMS: -1, TopicID: r.topicID(),
			}
		}
		return e
	case 1:
		e := &GroupMetadata{Group: r.string()}
		if !gone {
			e.Value = &GroupMetadataValue{
				ProtocolType: r.string(), Generation: r.int32(), Protocol: r.nullable(), Leader: r.nullable(),
				CurrentStateTimestampMS: rng.Int64(),
				Members: many(r, func() GroupMember {
					return GroupMember{
						MemberID: r.string(), InstanceID: r.nullable(), ClientID: r.string(), ClientHost: r.string(),
						RebalanceTimeoutMS: r.int32(), SessionTimeoutMS: r.int32(),
						Subscription: []byte(r.string()), Assignment: []byte(r.string()),
					}
				}),
			}
		}
		return e
	case 2:
		e := &ConsumerGroup{Group: r.string()}
		if !gone {
			e.Value = &ConsumerGroupValue{Epoch: r.int32(), MetadataHash: rng.Int64N(2)}
		}
		return e
	case 3:
		e := &ConsumerPartitionMetadata{Group: r.string()}
		if !gone {
			e.Value = &ConsumerPartitionMetadataValue{Topics: many(r, func() TopicMetadata {
				return TopicMetadata{
					TopicID: r.topicID(), Topic: r.string(), Partitions: r.int32(),
					Racks: many(r, func() PartitionRacks { return PartitionRacks{r.int32(), many(r, r.string)} }),
				}
			})}
		}
		return e
	case 4:
		e := &ConsumerMember{Group: r.string(), MemberID: r.string()}
		if !gone {
			e.Value = &ConsumerMemberValue{
				InstanceID: r.nullable(), RackID: r.nullable(), ClientID: r.string(), ClientHost: r.string(),
				Topics: many(r, r.string), Regex: r.nullable(), RebalanceTimeoutMS: r.int32(), Assignor: r.nullable(),
			}
			if rng.IntN(2) == 0 {
				e.Value.Classic = &ClassicMember{SessionTimeoutMS: r.int32(), Protocols: many(r, func() ClassicProtocol {
					return ClassicProtocol{r.string(), []byte(r.string())}
				})}
			}
		}
		return e
	case 5:
		e := &ConsumerTargetEpoch{Group: r.string()}
		if !gone {
			e.Value = &ConsumerTargetEpochValue{Epoch: r.int32(), TimestampMS: rng.Int64N(2)}
		}
		return e
	case 6:
		e := &ConsumerTarget{Group: r.string(), MemberID: r.string()}
		if !gone {
			e.Value = &ConsumerTargetValue{Partitions: many(r, r.partitions)}
		}
		return e
	case 7:
		e := &ConsumerCurrent{Group: r.string(), MemberID: r.string()}
		if !gone {
			e.Value = &ConsumerCurrentValue{
				Epoch: r.int32(), PreviousEpoch: r.int32(), State: MemberState(rng.IntN(3)),
				Assigned: many(r, r.withEpochs), Revoking: many(r, r.withEpochs),
			}
		}
		return e
	default:
		e := &ConsumerRegex{Group: r.string(), Regex: r.string()}
		if !gone {
			e.Value = &ConsumerRegexValue{Topics: many(r, r.string), Version: rng.Int64(), TimestampMS: rng.Int64()}
		}
		return e
	}
}

type random struct{ *rand.Rand }

func (r random) int32() int32 { return int32(r.Uint32()) }

func (r random) string() string { return strings.Repeat("é7", r.IntN(3)*r.IntN(40)) }

func (r random) nullable() *string {
	if r.IntN(2) == 0 {
		return nil
	}
	return new(r.string())
}

func (r random) topicID() (id TopicID) {
	if r.IntN(3) > 0 {
		for i := range id {
			id[i] = byte(r.Uint32())
		}
	}
	return id
}

func (r random) partitions() TopicPartitions {
	return TopicPartitions{TopicID: r.topicID(), Partitions: many(r, r.int32)}
}

func (r random) withEpochs() TopicPartitions {
	t := r.partitions()
	if r.IntN(2) == 0 {
		for range t.Partitions {
			t.Epochs = append(t.Epochs, r.int32())
		}
	}
	return t
}

func many[T any](r random, one func() T) (out []T) {
	for range r.IntN(4) * r.IntN(4) {
		out = append(out, one())
	}
	return out
}
