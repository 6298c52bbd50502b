package consumergroup

import (
	"bytes"
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// State is where a group stands.
type State int8

// The states of groups.
const (
	Empty State = iota
	PreparingRebalance
	CompletingRebalance
	Stable
	Dead // there is none

	// States of groups of KIP-848, beside Empty and Stable.
	Assigning   // the target assignment is not of the group's epoch
	Reconciling // members are on their way to it
)

// String returns Kafka's name.
func (s State) String() string {
	switch s {
	case Empty:
		return "Empty"
	case PreparingRebalance:
		return "PreparingRebalance"
	case CompletingRebalance:
		return "CompletingRebalance"
	case Stable:
		return "Stable"
	case Assigning:
		return "Assigning"
	case Reconciling:
		return "Reconciling"
	}
	return "Dead"
}

// classic is a classic group that has, or is about to have, members.
type classic struct {
	name       string
	state      State
	initial    bool // while PreparingRebalance: the group was Empty before
	generation int32
	stateMS    int64 // when it came into state, in ms since 1970; -1: not known

	protocolType string // empty: it had no member yet
	protocol     string // empty: none is chosen
	leader       string // a member's id; empty: none

	members []*member // in the order in which they joined
	byID    map[string]*member
	static  map[string]*member // by instance id
	pending map[string]*timer  // ids that were given to who is still to join with them
	votes   map[string]int     // by protocol: how many members know it

	joining int // members that wait for the end of the join
	syncing int // members that have yet to ask for their assignment

	join    *timer // ends PreparingRebalance
	sync    *timer // ends the wait for those who have yet to ask
	bytes   int    // held of members and pending ids
	grew    bool   // a member came since the initial delay was looked at
	delayMS int64  // of the initial delay: the current piece, and what is left behind it
	leftMS  int64
}

// member is a member of a classic group.
type member struct {
	group *classic

	id, instance         string
	clientID, clientHost string
	sessionMS            int32
	rebalanceMS          int32
	protocols            []Protocol
	assignment           []byte

	join, sync Token // requests that are held; zero: none
	fresh      bool  // it joined, and no rebalance has ended since
	nameless   bool  // it does not know its id yet
	unsynced   bool  // it has yet to ask for its assignment
	session    *timer
	bytes      int // held of it
}

// What is held of a member beside its strings and bytes, about.
const (
	memberBytes   = 512
	protocolBytes = 64
	pendingBytes  = 256
	idBytes       = 64 // of an id that is about to be made
)

func (m *member) size() int {
	n := memberBytes + len(m.id) + len(m.instance) + len(m.clientID) + len(m.clientHost) + len(m.assignment)
	return n + protocolsSize(m.protocols)
}

func protocolsSize(ps []Protocol) int {
	n := 0
	for _, p := range ps {
		n += protocolBytes + len(p.Name) + len(p.Metadata)
	}
	return n
}

// metadata returns what m says for a protocol.
func (m *member) metadata(protocol string) ([]byte, bool) {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata, true
		}
	}
	return nil, false
}

