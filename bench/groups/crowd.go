package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/internal/peer"
)

const (
	crowdTopic = "crowd"

	// Kafka's clients' own, and what a node tells members of KIP-848.
	classicHeartbeat  = 3 * time.Second
	consumerHeartbeat = 5 * time.Second

	sessionTimeout   = 45 * time.Second
	rebalanceTimeout = 2 * time.Minute

	// joiners is how many groups come into being at a time.
	joiners = 50
)

var proc = bench.Proc{FS: os.DirFS("/proc")}

// member is a member of a group that consumes nothing, with a connection of its own.
type member struct {
	*conn
	group    string
	protocol string
	id       string
	epoch    int32 // generation, or member epoch
}

// crowd is the load of idle groups at one node.
func (o options) crowd(ctx context.Context, dir, protocol string) (row crowdRow, err error) {
	row = crowdRow{Protocol: protocol, Groups: o.groups, Members: o.members}
	ports, err := peer.FreePorts(1)
	if err != nil {
		return row, err
	}
	all := o.groups * o.members
	most := strconv.Itoa(all + 100)
	s := peer.Flotilla(o.binary, dir+"/crowd-"+protocol, ports[0], "--connections.max", most, "--connections.max.per.ip", most, "--group.initial.rebalance.delay", "100ms")
	if err := s.Start(ctx, dir); err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	if err := openTopic(ctx, s.Addr, crowdTopic, 16); err != nil {
		return row, err
	}
	members := make([]*member, all)
	defer func() {
		for _, m := range members {
			if m != nil {
				err = errors.Join(err, m.Close())
			}
		}
	}()
	for i := range members {
		c, err := dial(ctx, s.Addr)
		if err != nil {
			return row, err
		}
		members[i] = &member{conn: c, group: fmt.Sprint("g-", i/o.members), protocol: protocol}
		versions := kmsg.NewPtrApiVersionsRequest() // as every client does first
		if err := c.ask(versions, kmsg.NewPtrApiVersionsResponse()); err != nil {
			return row, err
		}
		if i%o.members == 0 {
			if _, err := coordinator(ctx, s.Addr, members[i].group); err != nil {
				return row, err
			}
		}
	}
	connected, err := proc.Usage(s.Process())
	if err != nil {
		return row, err
	}
	row.RSSConnected = connected.RSSBytes
	if err := joinAll(members, o.members); err != nil {
		return row, err
	}
	return row, o.watchCrowd(ctx, s, members, &row)
}

