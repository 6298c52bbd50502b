package consumergroup

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestAgainstKafka sends a Coordinator what was sent to Apache Kafka, and compares the
// answers with what Kafka has answered: which requests are answered when, codes,
// generations, leaders, members, assignments and offsets.
//
// testdata/kafka has the steps (see TestScenarios; members are m1, m2, in the order in
// which their ids were given out) and, indented, the answers of Kafka 4.3.1. With
// GROUPS_KAFKA=HOST:PORT in the environment the test writes them anew, from a Kafka that
// has no groups yet, and in real time:
//
//	make kafka-jars && bench/peers/kafka.sh serve JARS DATA 9092 &
//	GROUPS_KAFKA=127.0.0.1:9092 go test -run TestAgainstKafka ./consumergroup
func TestAgainstKafka(t *testing.T) {
	names, err := filepath.Glob("testdata/kafka/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d scripts, %v", len(names), err)
	}
	addr := os.Getenv("GROUPS_KAFKA")
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if addr != "" {
				k := newKafka(t, addr)
				want = []byte(replay(t, string(want), k))
				if err := os.WriteFile(name, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := gocmp.Diff(string(want), replay(t, string(want), &local{machine: newMachine(t)})); diff != "" {
				t.Errorf("(-Kafka +ours):\n%s", diff)
			}
		})
	}
}

// server is Kafka, or a Coordinator.
type server interface {
	// do takes one step, and returns the answers that come meanwhile, by the name of
	// their request.
	do(cmd string, a args) map[string]any
}

// replay takes the steps of a script, and returns it with the answers.
func replay(t *testing.T, script string, s server) string {
	var (
		sb  strings.Builder
		ids = make(map[string]string) // the names of members by id
		id  = make(map[string]string) // and the other way around
	)
	for line := range strings.Lines(script) {
		if line = strings.TrimRight(line, "\n"); strings.HasPrefix(line, " ") {
			continue // an answer
		}
		fmt.Fprintln(&sb, line)
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		a := args{t: t, words: make(map[string]string)}
		for i, w := range words[1:] {
			k, v, named := strings.Cut(w, "=")
			if i == 0 && !named {
				a.name = w
				continue
			}
			a.words[k] = byID(k, v, id)
		}
		got := s.do(words[0], a)
		for _, name := range slices.Sorted(mapKeys(got)) {
			j, ok := got[name].(*JoinReply)
			given := ok && (j.Err == nil || j.Err.Code == errcode.MemberIDRequired || j.Err.Code == errcode.FencedInstanceID)
			if given && ids[j.MemberID] == "" {
				m := fmt.Sprintf("m%d", len(ids)+1)
				ids[j.MemberID], id[m] = m, j.MemberID
			}
		}
		for _, name := range slices.Sorted(mapKeys(got)) {
			fmt.Fprintf(&sb, "  %s <- %s\n", name, bare(got[name], ids))
		}
	}
	return sb.String()
}

func mapKeys[V any](m map[string]V) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// byID puts members' ids in the place of their names.
func byID(key, value string, id map[string]string) string {
	if key != "member" && key != "members" && key != "assign" {
		return value
	}
	list := strings.Split(value, ",")
	for i, s := range list {
		end := len(s)
		if at := strings.IndexAny(s, ":/"); at >= 0 {
			end = at
		}
		if real := id[s[:end]]; real != "" {
			list[i] = real + s[end:]
		}
	}
	return strings.Join(list, ",")
}

