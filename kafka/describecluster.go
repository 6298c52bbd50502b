package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// The types of endpoints that DescribeCluster asks about.
const (
	endpointBrokers     = 1
	endpointControllers = 2
)

// describeCluster answers with the nodes. Their listeners are brokers' only; no
// node is ever fenced, as Kafka calls one that is registered and not serving.
func (s *Server) describeCluster(_ context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
	s.checkAdvertised(p)
	resp := kmsg.NewPtrDescribeClusterResponse()
	resp.Version, resp.EndpointType = req.Version, endpointBrokers
	if err := checkEndpoint(req); err != nil {
		resp.ErrorCode, resp.ErrorMessage = p.error(err), &err.Detail
		return resp
	}
	resp.ClusterID, resp.ControllerID = s.broker.ClusterID(), s.controller(p)
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	for _, n := range s.nodes(p) {
		b := kmsg.NewDescribeClusterResponseBroker()
		b.NodeID, b.Host, b.Port, b.Rack = n.ID, n.host, n.port, n.rack
		resp.Brokers = append(resp.Brokers, b)
	}
	return resp
}

func checkEndpoint(req *kmsg.DescribeClusterRequest) *errcode.Error {
	switch {
	case req.Version == 0 || req.EndpointType == endpointBrokers: // version 0 has no such field
		return nil
	case req.EndpointType == endpointControllers:
		return errcode.Errorf(errcode.MismatchedEndpointType,
			"The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER")
	}
	return errcode.Errorf(errcode.UnsupportedEndpointType, "Unsupported endpoint type %d", req.EndpointType)
}