// same reports whether a member says again what it has said before.
func (m *member) same(ps []Protocol) bool {
	return slices.EqualFunc(m.protocols, ps, func(a, b Protocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
}

func newClassic(name string) *classic {
	return &classic{
		name: name, stateMS: -1,
		byID: make(map[string]*member), static: make(map[string]*member),
		pending: make(map[string]*timer), votes: make(map[string]int),
	}
}

// insert adds m, whose id and instance are nobody's.
func (g *classic) insert(m *member) {
	if len(g.members) == 0 {
		g.leader = m.id
	}
	g.members = append(g.members, m)
	g.byID[m.id] = m
	if m.instance != "" {
		g.static[m.instance] = m
	}
	g.count(m, 1)
}

// drop takes m out. Who waits for it is for the caller to see to.
func (g *classic) drop(m *member) {
	g.members = slices.DeleteFunc(g.members, func(o *member) bool { return o == m })
	delete(g.byID, m.id)
	if m.instance != "" {
		delete(g.static, m.instance)
	}
	g.count(m, -1)
	g.setSynced(m)
	if g.leader == m.id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
}

func (g *classic) count(m *member, by int) {
	for _, p := range m.protocols {
		if g.votes[p.Name] += by; g.votes[p.Name] == 0 {
			delete(g.votes, p.Name)
		}
	}
}

// setProtocols replaces what m says.
func (g *classic) setProtocols(m *member, ps []Protocol) {
	g.count(m, -1)
	m.protocols = ps
	g.count(m, 1)
}

func (g *classic) setSynced(m *member) {
	if m.unsynced {
		m.unsynced = false
		g.syncing--
	}
}

// accepts reports whether a member with these protocols can share them with those
// who are there.
func (g *classic) accepts(protocolType string, ps []Protocol) bool {
	if protocolType == "" || len(ps) == 0 {
		return false
	}
	if g.state == Empty {
		return true
	}
	return g.protocolType == protocolType && slices.ContainsFunc(ps, func(p Protocol) bool {
		return g.votes[p.Name] == len(g.members)
	})
}

// elect returns the protocol that the members choose: of those that all know, the
// one that most prefer, and of several the one that was preferred first. There is
// one: see accepts.
func (g *classic) elect() string {
	var names []string
	votes := make(map[string]int)
	for _, m := range g.members {
		for _, p := range m.protocols {
			if g.votes[p.Name] != len(g.members) {
				continue
			}
			if votes[p.Name]++; votes[p.Name] == 1 {
				names = append(names, p.Name)
			}
			break
		}
	}
	best := ""
	for _, name := range names {
		if votes[name] > votes[best] {
			best = name
		}
	}
	return best
}

// allJoined reports whether nobody is waited for in PreparingRebalance.
func (g *classic) allJoined() bool { return g.joining == len(g.members) && len(g.pending) == 0 }

// rebalanceMS is how long the slowest member asks for.
func (g *classic) rebalanceMS() int64 {
	var most int32
	for _, m := range g.members {
		most = max(most, m.rebalanceMS)
	}
	return int64(most)
}

// check returns the member that a request names, or what is wrong with it: a
// static member is fenced once another has its instance.
func (g *classic) check(id, instance string) (*member, *errcode.Error) {
	if instance != "" {
		switch m := g.static[instance]; {
		case m == nil:
			return nil, errUnknownMember
		case m.id != id:
			return nil, errFenced
		}
	}
	m := g.byID[id]
	if m == nil {
		return nil, errUnknownMember
	}
	return m, nil
}

// told returns the members as the leader is told of them.
func (g *classic) told() []JoinMember {
	out := make([]JoinMember, len(g.members))
	for i, m := range g.members {
		metadata, _ := m.metadata(g.protocol)
		out[i] = JoinMember{MemberID: m.id, InstanceID: m.instance, Metadata: metadata}
	}
	return out
}

// value returns g as it is recorded.
func (g *classic) value() *record.GroupMetadataValue {
	v := &record.GroupMetadataValue{
		ProtocolType: g.protocolType, Generation: g.generation,
		Protocol: optional(g.protocol), Leader: optional(g.leader),
		CurrentStateTimestampMS: g.stateMS,
		Members:                 make([]record.GroupMember, len(g.members)),
	}
	for i, m := range g.members {
		metadata, _ := m.metadata(g.protocol)
		v.Members[i] = record.GroupMember{
			MemberID: m.id, InstanceID: optional(m.instance), ClientID: m.clientID, ClientHost: m.clientHost,
			RebalanceTimeoutMS: m.rebalanceMS, SessionTimeoutMS: m.sessionMS,
			Subscription: metadata, Assignment: m.assignment,
		}
	}
	return v
}

// subscribed reports whether a member consumes the topic, as far as can be known:
// if what members say cannot be read, they may.
func (g *classic) subscribed(topic string) bool {
	if g.protocolType != record.ConsumerProtocolType {
		return false
	}
	for _, m := range g.members {
		b, ok := m.metadata(g.protocol)
		if !ok {
			return true
		}
		s, err := record.DecodeSubscription(b)
		if err != nil || slices.Contains(s.Topics, topic) {
			return true
		}
	}
	return false
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func required(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
