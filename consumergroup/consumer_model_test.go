package consumergroup

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// TestConsumerModel runs random histories of groups of KIP-848: consumers that come,
// go, die, are slow to give partitions away, miss answers, and come back, static or
// not, by name or by regular expression, and, in every other history, of either
// protocol, so that the group changes its kind; topics that come, grow and go; decisions that
// are applied late; and nodes that take over, which loses what was under way. It checks
// that
//
//   - no partition is consumed by two members at a time, where a member consumes what
//     it was told to until it has given that away,
//   - a member's commit is taken if and only if it has the partition,
//   - a group's epoch never falls, and no member's is above it,
//   - who has what is what the members' assignments say (see audit),
//   - when all is applied, the decided state is the applied one, and so is what the
//     records from the beginning say, and a snapshot,
//   - once nothing changes any more, each member has its target, and each partition of a
//     subscribed topic is consumed.
func TestConsumerModel(t *testing.T) {
	t.Parallel()
	seeds := 300
	if testing.Short() {
		seeds = 60
	}
	var sum consumerStats
	for seed := range uint64(seeds) {
		m := newConsumerModel(t, seed)
		for m.steps = range 500 {
			m.step()
		}
		m.settle()
		sum.add(m.stats)
	}
	t.Logf("%+v", sum)
	// A history in which nothing happens would pass as well.
	for what, n := range map[string]int{
		"revocations": sum.revoked, "takeovers": sum.takeovers, "missed answers": sum.missed, "fenced members": sum.fenced,
		"static members that came back": sum.back, "commits": sum.commits, "stale commits": sum.stale, "short heartbeats": sum.short, "changes of topics": sum.topics,
		"members that did not give away in time": sum.late, "upgrades": sum.upgrades, "downgrades": sum.downgrades,
		"classic assignments": sum.synced,
	} {
		if n < seeds/4 {
			t.Errorf("only %d %s in %d histories", n, what, seeds)
		}
	}
}

type consumerStats struct{ revoked, takeovers, missed, fenced, back, commits, stale, topics, late, upgrades, downgrades, synced, short int }

func (s *consumerStats) add(o consumerStats) {
	s.revoked += o.revoked
	s.takeovers += o.takeovers
	s.missed += o.missed
	s.fenced += o.fenced
	s.back += o.back
	s.commits += o.commits
	s.stale += o.stale
	s.short += o.short
	s.topics += o.topics
	s.late += o.late
	s.upgrades += o.upgrades
	s.downgrades += o.downgrades
	s.synced += o.synced
}

type consumerModel struct {
	t     *testing.T
	seed  uint64
	steps int
	rand  *rand.Rand
	now   time.Time
	opts  Options
	stats consumerStats

	c        *Coordinator
	applied  *Groups
	replica  *Groups // another node's
	log      []record.Record
	flight   []Decision // decided, not applied yet
	topics   []TopicInfo
	version  int64
	consumer []*modelConsumer
	sent     map[Token]*modelConsumer
	last     Token
	ids      int
	epoch    int32  // of the group, as applied
	mixed    bool   // there are consumers of the classic protocol
	calm     bool   // no answer is missed
	kind     string // of the group, as decided; empty: none
}

// modelConsumer is a consumer's client.
type modelConsumer struct {
	instance string
	slow     bool // takes long to give partitions away

	id       string
	epoch    int32
	joins    bool // its next request joins
	dead     bool
	consumes map[owned]bool
	wanted   map[owned]bool // what it was told to have last
	token    Token          // of the request that it waits for; zero: none
	full     bool           // it does not know what became of its last request
	topics   []string
	regex    string
	assignor string
	revoking time.Time // since when it has something to give away

	// Of one that speaks the classic protocol; see mixed_model_test.go.
	classic, eager bool
	syncs          bool // its next request asks for its assignment
	assigns        []Assignment
}

