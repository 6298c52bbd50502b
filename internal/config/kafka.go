package config

import (
	"strconv"
	"strings"
	"time"
)

// KafkaSetting is a setting of the node under the name that Kafka has for it.
type KafkaSetting struct {
	Name  string
	Kind  Kind   // Int, Bool or Text, as Kafka writes it
	Long  bool   // an Int of 64 bits to Kafka, not of 32
	Value string // as Kafka writes it: durations in ms, sizes in bytes
	Null  bool   // nobody has set it, and Kafka's default is null, not Value
	Set   bool   // by file, environment or flag
	Doc   string
}

// kafkaNames are the settings that Kafka has too, by Kafka's names, ascending.
var kafkaNames = []struct {
	name, key string
	long      bool // 64 bits, to Kafka
	null      bool // Kafka's default is null, and means the same as ours
}{
	{"auto.create.topics.enable", "auto.create.topics.enable", false, false},
	{"broker.id", "node.id", false, false},
	{"broker.rack", "rack", false, true},
	{"connections.max.idle.ms", "connections.idle.timeout", true, false},
	{"default.replication.factor", "default.replication.factor", false, false},
	{"group.consumer.heartbeat.interval.ms", "group.consumer.heartbeat.interval", false, false},
	{"group.consumer.migration.policy", "group.consumer.migration.policy", false, false},
	{"group.consumer.session.timeout.ms", "group.consumer.session.timeout", false, false},
	{"group.initial.rebalance.delay.ms", "group.initial.rebalance.delay", false, false},
	{"group.max.session.timeout.ms", "group.max.session.timeout", false, false},
	{"group.max.size", "group.max.size", false, false},
	{"group.min.session.timeout.ms", "group.min.session.timeout", false, false},
	{"log.dirs", "data.dir", false, false},
	{"log.retention.check.interval.ms", "retention.check.interval", true, false},
	{"max.connections", "connections.max", false, false},
	{"max.connections.per.ip", "connections.max.per.ip", false, false},
	{"max.incremental.fetch.session.cache.slots", "fetch.sessions.max", false, false},
	{"node.id", "node.id", false, false},
	{"num.partitions", "num.partitions", false, false},
	{"offset.metadata.max.bytes", "offset.metadata.max.bytes", false, false},
	{"offsets.retention.check.interval.ms", "offsets.retention.check.interval", true, false},
	{"offsets.retention.minutes", "offsets.retention", false, false},
	{"offsets.topic.num.partitions", "offsets.topic.num.partitions", false, false},
	{"offsets.topic.replication.factor", "offsets.topic.replication.factor", false, false},
	{"producer.id.expiration.ms", "producer.id.expiration", false, false},
	{"replica.lag.time.max.ms", "replica.lag.time.max", true, false},
	{"replica.selector.class", "replica.selector.class", false, true},
	{"socket.request.max.bytes", "request.bytes.max", false, false},
}

// Kafka returns the settings that Kafka has too, by Kafka's names, ascending.
func (v *Values) Kafka() []KafkaSetting {
	all := make([]KafkaSetting, len(kafkaNames))
	for i, n := range kafkaNames {
		val := v.Of(n.key)
		s := KafkaSetting{Name: n.name, Value: val.Text, Kind: Int, Long: n.long, Set: val.Origin.Kind != FromDefault, Doc: val.Setting.Doc}
		switch val.Setting.Kind {
		case Duration:
			unit := time.Millisecond
			if strings.HasSuffix(n.name, ".minutes") {
				unit = time.Minute
			}
			s.Value = strconv.FormatInt(val.Number/int64(unit), 10)
		case Int, Size:
			s.Value = strconv.FormatInt(val.Number, 10)
		case Bool:
			s.Kind = Bool
		default:
			s.Kind = Text
		}
		s.Null = n.null && !s.Set
		all[i] = s
	}
	return all
}
