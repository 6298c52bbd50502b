package consumergroup

import (
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/assign"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// consumer is a group of KIP-848 that has members. What they have said and have is in
// the decided state; here is what follows from it, and their timers.
type consumer struct {
	name    string
	members map[string]*consumerMember
	static  map[string]string // member id by instance id

	// owners has for each partition the member that has it, or has yet to give it
	// away. Invariant: what no member's current assignment names is not in it.
	owners map[owned]*consumerMember

	seen  int64 // version of the Topics that the group was last held against
	bytes int   // held of members
}

// consumerMember is a member of a group of KIP-848.
type consumerMember struct {
	group *consumer
	id    string

	session *timer // ends when it was not heard of for too long
	revoke  *timer // ends when it has not given away what it was to
	rejoin  *timer // of one that speaks the classic protocol: ends when it has not joined again, or asked for its assignment

	sessionMS int32 // of one that speaks the classic protocol; 0: the group's
	bytes     int   // held of it
}

// neverSeen is the version of no Topics.
const neverSeen = -1 << 63

func newConsumer(name string) *consumer {
	return &consumer{
		name: name, members: make(map[string]*consumerMember), static: make(map[string]string),
		owners: make(map[owned]*consumerMember), seen: neverSeen,
	}
}

// addConsumerMember makes a member. What is recorded of it is for the caller to see
// to, before or after.
func (c *Coordinator) addConsumerMember(g *consumer, id, instance string) *consumerMember {
	m := &consumerMember{group: g, id: id}
	m.session = newTimer(func() { c.removeConsumer(m) })
	m.revoke = newTimer(func() {
		if s := c.decided.consumer(g.name); s != nil && s.currentOf(m.id).State == record.UnrevokedPartitions {
			c.removeConsumer(m)
		}
	})
	m.rejoin = newTimer(func() { c.removeConsumer(m) })
	g.members[id] = m
	if instance != "" {
		g.static[instance] = id
	}
	c.renewConsumer(m)
	return m
}

// takeOverConsumer makes the group that s tells of. Of a static member that stands
// twice, and of a partition that two have, the first is believed.
func (c *Coordinator) takeOverConsumer(name string, s *consumerState) {
	if len(s.members) == 0 {
		return
	}
	g := newConsumer(name)
	c.consumers[name] = g
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		v := s.members[id]
		instance := required(v.InstanceID)
		if g.static[instance] != "" {
			instance = ""
		}
		m := c.addConsumerMember(g, id, instance)
		c.speaks(m, v)
		c.accountConsumer(m, v)
		current := s.currentOf(id)
		g.own(m, joined, current)
		if current.State == record.UnrevokedPartitions {
			c.timers.set(m.revoke, c.now.Add(ms(int64(v.RebalanceTimeoutMS))))
		}
	}
}

// own takes note of what m has after its current assignment has changed.
func (g *consumer) own(m *consumerMember, before, after *record.ConsumerCurrentValue) {
	for _, list := range [][]record.TopicPartitions{before.Assigned, before.Revoking} {
		for o := range setOf(list) {
			if g.owners[o] == m {
				delete(g.owners, o)
			}
		}
	}
	for _, list := range [][]record.TopicPartitions{after.Assigned, after.Revoking} {
		for o := range setOf(list) {
			if g.owners[o] == nil {
				g.owners[o] = m
			}
		}
	}
}

// speaks takes note of the protocol that m speaks, by what it has said.
func (c *Coordinator) speaks(m *consumerMember, v *record.ConsumerMemberValue) {
	m.sessionMS = 0
	if v.Classic != nil {
		m.sessionMS = v.Classic.SessionTimeoutMS
	} else {
		c.timers.stop(m.rejoin)
	}
	c.renewConsumer(m)
}

func (c *Coordinator) renewConsumer(m *consumerMember) {
	session := c.opts.ConsumerSessionTimeout
	if m.sessionMS > 0 {
		session = ms(int64(m.sessionMS))
	}
	c.timers.set(m.session, c.now.Add(session))
}

