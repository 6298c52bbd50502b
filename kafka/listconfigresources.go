package kafka

import (
	"context"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// configResources are the types of resources that have configs in Kafka. Those of
// loggers, client metrics and groups are not built; none exist.
var configResources = []kmsg.ConfigResourceType{
	kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger,
	kmsg.ConfigResourceTypeClientMetrics, kmsg.ConfigResourceTypeGroupConfig,
}

// listConfigResources lists what has configs. Version 0 lists subscriptions of
// client metrics, of which there are none; from version 1 on the request names
// the types, or none for all.
func (s *Server) listConfigResources(ctx context.Context, p *peer, req *kmsg.ListConfigResourcesRequest) kmsg.Response {
	resp := kmsg.NewPtrListConfigResourcesResponse()
	resp.Version = req.Version
	if req.Version == 0 {
		return resp
	}
	for _, t := range req.ResourceTypes {
		if !slices.Contains(configResources, kmsg.ConfigResourceType(t)) {
			resp.ErrorCode = p.error(errcode.Errorf(errcode.UnsupportedVersion, "resource type %d", t))
			return resp
		}
	}
	wants := func(t kmsg.ConfigResourceType) bool {
		return len(req.ResourceTypes) == 0 || slices.Contains(req.ResourceTypes, int8(t))
	}
	topics, _ := s.broker.Counts()
	if !p.hold(ctx, resultBytes*int64(topics)) {
		return nil
	}
	add := func(name string, t kmsg.ConfigResourceType) {
		r := kmsg.NewListConfigResourcesResponseConfigResource()
		r.Name, r.Type = name, int8(t)
		resp.ConfigResources = append(resp.ConfigResources, r)
	}
	if wants(kmsg.ConfigResourceTypeBroker) {
		for _, id := range s.broker.NodeIDs() {
			add(strconv.Itoa(int(id)), kmsg.ConfigResourceTypeBroker)
		}
	}
	if wants(kmsg.ConfigResourceTypeTopic) {
		for name := range s.broker.TopicNames("") {
			add(name, kmsg.ConfigResourceTypeTopic)
		}
	}
	return resp
}