// bare tells a reply with the codes of its errors alone, with members in order, and
// without what not all versions have.
func bare(response any, ids map[string]string) string {
	name := func(id string) string { return cmp.Or(ids[id], id) }
	switch r := response.(type) {
	case *JoinReply:
		j := *r
		j.ProtocolType, j.MemberID, j.Leader = "", name(j.MemberID), name(j.Leader)
		j.Members = nil
		for _, m := range r.Members {
			m.MemberID = name(m.MemberID)
			j.Members = append(j.Members, m)
		}
		slices.SortFunc(j.Members, func(a, b JoinMember) int { return cmp.Compare(a.MemberID, b.MemberID) })
		response = &j
	case *SyncReply:
		s := *r
		s.ProtocolType, s.Protocol = "", ""
		response = &s
	case *LeaveReply:
		l := *r
		l.Members = nil
		for _, m := range r.Members {
			m.MemberID = name(m.MemberID)
			l.Members = append(l.Members, m)
		}
		response = &l
	case *DescribeReply:
		d := *r
		d.Members = nil
		for _, m := range r.Members {
			m.MemberID, m.ClientHost = name(m.MemberID), ""
			d.Members = append(d.Members, m)
		}
		slices.SortFunc(d.Members, func(a, b DescribedMember) int { return cmp.Compare(a.MemberID, b.MemberID) })
		response = &d
	case *FetchReply:
		slices.SortFunc(r.Offsets, func(a, b FetchedOffset) int {
			return TopicPartition{a.Topic, a.Partition}.compare(TopicPartition{b.Topic, b.Partition})
		})
	case *DeleteGroupsReply:
		slices.SortFunc(r.Groups, func(a, b DeletedGroup) int { return cmp.Compare(a.Group, b.Group) })
	case *ListReply:
		slices.SortFunc(r.Groups, func(a, b ListedGroup) int { return cmp.Compare(a.Group, b.Group) })
	}
	return format(response, func(e *errcode.Error) string {
		if e == nil {
			return "ok"
		}
		return e.Code.Name()
	})
}

// local is a Coordinator.
type local struct{ *machine }

func (l *local) do(cmd string, a args) map[string]any {
	got := make(map[string]any)
	collect := func() {
		for _, r := range l.out.Records {
			if err := l.applied.Fold(r); err != nil {
				l.t.Fatal(err)
			}
		}
		for _, r := range l.out.Replies {
			got[l.tokens[r.Token]] = r.Response
		}
		l.out.Reset()
	}
	d := quiet // a step takes its time, as Kafka's do
	if cmd == "advance" {
		d = duration(l.t, a.name)
	} else {
		l.request(cmd, a)
		collect()
	}
	until := l.now.Add(d)
	for next, ok := l.c.Next(); ok && !next.After(until); next, ok = l.c.Next() {
		l.now = next
		l.c.Tick(l.now, &l.out)
		collect()
	}
	l.now = until
	return got
}

func duration(t testing.TB, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// quiet is how long nothing more is said for a step to be over.
const quiet = 700 * time.Millisecond

// kafka is a Kafka to record.
type kafka struct {
	t       *testing.T
	addr    string
	answers chan answered
	conns   map[string]net.Conn // of requests, by name
}

type answered struct {
	name     string
	response any
}

func newKafka(t *testing.T, addr string) *kafka {
	k := &kafka{t: t, addr: addr, answers: make(chan answered, 100), conns: make(map[string]net.Conn)}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Version, create.TimeoutMillis = 4, 10000
	for _, name := range []string{"t", "u"} {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 4, 1
		create.Topics = append(create.Topics, topic)
	}
	k.roundTrip(k.dial(), "", create)
	for { // until the coordinators are there
		describe := kmsg.NewPtrDescribeGroupsRequest()
		describe.Version, describe.Groups = 5, []string{"none"}
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.Version, find.CoordinatorKey = 2, "none"
		k.roundTrip(k.dial(), "", find)
		if r := k.roundTrip(k.dial(), "", describe).(*kmsg.DescribeGroupsResponse); r.Groups[0].ErrorCode == 0 {
			return k
		}
		k.settle(make(map[string]any))
	}
}

func (k *kafka) dial() net.Conn {
	c, err := net.Dial("tcp", k.addr)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { c.Close() })
	return c
}

// roundTrip sends a request and returns the answer, or nil if the connection ends.
func (k *kafka) roundTrip(c net.Conn, client string, req kmsg.Request) kmsg.Response {
	b := kmsg.NewRequestFormatter(kmsg.FormatterClientID(client)).AppendRequest(nil, req, 1)
	if _, err := c.Write(b); err != nil {
		return nil
	}
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil
	}
	b = make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil
	}
	if b = b[4:]; req.IsFlexible() {
		b = b[1:] // no tags
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(b); err != nil {
		k.t.Errorf("%T: %v", resp, err)
	}
	return resp
}

func (k *kafka) do(cmd string, a args) map[string]any {
	got := make(map[string]any)
	switch cmd {
	case "advance":
		timer := time.NewTimer(duration(k.t, a.name))
		for over := false; !over; {
			select {
			case r := <-k.answers:
				got[r.name] = r.response
			case <-timer.C:
				over = true
			}
		}
		return got
	case "gone":
		k.conns[a.name].Close()
	default:
		c := k.dial()
		k.conns[a.name] = c
		go func() {
			if resp := k.roundTrip(c, a.str("client", "c"), k.request(cmd, a)); resp != nil {
				k.answers <- answered{a.name, fromKafka(resp)}
			}
		}()
	}
	k.settle(got)
	return got
}

