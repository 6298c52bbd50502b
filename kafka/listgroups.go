package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
)

// listGroups answers with the groups that this node coordinates: from version 4 on
// only those in some states (KIP-518), and from version 5 on of some types (KIP-848),
// if the request says which.
func (s *Server) listGroups(ctx context.Context, p *peer, req *kmsg.ListGroupsRequest) kmsg.Response {
	within, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	r := s.groups.ListGroups(within, &consumergroup.ListRequest{States: req.StatesFilter, Types: req.TypesFilter})
	size := resultBytes * int64(len(r.Groups))
	for i := range r.Groups {
		size += int64(len(r.Groups[i].Group) + len(r.Groups[i].ProtocolType))
	}
	if !p.hold(ctx, size) {
		return nil
	}
	resp := kmsg.NewPtrListGroupsResponse()
	resp.Version, resp.ErrorCode = req.Version, p.error(r.Err)
	for i := range r.Groups {
		from, to := &r.Groups[i], kmsg.NewListGroupsResponseGroup()
		to.Group, to.ProtocolType, to.GroupState, to.GroupType = from.Group, from.ProtocolType, from.State.String(), from.Type
		resp.Groups = append(resp.Groups, to)
	}
	return resp
}
