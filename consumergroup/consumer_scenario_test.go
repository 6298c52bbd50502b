package consumergroup

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// consumerRequest is a step about groups of KIP-848, or returns false:
//
//	topics t:2,u:3             the topics that there are from now on; their ids are
//	                           their names, and "#" and what follows beside it
//	beat a group=g member=m epoch=0
//	                           ConsumerGroupHeartbeat; also instance= rack= topics=t+u
//	                           regex= assignor= rebalance= owned=t:0+1,u:2, with "none"
//	                           for nothing. Who joins subscribes to t, unless it says
//	                           else, and has 60 s
//	consumer-stay 11m group=g member=m epoch=2
//	                           time passes, and the member sends heartbeats
//	consumer-describe a group=g
func (m *machine) consumerRequest(cmd string, a args) bool {
	switch cmd {
	case "topics":
		m.topics++
		m.c.TopicsChanged(m.now, NewTopics(m.topics, parseTopics(a.name)), &m.out)
		m.known = m.c.topics
	case "beat":
		sameBeat(m.t, m.c, m.now, a.beat())
		m.c.ConsumerHeartbeat(m.now, m.token(a.name), a.beat(), &m.out)
	case "consumer-stay":
		m.consumerStay(a)
	case "consumer-describe":
		m.c.ConsumerDescribe(m.now, m.token(a.name), a.words["group"], &m.out)
	default:
		return false
	}
	return true
}

// consumerStay lets time pass with heartbeats of a member.
func (m *machine) consumerStay(a args) {
	d, err := time.ParseDuration(a.name)
	if err != nil {
		m.t.Fatal(err)
	}
	for until := m.now.Add(d); m.now.Before(until); {
		m.now = m.now.Add(5 * time.Second)
		m.c.Tick(m.now, &m.out)
		m.c.ConsumerHeartbeat(m.now, 1<<62, a.beat(), &m.out)
		last := len(m.out.Replies) - 1
		r := m.out.Replies[last].Response.(*ConsumerHeartbeatReply)
		if r.Err != nil {
			m.t.Fatalf("at %v: %v", m.elapsed(), r.Err)
		}
		a.words["epoch"] = strconv.Itoa(int(r.Epoch))
		m.out.Replies = m.out.Replies[:last]
	}
}

func parseTopics(s string) (out []TopicInfo) {
	for _, t := range strings.Split(s, ",") {
		name, n, _ := strings.Cut(t, ":")
		partitions, err := strconv.Atoi(n)
		if err != nil {
			continue // no topics at all
		}
		plain, _, _ := strings.Cut(name, "#")
		out = append(out, TopicInfo{Name: plain, ID: topicID(name), Partitions: int32(partitions)})
	}
	return out
}

func (a args) optional(key string) *string {
	if v, ok := a.words[key]; ok {
		if v == "none" {
			v = ""
		}
		return &v
	}
	return nil
}

func (a args) beat() *ConsumerHeartbeatRequest {
	req := &ConsumerHeartbeatRequest{
		Group: a.words["group"], MemberID: a.words["member"], Epoch: int32(a.num("epoch", 0)),
		InstanceID: a.optional("instance"), RackID: a.optional("rack"), ClientID: a.str("client", "c"), ClientHost: "/h",
		RebalanceTimeoutMS: -1, Regex: a.optional("regex"), Assignor: a.optional("assignor"),
	}
	if t := a.optional("topics"); t != nil {
		req.Topics = []string{}
		if *t != "" {
			req.Topics = strings.Split(*t, "+")
		}
	} else if req.Epoch == JoinEpoch && req.Regex == nil {
		req.Topics = []string{"t"}
	}
	if a.flag("rebalance") || req.Epoch == JoinEpoch {
		req.RebalanceTimeoutMS = a.ms("rebalance", 60e9)
	}
	if a.flag("owned") || req.Epoch == JoinEpoch {
		req.Owned = []record.TopicPartitions{}
		for _, s := range a.list("owned") {
			name, list, _ := strings.Cut(s, ":")
			if name == "none" {
				continue
			}
			tp := record.TopicPartitions{TopicID: topicID(name)}
			for _, p := range strings.Split(list, "+") {
				n, err := strconv.Atoi(p)
				if err != nil {
					a.t.Fatal(err)
				}
				tp.Partitions = append(tp.Partitions, int32(n))
			}
			req.Owned = append(req.Owned, tp)
		}
	}
	return req
}