func newConsumerModel(t *testing.T, seed uint64) *consumerModel {
	m := &consumerModel{
		t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 848)), now: begins, opts: DefaultOptions(),
		applied: NewGroups(), replica: NewGroups(), sent: make(map[Token]*modelConsumer), mixed: seed%2 == 1,
	}
	m.opts.NewID = func() string { m.ids++; return fmt.Sprint("made", m.ids) }
	m.opts.MaxGroupSize = 5
	for i := range 3 {
		m.topics = append(m.topics, m.newTopic(fmt.Sprint("t", i)))
	}
	for i := range 6 {
		cl := &modelConsumer{joins: true, slow: i == 0, consumes: make(map[owned]bool), wanted: make(map[owned]bool)}
		if i%3 == 0 {
			cl.instance = fmt.Sprint("i", i)
		}
		cl.classic, cl.eager = m.mixed && m.rand.IntN(2) == 0, m.rand.IntN(2) == 0
		m.subscribe(cl)
		m.consumer = append(m.consumer, cl)
	}
	m.takeOver()
	return m
}

func (m *consumerModel) newTopic(name string) TopicInfo {
	m.version++
	info := TopicInfo{Name: name, Partitions: int32(1 + m.rand.IntN(4))}
	copy(info.ID[:], fmt.Sprint(name, "-", m.version))
	return info
}

func (m *consumerModel) subscribe(cl *modelConsumer) {
	cl.topics, cl.regex = []string{}, ""
	if m.rand.IntN(4) == 0 {
		cl.regex = []string{"t.*", "t[01]"}[m.rand.IntN(2)]
	}
	for i := range 4 {
		if m.rand.IntN(3) > 0 {
			cl.topics = append(cl.topics, fmt.Sprint("t", i))
		}
	}
	cl.assignor = []string{"", "", "range", "uniform"}[m.rand.IntN(4)]
}

func (m *consumerModel) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("seed %d, step %d, at %v: %s", m.seed, m.steps, m.now.Sub(begins), fmt.Sprintf(format, args...))
}

func (m *consumerModel) tell(out *Decision) {
	m.version++
	m.c.TopicsChanged(m.now, NewTopics(m.version, m.topics), out)
}

func (m *consumerModel) takeOver() {
	for i := range m.rand.IntN(len(m.flight) + 1) {
		for _, r := range m.flight[i].Records {
			m.fold(r)
		}
	}
	m.flight = nil
	for token, cl := range m.sent {
		delete(m.sent, token)
		if cl.token == token {
			cl.token, cl.full = 0, true
		}
	}
	c, err := NewCoordinator(m.now, m.replica, m.opts)
	if err != nil {
		m.fatalf("%v", err)
	}
	m.c = c
	m.applied, m.replica = m.replica, m.applied
	m.stats.takeovers++
	m.tell(new(Decision))
}

func (m *consumerModel) fold(r record.Record) {
	m.log = append(m.log, r)
	for _, g := range []*Groups{m.applied, m.replica} {
		if err := g.Fold(r); err != nil {
			m.fatalf("%v", err)
		}
	}
	if m.applied.consumer("g") == nil {
		m.epoch = 0 // it is no more, or a classic one
	}
}

// apply applies the oldest decision, and tells what it answers.
func (m *consumerModel) apply() {
	if len(m.flight) == 0 {
		return
	}
	d := m.flight[0]
	m.flight = m.flight[1:]
	for _, r := range d.Records {
		m.fold(r)
	}
	for _, r := range d.Replies {
		cl := m.sent[r.Token]
		delete(m.sent, r.Token)
		if cl == nil || cl.token != r.Token {
			continue
		}
		cl.token = 0
		if !m.calm && m.rand.IntN(20) == 0 {
			m.stats.missed++
			cl.full = true
			continue
		}
		m.answered(cl, r.Response)
	}
	m.disjoint()
	if s := m.applied.consumer("g"); s != nil {
		if s.groupEpoch() < m.epoch {
			m.fatalf("epoch %d after %d", s.groupEpoch(), m.epoch)
		}
		m.epoch = s.groupEpoch()
		for id := range s.members {
			if e := s.currentOf(id).Epoch; e > m.epoch {
				m.fatalf("member %s has epoch %d, the group %d", id, e, m.epoch)
			}
		}
	}
}

