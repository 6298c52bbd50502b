package kafka_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestConsumerGroupVersions: a member of a group that the server assigns joins, says
// what it owns or nothing of it, is described, and leaves, in both versions.
func TestConsumerGroupVersions(t *testing.T) {
	t.Parallel()
	_, with := withGroups(t, nil)
	c := dialRaw(t, startCore(t, with).addr)
	ids := c.makeTopics("a")
	for v := range int16(2) {
		group := fmt.Sprint("g", v)
		beat := func(edit func(*kmsg.ConsumerGroupHeartbeatRequest)) *kmsg.ConsumerGroupHeartbeatResponse {
			req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
			req.Group = group
			edit(req)
			return c.ask(req, v).(*kmsg.ConsumerGroupHeartbeatResponse)
		}
		join := func(req *kmsg.ConsumerGroupHeartbeatRequest) {
			req.RebalanceTimeoutMillis, req.SubscribedTopicNames, req.Topics = 60_000, []string{"a"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			if v >= 1 {
				req.MemberID, req.SubscribedTopicNames, req.SubscribedTopicRegex = "mine", nil, kmsg.StringPtr("a+")
			}
		}
		// Without a member id, version 0 is given one; version 1 is refused.
		first := beat(func(req *kmsg.ConsumerGroupHeartbeatRequest) { join(req); req.MemberID = "" })
		if v >= 1 {
			if first.ErrorCode != int16(errcode.InvalidRequest) || first.ErrorMessage == nil || first.MemberID != nil {
				t.Errorf("version %d: without a member id: %+v", v, first)
			}
			first = beat(join)
		}
		if first.ErrorCode != 0 || first.ErrorMessage != nil || first.MemberID == nil || *first.MemberID == "" || first.MemberEpoch != 1 || first.HeartbeatIntervalMillis != 10 ||
			first.Assignment == nil || len(first.Assignment.Topics) != 1 || first.Assignment.Topics[0].TopicID != ids["a"] {
			t.Fatalf("version %d: joined: %+v", v, first)
		}
		// Names are more than blanks, and who joins says that it owns nothing.
		for what, edit := range map[string]func(*kmsg.ConsumerGroupHeartbeatRequest){
			"no group":           func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.Group = "" },
			"a group of blanks":  func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.Group = " " },
			"a member of blanks": func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberID, req.MemberEpoch = " ", 1 },
			"a blank instance":   func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.InstanceID = kmsg.StringPtr(" ") },
			"a blank rack":       func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.RackID = kmsg.StringPtr("") },
			"owns null":          func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.Topics = nil },
		} {
			r := beat(func(req *kmsg.ConsumerGroupHeartbeatRequest) { join(req); req.MemberID = "x"; edit(req) })
			if r.ErrorCode != int16(errcode.InvalidRequest) || r.ErrorMessage == nil || r.MemberID != nil {
				t.Errorf("version %d: %s: %+v", v, what, r)
			}
		}
		stays := beat(func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberID, req.MemberEpoch = *first.MemberID, 1 })
		if stays.ErrorCode != 0 || stays.MemberEpoch != 1 || stays.Assignment != nil {
			t.Errorf("version %d: with nothing new: %+v", v, stays)
		}
		// Another one comes and goes. With its last epoch but one the member is let go on if
		// it says that it owns nothing, and fenced if it does not say.
		other := beat(func(req *kmsg.ConsumerGroupHeartbeatRequest) {
			if join(req); v >= 1 {
				req.MemberID = "other"
			}
		})
		beat(func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberID, req.MemberEpoch = *first.MemberID, 1 })
		beat(func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberID, req.MemberEpoch = *other.MemberID, -1 })
		moved := beat(func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberID, req.MemberEpoch = *first.MemberID, 2 })
		silent := beat(func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberID, req.MemberEpoch = *first.MemberID, 2 })
		owns := beat(func(req *kmsg.ConsumerGroupHeartbeatRequest) {
			req.MemberID, req.MemberEpoch, req.Topics = *first.MemberID, 2, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		})
		if moved.MemberEpoch != 3 || silent.ErrorCode != int16(errcode.FencedMemberEpoch) || owns.ErrorCode != 0 {
			t.Errorf("version %d: at epoch %d, with the one before: %v; owning nothing: %v", v, moved.MemberEpoch, errcode.Code(silent.ErrorCode), errcode.Code(owns.ErrorCode))
		}

		describe := kmsg.NewPtrConsumerGroupDescribeRequest()
		describe.Groups, describe.IncludeAuthorizedOperations = []string{group, "none", group, ""}, v >= 1
		described := c.ask(describe, v).(*kmsg.ConsumerGroupDescribeResponse).Groups
		if len(described) != 3 {
			t.Fatalf("version %d: %d groups are described, want each once", v, len(described))
		}
		operations := int32(math.MinInt32)
		if v >= 1 {
			operations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11
		}
		g := described[0]
		if g.ErrorCode != 0 || g.State != "Stable" || g.Epoch != 3 || g.AssignmentEpoch != 3 || g.AssignorName != "uniform" || g.AuthorizedOperations != operations || len(g.Members) != 1 {
			t.Fatalf("version %d: described: %+v", v, g)
		}
		m := g.Members[0]
		if said := m.SubscribedTopicRegex; said == nil || *said != []string{"", "a+"}[v] {
			t.Errorf("version %d: described by expression %v", v, said)
		}
		if m.MemberID != *first.MemberID || m.InstanceID != nil || m.RackID != nil || m.MemberEpoch != 3 || m.ClientID != "test" || m.ClientHost != "/127.0.0.1" ||
			len(m.Assignment.TopicPartitions) != 1 || m.Assignment.TopicPartitions[0].Topic != "a" || len(m.TargetAssignment.TopicPartitions) != 1 {
			t.Errorf("version %d: described: %+v", v, m)
		}
		if want := int8(2*v - 1); m.MemberType != want { // -1: not told
			t.Errorf("version %d: member type %d, want %d", v, m.MemberType, want)
		}
		if g := described[1]; g.ErrorCode != int16(errcode.GroupIDNotFound) || g.ErrorMessage == nil || g.State != "" {
			t.Errorf("version %d: described none: %+v", v, g)
		}
		if g := described[2]; g.ErrorCode != int16(errcode.InvalidGroupID) {
			t.Errorf("version %d: described without a name: %+v", v, g)
		}
		left := beat(func(req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberID, req.MemberEpoch = *first.MemberID, -1 })
		if left.ErrorCode != 0 || left.MemberEpoch != -1 {
			t.Errorf("version %d: left: %+v", v, left)
		}
	}
}
