package broker

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/config"
)

// ConfigType is how a config's value is written, by Kafka's number.
type ConfigType = metadata.ConfigType

// NodeConfig is a setting of this node under Kafka's name for it. It can only be
// read: settings are given when a node starts.
type NodeConfig struct {
	Name, Value string
	Type        ConfigType
	Default     bool // nobody has set it
	Null        bool // and it has no value then, as in Kafka
	Doc         string
}

// NodeConfigs returns the node's settings that Kafka has too, and the defaults of
// topic configs, by name.
func (b *Broker) NodeConfigs() []NodeConfig {
	known := make(map[string]NodeConfig)
	add := func(c NodeConfig) { known[c.Name] = c }
	for _, d := range metadata.TopicConfigs() {
		if d.Synonym != "" {
			add(NodeConfig{Name: d.Synonym, Value: d.Default, Type: d.Type, Default: true, Doc: d.Doc})
		}
	}
	retention := metadata.ConfigInt64(nil, metadata.ConfigRetentionMS)
	partitions, replication := b.TopicDefaults()
	whole := func(name string, value int64, isDefault bool, doc string) {
		add(NodeConfig{Name: name, Value: strconv.FormatInt(value, 10), Type: metadata.ConfigInt, Default: isDefault, Doc: doc})
	}
	whole("node.id", int64(b.opt.NodeID), false, "This node's id.")
	whole("broker.id", int64(b.opt.NodeID), false, "This node's id.")
	whole("num.partitions", int64(partitions), b.opt.DefaultPartitions == 0, "Partitions of a topic whose creator does not say how many.")
	add(NodeConfig{
		Name: "log.retention.ms", Value: strconv.FormatInt(retention, 10), Type: metadata.ConfigLong, Default: true,
		Doc: "How long a topic's records are kept, in ms, unless it has a retention.ms of its own.",
	})
	whole("log.retention.hours", retention/time.Hour.Milliseconds(), true, "log.retention.ms in hours.")
	add(NodeConfig{Name: "delete.topic.enable", Value: "true", Type: metadata.ConfigBool, Default: true, Doc: "Topics may be deleted."})
	for _, s := range b.opt.Settings {
		c := NodeConfig{Name: s.Name, Value: s.Value, Type: metadata.ConfigString, Default: !s.Set, Null: s.Null, Doc: s.Doc}
		if s.Null {
			c.Value = ""
		}
		switch s.Kind {
		case config.Int:
			if c.Type = metadata.ConfigInt; s.Long {
				c.Type = metadata.ConfigLong
			}
		case config.Bool:
			c.Type = metadata.ConfigBool
		}
		add(c)
	}
	// The setting may be -1, for as many as there are nodes.
	whole("default.replication.factor", int64(replication), b.opt.DefaultReplication <= 0, "Replicas of a topic whose creator does not say how many.")
	return slices.SortedFunc(maps.Values(known), func(x, y NodeConfig) int { return cmp.Compare(x.Name, y.Name) })
}

// DataDir returns the directory that holds what the node stores.
func (b *Broker) DataDir() string { return b.opt.DiskDir }
