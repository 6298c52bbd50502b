package kafka

import (
	"context"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// The kinds of keys that FindCoordinator asks about.
const (
	coordinatesGroup       = 0
	coordinatesTransaction = 1
	coordinatesShare       = 2
)

// findCoordinator answers which node coordinates a group; from version 4 on it is asked
// for several. Coordinators of transactions and of share groups are not there yet.
func (s *Server) findCoordinator(ctx context.Context, p *peer, req *kmsg.FindCoordinatorRequest) kmsg.Response {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	resp.Version = req.Version
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if req.Version < 4 {
		c := s.coordinator(ctx, p, req, req.CoordinatorKey)
		resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Host, resp.Port = c.ErrorCode, c.ErrorMessage, c.NodeID, c.Host, c.Port
		return resp
	}
	if !p.hold(ctx, resultBytes*int64(len(req.CoordinatorKeys))) {
		return nil
	}
	for _, key := range req.CoordinatorKeys {
		resp.Coordinators = append(resp.Coordinators, s.coordinator(ctx, p, req, key))
	}
	return resp
}

// coordinator is the coordinator of one key.
func (s *Server) coordinator(ctx context.Context, p *peer, req *kmsg.FindCoordinatorRequest, key string) kmsg.FindCoordinatorResponseCoordinator {
	out := kmsg.NewFindCoordinatorResponseCoordinator()
	out.Key, out.NodeID, out.Port = key, -1, -1
	var node broker.Node
	err := checkCoordinator(req)
	if err == nil {
		node, err = s.groups.FindCoordinator(ctx, key, p.listener())
	}
	if err != nil {
		out.ErrorCode, out.ErrorMessage = p.error(err), text(err)
		return out
	}
	out.NodeID, out.ErrorMessage = node.ID, noError(req.Version)
	out.Host, out.Port = hostPort(node.Address)
	return out
}

// noError is the text of an answer without an error, as Kafka has it.
func noError(version int16) *string {
	if version < 4 {
		return new("NONE")
	}
	return new(string)
}

// checkCoordinator refuses keys of another kind than a group's. Of a transactional id it
// has to be with a code that every producer takes for final: librdkafka's goes on asking
// after any other.
func checkCoordinator(req *kmsg.FindCoordinatorRequest) *errcode.Error {
	switch {
	case req.Version == 0 || req.CoordinatorType == coordinatesGroup: // version 0 has no such field
		return nil
	case req.CoordinatorType == coordinatesTransaction:
		return errcode.Errorf(errcode.TransactionalIDAuthorizationFailed, "transactions are not served by this version; produce without a transactional id")
	case req.CoordinatorType == coordinatesShare && req.Version >= 6:
		return errcode.Errorf(errcode.UnsupportedVersion, "share groups are not served yet")
	}
	return errcode.Errorf(errcode.InvalidRequest, "a coordinator of type %d in version %d", req.CoordinatorType, req.Version)
}

// hostPort splits an address as the broker joined it.
func hostPort(address string) (host string, port int32) {
	host, text, _ := net.SplitHostPort(address)
	n, _ := strconv.ParseUint(text, 10, 16)
	return host, int32(n)
}