// settle takes answers until none has come for a while.
func (k *kafka) settle(got map[string]any) {
	for {
		select {
		case r := <-k.answers:
			got[r.name] = r.response
		case <-time.After(quiet):
			return
		}
	}
}

// request makes Kafka's request of a step.
func (k *kafka) request(cmd string, a args) kmsg.Request {
	group, member, instance := a.words["group"], a.words["member"], optional(a.words["instance"])
	generation := int32(a.num("gen", -1))
	switch cmd {
	case "join":
		j := a.join()
		req := &kmsg.JoinGroupRequest{
			Version: 8, Group: group, MemberID: member, InstanceID: instance, ProtocolType: j.ProtocolType,
			SessionTimeoutMillis: j.SessionTimeoutMS, RebalanceTimeoutMillis: j.RebalanceTimeoutMS,
		}
		if j.SkipsAssignment {
			req.Version = 9
		}
		if !j.NeedsMemberID {
			req.Version = 3
		}
		for _, p := range j.Protocols {
			req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: p.Name, Metadata: p.Metadata})
		}
		return req
	case "sync":
		s := a.sync()
		req := &kmsg.SyncGroupRequest{Version: 4, Group: group, Generation: generation, MemberID: member, InstanceID: instance}
		if s.Protocol != "" {
			req.Version, req.ProtocolType, req.Protocol = 5, &s.ProtocolType, &s.Protocol
		}
		for _, as := range s.Assignments {
			req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: as.MemberID, MemberAssignment: as.Bytes})
		}
		return req
	case "heartbeat":
		return &kmsg.HeartbeatRequest{Version: 4, Group: group, Generation: generation, MemberID: member, InstanceID: instance}
	case "leave":
		req := &kmsg.LeaveGroupRequest{Version: 5, Group: group}
		for _, who := range a.list("members") {
			id, instance, _ := strings.Cut(who, "/")
			req.Members = append(req.Members, kmsg.LeaveGroupRequestMember{MemberID: id, InstanceID: optional(instance)})
		}
		return req
	case "describe":
		return &kmsg.DescribeGroupsRequest{Version: 6, Groups: []string{group}}
	case "list":
		return &kmsg.ListGroupsRequest{Version: 5, StatesFilter: a.list("states"), TypesFilter: a.list("types")}
	case "delete-groups":
		return &kmsg.DeleteGroupsRequest{Version: 2, Groups: a.list("groups")}
	}
	return k.offsets(cmd, a)
}

// offsets makes Kafka's request about offsets. Topics are in them once each.
func (k *kafka) offsets(cmd string, a args) kmsg.Request {
	switch cmd {
	case "commit":
		c := a.commit()
		req := &kmsg.OffsetCommitRequest{
			Version: 9, Group: c.Group, Generation: c.Generation, MemberID: c.MemberID, InstanceID: optional(c.InstanceID),
		}
		if !c.KnowsNoGroup {
			req.Version = 8
		}
		for _, o := range c.Offsets {
			if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != o.Topic {
				req.Topics = append(req.Topics, kmsg.OffsetCommitRequestTopic{Topic: o.Topic})
			}
			topic := &req.Topics[len(req.Topics)-1]
			topic.Partitions = append(topic.Partitions, kmsg.OffsetCommitRequestTopicPartition{
				Partition: o.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: &o.Metadata,
			})
		}
		return req
	case "fetch":
		group := kmsg.OffsetFetchRequestGroup{Group: a.words["group"], MemberEpoch: -1}
		for _, tp := range a.partitions("offsets") {
			if n := len(group.Topics); n == 0 || group.Topics[n-1].Topic != tp.Topic {
				group.Topics = append(group.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: tp.Topic})
			}
			topic := &group.Topics[len(group.Topics)-1]
			topic.Partitions = append(topic.Partitions, tp.Partition)
		}
		return &kmsg.OffsetFetchRequest{Version: 9, Groups: []kmsg.OffsetFetchRequestGroup{group}}
	case "delete-offsets":
		req := &kmsg.OffsetDeleteRequest{Group: a.words["group"]}
		for _, tp := range a.partitions("offsets") {
			if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != tp.Topic {
				req.Topics = append(req.Topics, kmsg.OffsetDeleteRequestTopic{Topic: tp.Topic})
			}
			topic := &req.Topics[len(req.Topics)-1]
			topic.Partitions = append(topic.Partitions, kmsg.OffsetDeleteRequestTopicPartition{Partition: tp.Partition})
		}
		return req
	}
	panic("no such step: " + cmd)
}

