package consumergroup

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// TestScenarios runs the scripts in testdata/scenarios. In each, every line of a
// "run" is one step, and what it leads to stands below, indented: the records that
// are decided, and the replies, by the name that a line gives its request.
//
//	options size=2 ...         new bounds, from the next takeover on
//	join a group=g client=c    JoinGroup; also member= instance= session= rebalance=
//	                           type= protocols=name:topic+topic,...; the flags old (no
//	                           MEMBER_ID_REQUIRED) and skips (KIP-814)
//	                           and owned=t:0+1, of what a cooperative consumer owns
//	sync a group=g member=c-1 gen=1 assign=c-1:x,c-2:y
//	                           x is bytes; t=0+1 is a consumer's assignment
//	heartbeat a, leave a, commit a, fetch a, delete-offsets a, describe a,
//	list a, delete-groups a
//	gone a                     the connection of a request has ended
//	topics-deleted t:id,...
//	advance 3s                 time passes
//	stay 3s group=g member=c-1 gen=1
//	                           time passes, and the member sends heartbeats
//	takeover                   another node leads: what is held gets no answer
//	state                      what is recorded
//
// and those of groups of KIP-848, which consumer_scenario_test.go lists.
//
// Run with -rewrite to write down what comes out.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		m := newMachine(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			m.t = t
			if d.Cmd != "run" {
				t.Fatalf("unknown command %s", d.Cmd)
			}
			var sb strings.Builder
			for line := range strings.Lines(d.Input) {
				if line = strings.TrimSpace(line); line != "" {
					fmt.Fprintf(&sb, "%s\n%s", line, m.step(strings.Fields(line)))
				}
			}
			return sb.String()
		})
	})
}

// args are the words of a line.
type args struct {
	t     testing.TB
	name  string // of the request
	words map[string]string
}

func (a args) str(key, otherwise string) string {
	if v, ok := a.words[key]; ok {
		return v
	}
	return otherwise
}

func (a args) num(key string, otherwise int64) int64 {
	v, ok := a.words[key]
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		a.t.Fatalf("%s=%s: %v", key, v, err)
	}
	return n
}

func (a args) ms(key string, otherwise time.Duration) int32 {
	return int32(a.duration(key, otherwise).Milliseconds())
}

func (a args) duration(key string, otherwise time.Duration) time.Duration {
	v, ok := a.words[key]
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		a.t.Fatalf("%s=%s: %v", key, v, err)
	}
	return d
}

func (a args) flag(key string) bool { _, ok := a.words[key]; return ok }

// list splits a value at commas.
func (a args) list(key string) []string {
	if v := a.words[key]; v != "" {
		return strings.Split(v, ",")
	}
	return nil
}

func (m *machine) step(words []string) string {
	m.t.Helper()
	a := args{t: m.t, words: make(map[string]string)}
	for i, w := range words[1:] {
		k, v, named := strings.Cut(w, "=")
		if i == 0 && !named {
			a.name = w
			continue
		}
		a.words[k] = v
	}
	switch words[0] {
	case "options":
		m.setOptions(a)
		return ""
	case "advance":
		d, err := time.ParseDuration(a.name)
		if err != nil {
			m.t.Fatal(err)
		}
		return m.advance(d)
	case "stay":
		return m.stay(a)
	case "takeover":
		return m.scriptTakeOver()
	case "state":
		return m.scriptState()
	}
	m.request(words[0], a)
	return m.apply()
}

// stay lets time pass with heartbeats of a member, and of those in "and".
func (m *machine) stay(a args) string {
	d, err := time.ParseDuration(a.name)
	if err != nil {
		m.t.Fatal(err)
	}
	const each = 20 * time.Minute
	var sb strings.Builder
	for until := m.now.Add(d); m.now.Before(until); {
		sb.WriteString(m.advance(min(each, until.Sub(m.now))))
		for _, who := range append(a.list("and"), a.words["group"]+":"+a.words["member"]) {
			group, id, _ := strings.Cut(who, ":")
			req := &HeartbeatRequest{Group: group, MemberID: id, Generation: int32(a.num("gen", -1))}
			m.c.Heartbeat(m.now, m.token(id), req, &m.out)
			if r := m.out.Replies[0].Response.(HeartbeatReply); r.Err == nil {
				delete(m.tokens, m.out.Replies[0].Token)
				m.out.Reset()
			}
			sb.WriteString(m.apply())
		}
	}
	return sb.String()
}