// answered is what a client does with an answer.
func (m *consumerModel) answered(cl *modelConsumer, response any) {
	r, ok := response.(*ConsumerHeartbeatReply)
	if !ok {
		m.answeredClassic(cl, response)
		return
	}
	if r.Err != nil {
		m.stats.fenced++
		m.forget(cl)
		return
	}
	if r.Epoch < 0 {
		return
	}
	cl.epoch, cl.id, cl.joins, cl.full = r.Epoch, r.MemberID, false, false
	if r.Assignment == nil {
		return
	}
	cl.wanted = make(map[owned]bool)
	for o := range setOf(r.Assignment.Partitions) {
		cl.wanted[o], cl.consumes[o] = true, true
	}
	if len(cl.consumes) > len(cl.wanted) {
		cl.revoking = m.now
		m.stats.revoked++
	}
}

// forget has a client give up all that it has, and begin anew.
func (m *consumerModel) forget(cl *modelConsumer) {
	cl.joins, cl.syncs, cl.full, cl.token = true, false, false, 0
	cl.consumes, cl.wanted = make(map[owned]bool), make(map[owned]bool)
}

// member reports whether the applied state knows the client: one that it does not has
// lost its partitions, and will learn so.
func (m *consumerModel) member(cl *modelConsumer) bool {
	if v := m.applied.meta("g"); v != nil {
		return cl.id != "" && slices.ContainsFunc(v.Members, func(gm record.GroupMember) bool { return gm.MemberID == cl.id })
	}
	s := m.applied.consumer("g")
	return s != nil && cl.id != "" && s.members[cl.id] != nil && s.currentOf(cl.id).Epoch != StaticLeaveEpoch
}

// disjoint fails if two members consume a partition.
func (m *consumerModel) disjoint() {
	by := make(map[owned]*modelConsumer)
	for _, cl := range m.consumer {
		if !m.member(cl) || cl.joins && !cl.classic {
			continue
		}
		for o := range cl.consumes {
			if other := by[o]; other != nil {
				m.fatalf("members %s and %s both consume partition %d of %q", other.id, cl.id, o.partition, o.id)
			}
			by[o] = cl
		}
	}
}

func (m *consumerModel) step() {
	out := new(Decision)
	cl := m.consumer[m.rand.IntN(len(m.consumer))]
	switch n := m.rand.IntN(100); {
	case n < 55:
		m.beat(cl, out)
	case n < 65:
		m.commit(cl, out)
	case n < 75:
		m.now = m.now.Add(time.Duration(m.rand.IntN(4000)) * time.Millisecond)
		m.c.Tick(m.now, out)
	case n < 76:
		m.now = m.now.Add(time.Duration(m.rand.IntN(50)) * time.Second)
		m.c.Tick(m.now, out)
	case n < 78:
		m.changeTopics(out)
	case n < 80:
		m.subscribe(cl)
	case n < 82:
		cl.dead = !cl.dead
	case n < 85 && m.mixed && cl.classic != (m.steps/100%2 == 0):
		// It is restarted with the protocol that all are to have from now on.
		m.leave(cl, out)
		if cl.joins && cl.token == 0 || cl.id == "" {
			m.forget(cl)
			cl.classic, cl.eager, cl.id = !cl.classic, m.rand.IntN(2) == 0, ""
		}
	case n < 84:
		m.leave(cl, out)
	case n < 86 && m.steps > 20:
		m.takeOver()
	default:
		for range m.rand.IntN(4) {
			m.apply()
		}
	}
	m.decided(out)
	if m.rand.IntN(2) == 0 {
		for len(m.flight) > 0 {
			m.apply()
		}
	}
	m.audit()
}

