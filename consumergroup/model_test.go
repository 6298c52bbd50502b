package consumergroup

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestModel runs random histories: consumers that join, leave, die, come back, and
// some that send nonsense; decisions that are applied late; and nodes that take over
// while decisions are under way, which then are lost. It checks that
//
//   - each request is answered once, or lost with the coordinator that had it, and
//     none is held for ever,
//   - what is told is applied before, on every replica,
//   - no partition is given to two members in one generation,
//   - a group's generation never falls, nor does an offset that was committed,
//   - when all is applied, the decided state is the applied one,
//   - the records from the beginning, and a snapshot, give the same state,
//   - the coordinator's counts are what they count (see audit).
func TestModel(t *testing.T) {
	t.Parallel()
	seeds := 300
	if testing.Short() {
		seeds = 60
	}
	var sum modelStats
	for seed := range uint64(seeds) {
		m := newModel(t, seed)
		for m.steps = range 400 {
			m.step()
		}
		m.settle()
		sum.add(m.stats)
	}
	t.Logf("%+v", sum)
	// A history in which nothing happens would pass as well.
	for what, n := range map[string]int{
		"assignments": sum.assigned, "commits": sum.committed, "takeovers": sum.takeovers, "lost requests": sum.lost,
		"fenced": sum.fenced, "lost members": sum.unknown, "replaced static members": sum.skipped,
	} {
		if n < seeds/10 {
			t.Errorf("only %d %s in %d histories", n, what, seeds)
		}
	}
}

type modelStats struct{ assigned, committed, takeovers, lost, fenced, unknown, skipped int }

func (s *modelStats) add(o modelStats) {
	s.assigned += o.assigned
	s.committed += o.committed
	s.takeovers += o.takeovers
	s.lost += o.lost
	s.fenced += o.fenced
	s.unknown += o.unknown
	s.skipped += o.skipped
}

const modelPartitions = 6

type model struct {
	t     *testing.T
	seed  uint64
	steps int
	rand  *rand.Rand
	now   time.Time
	opts  Options
	stats modelStats

	c       *Coordinator
	applied *Groups
	replica *Groups // another node's
	log     []record.Record
	flight  []Decision // decided, not applied yet

	clients []*client
	sent    map[Token]*client // requests without an answer; of who has forgotten, nil
	last    Token

	owners      map[string]string // by group, generation and partition
	generations map[string]int32
	offset      int64            // the last that was committed, of all: they only grow
	told        map[string]int64 // by group and partition: what a client knows is committed
}

// client is a consumer.
type client struct {
	name, group, instance string
	protocols             []Protocol
	old, skips            bool

	id         string
	generation int32
	protocol   string
	leads      []JoinMember // while it is to assign
	token      Token        // of the request that it waits for; zero: none
	asked      any
	assigned   bool
	rejoin     bool
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), now: begins, opts: DefaultOptions(),
		applied: NewGroups(), replica: NewGroups(),
		sent: make(map[Token]*client), owners: make(map[string]string), generations: make(map[string]int32),
		told: make(map[string]int64),
	}
	m.opts.NewID = func() string { return fmt.Sprintf("%x", m.rand.Uint64()) }
	m.opts.MaxGroupSize = 3 + m.rand.IntN(4)
	m.opts.InitialRebalanceDelay = time.Duration(m.rand.IntN(4)) * time.Second
	m.opts.RetentionCheck = time.Minute
	all := []Protocol{{"range", []byte("r")}, {"sticky", []byte("s")}, {"rr", nil}}
	for i := range 8 {
		cl := &client{name: fmt.Sprint("c", i), group: "g", old: m.rand.IntN(3) == 0, skips: m.rand.IntN(2) == 0, generation: -1}
		if i >= 6 {
			cl.group = "h"
		}
		if m.rand.IntN(3) == 0 {
			cl.instance = fmt.Sprint("i", m.rand.IntN(3)) // two may have the same
		}
		cl.protocols = all[m.rand.IntN(2) : 2+m.rand.IntN(2)]
		m.clients = append(m.clients, cl)
	}
	m.takeOver()
	return m
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("seed %d, step %d, at %v: %s", m.seed, m.steps, m.now.Sub(begins), fmt.Sprintf(format, args...))
}

// takeOver has another node lead: some of what is under way is applied yet, the rest is
// lost, and so is every request that is held or whose answer waits.
func (m *model) takeOver() {
	for i := range m.rand.IntN(len(m.flight) + 1) {
		for _, r := range m.flight[i].Records {
			m.fold(r)
		}
	}
	m.flight = nil
	for token, cl := range m.sent {
		delete(m.sent, token)
		m.stats.lost++
		if cl != nil && cl.token == token {
			cl.token, cl.rejoin = 0, true
		}
	}
	c, err := NewCoordinator(m.now, m.replica, m.opts)
	if err != nil {
		m.fatalf("%v", err)
	}
	m.c = c
	m.applied, m.replica = m.replica, m.applied
	m.stats.takeovers++
}

