package consumergroup

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// machine drives one Coordinator, and applies what it decides.
type machine struct {
	t       testing.TB
	c       *Coordinator
	applied *Groups
	opts    Options
	now     time.Time
	out     Decision
	ids     int
	log     []record.Record // all that was applied

	tokens map[Token]string // what the script calls each request
	last   Token

	topics int64   // version of those that were told last
	known  *Topics // told to each new coordinator; nil: none yet
}

// begins is when the tests begin: 1970, so that timestamps are short.
var begins = time.UnixMilli(0)

func newMachine(t testing.TB) *machine {
	m := &machine{t: t, applied: NewGroups(), opts: DefaultOptions(), now: begins, tokens: make(map[Token]string)}
	m.opts.ConsumerHeartbeatIntervalMin = m.opts.ConsumerHeartbeatInterval // whatever the number of members
	m.opts.NewID = func() string { m.ids++; return strconv.Itoa(m.ids) }
	m.takeOver()
	return m
}

func (m *machine) takeOver() {
	m.t.Helper()
	c, err := NewCoordinator(m.now, m.applied, m.opts)
	if err != nil {
		m.t.Fatal(err)
	}
	m.c = c
	if m.known != nil {
		m.c.TopicsChanged(m.now, m.known, &m.out)
	}
	m.same()
}

// same checks the invariant of the package: with everything applied, the decided
// and the applied state are the same.
func (m *machine) same() {
	m.t.Helper()
	if d, a := m.c.Decided().Hash(), m.applied.Hash(); d != a {
		m.t.Fatalf("at %v: decided %v, applied %v", m.elapsed(), d, a)
	}
}

func (m *machine) elapsed() time.Duration { return m.now.Sub(begins) }

// apply applies what was decided, and returns it in words.
func (m *machine) apply() string {
	m.t.Helper()
	var sb strings.Builder
	for _, r := range m.out.Records {
		if err := m.applied.Fold(r); err != nil {
			m.t.Fatal(err)
		}
		m.log = append(m.log, record.Record{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value)})
		fmt.Fprintf(&sb, "  record %s\n", words(m.t, r))
	}
	for _, r := range m.out.Replies {
		name := m.tokens[r.Token]
		delete(m.tokens, r.Token)
		if name == "" {
			m.t.Fatalf("a reply to request %d, which is answered or was never sent: %+v", r.Token, r.Response)
		}
		fmt.Fprintf(&sb, "  %s <- %s\n", name, formatReply(r.Response))
	}
	m.out.Reset()
	m.same()
	return sb.String()
}

// token returns a new one.
func (m *machine) token(name string) Token {
	m.last++
	m.tokens[m.last] = name
	return m.last
}

// advance lets time pass, tick by tick, and returns what happens.
func (m *machine) advance(d time.Duration) string {
	m.t.Helper()
	var sb strings.Builder
	for until := m.now.Add(d); ; {
		next, ok := m.c.Next()
		if !ok || next.After(until) {
			m.now = until
			return sb.String()
		}
		if next.After(m.now) {
			m.now = next
		}
		m.c.Tick(m.now, &m.out)
		if s := m.apply(); s != "" {
			fmt.Fprintf(&sb, " at %v\n%s", m.elapsed(), s)
		}
	}
}

// words tells a record.
func words(t testing.TB, r record.Record) string {
	t.Helper()
	e, err := record.Decode(r.Key, r.Value)
	if err != nil {
		t.Fatal(err)
	}
	switch e := e.(type) {
	case *record.OffsetCommit:
		if e.Value == nil {
			return fmt.Sprintf("%s %s-%d: no offset", e.Group, e.Topic, e.Partition)
		}
		return fmt.Sprintf("%s %s-%d: %s", e.Group, e.Topic, e.Partition, formatOffset(e.Value))
	case *record.GroupMetadata:
		if e.Value == nil {
			return fmt.Sprintf("%s: no group", e.Group)
		}
		return fmt.Sprintf("%s: %s", e.Group, formatGroup(e.Value))
	}
	return consumerWords(e)
}

func formatOffset(v *record.OffsetCommitValue) string {
	s := fmt.Sprintf("offset=%d", v.Offset)
	if v.LeaderEpoch >= 0 {
		s += fmt.Sprintf(" epoch=%d", v.LeaderEpoch)
	}
	if v.Metadata != "" {
		s += fmt.Sprintf(" metadata=%q", v.Metadata)
	}
	s += fmt.Sprintf(" at=%d", v.CommitTimestampMS)
	if v.ExpireTimestampMS >= 0 {
		s += fmt.Sprintf(" expires=%d", v.ExpireTimestampMS)
	}
	if v.TopicID != (record.TopicID{}) {
		s += " id=" + formatID(v.TopicID)
	}
	return s
}

func topicID(s string) (id record.TopicID) {
	copy(id[:], s)
	return id
}

func formatID(id record.TopicID) string { return strings.TrimRight(string(id[:]), "\x00") }