// accountConsumer counts what is held of m, which has said v.
func (c *Coordinator) accountConsumer(m *consumerMember, v *record.ConsumerMemberValue) {
	n := 0
	if v != nil {
		n = consumerSize(m.id, v)
	}
	m.group.bytes += n - m.bytes
	c.bytes += n - m.bytes
	m.bytes = n
}

// consumerSize is what is held of a member that has said v, about.
func consumerSize(id string, v *record.ConsumerMemberValue) int {
	n := memberBytes + 4*len(id) + len(v.ClientID) + len(v.ClientHost)
	for _, s := range []*string{v.InstanceID, v.RackID, v.Regex, v.Assignor} {
		n += 2 * len(required(s))
	}
	for _, topic := range v.Topics {
		n += 16 + len(topic)
	}
	if v.Classic != nil {
		for _, p := range v.Classic.Protocols {
			n += protocolBytes + len(p.Name) + len(p.Metadata)
		}
	}
	return n
}

// setCurrent decides what a member has.
func (c *Coordinator) setCurrent(m *consumerMember, before, after *record.ConsumerCurrentValue) {
	g := m.group
	c.write(&record.ConsumerCurrent{Group: g.name, MemberID: m.id, Value: after})
	g.own(m, before, after)
	c.timers.stop(m.revoke)
	if after.State == record.UnrevokedPartitions {
		v := c.decided.consumer(g.name).members[m.id]
		c.timers.set(m.revoke, c.now.Add(ms(int64(v.RebalanceTimeoutMS))))
	}
}

// dropConsumer decides that a member is no more. What follows from it for the group is
// for the caller to see to.
func (c *Coordinator) dropConsumer(m *consumerMember) {
	g := m.group
	s := c.decided.consumer(g.name)
	v, current := s.members[m.id], s.currentOf(m.id)
	if s.current[m.id] != nil {
		c.write(&record.ConsumerCurrent{Group: g.name, MemberID: m.id})
	}
	if s.targets[m.id] != nil {
		c.write(&record.ConsumerTarget{Group: g.name, MemberID: m.id})
	}
	c.timers.stop(m.session)
	c.timers.stop(m.revoke)
	c.timers.stop(m.rejoin)
	g.own(m, current, joined)
	delete(g.members, m.id)
	if instance := required(v.InstanceID); g.static[instance] == m.id {
		delete(g.static, instance)
	}
	c.accountConsumer(m, nil)
	c.write(&record.ConsumerMember{Group: g.name, MemberID: m.id})
}

// removeConsumer takes a member out of its group: it has left, or is lost. The others
// are given what it had as they send heartbeats.
func (c *Coordinator) removeConsumer(m *consumerMember) {
	g := m.group
	c.dropConsumer(m)
	if c.downgradable(c.decided.consumer(g.name)) {
		// At the epoch that is the members' generation: they are told to join again.
		// Of another generation they would take what they have for lost.
		c.downgrade(g)
		return
	}
	c.resolve(g, false)
	c.bumpEpoch(g)
	if len(g.members) == 0 {
		delete(c.consumers, g.name)
	}
}

// bumpEpoch begins a new epoch of the group: what it was assigned for has changed.
func (c *Coordinator) bumpEpoch(g *consumer) {
	s := c.decided.consumer(g.name)
	v := &record.ConsumerGroupValue{}
	if s != nil {
		v.Epoch = s.highest()
		if c.topics != nil {
			_, v.MetadataHash = c.topics.subscribed(s)
		}
	}
	v.Epoch++
	c.write(&record.ConsumerGroup{Group: g.name, Value: v})
}