func (m *model) step() {
	out := new(Decision)
	cl := m.clients[m.rand.IntN(len(m.clients))]
	switch n := m.rand.IntN(100); {
	case n < 60:
		m.act(cl, out)
	case n < 75:
		m.now = m.now.Add(time.Duration(m.rand.IntN(2500)) * time.Millisecond)
		m.c.Tick(m.now, out)
	case n < 78:
		m.nonsense(out)
	case n < 80:
		m.die(cl, out)
	case n < 81 && m.steps > 20:
		m.takeOver()
	case n < 82:
		m.now = m.now.Add(time.Duration(m.rand.IntN(40)) * time.Second)
		m.c.Tick(m.now, out)
	default:
		for range m.rand.IntN(4) {
			m.apply()
		}
	}
	if len(out.Records)+len(out.Replies) > 0 {
		m.flight = append(m.flight, *out)
	}
	if m.rand.IntN(2) == 0 {
		for len(m.flight) > 0 {
			m.apply()
		}
	}
	m.audit()
}

// apply applies the oldest decision, and sends its replies.
func (m *model) apply() {
	if len(m.flight) == 0 {
		return
	}
	d := m.flight[0]
	m.flight = m.flight[1:]
	for _, r := range d.Records {
		m.fold(r)
	}
	for _, r := range d.Replies {
		cl, ok := m.sent[r.Token]
		if !ok {
			m.fatalf("a second answer to request %d: %s", r.Token, formatReply(r.Response))
		}
		delete(m.sent, r.Token)
		if cl != nil && cl.token == r.Token {
			cl.token = 0
			m.answer(cl, r.Response)
		}
	}
	if len(m.flight) == 0 && m.c.Decided().Hash() != m.applied.Hash() {
		m.fatalf("all is applied, and the decided state is another")
	}
}

func (m *model) fold(r record.Record) {
	for _, g := range []*Groups{m.applied, m.replica} {
		if err := g.Fold(r); err != nil {
			m.fatalf("%v", err)
		}
	}
	m.log = append(m.log, r)
	e, err := record.Decode(r.Key, r.Value)
	if err != nil {
		m.fatalf("%v", err)
	}
	if meta, ok := e.(*record.GroupMetadata); ok {
		if meta.Value == nil { // generations begin anew
			delete(m.generations, meta.Group)
			maps.DeleteFunc(m.owners, func(key, _ string) bool { return strings.HasPrefix(key, meta.Group+" ") })
			return
		}
		if g := meta.Value.Generation; g < m.generations[meta.Group] {
			m.fatalf("generation %d of %s after %d", g, meta.Group, m.generations[meta.Group])
		}
		m.generations[meta.Group] = meta.Value.Generation
	}
}

func (m *model) ask(cl *client, req any) Token {
	m.last++
	m.sent[m.last] = cl
	cl.token, cl.asked = m.last, req
	return m.last
}

// act has a client do what it would do next.
func (m *model) act(cl *client, out *Decision) {
	switch {
	case cl.token != 0:
		if m.rand.IntN(30) == 0 { // its patience ends
			m.sent[cl.token] = nil
			m.c.Gone(m.now, cl.token, out)
			delete(m.sent, cl.token)
			m.flight = dropReplies(m.flight, cl.token)
			cl.token, cl.rejoin = 0, true
		}
	case cl.id == "" || cl.generation < 0 || cl.rejoin:
		cl.rejoin, cl.assigned = false, false
		req := &JoinRequest{
			Group: cl.group, MemberID: cl.id, InstanceID: cl.instance, ClientID: cl.name, SessionTimeoutMS: 10000,
			RebalanceTimeoutMS: 20000, ProtocolType: record.ConsumerProtocolType, Protocols: cl.protocols,
			NeedsMemberID: !cl.old, SkipsAssignment: cl.skips,
		}
		m.c.JoinGroup(m.now, m.ask(cl, req), req, out)
	case !cl.assigned:
		req := &SyncRequest{Group: cl.group, MemberID: cl.id, InstanceID: cl.instance, Generation: cl.generation, Protocol: cl.protocol}
		for p := range modelPartitions {
			if n := len(cl.leads); n > 0 {
				a := Assignment{cl.leads[p%n].MemberID, nil}
				for q := p % n; q < modelPartitions && p < n; q += n {
					a.Bytes = append(a.Bytes, byte('0'+q))
				}
				if p < n {
					req.Assignments = append(req.Assignments, a)
				}
			}
		}
		m.c.SyncGroup(m.now, m.ask(cl, req), req, out)
	default:
		m.consume(cl, out)
	}
}

