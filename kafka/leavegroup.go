package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
)

// leaveGroup takes members out of a group: one, and from version 3 on several, by
// their ids or instance ids. The reasons of version 5 are for the log.
func (s *Server) leaveGroup(ctx context.Context, p *peer, req *kmsg.LeaveGroupRequest) kmsg.Response {
	members := req.Members
	if req.Version < 3 {
		members = []kmsg.LeaveGroupRequestMember{{MemberID: req.MemberID}}
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if !p.hold(ctx, resultBytes*int64(len(members))) {
		return nil
	}
	ask := &consumergroup.LeaveRequest{Group: req.Group, Members: make([]consumergroup.LeaveMember, len(members))}
	for i := range members {
		m := &members[i]
		ask.Members[i] = consumergroup.LeaveMember{MemberID: m.MemberID, InstanceID: required(m.InstanceID)}
		p.reason(req.Group, m.MemberID, m.Reason)
	}
	r := s.groups.LeaveGroup(ctx, ask)
	resp := kmsg.NewPtrLeaveGroupResponse()
	resp.Version, resp.ErrorCode = req.Version, p.error(r.Err)
	for i := range r.Members {
		m := kmsg.NewLeaveGroupResponseMember()
		m.MemberID, m.InstanceID, m.ErrorCode = r.Members[i].MemberID, members[i].InstanceID, p.error(r.Members[i].Err)
		if resp.Members = append(resp.Members, m); req.Version < 3 {
			resp.ErrorCode = m.ErrorCode
		}
	}
	return resp
}
