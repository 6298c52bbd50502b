package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// incrementalAlterConfigs changes some configs of topics, all or none of each.
func (s *Server) incrementalAlterConfigs(ctx context.Context, p *peer, req *kmsg.IncrementalAlterConfigsRequest) kmsg.Response {
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	resp.Version = req.Version
	if !p.hold(ctx, resultBytes*int64(len(req.Resources))) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	twice := repeated(req.Resources, func(r *kmsg.IncrementalAlterConfigsRequestResource) resource {
		return resource{r.ResourceType, r.ResourceName}
	})
	for i := range req.Resources {
		r := &req.Resources[i]
		change, names, bad := increments(r)
		change.ValidateOnly = req.ValidateOnly
		_, again := twice[resource{r.ResourceType, r.ResourceName}]
		err := s.alterResource(ctx, resource{r.ResourceType, r.ResourceName}, again, names, bad, change)
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ErrorCode, out.ErrorMessage, out.ResourceType, out.ResourceName = p.error(err), text(err), r.ResourceType, r.ResourceName
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

// increments is what a request asks for, the names that it has, and what is wrong
// with it apart from names and values.
func increments(r *kmsg.IncrementalAlterConfigsRequestResource) (change broker.TopicChange, names []string, bad *errcode.Error) {
	change.Set, change.Append, change.Subtract = make(map[string]string), make(map[string]string), make(map[string]string)
	var nulls, others *errcode.Error
	for _, c := range r.Configs {
		names = append(names, c.Name)
		if c.Value == nil && c.Op != kmsg.IncrementalAlterConfigOpDelete {
			nulls = nullConfig(nulls, c.Name)
			continue
		}
		list := broker.ConfigIsList(c.Name)
		switch c.Op {
		case kmsg.IncrementalAlterConfigOpSet:
			change.Set[c.Name] = *c.Value
		case kmsg.IncrementalAlterConfigOpDelete:
			if broker.ConfigKnown(c.Name) { // else it is as deleted as it can be
				change.Delete = append(change.Delete, c.Name)
			}
		case kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
			switch {
			case !list:
				others = errcode.Errorf(errcode.InvalidConfig, "Can't %s to key %s because its type is not LIST.", c.Op, c.Name)
			case c.Op == kmsg.IncrementalAlterConfigOpAppend:
				change.Append[c.Name] = *c.Value
			default:
				change.Subtract[c.Name] = *c.Value
			}
		default:
			others = errcode.Errorf(errcode.InvalidRequest, "unknown operation %d on %s; there are 0, set, 1, delete, 2, append, and 3, subtract", int8(c.Op), c.Name)
		}
	}
	if nulls != nil {
		return change, names, nulls
	}
	return change, names, others
}