// resolve has the regular expressions of a group stand for the topics that there are:
// those that are new, or all. What nobody subscribes to any more is forgotten.
func (c *Coordinator) resolve(g *consumer, all bool) {
	s := c.decided.consumer(g.name)
	if s == nil {
		return
	}
	used := make(map[string]bool)
	for _, v := range s.members {
		if re := required(v.Regex); re != "" {
			used[re] = true
		}
	}
	for _, re := range slices.Sorted(maps.Keys(s.regexes)) {
		if !used[re] {
			c.write(&record.ConsumerRegex{Group: g.name, Regex: re})
		}
	}
	if c.topics == nil {
		return
	}
	for _, re := range slices.Sorted(maps.Keys(used)) {
		old := s.regexes[re]
		if old != nil && !all {
			continue
		}
		compiled, err := CompileRegex(re)
		if err != nil {
			continue // of a build with other bounds: it stands for what it stood for
		}
		names := c.topics.matching(compiled)
		if old == nil || !slices.Equal(old.Topics, names) {
			v := &record.ConsumerRegexValue{Topics: names, Version: c.topics.version, TimestampMS: c.nowMS()}
			c.write(&record.ConsumerRegex{Group: g.name, Regex: re, Value: v})
		}
	}
}

// assignor returns the assignor that most members ask for; of several the first of
// assign.Names, which is also what is taken if nobody asks.
func (s *consumerState) assignor() string {
	votes := make(map[string]int)
	for _, v := range s.members {
		votes[required(v.Assignor)]++
	}
	best := assign.Names()[0]
	for _, name := range assign.Names() {
		if votes[name] > votes[best] {
			best = name
		}
	}
	return best
}

// retarget decides the target assignment of the group's epoch.
func (c *Coordinator) retarget(g *consumer) {
	s := c.decided.consumer(g.name)
	topics, _ := c.topics.subscribed(s)
	ids := slices.Sorted(maps.Keys(s.members))
	members := make([]assign.Member, len(ids))
	for i, id := range ids {
		v := s.members[id]
		members[i] = assign.Member{
			ID: id, InstanceID: required(v.InstanceID), Topics: c.topics.subscription(s, v), Target: s.targetOf(id),
		}
	}
	for i, target := range assign.ByName(s.assignor())(topics, members) {
		if s.targets[ids[i]] == nil || !assign.Equal(target, members[i].Target) {
			c.write(&record.ConsumerTarget{Group: g.name, MemberID: ids[i], Value: &record.ConsumerTargetValue{Partitions: target}})
		}
	}
	v := &record.ConsumerTargetEpochValue{Epoch: s.groupEpoch(), TimestampMS: c.nowMS()}
	c.write(&record.ConsumerTargetEpoch{Group: g.name, Value: v})
}

// buryConsumer decides that a group of KIP-848, which has no members, is no more.
func (c *Coordinator) buryConsumer(name string) {
	s := c.decided.consumer(name)
	if s == nil {
		return
	}
	var keys []record.Record
	s.all(name, func(r record.Record) bool {
		keys = append(keys, record.Record{Key: r.Key})
		return true
	})
	for _, r := range keys {
		c.writeRecord(r)
	}
}

// consumerGroupState returns where a group of KIP-848 stands.
func consumerGroupState(s *consumerState) State {
	switch {
	case len(s.members) == 0:
		return Empty
	case s.groupEpoch() != s.targetEpoch():
		return Assigning
	}
	for id := range s.members {
		if v := s.currentOf(id); v.State != record.Stable || v.Epoch != s.targetEpoch() {
			return Reconciling
		}
	}
	return Stable
}

// subscribedByConsumers reports whether a member of a group of KIP-848 consumes the
// topic.
func (s *consumerState) subscribed(topic string) bool {
	for _, v := range s.members {
		if slices.Contains(v.Topics, topic) {
			return true
		}
		if re := s.regexes[required(v.Regex)]; re != nil && slices.Contains(re.Topics, topic) {
			return true
		}
	}
	return false
}

// Errors of groups of KIP-848 that need no detail of their own.
var (
	errFencedEpoch = errcode.Errorf(errcode.FencedMemberEpoch,
		"the member epoch is not the member's: give up all partitions, and join again with epoch 0")
	errStaleEpoch = errcode.Errorf(errcode.StaleMemberEpoch,
		"the member epoch is not the member's, or it did not have the partition then: send heartbeats, and commit with the epoch that they answer")
	errUnreleased = errcode.Errorf(errcode.UnreleasedInstanceID,
		"another member has this group.instance.id: give each instance one of its own, or wait until that one has left")
	errNoTopics = errcode.Errorf(errcode.CoordinatorLoadInProgress, "the coordinator does not know the topics yet: try again")
)
