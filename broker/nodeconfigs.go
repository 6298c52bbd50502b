package broker

import (
	"cmp"
	"slices"
	"strconv"

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
	Doc         string
}

// NodeConfigs returns the node's settings that Kafka has too, and the defaults of
// topic configs, by name.
func (b *Broker) NodeConfigs() []NodeConfig {
	var all []NodeConfig
	for _, s := range b.opt.Settings {
		c := NodeConfig{Name: s.Name, Value: s.Value, Type: metadata.ConfigString, Default: !s.Set, Doc: s.Doc}
		switch s.Kind {
		case config.Int:
			c.Type = metadata.ConfigLong
		case config.Bool:
			c.Type = metadata.ConfigBool
		}
		if s.Name == "default.replication.factor" {
			_, replication := b.TopicDefaults()
			c.Value = strconv.Itoa(int(replication))
		}
		all = append(all, c)
	}
	for _, d := range metadata.TopicConfigs() {
		if d.Synonym != "" {
			all = append(all, NodeConfig{Name: d.Synonym, Value: d.Default, Type: d.Type, Default: true, Doc: d.Doc})
		}
	}
	slices.SortFunc(all, func(x, y NodeConfig) int { return cmp.Compare(x.Name, y.Name) })
	return all
}

// DataDir returns the directory that holds what the node stores.
func (b *Broker) DataDir() string { return b.opt.DiskDir }
