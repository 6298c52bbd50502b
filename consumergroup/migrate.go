package consumergroup

import (
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// MigrationPolicy says whether a group changes its kind while it has members
// (group.consumer.migration.policy).
type MigrationPolicy string

// The policies, by Kafka's names.
const (
	MigrateNever MigrationPolicy = "disabled"
	MigrateUp    MigrationPolicy = "upgrade"       // a classic group, with its first member of KIP-848
	MigrateDown  MigrationPolicy = "downgrade"     // one of KIP-848, when its last member of that has gone
	MigrateBoth  MigrationPolicy = "bidirectional" // either
)

func (p MigrationPolicy) valid() bool {
	return p == MigrateNever || p == MigrateUp || p == MigrateDown || p == MigrateBoth
}

// upgradable returns why a classic group with members cannot become one of KIP-848.
func (c *Coordinator) upgradable(g *classic) *errcode.Error {
	refused := func(why string) *errcode.Error {
		return errcode.Errorf(errcode.GroupIDNotFound, "group %s has members of the classic protocol, and %s: stop them, or set group.protocol=classic",
			errcode.Short(g.name), why)
	}
	switch {
	case c.opts.Migration != MigrateUp && c.opts.Migration != MigrateBoth:
		return refused("group.consumer.migration.policy lets it not change")
	case len(g.members) > 0 && g.protocolType != record.ConsumerProtocolType:
		return refused("they are no consumers")
	}
	for _, m := range g.members {
		if _, err := record.DecodeSubscription(g.said(m)); err != nil {
			return refused("what they say cannot be read")
		}
		if _, err := record.DecodeAssignment(m.assignment); err != nil {
			return refused("what they were assigned cannot be read")
		}
	}
	return nil
}

// said returns what a member of a classic group says: for the protocol that is chosen,
// or for the one that it prefers.
func (g *classic) said(m *member) []byte {
	if b, ok := m.metadata(g.protocol); ok {
		return b
	}
	return m.protocols[0].Metadata
}

// upgrade makes a classic group one of KIP-848 that its members are in, with what they
// have; see upgradable. Requests that are held are answered REBALANCE_IN_PROGRESS: the
// members join again, and find it so. Who does not know its id yet could not, and is
// left out.
func (c *Coordinator) upgrade(old *classic) *consumer {
	for _, m := range slices.Clone(old.members) {
		if m.nameless {
			c.remove(m, errRebalance)
			continue
		}
		c.answerJoin(m, &JoinReply{Err: errRebalance, MemberID: m.id, Generation: -1})
		c.answerSync(m, &SyncReply{Err: errRebalance})
		c.timers.stop(m.session)
		c.accountAs(m, 0)
	}
	for id := range old.pending {
		c.forgetPending(old, id)
	}
	c.timers.stop(old.join)
	c.timers.stop(old.sync)
	delete(c.live, old.name)
	if c.decided.meta(old.name) != nil {
		c.write(&record.GroupMetadata{Group: old.name})
	}

	g := newConsumer(old.name)
	c.consumers[g.name] = g
	epoch := max(old.generation, 0)
	c.write(&record.ConsumerGroup{Group: g.name, Value: &record.ConsumerGroupValue{Epoch: epoch}})
	has := c.upgradedPartitions(old)
	for _, om := range old.members {
		v := upgraded(old, om)
		c.write(&record.ConsumerMember{Group: g.name, MemberID: om.id, Value: v})
		list := has[om.id].list()
		c.write(&record.ConsumerTarget{Group: g.name, MemberID: om.id, Value: &record.ConsumerTargetValue{Partitions: withoutEpochs(list)}})
		m := c.addConsumerMember(g, om.id, om.instance)
		m.sessionMS = om.sessionMS
		c.renewConsumer(m)
		c.accountConsumer(m, v)
		c.setCurrent(m, joined, &record.ConsumerCurrentValue{Epoch: epoch, PreviousEpoch: epoch, Assigned: list})
	}
	c.write(&record.ConsumerTargetEpoch{Group: g.name, Value: &record.ConsumerTargetEpochValue{Epoch: epoch, TimestampMS: c.nowMS()}})
	return g
}

// upgradedPartitions returns what each member of a classic group has: what it was
// assigned last, and what else it has said to own that nobody was assigned, as
// cooperative members do while they rebalance.
func (c *Coordinator) upgradedPartitions(g *classic) map[string]partitionSet {
	has, taken := make(map[string]partitionSet), make(map[owned]bool)
	take := func(m *member, list []record.Owned) {
		if has[m.id] == nil {
			has[m.id] = make(partitionSet)
		}
		for _, o := range c.ownedPartitions(list) {
			if !taken[o] {
				taken[o], has[m.id][o] = true, max(g.generation, 0)
			}
		}
	}
	for _, m := range g.members {
		if a, err := record.DecodeAssignment(m.assignment); err == nil {
			take(m, a.Partitions)
		}
	}
	for _, m := range g.members {
		if s, err := record.DecodeSubscription(g.said(m)); err == nil {
			take(m, s.Owned)
		}
	}
	return has
}

// ownedPartitions returns the partitions that there are of those that a classic member
// names.
func (c *Coordinator) ownedPartitions(list []record.Owned) (out []owned) {
	for _, o := range list {
		info := c.topics.byName[o.Topic]
		if info == nil {
			continue
		}
		for _, p := range o.Partitions {
			if p >= 0 && p < info.Partitions {
				out = append(out, owned{info.ID, p})
			}
		}
	}
	return out
}

func withoutEpochs(list []record.TopicPartitions) []record.TopicPartitions {
	out := slices.Clone(list)
	for i := range out {
		out[i].Epochs = nil
	}
	return out
}

// upgraded returns what a member of a classic group has said, as a member of one of
// KIP-848.
func upgraded(g *classic, m *member) *record.ConsumerMemberValue {
	v := &record.ConsumerMemberValue{
		InstanceID: optional(m.instance), ClientID: m.clientID, ClientHost: m.clientHost, RebalanceTimeoutMS: m.rebalanceMS,
		Classic: &record.ClassicMember{SessionTimeoutMS: m.sessionMS, Protocols: recordedProtocols(m.protocols)},
	}
	if s, err := record.DecodeSubscription(g.said(m)); err == nil {
		v.Topics, v.RackID = slices.Compact(slices.Sorted(slices.Values(s.Topics))), s.RackID
	}
	return v
}

func recordedProtocols(ps []Protocol) (out []record.ClassicProtocol) {
	for _, p := range ps {
		out = append(out, record.ClassicProtocol{Name: p.Name, Metadata: p.Metadata})
	}
	return out
}

// downgradable reports whether a group of KIP-848 has only members that speak the
// classic protocol, and may become a classic group.
func (c *Coordinator) downgradable(s *consumerState) bool {
	if s == nil || len(s.members) == 0 || c.opts.Migration != MigrateDown && c.opts.Migration != MigrateBoth {
		return false
	}
	for _, v := range s.members {
		if v.Classic == nil || len(v.Classic.Protocols) == 0 {
			return false
		}
	}
	return true
}

// downgrade makes a group of KIP-848 a classic one, see downgradable, and has its members
// join again: from now on one of them assigns.
func (c *Coordinator) downgrade(old *consumer) {
	s := c.decided.consumer(old.name)
	g := c.newClassic(old.name)
	g.protocolType, g.generation = record.ConsumerProtocolType, s.highest()
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		v := s.members[id]
		om := old.members[id]
		c.timers.stop(om.session)
		c.timers.stop(om.revoke)
		c.timers.stop(om.rejoin)
		c.accountConsumer(om, nil)
		m := c.newMember(g, id)
		if instance := required(v.InstanceID); old.static[instance] == id {
			m.instance = instance
		}
		m.clientID, m.clientHost = v.ClientID, v.ClientHost
		m.sessionMS, m.rebalanceMS = v.Classic.SessionTimeoutMS, v.RebalanceTimeoutMS
		for _, p := range v.Classic.Protocols {
			m.protocols = append(m.protocols, Protocol{p.Name, p.Metadata})
		}
		m.assignment = c.classicAssignment(v, s.currentOf(id))
		g.insert(m)
		c.account(m)
		c.renew(m)
	}
	delete(c.consumers, old.name)
	c.buryConsumer(old.name)
	g.protocol = g.elect()
	c.enter(g, Stable)
	c.live[g.name] = g
	c.persist(g)
	c.prepare(g)
}

// classicAssignment returns what a member has in the words of the classic protocol.
func (c *Coordinator) classicAssignment(v *record.ConsumerMemberValue, current *record.ConsumerCurrentValue) []byte {
	a := new(record.Assignment)
	if len(v.Classic.Protocols) > 0 {
		if s, err := record.DecodeSubscription(v.Classic.Protocols[0].Metadata); err == nil {
			a.Version = min(s.Version, record.NewestProtocol)
		}
	}
	if c.topics != nil {
		for _, tp := range current.Assigned {
			if info := c.topics.byID[tp.TopicID]; info != nil {
				a.Partitions = append(a.Partitions, record.Owned{Topic: info.Name, Partitions: tp.Partitions})
			}
		}
	}
	return record.AppendAssignment(nil, a)
}