func formatGroup(v *record.GroupMetadataValue) string {
	s := fmt.Sprintf("generation=%d type=%q", v.Generation, v.ProtocolType)
	if v.Protocol != nil {
		s += fmt.Sprintf(" protocol=%s leader=%s", *v.Protocol, required(v.Leader))
	}
	s += fmt.Sprintf(" since=%d", v.CurrentStateTimestampMS)
	for _, m := range v.Members {
		s += fmt.Sprintf(" %s(", m.MemberID)
		if m.InstanceID != nil {
			s += "instance=" + *m.InstanceID + " "
		}
		s += fmt.Sprintf("client=%s session=%d rebalance=%d %s -> %s)", m.ClientID, m.SessionTimeoutMS, m.RebalanceTimeoutMS,
			formatMetadata(m.Subscription), formatAssignment(m.Assignment))
	}
	return s
}

// formatMetadata tells what a member says: a subscription, or bytes.
func formatMetadata(b []byte) string {
	if s, err := record.DecodeSubscription(b); err == nil {
		return fmt.Sprint(s.Topics)
	}
	return strconv.Quote(string(b))
}

// formatAssignment tells what a member is assigned: partitions, or bytes.
func formatAssignment(b []byte) string {
	if a, err := record.DecodeAssignment(b); err == nil && len(b) > 0 {
		return fmt.Sprint(a.Partitions)
	}
	return strconv.Quote(string(b))
}

func formatErr(e *errcode.Error) string {
	if e == nil {
		return "ok"
	}
	return e.Error()
}

func formatReply(response any) string { return format(response, formatErr) }

// format tells a reply, and its errors as told says.
func format(response any, told func(*errcode.Error) string) string {
	switch r := response.(type) {
	case *JoinReply:
		return formatJoin(r, told)
	case *SyncReply:
		if r.Err != nil {
			return told(r.Err)
		}
		return fmt.Sprintf("ok type=%s protocol=%s assignment=%s", r.ProtocolType, r.Protocol, formatAssignment(r.Assignment))
	case HeartbeatReply:
		return told(r.Err)
	case *LeaveReply:
		s := told(r.Err)
		for _, l := range r.Members {
			s += fmt.Sprintf("; %s: %s", l.MemberID+"/"+l.InstanceID, told(l.Err))
		}
		return s
	case *CommitReply:
		return told(r.Err) + formatErrs(r.Offsets, told)
	case *DeleteOffsetsReply:
		return told(r.Err) + formatErrs(r.Partitions, told)
	case *FetchReply:
		s := told(r.Err)
		for _, o := range r.Offsets {
			s += fmt.Sprintf("; %s-%d=%d epoch=%d metadata=%q", o.Topic, o.Partition, o.Offset, o.LeaderEpoch, o.Metadata)
		}
		return s
	case *ListReply:
		var s []string
		for _, l := range r.Groups {
			s = append(s, fmt.Sprintf("%s %s %v type=%q", l.Group, l.Type, l.State, l.ProtocolType))
		}
		return fmt.Sprintf("%d groups: %s", len(s), strings.Join(s, "; "))
	case *DescribeReply:
		s := fmt.Sprintf("%s %s %v type=%q protocol=%q", told(r.Err), r.Group, r.State, r.ProtocolType, r.Protocol)
		for _, m := range r.Members {
			s += fmt.Sprintf("; %s/%s client=%s@%s %q -> %q", m.MemberID, m.InstanceID, m.ClientID, m.ClientHost, m.Metadata, m.Assignment)
		}
		return s
	case *DeleteGroupsReply:
		var s []string
		for _, d := range r.Groups {
			s = append(s, d.Group+": "+told(d.Err))
		}
		return strings.Join(s, "; ")
	}
	return formatConsumerReply(response)
}

func formatErrs(errs []*errcode.Error, told func(*errcode.Error) string) string {
	s := ""
	for _, err := range errs {
		s += ", " + told(err)
	}
	return s
}

func formatJoin(r *JoinReply, told func(*errcode.Error) string) string {
	if r.Err != nil {
		return fmt.Sprintf("%s (member %q)", told(r.Err), r.MemberID)
	}
	s := fmt.Sprintf("ok member=%s generation=%d type=%s protocol=%s leader=%s", r.MemberID, r.Generation, r.ProtocolType, r.Protocol, r.Leader)
	if r.SkipAssignment {
		s += " skip-assignment"
	}
	for _, m := range r.Members {
		s += " " + m.MemberID
		if m.InstanceID != "" {
			s += "/" + m.InstanceID
		}
		s += ":" + formatMetadata(m.Metadata)
	}
	return s
}

// sameBeat holds what ConsumerBeat decides, if it does, against the whole of what
// ConsumerHeartbeat would, and reports whether it does.
func sameBeat(t testing.TB, c *Coordinator, now time.Time, req *ConsumerHeartbeatRequest) bool {
	t.Helper()
	out := new(Decision)
	c.begin(now, out)
	short := c.beat(req)
	if short == nil {
		return false
	}
	whole, err := c.consumerHeartbeat(req)
	if err != nil || !cmp.Equal(short, whole) || len(out.Records) > 0 {
		t.Fatalf("%+v is answered %+v, and would be answered %+v, %v, with %d records", req, short, whole, err, len(out.Records))
	}
	return true
}
