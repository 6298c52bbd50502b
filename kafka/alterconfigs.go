package kafka

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// resource is what has configs, as a request names it.
type resource struct {
	kind kmsg.ConfigResourceType
	name string
}

// alterConfigs replaces all configs of topics: those that are not named are put
// back to their defaults.
func (s *Server) alterConfigs(ctx context.Context, p *peer, req *kmsg.AlterConfigsRequest) kmsg.Response {
	resp := kmsg.NewPtrAlterConfigsResponse()
	resp.Version = req.Version
	if !p.hold(ctx, resultBytes*int64(len(req.Resources))) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	twice := repeated(req.Resources, func(r *kmsg.AlterConfigsRequestResource) resource { return resource{r.ResourceType, r.ResourceName} })
	for i := range req.Resources {
		r := &req.Resources[i]
		change := broker.TopicChange{Replace: true, Set: make(map[string]string), ValidateOnly: req.ValidateOnly}
		var bad *errcode.Error
		names := make([]string, len(r.Configs))
		for j, c := range r.Configs {
			names[j] = c.Name
			if c.Value == nil {
				bad = nullConfig(bad, c.Name)
				continue
			}
			change.Set[c.Name] = *c.Value
		}
		_, again := twice[resource{r.ResourceType, r.ResourceName}]
		err := s.alterResource(ctx, resource{r.ResourceType, r.ResourceName}, again, names, bad, change)
		out := kmsg.NewAlterConfigsResponseResource()
		out.ErrorCode, out.ErrorMessage, out.ResourceType, out.ResourceName = p.error(err), text(err), r.ResourceType, r.ResourceName
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

// nullConfig returns before with one more name that has no value.
func nullConfig(before *errcode.Error, name string) *errcode.Error {
	name = errcode.Short(name)
	if before != nil {
		return errcode.Errorf(errcode.InvalidRequest, "%s,%s", before.Detail, name)
	}
	return errcode.Errorf(errcode.InvalidRequest, "Null value not supported for : %s", name)
}

// alterResource makes one change. again says that the request has others of the
// same resource, names are those of the configs that it has, and bad is what is
// wrong with them apart from names.
func (s *Server) alterResource(ctx context.Context, r resource, again bool, names []string, bad *errcode.Error, change broker.TopicChange) *errcode.Error {
	slices.Sort(names)
	switch {
	case again:
		return errcode.Errorf(errcode.InvalidRequest, "Each resource must appear at most once.")
	case len(slices.Compact(slices.Clone(names))) < len(names):
		return errcode.Errorf(errcode.InvalidRequest, "Error due to duplicate config keys")
	case bad != nil:
		return bad
	case r.kind == kmsg.ConfigResourceTypeBroker:
		return s.alterNode(r.name, names)
	case r.kind != kmsg.ConfigResourceTypeTopic:
		return noConfigs(r.kind, "Unknown resource type %s")
	case r.name == "":
		return errcode.Errorf(errcode.InvalidRequest, "Default topic resources are not allowed.")
	}
	if err := s.broker.ConfirmController(ctx); err != nil {
		return broker.CodeOf(err)
	}
	topic, err := s.broker.TopicByName(r.name)
	if err != nil {
		if err.Code == errcode.UnknownTopicOrPartition {
			err = errcode.Errorf(err.Code, "The topic '%s' does not exist.", r.name)
		}
		return err
	}
	if len(change.Set)+len(change.Delete)+len(change.Append)+len(change.Subtract) == 0 && !change.Replace {
		return nil
	}
	change.Topic = topic.ID
	_, failed := s.broker.AlterTopic(ctx, change)
	return byName(coded(failed))
}

// alterNode refuses to change a node's settings, if there is anything to change.
func (s *Server) alterNode(name string, names []string) *errcode.Error {
	if name != "" {
		switch id, err := strconv.ParseInt(name, 10, 32); {
		case err != nil:
			return errcode.Errorf(errcode.InvalidRequest, "Node id must be an integer, but it is: %s", name)
		case int32(id) != s.broker.NodeID():
			return errcode.Errorf(errcode.InvalidRequest, "Unexpected broker id, expected %d, but received %s", s.broker.NodeID(), name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return errcode.Errorf(errcode.InvalidRequest,
		"Cannot update these configs dynamically: [%s]; a node takes its settings from flags, environment and file when it starts", strings.Join(names, ", "))
}
