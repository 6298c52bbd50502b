package kafka

import (
	"bytes"
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// syncGroup tells a member its assignment, once the leader has sent all. From version 5
// on a member says which protocol it takes that to be of (KIP-559).
func (s *Server) syncGroup(ctx context.Context, p *peer, req *kmsg.SyncGroupRequest) kmsg.Response {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.Version = req.Version
	if req.Version >= 5 && (req.ProtocolType == nil || req.Protocol == nil) {
		resp.ErrorCode = p.error(errcode.Errorf(errcode.InconsistentGroupProtocol, "the protocol and its type have to be said since version 5"))
		return resp
	}
	ask := &consumergroup.SyncRequest{
		Group: req.Group, MemberID: req.MemberID, InstanceID: required(req.InstanceID), Generation: req.Generation,
		ProtocolType: required(req.ProtocolType), Protocol: required(req.Protocol),
		Assignments: make([]consumergroup.Assignment, len(req.GroupAssignment)),
	}
	for i := range req.GroupAssignment {
		a := &req.GroupAssignment[i]
		ask.Assignments[i] = consumergroup.Assignment{MemberID: a.MemberID, Bytes: bytes.Clone(a.MemberAssignment)}
	}
	parked, done := p.park(ctx)
	defer done()
	r := s.groups.SyncGroup(parked, ask)
	if !p.hold(ctx, resultBytes+int64(len(r.Assignment))) {
		return nil
	}
	resp.ErrorCode, resp.MemberAssignment = p.error(r.Err), r.Assignment
	resp.ProtocolType, resp.Protocol = optional(r.ProtocolType), optional(r.Protocol)
	return resp
}