// fromKafka turns Kafka's answer into a reply.
func fromKafka(resp kmsg.Response) any {
	fault := func(code int16) *errcode.Error {
		if code == 0 {
			return nil
		}
		return &errcode.Error{Code: errcode.Code(code)}
	}
	switch r := resp.(type) {
	case *kmsg.JoinGroupResponse:
		j := &JoinReply{
			Err: fault(r.ErrorCode), MemberID: r.MemberID, Generation: r.Generation, Protocol: required(r.Protocol),
			Leader: r.LeaderID, SkipAssignment: r.SkipAssignment,
		}
		for _, m := range r.Members {
			j.Members = append(j.Members, JoinMember{m.MemberID, required(m.InstanceID), m.ProtocolMetadata})
		}
		return j
	case *kmsg.SyncGroupResponse:
		return &SyncReply{Err: fault(r.ErrorCode), Assignment: r.MemberAssignment}
	case *kmsg.HeartbeatResponse:
		return HeartbeatReply{fault(r.ErrorCode)}
	case *kmsg.LeaveGroupResponse:
		l := &LeaveReply{Err: fault(r.ErrorCode)}
		for _, m := range r.Members {
			l.Members = append(l.Members, LeaveResult{m.MemberID, required(m.InstanceID), fault(m.ErrorCode)})
		}
		return l
	case *kmsg.DescribeGroupsResponse:
		g := r.Groups[0]
		d := &DescribeReply{Err: fault(g.ErrorCode), Group: g.Group, ProtocolType: g.ProtocolType, Protocol: g.Protocol, State: stateOf(g.State)}
		for _, m := range g.Members {
			d.Members = append(d.Members, DescribedMember{
				m.MemberID, required(m.InstanceID), m.ClientID, m.ClientHost, bytes.Clone(m.ProtocolMetadata), m.MemberAssignment,
			})
		}
		return d
	case *kmsg.ListGroupsResponse:
		l := new(ListReply)
		for _, g := range r.Groups {
			l.Groups = append(l.Groups, ListedGroup{g.Group, g.ProtocolType, stateOf(g.GroupState), g.GroupType})
		}
		return l
	case *kmsg.DeleteGroupsResponse:
		d := new(DeleteGroupsReply)
		for _, g := range r.Groups {
			d.Groups = append(d.Groups, DeletedGroup{g.Group, fault(g.ErrorCode)})
		}
		return d
	case *kmsg.OffsetCommitResponse:
		// Kafka says for each what is wrong with all; that is for who answers to do.
		c := new(CommitReply)
		for _, topic := range r.Topics {
			for _, p := range topic.Partitions {
				c.Offsets = append(c.Offsets, fault(p.ErrorCode))
			}
		}
		if len(c.Offsets) == 1 && c.Offsets[0] != nil && c.Offsets[0].Code != errcode.OffsetMetadataTooLarge {
			c.Err, c.Offsets = c.Offsets[0], nil
		}
		return c
	case *kmsg.OffsetFetchResponse:
		f := &FetchReply{Err: fault(r.Groups[0].ErrorCode)}
		for _, topic := range r.Groups[0].Topics {
			for _, p := range topic.Partitions {
				f.Offsets = append(f.Offsets, FetchedOffset{topic.Topic, record.TopicID{}, p.Partition, p.Offset, p.LeaderEpoch, required(p.Metadata)})
			}
		}
		return f
	case *kmsg.OffsetDeleteResponse:
		d := &DeleteOffsetsReply{Err: fault(r.ErrorCode)}
		for _, topic := range r.Topics {
			for _, p := range topic.Partitions {
				d.Partitions = append(d.Partitions, fault(p.ErrorCode))
			}
		}
		return d
	}
	panic(fmt.Sprintf("no reply for %T", resp))
}

func stateOf(s string) State {
	for state := Empty; state < Dead; state++ {
		if state.String() == s {
			return state
		}
	}
	return Dead
}