func (m *consumerModel) decided(out *Decision) {
	if len(out.Records)+len(out.Replies) > 0 {
		m.flight = append(m.flight, *out)
	}
}

func (m *consumerModel) token(cl *modelConsumer) Token {
	m.last++
	m.sent[m.last] = cl
	cl.token = m.last
	return m.last
}

// revoke has a client give away what it was told to, if it is not too slow for that.
func (m *consumerModel) revoke(cl *modelConsumer) {
	if cl.slow && m.now.Sub(cl.revoking) < 20*time.Second {
		if len(cl.consumes) > len(cl.wanted) {
			m.stats.late++
		}
		return
	}
	maps.DeleteFunc(cl.consumes, func(o owned, _ bool) bool { return !cl.wanted[o] })
}

// beat has a client send a heartbeat.
func (m *consumerModel) beat(cl *modelConsumer, out *Decision) {
	if cl.dead || cl.token != 0 {
		return
	}
	if cl.classic {
		m.beatClassic(cl, out)
		return
	}
	req := &ConsumerHeartbeatRequest{Group: "g", MemberID: cl.id, Epoch: cl.epoch, ClientID: "c", RebalanceTimeoutMS: -1}
	if cl.instance != "" {
		req.InstanceID = &cl.instance
	}
	if cl.joins {
		req.Epoch = JoinEpoch
		if cl.id == "" || m.rand.IntN(3) == 0 && !m.member(cl) {
			m.ids++
			cl.id = fmt.Sprint("m", m.ids)
		}
	}
	m.revoke(cl)
	if cl.joins || cl.full || m.rand.IntN(10) == 0 {
		req.RebalanceTimeoutMS, req.Topics, req.Regex = 15_000, cl.topics, &cl.regex
		if cl.assignor != "" {
			req.Assignor = &cl.assignor
		}
	}
	if !cl.joins && (cl.full || m.rand.IntN(2) == 0) {
		s := make(partitionSet)
		for o := range cl.consumes {
			s[o] = 0
		}
		if req.Owned = s.list(); req.Owned == nil {
			req.Owned = []record.TopicPartitions{}
		}
	}
	if sameBeat(m.t, m.c, m.now, req) {
		m.stats.short++
		for _, change := range []func(*ConsumerHeartbeatRequest){
			func(r *ConsumerHeartbeatRequest) { r.ClientID = "another" },
			func(r *ConsumerHeartbeatRequest) { r.ClientHost = "/another" },
			func(r *ConsumerHeartbeatRequest) { r.RackID = new("rack") },
			func(r *ConsumerHeartbeatRequest) { r.InstanceID = new("another") },
			func(r *ConsumerHeartbeatRequest) { r.Epoch-- },
			func(r *ConsumerHeartbeatRequest) { r.Epoch++ },
		} {
			odd := *req
			if change(&odd); sameBeat(m.t, m.c, m.now, &odd) {
				m.fatalf("%+v is answered as if it said nothing new", odd)
			}
		}
	}
	m.c.ConsumerHeartbeat(m.now, m.token(cl), req, out)
}

// leave has a client leave, for good or, a static one, for a moment.
func (m *consumerModel) leave(cl *modelConsumer, out *Decision) {
	if cl.dead || cl.joins || cl.token != 0 {
		return
	}
	req := &ConsumerHeartbeatRequest{Group: "g", MemberID: cl.id, Epoch: LeaveEpoch, RebalanceTimeoutMS: -1}
	if cl.instance != "" {
		req.InstanceID = &cl.instance
		if m.rand.IntN(3) > 0 {
			req.Epoch = StaticLeaveEpoch
			m.stats.back++
		}
	}
	if cl.classic {
		m.last++
		m.c.LeaveGroup(m.now, m.last, &LeaveRequest{Group: "g", Members: []LeaveMember{{MemberID: cl.id}}}, out)
	} else {
		m.c.ConsumerHeartbeat(m.now, m.token(cl), req, out)
	}
	m.forget(cl)
	cl.id = ""
}

