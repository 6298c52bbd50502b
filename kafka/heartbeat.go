package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
)

// heartbeat keeps a member's session, and says when it has to join again.
func (s *Server) heartbeat(ctx context.Context, p *peer, req *kmsg.HeartbeatRequest) kmsg.Response {
	r := s.groups.HeartbeatGroup(ctx, &consumergroup.HeartbeatRequest{
		Group: req.Group, MemberID: req.MemberID, InstanceID: required(req.InstanceID), Generation: req.Generation,
	})
	resp := kmsg.NewPtrHeartbeatResponse()
	resp.Version, resp.ErrorCode = req.Version, p.error(r.Err)
	return resp
}
