package consumergroup

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Token names a request, so that it can be answered later. It is not zero, and no
// two requests of a Coordinator have the same.
type Token uint64

// Reply answers one request.
type Reply struct {
	Token    Token
	Response any // *JoinReply for a JoinRequest, and so on; HeartbeatReply as a value
}

// Decision is what calls have decided: calls append to it. Its records, in this
// order, are the next of the partition; they may be cut into several entries. The
// replies, also those to requests that were held, are due once all of them, and
// those of the Decisions before, are applied.
type Decision struct {
	Records []record.Record
	Replies []Reply

	// Reads says that a reply tells what the decided state says, and nothing that
	// was recorded shows that this coordinator still leads: it is due only after a
	// majority has said so, later than the request came (R19).
	Reads bool
}

// Reset empties d, and keeps its memory. What it held must not be in use.
func (d *Decision) Reset() {
	clear(d.Records)
	clear(d.Replies)
	*d = Decision{Records: d.Records[:0], Replies: d.Replies[:0]}
}

// Coordinator decides about the groups of one partition of __consumer_offsets, on
// the partition's leader. See the package comment for how it is used.
//
// Calls take the time; it does not go back. It belongs to one goroutine.
type Coordinator struct {
	opts      Options
	decided   *Groups
	live      map[string]*classic  // groups with members, or ids given to members to be
	consumers map[string]*consumer // groups of KIP-848 with members
	topics    *Topics              // nil: not known yet
	held      map[Token]*member    // by the token of each request that is held
	timers    timers
	bytes     int // held of all members
	sweeps    sweeps

	// The call that is going on.
	now time.Time
	out *Decision
}

// NewCoordinator returns a Coordinator that goes on from the applied state. All
// members' sessions begin now. It clones applied, which the caller goes on to fold
// into; see Groups.Clone for what that asks of it.
//
// It returns what Options.Check returns.
func NewCoordinator(now time.Time, applied *Groups, opts Options) (*Coordinator, error) {
	if err := opts.Check(); err != nil {
		return nil, err
	}
	c := &Coordinator{
		opts: opts, decided: applied.Clone(), now: now,
		live: make(map[string]*classic), consumers: make(map[string]*consumer), held: make(map[Token]*member),
	}
	for _, name := range c.decided.Names() {
		if s := c.decided.consumer(name); s != nil {
			c.takeOverConsumer(name, s)
		} else if v := c.decided.meta(name); v != nil && len(v.Members) > 0 {
			c.takeOver(name, v)
		}
	}
	c.beginSweeps()
	return c, nil
}

// takeOver makes the group that v tells of: as it was after its last rebalance. Whoever
// wrote v, ids that stand twice are taken once, and the leader is a member.
func (c *Coordinator) takeOver(name string, v *record.GroupMetadataValue) {
	g := c.newClassic(name)
	g.restore(v)
	for i := range v.Members {
		r := &v.Members[i]
		if g.byID[r.MemberID] != nil || r.InstanceID != nil && g.static[*r.InstanceID] != nil {
			continue
		}
		m := c.newMember(g, r.MemberID)
		m.instance, m.clientID, m.clientHost = required(r.InstanceID), r.ClientID, r.ClientHost
		m.sessionMS, m.rebalanceMS, m.assignment = r.SessionTimeoutMS, r.RebalanceTimeoutMS, r.Assignment
		if m.rebalanceMS < 0 {
			m.rebalanceMS = m.sessionMS
		}
		m.protocols = []Protocol{{Name: g.protocol, Metadata: r.Subscription}}
		g.insert(m)
		c.account(m)
		c.renew(m)
	}
	g.state = Stable
	if leader := required(v.Leader); g.byID[leader] != nil {
		g.leader = leader
	}
	c.live[name] = g
	if len(g.members) > c.opts.MaxGroupSize {
		c.prepare(g) // the bound was lowered: who rejoins first stays
	}
}

// restore takes what is recorded of a group, but for its members.
func (g *classic) restore(v *record.GroupMetadataValue) {
	g.generation, g.protocolType, g.stateMS = v.Generation, v.ProtocolType, v.CurrentStateTimestampMS
	g.protocol = required(v.Protocol)
}

// Decided returns the decided state: what is applied, and what will be. It is to be
// queried only, and only between calls.
func (c *Coordinator) Decided() *Groups { return c.decided }

// Held returns the tokens of the requests that are held, in order.
func (c *Coordinator) Held() []Token { return slices.Sorted(maps.Keys(c.held)) }

// Next returns when Tick is to be called, at the latest, and whether ever. There may
// be nothing to do yet by then.
func (c *Coordinator) Next() (time.Time, bool) { return c.timers.next() }

// Tick decides what the time alone decides: members whose session is over are lost,
// rebalances end, offsets expire.
func (c *Coordinator) Tick(now time.Time, out *Decision) {
	c.begin(now, out)
	for {
		t := c.timers.pop(now)
		if t == nil {
			return
		}
		t.fire()
	}
}

// begin is how each call begins.
func (c *Coordinator) begin(now time.Time, out *Decision) { c.now, c.out = now, out }

// nowMS is the time of the call, in milliseconds since 1970.
func (c *Coordinator) nowMS() int64 { return c.now.UnixMilli() }

// reply answers a request.
func (c *Coordinator) reply(token Token, response any) {
	c.out.Replies = append(c.out.Replies, Reply{token, response})
}

// write decides one record.
func (c *Coordinator) write(e record.Entry) {
	c.writeRecord(e.Encode())
}

