package config

import (
	"strconv"
	"time"
)

// KafkaSetting is a setting of the node under the name that Kafka has for it.
type KafkaSetting struct {
	Name  string
	Kind  Kind   // Int, Bool or Text, as Kafka writes it
	Value string // as Kafka writes it: durations in ms, sizes in bytes
	Set   bool   // by file, environment or flag
	Doc   string
}

// kafkaNames are the settings that Kafka has too, by Kafka's names, ascending.
var kafkaNames = []struct{ name, key string }{
	{"auto.create.topics.enable", "auto.create.topics.enable"},
	{"broker.id", "node.id"},
	{"connections.max.idle.ms", "connections.idle.timeout"},
	{"default.replication.factor", "default.replication.factor"},
	{"log.dirs", "data.dir"},
	{"log.retention.check.interval.ms", "retention.check.interval"},
	{"max.connections", "connections.max"},
	{"max.connections.per.ip", "connections.max.per.ip"},
	{"max.incremental.fetch.session.cache.slots", "fetch.sessions.max"},
	{"node.id", "node.id"},
	{"num.partitions", "num.partitions"},
	{"producer.id.expiration.ms", "producer.id.expiration"},
	{"socket.request.max.bytes", "request.bytes.max"},
}

// Kafka returns the settings that Kafka has too, by Kafka's names, ascending.
func (v *Values) Kafka() []KafkaSetting {
	all := make([]KafkaSetting, len(kafkaNames))
	for i, n := range kafkaNames {
		val := v.Of(n.key)
		s := KafkaSetting{Name: n.name, Value: val.Text, Kind: Int, Set: val.Origin.Kind != FromDefault, Doc: val.Setting.Doc}
		switch val.Setting.Kind {
		case Duration:
			s.Value = strconv.FormatInt(time.Duration(val.Number).Milliseconds(), 10)
		case Int, Size:
			s.Value = strconv.FormatInt(val.Number, 10)
		case Bool:
			s.Kind = Bool
		default:
			s.Kind = Text
		}
		all[i] = s
	}
	return all
}
