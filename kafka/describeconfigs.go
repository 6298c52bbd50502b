package kafka

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// describeConfigs answers the configs of topics and of this node: those that are
// named, or all, if none is. Synonyms and
// documentation, which version 3 knows, are answered only if they are asked for.
func (s *Server) describeConfigs(ctx context.Context, p *peer, req *kmsg.DescribeConfigsRequest) kmsg.Response {
	resp := kmsg.NewPtrDescribeConfigsResponse()
	resp.Version = req.Version
	req.Resources = distinct(req.Resources, func(r *kmsg.DescribeConfigsRequestResource) resource {
		return resource{r.ResourceType, r.ResourceName}
	})
	if !p.hold(ctx, s.configsBytes(req)) {
		return nil
	}
	look := s.broker.Lookup()
	for i := range req.Resources {
		r := &req.Resources[i]
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = r.ResourceType, r.ResourceName
		configs, err := s.resourceConfigs(ctx, look, r)
		out.ErrorCode, out.ErrorMessage = p.error(err), text(err)
		if err == nil {
			out.ErrorMessage = new(string) // as Kafka's: empty, not null
		}
		for _, c := range configs {
			if len(r.ConfigNames) > 0 && !slices.Contains(r.ConfigNames, c.Name) {
				continue
			}
			if !req.IncludeSynonyms {
				c.ConfigSynonyms = nil
			}
			if !req.IncludeDocumentation {
				c.Documentation = nil
			}
			out.Configs = append(out.Configs, c)
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

// configsBytes is about what the answer takes in memory.
func (s *Server) configsBytes(req *kmsg.DescribeConfigsRequest) int64 {
	each, all := int64(configBytes), int64(len(broker.ConfigsWith(nil)))
	if req.IncludeSynonyms || req.IncludeDocumentation {
		each = describedBytes
	}
	var n int64
	for i := range req.Resources {
		n += resultBytes
		switch req.Resources[i].ResourceType {
		case kmsg.ConfigResourceTypeTopic:
			n += each * all
		case kmsg.ConfigResourceTypeBroker:
			n += 2 * each * all
		}
	}
	return n
}

// resourceConfigs returns all configs of a resource, with all that is known of
// them.
func (s *Server) resourceConfigs(ctx context.Context, look *broker.Lookup, r *kmsg.DescribeConfigsRequestResource) ([]kmsg.DescribeConfigsResponseResourceConfig, *errcode.Error) {
	switch r.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		return s.topicConfigs(ctx, look, r.ResourceName)
	case kmsg.ConfigResourceTypeBroker:
		return s.nodeConfigs(r.ResourceName)
	}
	return nil, noConfigs(r.ResourceType, "Unsupported resource type: %s")
}

// noConfigs says that a type of resource has no configs here.
func noConfigs(t kmsg.ConfigResourceType, format string) *errcode.Error {
	name := fmt.Sprint(int8(t))
	if slices.Contains(configResources, t) {
		name = t.String() + "; this version has configs of topics, and those of nodes to be read"
	}
	return errcode.Errorf(errcode.InvalidRequest, format, name)
}

func (s *Server) topicConfigs(ctx context.Context, look *broker.Lookup, name string) ([]kmsg.DescribeConfigsResponseResourceConfig, *errcode.Error) {
	topic, err := look.ByName(ctx, name)
	if err != nil {
		return nil, err
	}
	var out []kmsg.DescribeConfigsResponseResourceConfig
	for _, c := range s.broker.TopicConfigs(topic.ID) {
		one := kmsg.NewDescribeConfigsResponseResourceConfig()
		one.Name, one.Value, one.Source, one.IsDefault = c.Key, &c.Value, sourceOf(&c), c.Default
		one.ConfigType, one.Documentation = kmsg.ConfigType(c.Def.Type), &c.Def.Doc
		if !c.Default {
			one.ConfigSynonyms = append(one.ConfigSynonyms, synonym(c.Key, c.Value, one.Source))
		}
		if c.Def.Synonym != "" {
			one.ConfigSynonyms = append(one.ConfigSynonyms, synonym(c.Def.Synonym, c.Def.Default, kmsg.ConfigSourceDefaultConfig))
		}
		out = append(out, one)
	}
	return out, nil
}

func sourceOf(c *broker.TopicConfig) kmsg.ConfigSource {
	if c.Default {
		return kmsg.ConfigSourceDefaultConfig
	}
	return kmsg.ConfigSourceDynamicTopicConfig
}

func synonym(name, value string, source kmsg.ConfigSource) kmsg.DescribeConfigsResponseResourceConfigConfigSynonym {
	sy := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
	sy.Name, sy.Value, sy.Source = name, &value, source
	return sy
}

// nodeConfigs returns this node's settings under Kafka's names, or, for the empty
// name, what is set for all nodes at once: nothing is.
func (s *Server) nodeConfigs(name string) ([]kmsg.DescribeConfigsResponseResourceConfig, *errcode.Error) {
	if name == "" {
		return nil, nil
	}
	switch id, err := strconv.ParseInt(name, 10, 32); {
	case err != nil:
		return nil, errcode.Errorf(errcode.InvalidRequest, "Broker id must be an integer, but it is: %s", name)
	case int32(id) != s.broker.NodeID():
		return nil, errcode.Errorf(errcode.InvalidRequest, "Unexpected broker id, expected %d or empty string, but received %s", s.broker.NodeID(), name)
	}
	var out []kmsg.DescribeConfigsResponseResourceConfig
	for _, c := range s.broker.NodeConfigs() {
		one := kmsg.NewDescribeConfigsResponseResourceConfig()
		one.Name, one.Value, one.ReadOnly, one.IsDefault = c.Name, &c.Value, true, c.Default
		one.ConfigType, one.Documentation = kmsg.ConfigType(c.Type), &c.Doc
		one.Source = kmsg.ConfigSourceStaticBrokerConfig
		if c.Default {
			one.Source = kmsg.ConfigSourceDefaultConfig
		}
		if c.Null { // nor is there a synonym: nobody gives it a value
			one.Value = nil
		} else {
			one.ConfigSynonyms = append(one.ConfigSynonyms, synonym(c.Name, c.Value, one.Source))
		}
		out = append(out, one)
	}
	return out, nil
}