// commit has a client commit a partition that it consumes, or another one, and holds
// the answer against what it is said to have.
func (m *consumerModel) commit(cl *modelConsumer, out *Decision) {
	s := m.c.decided.consumer("g")
	if cl.joins || s == nil || s.members[cl.id] == nil || len(m.topics) == 0 {
		return
	}
	info := m.topics[m.rand.IntN(len(m.topics))]
	o := owned{info.ID, int32(m.rand.IntN(int(info.Partitions)))}
	req := &CommitRequest{
		Group: "g", MemberID: cl.id, Generation: cl.epoch, RetentionMS: -1, KnowsNoGroup: true,
		Offsets: []CommitOffset{{Topic: info.Name, TopicID: info.ID, Partition: o.partition, Offset: int64(m.steps)}},
	}
	m.last++
	m.c.CommitOffsets(m.now, m.last, req, out)
	r := out.Replies[len(out.Replies)-1].Response.(*CommitReply)
	current := s.currentOf(cl.id)
	switch {
	case r.Err == nil && cl.epoch != current.Epoch:
		since, ok := setOf(slices.Concat(current.Assigned, current.Revoking))[o]
		if !ok || since > cl.epoch {
			m.fatalf("%s commits with epoch %d what it has had since %d: %t", cl.id, cl.epoch, since, ok)
		}
		m.stats.commits++
	case r.Err == nil:
		m.stats.commits++
	case cl.epoch == current.Epoch:
		m.fatalf("%s commits with its epoch, %d: %v", cl.id, cl.epoch, r.Err)
	default:
		m.stats.stale++
	}
}

func (m *consumerModel) changeTopics(out *Decision) {
	m.stats.topics++
	i := m.rand.IntN(len(m.topics) + 1)
	switch {
	case i == len(m.topics):
		name := fmt.Sprint("t", m.rand.IntN(4))
		if !slices.ContainsFunc(m.topics, func(t TopicInfo) bool { return t.Name == name }) {
			m.topics = append(m.topics, m.newTopic(name))
		}
	case m.rand.IntN(2) == 0:
		m.topics = slices.Delete(slices.Clone(m.topics), i, i+1)
	default:
		m.topics = slices.Clone(m.topics)
		m.topics[i].Partitions += int32(1 + m.rand.IntN(3))
	}
	m.tell(out)
}

// audit holds what the coordinator has derived against what is recorded.
func (m *consumerModel) audit() {
	g, s := m.c.consumers["g"], m.c.decided.consumer("g")
	kind := ""
	switch {
	case g != nil:
		kind = "consumer"
	case m.c.live["g"] != nil:
		kind = "classic"
	}
	if m.kind == "classic" && kind == "consumer" {
		m.stats.upgrades++
	}
	if m.kind == "consumer" && kind == "classic" {
		m.stats.downgrades++
	}
	m.kind = kind
	if g == nil {
		if s != nil && len(s.members) > 0 {
			m.fatalf("the group has members, and nobody looks after it")
		}
		if why := audit(m.c); why != "" {
			m.fatalf("%s", why)
		}
		return
	}
	if m.c.live["g"] != nil || m.c.decided.meta("g") != nil {
		m.fatalf("the group is of both kinds")
	}
	owners, bytes := make(map[owned]string), 0
	for id, v := range s.members {
		if g.members[id] == nil {
			m.fatalf("member %s is recorded, and nobody looks after it", id)
		}
		if g.members[id].session.pos < 0 {
			m.fatalf("member %s has no session", id)
		}
		current := s.currentOf(id)
		for o := range setOf(slices.Concat(current.Assigned, current.Revoking)) {
			if owners[o] != "" {
				m.fatalf("%s and %s have %v", owners[o], id, o)
			}
			owners[o] = id
		}
		if instance := required(v.InstanceID); instance != "" && g.static[instance] != id {
			m.fatalf("instance %s is %s, not %s", instance, g.static[instance], id)
		}
		if revoking := current.State == record.UnrevokedPartitions; revoking != (g.members[id].revoke.pos >= 0) {
			m.fatalf("member %s: %s, and its timer is set: %t", id, formatCurrent(current), !revoking)
		}
		bytes += consumerSize(id, v)
	}
	for o, owner := range g.owners {
		if owners[o] != owner.id {
			m.fatalf("%v is %s's, recorded is %q", o, owner.id, owners[o])
		}
	}
	if len(g.owners) != len(owners) || len(g.members) != len(s.members) || g.bytes != bytes || m.c.bytes != bytes {
		m.fatalf("%d owned, recorded %d; %d members, recorded %d; %d and %d bytes, want %d",
			len(g.owners), len(owners), len(g.members), len(s.members), g.bytes, m.c.bytes, bytes)
	}
}

