package grouplife

import (
	"context"
	"slices"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/history"
)

// native is a member with the native client.
type native struct {
	g     *client.Group
	value func([]byte) int64
	all   bool // the next commit is of all partitions
}

// JoinNative joins with the native client, which is the caller's. cfg says what beside
// the group, callbacks and commits.
func JoinNative(l *Life, c *client.Client, cfg client.GroupConfig) error {
	keys := func(parts []client.TopicPartition) (keys []history.Key) {
		for _, p := range parts {
			keys = append(keys, history.Key{Topic: p.Topic, Partition: p.Partition})
		}
		return keys
	}
	cfg.Group, cfg.CommitInterval = l.Group, -1
	cfg.Assigned = func(parts []client.TopicPartition) { l.Note(history.Assigned, keys(parts)) }
	cfg.Revoked = func(parts []client.TopicPartition) { l.Revoked(keys(parts)) }
	cfg.Lost = func(parts []client.TopicPartition) { l.Note(history.Lost, keys(parts)) }
	g, err := c.JoinGroup(cfg)
	if err != nil {
		return err
	}
	l.member = &native{g: g, value: l.Value}
	return nil
}

func (m *native) membership() (string, int32) { return m.g.MemberID(), m.g.MemberEpoch() }

func (m *native) poll(ctx context.Context) ([]history.Mop, error) {
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
		mop.Records = append(mop.Records, history.Record{Offset: r.Offset, Value: m.value(r.Value)})
	}
	return []history.Mop{mop}, nil
}

func (m *native) polled() {}

// commits implements member. Every other commit is of all partitions, also where the
// member begins in one of which it has been given nothing: but not as long as that is
// looked up for one of them, in the background, when nobody can say what it would be.
func (m *native) commits(offsets map[history.Key]int64) map[history.Key]int64 {
	begins := m.g.Assigned()
	m.all = !m.all && !slices.ContainsFunc(begins, func(a client.Assignment) bool { return a.Offset < 0 })
	if !m.all {
		return offsets
	}
	for _, a := range begins {
		k := history.Key{Topic: a.Topic, Partition: a.Partition}
		if _, ok := offsets[k]; !ok {
			offsets[k] = a.Offset
		}
	}
	return offsets
}

// commit implements member: between two polls, it commits what they returned.
func (m *native) commit(ctx context.Context, offsets map[history.Key]int64) (taken []history.Key, err error) {
	if m.all {
		err = m.g.Commit(ctx)
	} else {
		some := make(map[client.TopicPartition]int64, len(offsets))
		for k, offset := range offsets {
			some[client.TopicPartition{Topic: k.Topic, Partition: k.Partition}] = offset
		}
		err = m.g.CommitOffsets(ctx, some)
	}
	if err != nil {
		return nil, err
	}
	return sortedKeys(offsets), nil
}

func (m *native) close(ctx context.Context) { _ = m.g.Close(ctx) }