func (c *Coordinator) writeRecord(r record.Record) {
	if err := c.decided.Fold(r); err != nil {
		panic(fmt.Sprintf("consumergroup: a decided record does not fold: %v", err))
	}
	c.out.Records = append(c.out.Records, r)
}

// persist decides the record of a group as it is.
func (c *Coordinator) persist(g *classic) {
	c.write(&record.GroupMetadata{Group: g.name, Value: g.value()})
}

// enter moves a group into a state.
func (c *Coordinator) enter(g *classic, s State) { g.state, g.stateMS = s, c.nowMS() }

// group returns the classic group of a name, with or without members; nil if there is
// none: there may be one of KIP-848.
// One without members is made for the call: see keep.
func (c *Coordinator) group(name string) *classic {
	if g := c.live[name]; g != nil {
		return g
	}
	if !c.decided.Has(name) || c.decided.consumer(name) != nil {
		return nil
	}
	g := c.newClassic(name)
	if v := c.decided.meta(name); v != nil {
		g.restore(v)
	}
	return g
}

func (c *Coordinator) newClassic(name string) *classic {
	g := newClassic(name)
	g.join = newTimer(func() { c.joinTimeout(g) })
	g.sync = newTimer(func() { c.syncTimeout(g) })
	return g
}

func (c *Coordinator) newMember(g *classic, id string) *member {
	m := &member{group: g, id: id}
	m.session = newTimer(func() { c.sessionTimeout(m) })
	return m
}

// keep has a group stay as long as it has, or is about to have, members, and
// forgets it else: its record says it all then.
func (c *Coordinator) keep(g *classic) {
	if g.state == Empty && len(g.pending) == 0 {
		delete(c.live, g.name)
		return
	}
	c.live[g.name] = g
}

// account counts what is held of m, as it is now.
func (c *Coordinator) account(m *member) { c.accountAs(m, m.size()) }

func (c *Coordinator) accountAs(m *member, size int) {
	c.hold(m.group, size-m.bytes)
	m.bytes = size
}

func (c *Coordinator) hold(g *classic, n int) {
	g.bytes += n
	c.bytes += n
}

// fits reports whether n more bytes may be held of g's members.
func (c *Coordinator) fits(g *classic, n int) bool {
	return n <= 0 || g.bytes+n <= c.opts.MaxGroupBytes && c.bytes+n <= c.opts.MaxBytes
}

// groups returns the names of all groups, in order.
func (c *Coordinator) groups() []string {
	return slices.Sorted(union(maps.Keys(c.decided.groups), maps.Keys(c.live), c.decided.Has))
}

// union is a, and what of b is not in it.
func union(a, b iter.Seq[string], inA func(string) bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		for s := range a {
			if !yield(s) {
				return
			}
		}
		for s := range b {
			if !inA(s) && !yield(s) {
				return
			}
		}
	}
}

// Stats counts what a Coordinator has.
type Stats struct {
	Groups  int // that are recorded
	Live    int // with members, or with some about to join
	Members int
	Offsets int
	Held    int // requests
	Bytes   int // held of members, as Options.MaxBytes bounds it
}

// Stats returns the counts. It takes time proportional to the groups with members.
func (c *Coordinator) Stats() Stats {
	s := Stats{Groups: c.decided.Len(), Live: len(c.live) + len(c.consumers), Offsets: c.decided.Offsets(), Held: len(c.held), Bytes: c.bytes}
	for _, g := range c.live {
		s.Members += len(g.members)
	}
	for _, g := range c.consumers {
		s.Members += len(g.members)
	}
	return s
}

// maxNameBytes bounds the ids and names of requests, so that a member's id, which is
// made from one, fits into a record as well.
const maxNameBytes = record.MaxStringBytes - 256

// Errors that need no detail of their own. They are shared: a heartbeat makes none.
var (
	errUnknownMember = errcode.Errorf(errcode.UnknownMemberID, "the group has no such member: join again without a member id")
	errFenced        = errcode.Errorf(errcode.FencedInstanceID,
		"another member joined with this group.instance.id: give each instance one of its own")
	errGeneration = errcode.Errorf(errcode.IllegalGeneration, "this is not the group's generation: join again")
	errRebalance  = errcode.Errorf(errcode.RebalanceInProgress, "the group rebalances: join again")
	errNoGroupID  = errcode.Errorf(errcode.InvalidGroupID, "the group id is empty: set group.id")
	errLongName   = errcode.Errorf(errcode.InvalidRequest, "an id or name is longer than %d bytes: choose a shorter one", maxNameBytes)
	errNoGroup    = errcode.Errorf(errcode.GroupIDNotFound, "there is no such group: list the groups to see those that there are")
	errNonEmpty   = errcode.Errorf(errcode.NonEmptyGroup, "the group has members: stop its consumers first")
	errReplaced   = errcode.Errorf(errcode.RebalanceInProgress, "the same member has sent this request again: the later one is answered")
)

// named returns what is wrong with the group's id, or with other names of a request.
func named(group string, others ...string) *errcode.Error {
	if group == "" {
		return errNoGroupID
	}
	if err := bounded(group); err != nil {
		return err
	}
	return bounded(others...)
}

// bounded returns errLongName if a name is too long. A group without a name may have
// offsets, as with Kafka, and no members.
func bounded(names ...string) *errcode.Error {
	if slices.ContainsFunc(names, func(s string) bool { return len(s) > maxNameBytes }) {
		return errLongName
	}
	return nil
}