// settle lets the group come to rest, without answers that are missed, which leave
// members that nobody is any more, and looks at where it stands.
func (m *consumerModel) settle() {
	m.calm = true
	for range 80 {
		for _, cl := range m.consumer {
			cl.dead, cl.slow = false, false
			out := new(Decision)
			m.beat(cl, out)
			m.decided(out)
			for len(m.flight) > 0 {
				m.apply()
			}
		}
		m.now = m.now.Add(2 * time.Second)
		out := new(Decision)
		m.c.Tick(m.now, out)
		m.decided(out)
		m.audit()
	}
	for len(m.flight) > 0 {
		m.apply()
	}
	if g := m.c.live["g"]; g != nil {
		m.settledClassic(g)
		m.replay()
		return
	}
	s := m.applied.consumer("g")
	if got := consumerGroupState(s); got != Stable {
		m.fatalf("the group is %v: %s", got, formatConsumerState(s))
	}
	topics, _ := m.c.topics.subscribed(s)
	want, got := 0, 0
	for _, topic := range topics {
		want += int(topic.Partitions)
	}
	for id := range s.members {
		if !samePartitions(s.currentOf(id).Assigned, s.targetOf(id)) {
			m.fatalf("member %s has %s of %s", id, formatAssigned(s.currentOf(id).Assigned), formatAssigned(s.targetOf(id)))
		}
	}
	for _, cl := range m.consumer {
		if m.member(cl) {
			got += len(cl.consumes)
		}
	}
	if got != want {
		m.fatalf("%d partitions are consumed of %d", got, want)
	}
	m.replay()
}

// replay holds the state against the records, and against a snapshot.
func (m *consumerModel) replay() {
	again := NewGroups()
	for _, r := range m.log {
		if err := again.Fold(r); err != nil {
			m.fatalf("%v", err)
		}
	}
	for what, g := range map[string]*Groups{"decided": m.c.Decided(), "replica": m.replica, "replayed": again, "restored": m.restored()} {
		if g.Hash() != m.applied.Hash() {
			m.fatalf("%s: %v, applied %v", what, g.Hash(), m.applied.Hash())
		}
		if g.consumer("g") == nil {
			continue
		}
		if got, want := formatConsumerState(g.consumer("g")), formatConsumerState(m.applied.consumer("g")); got != want {
			m.fatalf("%s: %s, applied %s", what, got, want)
		}
	}
}

// restored returns what a snapshot says.
func (m *consumerModel) restored() *Groups {
	var snapshot bytes.Buffer
	if err := m.applied.WriteSnapshot(&snapshot); err != nil {
		m.fatalf("%v", err)
	}
	g, err := Restore(&snapshot)
	if err != nil {
		m.fatalf("%v", err)
	}
	return g
}
