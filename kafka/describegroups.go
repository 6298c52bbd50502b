package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// describeGroups tells of classic groups and their members, of each once. Of a group
// that does not exist, or that the server assigns, version 6 says GROUP_ID_NOT_FOUND
// (KIP-1043); before, that it is Dead. From version 3 on it is told what a client may do.
func (s *Server) describeGroups(ctx context.Context, p *peer, req *kmsg.DescribeGroupsRequest) kmsg.Response {
	within, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var found []*consumergroup.DescribeReply
	var size int64
	for _, name := range distinct(req.Groups, itself) {
		r := s.groups.DescribeGroup(within, name)
		size += describedGroupBytes(r)
		if found = append(found, r); size > p.mostAnswer() {
			break
		}
	}
	if !p.hold(ctx, size) {
		return nil
	}
	resp := kmsg.NewPtrDescribeGroupsResponse()
	resp.Version = req.Version
	for _, r := range found {
		g := kmsg.NewDescribeGroupsResponseGroup()
		g.Group, g.State, g.ProtocolType, g.Protocol = r.Group, r.State.String(), r.ProtocolType, r.Protocol
		switch {
		case r.Err == nil:
			g.AuthorizedOperations = operationsOnGroup(req.IncludeAuthorizedOperations)
		case r.Err.Code != errcode.GroupIDNotFound:
			g.ErrorCode, g.State = p.error(r.Err), ""
		case req.Version >= 6:
			g.ErrorCode, g.ErrorMessage = p.error(r.Err), text(r.Err)
		default: // it is Dead
			g.AuthorizedOperations = operationsOnGroup(req.IncludeAuthorizedOperations)
		}
		for i := range r.Members {
			from, to := &r.Members[i], kmsg.NewDescribeGroupsResponseGroupMember()
			to.MemberID, to.InstanceID, to.ClientID, to.ClientHost = from.MemberID, optional(from.InstanceID), from.ClientID, from.ClientHost
			to.ProtocolMetadata, to.MemberAssignment = from.Metadata, from.Assignment
			g.Members = append(g.Members, to)
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}

// describedGroupBytes is about what a group takes in an answer.
func describedGroupBytes(r *consumergroup.DescribeReply) int64 {
	n := resultBytes + len(r.Group)
	for i := range r.Members {
		m := &r.Members[i]
		n += resultBytes + len(m.MemberID) + len(m.InstanceID) + len(m.ClientID) + len(m.ClientHost) + len(m.Metadata) + len(m.Assignment)
	}
	return int64(n)
}

// itself is a name as what it is told from others by.
func itself(name *string) string { return *name }
