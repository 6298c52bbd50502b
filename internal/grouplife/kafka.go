package grouplife

import (
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/history"
)

// pollRecords is how many records one poll returns at most.
const pollRecords = 50

// KafkaConfig is how a member joins with franz-go.
type KafkaConfig struct {
	// Open makes the client, of options that hold those below and the group's.
	Open func(opts ...kgo.Opt) (*kgo.Client, error)

	// Options say what is consumed, in which protocol, and how long things may take.
	Options []kgo.Opt

	// Assigned is called after the member has noted that it has partitions; nil: nothing
	// is.
	Assigned func(keys []history.Key)

	// Abandon ends the client of a member that is dead.
	Abandon func(cl *kgo.Client)
}

// Classic returns the Options of a cooperative member of a classic group.
func Classic() []kgo.Opt { return []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())} }

// Server returns those of a member of a group of KIP-848, whose partitions the server
// assigns.
func Server() []kgo.Opt {
	return []kgo.Opt{kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer()}
}

// kafka is a member with franz-go.
type kafka struct {
	cl      *kgo.Client
	ready   chan struct{} // closed when cl is set, which its callbacks may come before
	value   func([]byte) int64
	abandon func(*kgo.Client)
}

// JoinKafka joins with franz-go.
func JoinKafka(l *Life, cfg KafkaConfig) (err error) {
	m := &kafka{ready: make(chan struct{}), value: l.Value, abandon: cfg.Abandon}
	defer close(m.ready)
	l.member = m
	m.cl, err = cfg.Open(append([]kgo.Opt{
		kgo.ConsumerGroup(l.Group), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			keys := keysOf(parts)
			l.Note(history.Assigned, keys)
			if cfg.Assigned != nil && len(keys) > 0 && !l.Dead() {
				cfg.Assigned(keys)
			}
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { l.Revoked(keysOf(parts)) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { l.Note(history.Lost, keysOf(parts)) }),
	}, cfg.Options...)...)
	return err
}

func keysOf(parts map[string][]int32) (keys []history.Key) {
	for topic, numbers := range parts {
		for _, n := range numbers {
			keys = append(keys, history.Key{Topic: topic, Partition: n})
		}
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

func (m *kafka) membership() (string, int32) {
	<-m.ready
	id, epoch := m.cl.GroupMetadata()
	return id, max(0, epoch)
}

func (m *kafka) poll(ctx context.Context) ([]history.Mop, error) {
	fetches := m.cl.PollRecords(ctx, pollRecords)
	mops := make(map[history.Key]*history.Mop)
	var err error
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		err = errors.Join(err, f.Err)
		if len(f.Records) == 0 {
			return
		}
		k := history.Key{Topic: f.Topic, Partition: f.Partition}
		if mops[k] == nil {
			mops[k] = &history.Mop{Key: k}
		}
		for _, r := range f.Records {
			mops[k].Records = append(mops[k].Records, history.Record{Offset: r.Offset, Value: m.value(r.Value)})
		}
	})
	var out []history.Mop
	for _, k := range sortedKeys(mops) {
		out = append(out, *mops[k])
	}
	return out, err
}

func (m *kafka) polled() { m.cl.AllowRebalance() }

func (m *kafka) commits(offsets map[history.Key]int64) map[history.Key]int64 { return offsets }

func (m *kafka) commit(ctx context.Context, offsets map[history.Key]int64) (taken []history.Key, err error) {
	asked := make(map[string]map[int32]kgo.EpochOffset)
	for k, offset := range offsets {
		if asked[k.Topic] == nil {
			asked[k.Topic] = make(map[int32]kgo.EpochOffset)
		}
		asked[k.Topic][k.Partition] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	m.cl.CommitOffsetsSync(ctx, asked, func(_ *kgo.Client, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, failed error) {
		if err = failed; failed != nil {
			return
		}
		for i, t := range resp.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 {
					taken = append(taken, history.Key{Topic: req.Topics[i].Topic, Partition: p.Partition})
				} else {
					err = kerr.ErrorForCode(p.ErrorCode)
				}
			}
		}
	})
	return taken, err
}

func (m *kafka) close(ctx context.Context) {
	if ctx.Err() == nil {
		m.cl.CloseAllowingRebalance()
		return
	}
	m.abandon(m.cl)
}