func consumerWords(e record.Entry) string {
	switch e := e.(type) {
	case *record.ConsumerGroup:
		if e.Value == nil {
			return e.Group + ": no epoch"
		}
		return fmt.Sprintf("%s: epoch=%d", e.Group, e.Value.Epoch)
	case *record.ConsumerMember:
		if e.Value == nil {
			return fmt.Sprintf("%s %s: no member", e.Group, e.MemberID)
		}
		return fmt.Sprintf("%s %s: %s", e.Group, e.MemberID, formatConsumerMember(e.Value))
	case *record.ConsumerTargetEpoch:
		if e.Value == nil {
			return e.Group + ": no target"
		}
		return fmt.Sprintf("%s: target of epoch %d", e.Group, e.Value.Epoch)
	case *record.ConsumerTarget:
		if e.Value == nil {
			return fmt.Sprintf("%s %s: no target", e.Group, e.MemberID)
		}
		return fmt.Sprintf("%s %s: target %s", e.Group, e.MemberID, formatAssigned(e.Value.Partitions))
	case *record.ConsumerCurrent:
		if e.Value == nil {
			return fmt.Sprintf("%s %s: no assignment", e.Group, e.MemberID)
		}
		return fmt.Sprintf("%s %s: %s", e.Group, e.MemberID, formatCurrent(e.Value))
	case *record.ConsumerRegex:
		if e.Value == nil {
			return fmt.Sprintf("%s /%s/: no topics", e.Group, e.Regex)
		}
		return fmt.Sprintf("%s /%s/: %v", e.Group, e.Regex, e.Value.Topics)
	}
	return fmt.Sprintf("%T", e)
}

func formatConsumerMember(v *record.ConsumerMemberValue) string {
	s := fmt.Sprintf("topics=%v", v.Topics)
	for _, w := range []struct {
		name  string
		value *string
	}{{"regex", v.Regex}, {"instance", v.InstanceID}, {"rack", v.RackID}, {"assignor", v.Assignor}} {
		if w.value != nil {
			s += fmt.Sprintf(" %s=%s", w.name, *w.value)
		}
	}
	s += fmt.Sprintf(" rebalance=%d", v.RebalanceTimeoutMS)
	if v.Classic != nil {
		s += fmt.Sprintf(" classic session=%d", v.Classic.SessionTimeoutMS)
		for _, p := range v.Classic.Protocols {
			s += " " + p.Name
		}
	}
	return s
}

func formatAssigned(list []record.TopicPartitions) string {
	if len(list) == 0 {
		return "nothing"
	}
	var out []string
	for _, tp := range list {
		s := formatID(tp.TopicID) + ":"
		for i, p := range tp.Partitions {
			if i > 0 {
				s += "+"
			}
			s += strconv.Itoa(int(p))
		}
		out = append(out, s)
	}
	return strings.Join(out, ",")
}

func formatCurrent(v *record.ConsumerCurrentValue) string {
	s := fmt.Sprintf("%v epoch=%d before=%d has %s", v.State, v.Epoch, v.PreviousEpoch, formatAssigned(v.Assigned))
	if len(v.Revoking) > 0 {
		s += " gives away " + formatAssigned(v.Revoking)
	}
	return s
}

func formatConsumerState(s *consumerState) string {
	out := fmt.Sprintf("consumer group, %v, epoch=%d target=%d", consumerGroupState(s), s.groupEpoch(), s.targetEpoch())
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		out += fmt.Sprintf("\n    %s: %s", id, formatCurrent(s.currentOf(id)))
	}
	return out
}

func formatConsumerReply(response any) string {
	switch r := response.(type) {
	case *ConsumerHeartbeatReply:
		if r.Err != nil {
			return formatErr(r.Err)
		}
		s := fmt.Sprintf("ok member=%s epoch=%d", r.MemberID, r.Epoch)
		if r.Interval > 0 {
			s += fmt.Sprintf(" next in %v", r.Interval)
		}
		if r.Assignment != nil {
			s += " has " + formatAssigned(r.Assignment.Partitions)
		}
		return s
	case *ConsumerDescribeReply:
		s := fmt.Sprintf("%s %s %v epoch=%d target=%d assignor=%s", formatErr(r.Err), r.Group, r.State, r.Epoch, r.TargetEpoch, r.Assignor)
		for _, m := range r.Members {
			s += fmt.Sprintf("; %s/%s rack=%q epoch=%d %s@%s topics=%v regex=%q has %v of %v",
				m.MemberID, m.InstanceID, m.RackID, m.Epoch, m.ClientID, m.ClientHost, m.Topics, m.Regex, formatDescribed(m.Assigned), formatDescribed(m.Target))
		}
		return s
	}
	return fmt.Sprintf("%T", response)
}

func formatDescribed(list []DescribedPartitions) string {
	var out []string
	for _, p := range list {
		out = append(out, fmt.Sprintf("%s%v", p.Topic, p.Partitions))
	}
	return strings.Join(out, " ")
}