// joinAll has all members join, group by group.
func joinAll(members []*member, each int) error {
	turns := make(chan struct{}, joiners)
	errs := make([]error, len(members))
	var all sync.WaitGroup
	for g := 0; g < len(members); g += each {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			var group sync.WaitGroup
			for i := g; i < g+each; i++ {
				group.Go(func() { errs[i] = members[i].join() })
			}
			group.Wait()
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// watchCrowd has all members send heartbeats, and measures the server.
func (o options) watchCrowd(ctx context.Context, s *peer.Server, members []*member, row *crowdRow) error {
	every := classicHeartbeat
	if row.Protocol == consumer {
		every = consumerHeartbeat
	}
	beating, end := context.WithCancel(ctx)
	var beats atomic.Int64
	var group sync.WaitGroup
	errs := make(chan error, len(members))
	for i, m := range members {
		group.Go(func() {
			wait := time.NewTimer(every * time.Duration(i) / time.Duration(len(members))) // spread evenly
			defer wait.Stop()
			for {
				select {
				case <-wait.C:
				case <-beating.Done():
					return
				}
				wait.Reset(every)
				if err := m.beat(); err != nil {
					errs <- fmt.Errorf("%s: %w", m.group, err)
					return
				}
				beats.Add(1)
			}
		})
	}
	defer group.Wait()
	defer end()
	rest := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case err := <-errs:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := rest(2 * every); err != nil { // what joining has left behind
		return err
	}
	before, err := proc.Usage(s.Process())
	if err != nil {
		return err
	}
	began, first := time.Now(), beats.Load()
	if err := rest(o.watch); err != nil {
		return err
	}
	after, err := proc.Usage(s.Process())
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	row.Heartbeats = float64(beats.Load()-first) / took
	row.Core = (after.CPU - before.CPU).Seconds() / took
	row.RSSJoined = after.RSSBytes
	return nil
}

// join makes m a member, with what it is assigned.
func (m *member) join() error {
	var err error
	if m.protocol == consumer {
		err = m.consumerBeat(0, []string{crowdTopic})
	} else {
		err = m.classicJoin()
	}
	if err != nil {
		return fmt.Errorf("%s: a member joins: %w", m.group, err)
	}
	return nil
}

func (m *member) classicJoin() error {
	for {
		join, joined := kmsg.NewPtrJoinGroupRequest(), kmsg.NewPtrJoinGroupResponse()
		join.Version, join.Group, join.MemberID, join.ProtocolType = joinVersion, m.group, m.id, "consumer"
		join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = int32(sessionTimeout.Milliseconds()), int32(rebalanceTimeout.Milliseconds())
		meta := kmsg.NewConsumerMemberMetadata()
		meta.Topics = []string{crowdTopic}
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = "range", meta.AppendTo(nil)
		join.Protocols = append(join.Protocols, p)
		if err := m.ask(join, joined); err != nil {
			return err
		}
		if err := kerr.ErrorForCode(joined.ErrorCode); err != nil {
			return err
		}
		m.id, m.epoch = joined.MemberID, joined.Generation
		sync, synced := kmsg.NewPtrSyncGroupRequest(), kmsg.NewPtrSyncGroupResponse()
		sync.Version, sync.Group, sync.MemberID, sync.Generation = syncVersion, m.group, m.id, m.epoch
		for i, other := range joined.Members { // the leader alone is told of them
			assigned := kmsg.NewConsumerMemberAssignment()
			of := kmsg.NewConsumerMemberAssignmentTopic()
			of.Topic, of.Partitions = crowdTopic, []int32{int32(i)}
			assigned.Topics = append(assigned.Topics, of)
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID, a.MemberAssignment = other.MemberID, assigned.AppendTo(nil)
			sync.GroupAssignment = append(sync.GroupAssignment, a)
		}
		if err := m.ask(sync, synced); err != nil {
			return err
		}
		err := kerr.ErrorForCode(synced.ErrorCode)
		if err == nil || !errors.Is(err, kerr.RebalanceInProgress) && !errors.Is(err, kerr.IllegalGeneration) {
			return err
		}
	}
}

// beat sends a heartbeat, and joins again if the group is about to change: the last of
// its members may have come late.
func (m *member) beat() error {
	if m.protocol == consumer {
		return m.consumerBeat(m.epoch, nil)
	}
	req, resp := kmsg.NewPtrHeartbeatRequest(), kmsg.NewPtrHeartbeatResponse()
	req.Version, req.Group, req.MemberID, req.Generation = heartbeatVersion, m.group, m.id, m.epoch
	if err := m.ask(req, resp); err != nil {
		return err
	}
	err := kerr.ErrorForCode(resp.ErrorCode)
	if errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.IllegalGeneration) {
		return m.classicJoin()
	}
	return err
}

// consumerBeat sends a heartbeat of KIP-848; epoch 0 joins. What the member is told to
// have it has at once, and says so, as often as it is told.
func (m *member) consumerBeat(epoch int32, topics []string) error {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	if req.RebalanceTimeoutMillis = -1; epoch == 0 {
		req.SubscribedTopicNames, req.RebalanceTimeoutMillis = topics, int32(rebalanceTimeout.Milliseconds())
		req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	m.epoch = epoch
	for req != nil {
		resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
		req.Version, req.Group, req.MemberID, req.MemberEpoch = consumerVersion, m.group, m.id, m.epoch
		if err := m.ask(req, resp); err != nil {
			return err
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return err
		}
		if resp.MemberID != nil {
			m.id = *resp.MemberID
		}
		m.epoch = resp.MemberEpoch
		req = has(resp.Assignment)
	}
	return nil
}

// has is what a member says once it has what it was assigned; nil: it was told nothing.
func has(assigned *kmsg.ConsumerGroupHeartbeatResponseAssignment) *kmsg.ConsumerGroupHeartbeatRequest {
	if assigned == nil {
		return nil
	}
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.RebalanceTimeoutMillis, req.Topics = -1, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	for _, t := range assigned.Topics {
		of := kmsg.NewConsumerGroupHeartbeatRequestTopic()
		of.TopicID, of.Partitions = t.TopicID, t.Partitions
		req.Topics = append(req.Topics, of)
	}
	return req
}

// openTopic makes a topic.
func openTopic(ctx context.Context, bootstrap, topic string, partitions int32) error {
	k, err := bench.NewKafka(bench.KafkaConfig{Bootstrap: []string{bootstrap}, ClientID: "groups"})
	if err != nil {
		return err
	}
	defer k.Close()
	_, err = k.OpenTopic(ctx, topic, partitions)
	return err
}