// consume has a member with an assignment do what members do.
func (m *model) consume(cl *client, out *Decision) {
	switch n := m.rand.IntN(20); {
	case n < 10:
		req := &HeartbeatRequest{cl.group, cl.id, cl.instance, cl.generation}
		m.c.Heartbeat(m.now, m.ask(cl, req), req, out)
	case n < 17:
		m.offset++
		req := &CommitRequest{
			Group: cl.group, MemberID: cl.id, InstanceID: cl.instance, Generation: cl.generation, RetentionMS: -1,
			Offsets: []CommitOffset{{Topic: "t", Partition: int32(m.rand.IntN(2)), Offset: m.offset, LeaderEpoch: -1}},
		}
		m.c.CommitOffsets(m.now, m.ask(cl, req), req, out)
	case n < 18:
		cl.rejoin = true
	case n < 19:
		req := &LeaveRequest{Group: cl.group, Members: []LeaveMember{{cl.id, cl.instance}}}
		m.c.LeaveGroup(m.now, m.ask(cl, req), req, out)
		cl.id, cl.generation = "", -1
	}
}

// die has a client forget all, and begin again.
func (m *model) die(cl *client, out *Decision) {
	if cl.token != 0 {
		m.c.Gone(m.now, cl.token, out)
		delete(m.sent, cl.token)
		m.flight = dropReplies(m.flight, cl.token)
	}
	cl.token, cl.id, cl.generation, cl.assigned, cl.leads = 0, "", -1, false, nil
}

// dropReplies forgets the replies to a request of who is gone.
func dropReplies(ds []Decision, token Token) []Decision {
	for i := range ds {
		for j, r := range ds[i].Replies {
			if r.Token == token {
				ds[i].Replies = append(ds[i].Replies[:j:j], ds[i].Replies[j+1:]...)
				break
			}
		}
	}
	return ds
}

// nonsense sends something that no client would.
func (m *model) nonsense(out *Decision) {
	m.last++
	m.sent[m.last] = nil
	pick := func(s ...string) string { return s[m.rand.IntN(len(s))] }
	cl := m.clients[m.rand.IntN(len(m.clients))]
	id, instance, gen := pick(cl.id, "x", ""), pick(cl.instance, "i0", ""), int32(m.rand.IntN(4))-1
	switch m.rand.IntN(6) {
	case 0:
		m.c.SyncGroup(m.now, m.last, &SyncRequest{Group: cl.group, MemberID: id, InstanceID: instance, Generation: gen}, out)
	case 1:
		m.c.Heartbeat(m.now, m.last, &HeartbeatRequest{cl.group, id, instance, gen}, out)
	case 2:
		m.c.DeleteGroups(m.now, m.last, []string{cl.group, "none"}, out)
	case 3:
		m.c.FetchOffsets(m.now, m.last, &FetchRequest{Group: cl.group, All: true}, out)
	case 4:
		m.c.ListGroups(m.now, m.last, &ListRequest{}, out)
	default:
		m.c.DescribeGroup(m.now, m.last, cl.group, out)
	}
}

// answer has a client read a reply.
func (m *model) answer(cl *client, response any) {
	var err *errcode.Error
	switch r := response.(type) {
	case *JoinReply:
		if err = r.Err; err == nil {
			cl.id, cl.generation, cl.protocol, cl.leads = r.MemberID, r.Generation, r.Protocol, nil
			if r.SkipAssignment {
				m.stats.skipped++
			} else {
				cl.leads = r.Members
			}
		} else if err.Code == errcode.MemberIDRequired {
			cl.id, cl.rejoin = r.MemberID, true
			return
		}
	case *SyncReply:
		if err = r.Err; err == nil {
			cl.assigned = true
			m.own(cl, r.Assignment)
		}
	case HeartbeatReply:
		err = r.Err
	case *CommitReply:
		if err = r.Err; err == nil {
			m.committed(cl.asked.(*CommitRequest))
		}
	case *LeaveReply:
		return
	}
	if err == nil {
		return
	}
	cl.rejoin = true
	switch err.Code {
	case errcode.UnknownMemberID, errcode.FencedInstanceID, errcode.GroupMaxSizeReached, errcode.InconsistentGroupProtocol:
		cl.id, cl.generation = "", -1
		if err.Code == errcode.FencedInstanceID {
			m.stats.fenced++
		} else {
			m.stats.unknown++
		}
	case errcode.IllegalGeneration, errcode.RebalanceInProgress:
	default:
		m.fatalf("%s was told %v", cl.name, err)
	}
}

// own has a client take its partitions. A static member is the same whatever its id.
func (m *model) own(cl *client, partitions []byte) {
	who := cl.id
	if cl.instance != "" {
		who = "static " + cl.instance
	}
	for _, p := range partitions {
		key := fmt.Sprintf("%s generation %d partition %c", cl.group, cl.generation, p)
		if other, taken := m.owners[key]; taken && other != who {
			m.fatalf("%s is given to %s and to %s", key, other, who)
		}
		m.owners[key] = who
		m.stats.assigned++
	}
}