func (m *machine) setOptions(a args) {
	o := &m.opts
	o.MaxGroupSize = int(a.num("size", int64(o.MaxGroupSize)))
	o.MaxGroups = int(a.num("groups", int64(o.MaxGroups)))
	o.MaxOffsets = int(a.num("offsets", int64(o.MaxOffsets)))
	o.MaxGroupBytes = int(a.num("group-bytes", int64(o.MaxGroupBytes)))
	o.MaxBytes = int(a.num("bytes", int64(o.MaxBytes)))
	o.MaxOffsetMetadataBytes = int(a.num("metadata", int64(o.MaxOffsetMetadataBytes)))
	o.MaxProtocols = int(a.num("protocols", int64(o.MaxProtocols)))
	o.Migration = MigrationPolicy(a.str("migration", string(o.Migration)))
	o.InitialRebalanceDelay = a.duration("delay", o.InitialRebalanceDelay)
}

func (m *machine) scriptTakeOver() string {
	var lost []string
	for _, token := range m.c.Held() {
		lost = append(lost, m.tokens[token])
		delete(m.tokens, token)
	}
	m.takeOver()
	if len(lost) == 0 {
		return ""
	}
	return fmt.Sprintf("  no answer: %s\n", strings.Join(lost, " "))
}

func (m *machine) scriptState() string {
	var sb strings.Builder
	for _, name := range m.applied.Names() {
		if s := m.applied.consumer(name); s != nil {
			fmt.Fprintf(&sb, "  %s: %s\n", name, formatConsumerState(s))
		} else if v := m.applied.meta(name); v != nil {
			fmt.Fprintf(&sb, "  %s: %s\n", name, formatGroup(v))
		} else {
			fmt.Fprintf(&sb, "  %s\n", name)
		}
		for tp, v := range m.applied.Committed(name) {
			fmt.Fprintf(&sb, "    %s-%d: %s\n", tp.Topic, tp.Partition, formatOffset(v))
		}
	}
	return sb.String()
}

func (m *machine) request(cmd string, a args) {
	m.t.Helper()
	group, member, instance := a.words["group"], a.words["member"], a.words["instance"]
	generation := int32(a.num("gen", -1))
	switch cmd {
	case "join":
		m.c.JoinGroup(m.now, m.token(a.name), a.join(), &m.out)
	case "sync":
		m.c.SyncGroup(m.now, m.token(a.name), a.sync(), &m.out)
	case "heartbeat":
		m.c.Heartbeat(m.now, m.token(a.name), &HeartbeatRequest{group, member, instance, generation}, &m.out)
	case "leave":
		req := &LeaveRequest{Group: group}
		for _, who := range a.list("members") {
			id, instance, _ := strings.Cut(who, "/")
			req.Members = append(req.Members, LeaveMember{id, instance})
		}
		m.c.LeaveGroup(m.now, m.token(a.name), req, &m.out)
	case "commit":
		m.c.CommitOffsets(m.now, m.token(a.name), a.commit(), &m.out)
	case "fetch":
		req := &FetchRequest{Group: group, All: !a.flag("offsets")}
		for _, tp := range a.partitions("offsets") {
			req.Partitions = append(req.Partitions, FetchPartition{Topic: tp.Topic, TopicID: topicID(a.str("id", "")), Partition: tp.Partition})
		}
		req.MemberID, req.MemberEpoch = member, int32(a.num("epoch", -1))
		m.c.FetchOffsets(m.now, m.token(a.name), req, &m.out)
	case "delete-offsets":
		m.c.DeleteOffsets(m.now, m.token(a.name), &DeleteOffsetsRequest{group, a.partitions("offsets")}, &m.out)
	case "describe":
		m.c.DescribeGroup(m.now, m.token(a.name), group, &m.out)
	case "list":
		m.c.ListGroups(m.now, m.token(a.name), &ListRequest{a.list("states"), a.list("types")}, &m.out)
	case "delete-groups":
		m.c.DeleteGroups(m.now, m.token(a.name), a.list("groups"), &m.out)
	case "gone":
		m.gone(a.name)
	case "topics-deleted":
		var topics []Topic
		for _, s := range strings.Split(a.name, ",") {
			name, id, _ := strings.Cut(s, ":")
			topics = append(topics, Topic{name, topicID(id)})
		}
		m.c.TopicsDeleted(m.now, topics, &m.out)
	default:
		if !m.consumerRequest(cmd, a) {
			m.t.Fatalf("unknown step %s", cmd)
		}
	}
}

