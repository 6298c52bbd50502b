//go:build synctests

package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/history"
)

// kafkaClassic and kafka848 are memberKinds of franz-go: cooperative members of a
// classic group, and members of one of KIP-848.
var (
	kafkaClassic memberKind = func(l *life, topics []string) {
		newKafkaMember(l, topics, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	kafka848 memberKind = func(l *life, topics []string) {
		newKafkaMember(l, topics, kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())
	}
)

// buildTags is what go test was asked for.
const buildTags = " -tags synctests"

// kafkaMember is a member with franz-go.
type kafkaMember struct {
	l     *life
	cl    *kgo.Client
	ready chan struct{} // closed when cl is set, which its callbacks may come before

	mu      sync.Mutex
	fetches *history.Op // of committed offsets, which is under way
}

func newKafkaMember(l *life, topics []string, protocol ...kgo.Opt) {
	m := &kafkaMember{l: l, ready: make(chan struct{})}
	l.m = m
	opts := append([]kgo.Opt{
		kgo.ConsumerGroup(l.group), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.SessionTimeout(groupSession), kgo.HeartbeatInterval(groupHeartbeat),
		kgo.RebalanceTimeout(2 * groupSession), kgo.FetchMaxWait(100 * time.Millisecond), kgo.FetchMaxPartitionBytes(2 << 10),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { m.assigned(parts) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { l.revoked(keysOf(parts)) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { l.note(history.Lost, keysOf(parts)) }),
		kgo.AdjustFetchOffsetsFn(m.fetched),
	}, protocol...)
	m.cl = l.kafka(opts...)
	close(m.ready)
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

func (m *kafkaMember) membership() (string, int32) {
	<-m.ready
	id, epoch := m.cl.GroupMetadata()
	return id, max(0, epoch)
}

// assigned records that the member has partitions, and that it is about to ask where to
// go on in them.
func (m *kafkaMember) assigned(parts map[string][]int32) {
	keys := keysOf(parts)
	m.l.note(history.Assigned, keys)
	if len(keys) == 0 || m.l.dead.Load() {
		return
	}
	op := history.Op{Process: m.l.process, F: history.FetchOffsets, In: m.l.in()}
	for _, k := range keys {
		op.Mops = append(op.Mops, history.Mop{Key: k, From: history.NoOffset})
	}
	op = m.l.w.rec.Invoke(op)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetches = &op
}

// fetched records where the group is.
func (m *kafkaMember) fetched(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	m.mu.Lock()
	op := m.fetches
	m.fetches = nil
	m.mu.Unlock()
	if op == nil || m.l.dead.Load() {
		return offsets, nil
	}
	answer := *op
	answer.Mops = nil
	for _, asked := range op.Mops {
		if o, ok := offsets[asked.Key.Topic][asked.Key.Partition]; ok {
			answer.Mops = append(answer.Mops, history.Mop{Key: asked.Key, From: max(history.NoOffset, o.EpochOffset().Offset)})
		}
	}
	m.l.w.rec.Complete(answer, history.OK)
	return offsets, nil
}

func (m *kafkaMember) poll(ctx context.Context) ([]history.Mop, error) {
	fetches := m.cl.PollRecords(ctx, 50)
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
			mops[k].Records = append(mops[k].Records, history.Record{Offset: r.Offset, Value: valueOf(r.Value)})
		}
	})
	var out []history.Mop
	for _, k := range slices.SortedFunc(maps.Keys(mops), compareKeys) {
		out = append(out, *mops[k])
	}
	return out, err
}

func (m *kafkaMember) commits(offsets map[history.Key]int64) map[history.Key]int64 { return offsets }

func (m *kafkaMember) polled() { m.cl.AllowRebalance() }

func (m *kafkaMember) commit(ctx context.Context, offsets map[history.Key]int64) (taken []history.Key, err error) {
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
					err = fmt.Errorf("%w", kerr.ErrorForCode(p.ErrorCode))
				}
			}
		}
	})
	return taken, err
}

// close implements groupMember. Of who is dead, it takes as long as it takes.
func (m *kafkaMember) close(ctx context.Context) {
	if ctx.Err() == nil {
		m.cl.CloseAllowingRebalance()
		return
	}
	m.l.w.clients.Go(m.cl.CloseAllowingRebalance)
}
