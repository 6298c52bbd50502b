package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// deleteGroups deletes groups without members, with their offsets, each once. From
// version 3 on the answer says why one was not.
func (s *Server) deleteGroups(ctx context.Context, p *peer, req *kmsg.DeleteGroupsRequest) kmsg.Response {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	names := distinct(req.Groups, itself)
	if !p.hold(ctx, resultBytes*int64(len(names))) {
		return nil
	}
	resp := kmsg.NewPtrDeleteGroupsResponse()
	resp.Version = req.Version
	for _, r := range s.groups.DeleteGroups(ctx, names).Groups {
		g := kmsg.NewDeleteGroupsResponseGroup()
		g.Group, g.ErrorCode, g.ErrorMessage = r.Group, p.error(r.Err), text(r.Err)
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}