// gone ends the connection of a request that is held.
func (m *machine) gone(name string) {
	for token, n := range m.tokens {
		if n == name {
			delete(m.tokens, token)
			m.c.Gone(m.now, token, &m.out)
			return
		}
	}
	m.t.Fatalf("no request %s is held", name)
}

func (a args) join() *JoinRequest {
	return &JoinRequest{
		Group: a.words["group"], MemberID: a.words["member"], InstanceID: a.words["instance"],
		ClientID: a.str("client", "c"), ClientHost: a.str("host", "/10.0.0.1"),
		SessionTimeoutMS: a.ms("session", 10*time.Second), RebalanceTimeoutMS: a.ms("rebalance", 60*time.Second),
		ProtocolType: a.str("type", record.ConsumerProtocolType), Protocols: a.protocols(),
		NeedsMemberID: !a.flag("old"), SkipsAssignment: a.flag("skips"),
	}
}

// protocols are given as name:topic+topic,...; with a "!" before the topics they are
// bytes, and no subscription.
func (a args) protocols() (out []Protocol) {
	list := a.list("protocols")
	if !a.flag("protocols") {
		list = []string{"range:t"}
	}
	for _, s := range list {
		name, topics, _ := strings.Cut(s, ":")
		metadata, raw := strings.CutPrefix(topics, "!")
		p := Protocol{Name: name, Metadata: []byte(metadata)}
		if !raw {
			p.Metadata = record.AppendSubscription(nil, a.subscription(strings.Split(topics, "+")))
		}
		out = append(out, p)
	}
	return out
}

// subscription is of version 1, if the member says what it owns, and else of version 0.
func (a args) subscription(topics []string) *record.Subscription {
	s := &record.Subscription{Topics: topics}
	if a.flag("owned") {
		s.Version = 1
		s.Owned = a.owned()
	}
	return s
}

// owned is given as topic:partition+partition,...
func (a args) owned() (out []record.Owned) {
	for _, s := range a.list("owned") {
		topic, list, _ := strings.Cut(s, ":")
		if topic == "none" {
			continue
		}
		o := record.Owned{Topic: topic}
		for _, p := range strings.Split(list, "+") {
			n, err := strconv.Atoi(p)
			if err != nil {
				a.t.Fatal(err)
			}
			o.Partitions = append(o.Partitions, int32(n))
		}
		out = append(out, o)
	}
	return out
}

func (a args) sync() *SyncRequest {
	req := &SyncRequest{
		Group: a.words["group"], MemberID: a.words["member"], InstanceID: a.words["instance"],
		Generation: int32(a.num("gen", -1)), ProtocolType: a.words["type"], Protocol: a.words["protocol"],
	}
	for _, s := range a.list("assign") {
		id, what, _ := strings.Cut(s, ":")
		b := []byte(what)
		if topic, list, ok := strings.Cut(what, "="); ok {
			owned := args{t: a.t, words: map[string]string{"owned": topic + ":" + list}}.owned()
			b = record.AppendAssignment(nil, &record.Assignment{Partitions: owned})
		}
		req.Assignments = append(req.Assignments, Assignment{id, b})
	}
	return req
}

func (a args) commit() *CommitRequest {
	req := &CommitRequest{
		Group: a.words["group"], MemberID: a.words["member"], InstanceID: a.words["instance"],
		Generation: int32(a.num("gen", -1)), RetentionMS: a.num("retention", -1), KnowsNoGroup: !a.flag("old"),
	}
	for _, s := range a.list("offsets") {
		where, offset, _ := strings.Cut(s, "=")
		tp := parsePartition(a.t, where)
		n, err := strconv.ParseInt(offset, 10, 64)
		if err != nil {
			a.t.Fatal(err)
		}
		req.Offsets = append(req.Offsets, CommitOffset{
			Topic: tp.Topic, TopicID: topicID(a.str("id", "")), Partition: tp.Partition, Offset: n,
			LeaderEpoch: int32(a.num("epoch", -1)), Metadata: a.words["metadata"],
		})
	}
	return req
}

func (a args) partitions(key string) (out []TopicPartition) {
	for _, s := range a.list(key) {
		out = append(out, parsePartition(a.t, s))
	}
	return out
}

func parsePartition(t testing.TB, s string) TopicPartition {
	t.Helper()
	i := strings.LastIndexByte(s, '-')
	n, err := strconv.Atoi(s[i+1:])
	if i < 0 || err != nil {
		t.Fatalf("%s is no partition", s)
	}
	return TopicPartition{s[:i], int32(n)}
}
