//go:build cluster && clients

package killtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/history"
)

// The clients of members: ours, and franz-go's cooperative members of classic groups and
// members of groups of KIP-848.
var (
	native       = memberKind{"native", joinNative}
	kafkaClassic = memberKind{"franz-go, classic", func(m *member, addr string) error {
		return joinKafka(m, addr, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}}
	kafka848 = memberKind{"franz-go, KIP-848", func(m *member, addr string) error {
		return joinKafka(m, addr, kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())
	}}
)

// fetchWait is long, as most partitions have nothing new when they are asked for.
const fetchWait = 2 * time.Second

// nativeMember is a member with the native client.
type nativeMember struct {
	c *client.Client
	g *client.Group
}

func joinNative(m *member, addr string) error {
	c, err := client.New(client.Config{
		Bootstrap: []string{addr}, ClientID: fmt.Sprint("member-", m.process), Dial: m.line.dial, Rand: rand.New(rand.NewPCG(uint64(m.process), 2)),
		RequestTimeout: clientTimeout, BackoffMax: 500 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	keys := func(parts []client.TopicPartition) (keys []history.Key) {
		for _, p := range parts {
			keys = append(keys, history.Key{Topic: p.Topic, Partition: p.Partition})
		}
		return keys
	}
	g, err := c.JoinGroup(client.GroupConfig{
		Group: m.group, Topics: []string{stable}, CommitInterval: -1, MaxPollInterval: time.Minute,
		Assigned: func(parts []client.TopicPartition) { m.note(history.Assigned, keys(parts)) },
		Revoked:  func(parts []client.TopicPartition) { m.revoked(keys(parts)) },
		Lost:     func(parts []client.TopicPartition) { m.note(history.Lost, keys(parts)) },
		Consumer: client.ConsumerConfig{MaxWait: fetchWait},
	})
	m.cl = &nativeMember{c, g}
	return err
}

func (m *nativeMember) membership() (string, int32) { return m.g.MemberID(), m.g.MemberEpoch() }

func (m *nativeMember) poll(ctx context.Context) ([]history.Mop, error) {
	f, err := m.g.Poll(ctx)
	if err == nil {
		err = f.Err
	}
	if err != nil {
		return nil, err
	}
	mop := history.Mop{Key: history.Key{Topic: f.Topic, Partition: f.Partition}}
	for r, err := range f.Records() {
		if err != nil {
			return nil, err
		}
		mop.Records = append(mop.Records, history.Record{Offset: r.Offset, Value: valueOf(r.Value)})
	}
	return []history.Mop{mop}, nil
}

func (m *nativeMember) polled() {}

// commits implements groupClient: where the member has been given nothing, it may commit
// where it began.
func (m *nativeMember) commits(offsets map[history.Key]int64) map[history.Key]int64 {
	for _, a := range m.g.Assigned() {
		k := history.Key{Topic: a.Topic, Partition: a.Partition}
		if _, ok := offsets[k]; !ok && a.Offset >= 0 {
			offsets[k] = a.Offset
		}
	}
	return offsets
}

// commit implements groupClient: between two polls, it commits what they returned.
func (m *nativeMember) commit(ctx context.Context, offsets map[history.Key]int64) ([]history.Key, error) {
	if err := m.g.Commit(ctx); err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(offsets)), nil
}

func (m *nativeMember) close(ctx context.Context) {
	_ = m.g.Close(ctx)
	_ = m.c.Close()
}

// kafkaMember is a member with franz-go.
type kafkaMember struct {
	cl    *kgo.Client
	ready chan struct{} // closed when cl is set, which its callbacks may come before
}

func joinKafka(m *member, addr string, protocol ...kgo.Opt) error {
	k := &kafkaMember{ready: make(chan struct{})}
	defer close(k.ready)
	m.cl = k
	var err error
	k.cl, err = kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addr), kgo.ClientID(fmt.Sprint("member-", m.process)), kgo.Dialer(m.line.dial),
		kgo.MetadataMinAge(500 * time.Millisecond), kgo.AlwaysRetryEOF(),
		kgo.ConsumerGroup(m.group), kgo.ConsumeTopics(stable), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.SessionTimeout(groupSession), kgo.HeartbeatInterval(groupHeartbeat),
		kgo.RebalanceTimeout(2 * groupSession), kgo.FetchMaxWait(fetchWait),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			m.note(history.Assigned, keysOf(parts))
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { m.revoked(keysOf(parts)) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { m.note(history.Lost, keysOf(parts)) }),
	}, protocol...)...)
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

func (m *kafkaMember) membership() (string, int32) {
	<-m.ready
	id, epoch := m.cl.GroupMetadata()
	return id, max(0, epoch)
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

func (m *kafkaMember) polled() { m.cl.AllowRebalance() }

func (m *kafkaMember) commits(offsets map[history.Key]int64) map[history.Key]int64 { return offsets }

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

// close implements groupClient. Of who is dead, it takes as long as it takes.
func (m *kafkaMember) close(ctx context.Context) {
	if ctx.Err() == nil {
		m.cl.CloseAllowingRebalance()
		return
	}
	m.cl.AllowRebalance()
	_ = m.cl.LeaveGroupContext(ctx) // without a word
	m.cl.Close()
}