// committed has a client know that its commit is done.
func (m *model) committed(req *CommitRequest) {
	m.stats.committed++
	for _, o := range req.Offsets {
		tp := TopicPartition{o.Topic, o.Partition}
		key := fmt.Sprint(req.Group, tp)
		m.told[key] = max(m.told[key], o.Offset)
		for _, g := range []*Groups{m.applied, m.replica} {
			if v := g.Offset(req.Group, tp); v == nil || v.Offset < m.told[key] {
				m.fatalf("%s: %d was committed, and %+v is applied", key, m.told[key], v)
			}
		}
	}
}

// settle lets time pass until nothing can be held any more, and compares the states.
func (m *model) settle() {
	m.t.Helper()
	for range 4 {
		m.now = m.now.Add(6 * time.Minute)
		out := new(Decision)
		m.c.Tick(m.now, out)
		m.flight = append(m.flight, *out)
		for len(m.flight) > 0 {
			m.apply()
		}
		m.audit()
	}
	if held := m.c.Held(); len(held) > 0 || len(m.sent) > 0 {
		m.fatalf("requests %v are held, and %d without an answer", held, len(m.sent))
	}
	again := NewGroups()
	for _, r := range m.log {
		if err := again.Fold(r); err != nil {
			m.fatalf("%v", err)
		}
	}
	var snapshot bytes.Buffer
	if err := m.applied.WriteSnapshot(&snapshot); err != nil {
		m.fatalf("%v", err)
	}
	restored, err := Restore(&snapshot)
	if err != nil {
		m.fatalf("%v", err)
	}
	for what, g := range map[string]*Groups{"the replica": m.replica, "a replay": again, "a snapshot": restored} {
		if g.Hash() != m.applied.Hash() {
			m.fatalf("%s has another state", what)
		}
	}
}

// audit checks the counts that the coordinator keeps of its groups.
func (m *model) audit() {
	m.t.Helper()
	if why := audit(m.c); why != "" {
		m.fatalf("%s", why)
	}
}

// audit returns what is wrong with a coordinator's counts.
func audit(c *Coordinator) string {
	var wrong []string
	check := func(what string, got, want int) {
		if got != want {
			wrong = append(wrong, fmt.Sprintf("%s is %d, there are %d", what, got, want))
		}
	}
	total, held := 0, 0
	for name, g := range c.live {
		joining, syncing, size, static := 0, 0, 0, 0
		votes := make(map[string]int)
		for _, m := range g.members {
			if m.join != 0 {
				joining++
			}
			if m.sync != 0 {
				held++
			}
			if m.unsynced {
				syncing++
			}
			if m.instance != "" {
				static++
			}
			size += m.size()
			for _, p := range m.protocols {
				votes[p.Name]++
			}
			if g.byID[m.id] != m || m.session.pos < 0 && m.join == 0 && m.sync == 0 {
				wrong = append(wrong, fmt.Sprintf("member %s is not found, or has no session", m.id))
			}
		}
		for id := range g.pending {
			size += pendingBytes + len(id)
		}
		check(name+": joining", g.joining, joining)
		check(name+": syncing", g.syncing, syncing)
		check(name+": bytes", g.bytes, size)
		check(name+": static", len(g.static), static)
		check(name+": by id", len(g.byID), len(g.members))
		check(name+": votes", len(g.votes), len(votes))
		for p, n := range votes {
			check(name+": votes for "+p, g.votes[p], n)
		}
		if g.state == PreparingRebalance && g.join.pos < 0 {
			wrong = append(wrong, name+": nothing ends its rebalance")
		}
		if g.state == CompletingRebalance && (g.sync.pos < 0 || g.syncing+heldSyncs(g) < 1) {
			wrong = append(wrong, name+": nothing ends its wait for the leader")
		}
		waits := g.state == PreparingRebalance && (g.initial || len(g.pending) > 0)
		if (g.state == Empty) != (len(g.members) == 0) && !waits || g.state == Empty && len(g.pending) == 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %v with %d members and %d to be", name, g.state, len(g.members), len(g.pending)))
		}
		if g.state != Empty && len(g.members) > 0 && g.byID[g.leader] == nil {
			wrong = append(wrong, fmt.Sprintf("%s: its leader %q is no member", name, g.leader))
		}
		total += size
		held += joining
	}
	check("bytes of all", c.bytes, total)
	check("held", len(c.held), held)
	return strings.Join(wrong, "; ")
}

func heldSyncs(g *classic) (n int) {
	for _, m := range g.members {
		if m.sync != 0 {
			n++
		}
	}
	return n
}
