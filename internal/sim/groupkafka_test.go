//go:build synctests

package sim

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/internal/grouplife"
	"github.com/flotilla-log/flotilla/internal/history"
)

// kafkaClassic and kafka848 are memberKinds of franz-go: cooperative members of a
// classic group, and members of one of KIP-848.
var (
	kafkaClassic memberKind = func(l *life, topics []string) error { return joinKafka(l, topics, grouplife.Classic()) }
	kafka848     memberKind = func(l *life, topics []string) error { return joinKafka(l, topics, grouplife.Server()) }
)

// buildTags is what go test was asked for.
const buildTags = " -tags synctests"

func joinKafka(l *life, topics []string, protocol []kgo.Opt) error {
	r := &resumption{l: l}
	return grouplife.JoinKafka(l.Life, grouplife.KafkaConfig{
		Open: func(opts ...kgo.Opt) (*kgo.Client, error) { return l.kafka(opts...), nil },
		Options: append([]kgo.Opt{
			kgo.ConsumeTopics(topics...), kgo.SessionTimeout(groupSession), kgo.HeartbeatInterval(groupHeartbeat),
			kgo.RebalanceTimeout(2 * groupSession), kgo.FetchMaxWait(100 * time.Millisecond), kgo.FetchMaxPartitionBytes(2 << 10),
			kgo.AdjustFetchOffsetsFn(r.told),
		}, protocol...),
		Assigned: r.asks,
		// It takes as long as it takes.
		Abandon: func(cl *kgo.Client) { l.w.clients.Go(cl.CloseAllowingRebalance) },
	})
}

// resumption records what a member of franz-go's is told of where to go on.
type resumption struct {
	l *life

	mu    sync.Mutex
	asked *history.Op // of committed offsets, which is under way
}

// asks records that the member is about to ask where to go on in partitions.
func (r *resumption) asks(keys []history.Key) {
	op := history.Op{Process: r.l.process, F: history.FetchOffsets, In: r.l.In()}
	for _, k := range keys {
		op.Mops = append(op.Mops, history.Mop{Key: k, From: history.NoOffset})
	}
	op = r.l.w.rec.Invoke(op)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = &op
}

// told records where the group is.
func (r *resumption) told(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	r.mu.Lock()
	op := r.asked
	r.asked = nil
	r.mu.Unlock()
	if op == nil || r.l.Dead() {
		return offsets, nil
	}
	answer := *op
	answer.Mops = nil
	for _, asked := range op.Mops {
		if o, ok := offsets[asked.Key.Topic][asked.Key.Partition]; ok {
			answer.Mops = append(answer.Mops, history.Mop{Key: asked.Key, From: max(history.NoOffset, o.EpochOffset().Offset)})
		}
	}
	r.l.w.rec.Complete(answer, history.OK)
	return offsets, nil
}
