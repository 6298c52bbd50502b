package kafka

import (
	"bytes"
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
)

// joinGroup has a member join, or join again: it is answered when all members have.
// From version 4 on a new member is given an id first (KIP-394), version 5 brings
// static members (KIP-345), and from version 9 on a leader can be told to assign
// nothing (KIP-814). The reason of version 8 is for the log.
func (s *Server) joinGroup(ctx context.Context, p *peer, req *kmsg.JoinGroupRequest) kmsg.Response {
	ask := &consumergroup.JoinRequest{
		Group: req.Group, MemberID: req.MemberID, InstanceID: required(req.InstanceID), ClientID: p.clientID, ClientHost: p.conn.host,
		SessionTimeoutMS: req.SessionTimeoutMillis, RebalanceTimeoutMS: req.RebalanceTimeoutMillis, ProtocolType: req.ProtocolType,
		Protocols:     make([]consumergroup.Protocol, len(req.Protocols)),
		NeedsMemberID: req.Version >= 4, SkipsAssignment: req.Version >= 9,
	}
	if req.Version == 0 {
		ask.RebalanceTimeoutMS = -1
	}
	for i := range req.Protocols {
		ask.Protocols[i] = consumergroup.Protocol{Name: req.Protocols[i].Name, Metadata: bytes.Clone(req.Protocols[i].Metadata)}
	}
	p.reason(req.Group, req.MemberID, req.Reason)
	parked, done := p.park(ctx)
	defer done()
	r := s.groups.JoinGroup(parked, ask)

	size := int64(resultBytes)
	for i := range r.Members {
		m := &r.Members[i]
		size += resultBytes + int64(len(m.MemberID)+len(m.InstanceID)+len(m.Metadata))
	}
	if !p.hold(ctx, size) {
		return nil
	}
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Version = req.Version
	resp.ErrorCode, resp.Generation, resp.LeaderID, resp.MemberID = p.error(r.Err), r.Generation, r.Leader, r.MemberID
	resp.ProtocolType, resp.Protocol, resp.SkipAssignment = optional(r.ProtocolType), optional(r.Protocol), r.SkipAssignment
	for i := range r.Members {
		m := kmsg.NewJoinGroupResponseMember()
		m.MemberID, m.InstanceID, m.ProtocolMetadata = r.Members[i].MemberID, optional(r.Members[i].InstanceID), r.Members[i].Metadata
		resp.Members = append(resp.Members, m)
	}
	return resp
}

// reason logs why a member joins or leaves, if it says so (KIP-800).
func (p *peer) reason(group, member string, reason *string) {
	if why := required(reason); why != "" {
		p.conn.log.Debug("group member", "group", group, "member", member, "request", p.req.api.name, "reason", why)
	}
}
