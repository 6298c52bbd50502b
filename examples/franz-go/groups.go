package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// member is a member of a group.
type member struct {
	*kgo.Client

	mu      sync.Mutex
	owned   map[int32]bool
	changed chan struct{} // 1-buffered: owned has changed
}

// join makes a member of a group that begins at the beginning of the topic. With
// serverSide the server assigns the partitions (KIP-848), else one of the members.
func (e *example) join(group string, serverSide bool) (*member, error) {
	m := &member{owned: make(map[int32]bool), changed: make(chan struct{}, 1)}
	opts := []kgo.Opt{
		kgo.SeedBrokers(e.addr), kgo.ConsumerGroup(group), kgo.ConsumeTopics(e.topic), kgo.RetryTimeout(5 * time.Second),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		// Members hear of each other with their heartbeats.
		kgo.HeartbeatInterval(200 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { m.has(p[e.topic], true) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { m.has(p[e.topic], false) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { m.has(p[e.topic], false) }),
	}
	if serverSide {
		opts = append(opts, kgo.ServerSideBalancer())
	}
	var err error
	m.Client, err = kgo.NewClient(opts...)
	return m, err
}

func (m *member) has(partitions []int32, owns bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range partitions {
		if owns {
			m.owned[p] = true
		} else {
			delete(m.owned, p)
		}
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func (m *member) partitions() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.owned))
}

// await returns when the member has so many partitions.
func (m *member) await(ctx context.Context, want int) error {
	for len(m.partitions()) != want {
		select {
		case <-m.changed:
		case <-ctx.Done():
			return errors.New("a member of a group waits in vain for its partitions")
		}
	}
	return nil
}

// consume reads what was sent, says what it saw, and commits.
func (m *member) consume(ctx context.Context, step string, want int) error {
	for n := 0; n < want; {
		fetches := m.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			sayRecord(step, r)
		})
	}
	return m.CommitUncommittedOffsets(ctx)
}

// groupLimit bounds what is done with a group.
const groupLimit = 12 * time.Second

// groups has members come and go, and looks at their group.
func (e *example) groups(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, groupLimit)
	defer cancel()
	group := e.topic + "-group"
	first, err := e.join(group, false)
	if err != nil {
		return err
	}
	defer first.Close()
	if err := first.consume(ctx, "group-consumed", len(e.sent)); err != nil {
		return err
	}
	if err := e.committed(ctx, group, "committed"); err != nil {
		return err
	}
	second, err := e.join(group, false)
	if err != nil {
		return err
	}
	defer second.Close()
	if err := errors.Join(first.await(ctx, 1), second.await(ctx, 1)); err != nil {
		return err
	}
	say("group-shared", fields{"members": [][]int32{first.partitions(), second.partitions()}})
	if err := e.describeGroup(ctx, group); err != nil {
		return err
	}
	second.Close()
	if err := first.await(ctx, 2); err != nil {
		return err
	}
	say("group-left", fields{"members": [][]int32{first.partitions()}})
	return nil
}

// committed says what a group has committed.
func (e *example) committed(ctx context.Context, group, step string) error {
	offsets, err := e.admin.FetchOffsets(ctx, group)
	if err != nil {
		return err
	}
	for _, o := range offsets.Sorted() {
		if o.Err != nil {
			return o.Err
		}
		say(step, fields{"partition": o.Partition, "offset": o.At})
	}
	return nil
}

// describeGroup lists the groups, and describes one.
func (e *example) describeGroup(ctx context.Context, group string) error {
	listed, err := e.admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	say("groups", fields{"groups": listed.Groups(), "state": listed[group].State})
	described, err := e.admin.DescribeGroups(ctx, group)
	if err != nil {
		return err
	}
	d := described[group]
	if d.Err != nil {
		return d.Err
	}
	members := [][]int32{}
	for _, m := range d.Members {
		assigned, ok := m.Assigned.AsConsumer()
		if !ok {
			return errors.New("a member of the group has no assignment")
		}
		for _, t := range assigned.Topics {
			members = append(members, t.Partitions)
		}
	}
	say("described-group", fields{"group": d.Group, "state": d.State, "protocol": d.Protocol, "members": members})
	return nil
}

// deleteGroup makes a group of offsets alone, and deletes one of them, and it.
func (e *example) deleteGroup(ctx context.Context) error {
	group := e.topic + "-group-scratch"
	var offsets kadm.Offsets
	for p := range int32(2) {
		offsets.Add(kadm.Offset{Topic: e.topic, Partition: p, At: 1, LeaderEpoch: -1})
	}
	if err := e.admin.CommitAllOffsets(ctx, group, offsets); err != nil {
		return err
	}
	deleted, err := e.admin.DeleteOffsets(ctx, group, kadm.TopicsSet{e.topic: {1: {}}})
	if err != nil {
		return err
	}
	if err := deleted.Error(); err != nil {
		return err
	}
	if err := e.committed(ctx, group, "offsets-left"); err != nil {
		return err
	}
	if _, err := e.admin.DeleteGroup(ctx, group); err != nil {
		return err
	}
	listed, err := e.admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	_, exists := listed[group]
	say("delete-group", fields{"group": group, "exists": exists})
	return nil
}

// serverAssigned has a member of a group whose partitions the server assigns.
func (e *example) serverAssigned(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, groupLimit)
	defer cancel()
	group := e.topic + "-group-assigned"
	m, err := e.join(group, true)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.consume(ctx, "assigned-consumed", len(e.sent)); err != nil {
		return err
	}
	described, err := e.admin.DescribeConsumerGroups(ctx, group)
	if err != nil {
		return err
	}
	d := described[group]
	if d.Err != nil {
		return d.Err
	}
	members := [][]int32{}
	for _, m := range d.Members {
		members = append(members, slices.Sorted(maps.Keys(m.Assignment[e.topic])))
	}
	say("described-assigned", fields{"group": d.Group, "state": d.State, "assignor": d.AssignorName, "members": members})
	return nil
}
