package metadata

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// The keys of topic configs, as in Kafka.
const (
	ConfigCleanupPolicy   = "cleanup.policy"
	ConfigMaxMessageBytes = "max.message.bytes"
	ConfigTimestampType   = "message.timestamp.type"
	ConfigRetentionBytes  = "retention.bytes"
	ConfigRetentionMS     = "retention.ms"
	ConfigSegmentBytes    = "segment.bytes"
	ConfigSegmentMS       = "segment.ms"
)

// Values of message.timestamp.type and cleanup.policy.
const (
	TimestampCreateTime    = "CreateTime"
	TimestampLogAppendTime = "LogAppendTime"
	CleanupDelete          = "delete"
)

// ConfigType says how a config's value is written.
type ConfigType uint8

const (
	ConfigInt  ConfigType = iota + 1 // a whole number in [Min, Max]
	ConfigEnum                       // one of Values
)

// ConfigDef is what is known of one topic config.
type ConfigDef struct {
	Key      string
	Type     ConfigType
	Default  string
	Min, Max int64    // of a ConfigInt, both included
	Values   []string // of a ConfigEnum
	Doc      string   // one sentence, for people
}

// topicConfigs is the only list of topic configs, ascending by key. Names,
// types and meanings are Kafka's; so are the defaults, but for segment.bytes,
// which suits a modest disk.
//
// Apply judges commands by it, so a narrower range needs a feature level.
var topicConfigs = []ConfigDef{
	{
		Key: ConfigCleanupPolicy, Type: ConfigEnum, Default: CleanupDelete, Values: []string{CleanupDelete},
		Doc: "What becomes of old records: delete removes whole segments by retention.ms and retention.bytes.",
	},
	{
		Key: ConfigMaxMessageBytes, Type: ConfigInt, Default: strconv.Itoa(1<<20 + 12), Min: 1 << 10, Max: 16 << 20,
		Doc: "The largest record batch that the topic takes, in bytes, as it is sent (compressed).",
	},
	{
		Key: ConfigTimestampType, Type: ConfigEnum, Default: TimestampCreateTime,
		Values: []string{TimestampCreateTime, TimestampLogAppendTime},
		Doc:    "Whose timestamps records keep: CreateTime the producer's, LogAppendTime the leader's clock when it took the batch.",
	},
	{
		Key: ConfigRetentionBytes, Type: ConfigInt, Default: "-1", Min: -1, Max: math.MaxInt64,
		Doc: "How many bytes a partition keeps before its oldest segments are deleted; -1: no limit.",
	},
	{
		Key: ConfigRetentionMS, Type: ConfigInt, Default: strconv.Itoa(7 * 24 * 60 * 60 * 1000), Min: -1, Max: math.MaxInt64,
		Doc: "How long a segment is kept after the greatest timestamp in it, in ms; -1: no limit.",
	},
	{
		Key: ConfigSegmentBytes, Type: ConfigInt, Default: strconv.Itoa(256 << 20), Min: 1 << 20, Max: math.MaxInt32,
		Doc: "The size of a segment, in bytes: what retention deletes at once.",
	},
	{
		Key: ConfigSegmentMS, Type: ConfigInt, Default: strconv.Itoa(7 * 24 * 60 * 60 * 1000), Min: 1, Max: math.MaxInt64,
		Doc: "How long a segment takes records, in ms, even if it is not full.",
	},
}

// TopicConfigs returns what is known of all topic configs, ascending by key.
// The caller must not change what it refers to.
func TopicConfigs() []ConfigDef { return topicConfigs }

// configDef returns the definition of a key, or nil.
func configDef(key string) *ConfigDef {
	i, ok := slices.BinarySearchFunc(topicConfigs, key, func(d ConfigDef, key string) int {
		return strings.Compare(d.Key, key)
	})
	if !ok {
		return nil
	}
	return &topicConfigs[i]
}

// ConfigValue returns the value of a key in a topic's configs, or its default.
// It panics for a key that is not one of this package's constants.
func ConfigValue(configs []Config, key string) string {
	for _, c := range configs {
		if c.Key == key {
			return c.Value
		}
	}
	d := configDef(key)
	if d == nil {
		panic(fmt.Sprintf("metadata: no topic config %q", key))
	}
	return d.Default
}

// ConfigInt64 is ConfigValue of a ConfigInt. A value that is no number, which
// CheckConfigs lets pass nowhere, counts as the default.
func ConfigInt64(configs []Config, key string) int64 {
	n, err := strconv.ParseInt(ConfigValue(configs, key), 10, 64)
	if err != nil {
		n, _ = strconv.ParseInt(ConfigValue(nil, key), 10, 64)
	}
	return n
}

// CheckConfigs checks a topic's configs: known keys, none twice, values in
// range. The error has the code errcode.InvalidConfig.
func CheckConfigs(configs []Config) *errcode.Error {
	if len(configs) > MaxConfigs {
		return errcode.Errorf(errcode.InvalidConfig, "%d configs, at most %d", len(configs), MaxConfigs)
	}
	for i, c := range configs {
		if slices.ContainsFunc(configs[:i], func(other Config) bool { return other.Key == c.Key }) {
			return errcode.Errorf(errcode.InvalidConfig, "%s is set twice", c.Key)
		}
		if err := CheckConfigKey(c.Key); err != nil {
			return err
		}
		if err := configDef(c.Key).check(c.Value); err != nil {
			return err
		}
	}
	return nil
}

// CheckConfigKey refuses a key that is unknown, and suggests the nearest one
// that is known. The error has the code errcode.InvalidConfig.
func CheckConfigKey(key string) *errcode.Error {
	if configDef(key) != nil {
		return nil
	}
	if len(key) > MaxStringBytes {
		return errcode.Errorf(errcode.InvalidConfig, "a topic config's name of %d bytes", len(key))
	}
	keys := make([]string, len(topicConfigs))
	best, bestAt := math.MaxInt, 0
	for i := range topicConfigs {
		keys[i] = topicConfigs[i].Key
		if d := editDistance(key, keys[i]); d < best {
			best, bestAt = d, i
		}
	}
	// Further away than that, a guess would mislead.
	if best <= max(2, len(key)/3) {
		return errcode.Errorf(errcode.InvalidConfig, "unknown topic config %q; did you mean %s?", key, keys[bestAt])
	}
	return errcode.Errorf(errcode.InvalidConfig, "unknown topic config %q; there are %s", key, strings.Join(keys, ", "))
}

func (d *ConfigDef) check(value string) *errcode.Error {
	switch d.Type {
	case ConfigInt:
		v, err := strconv.ParseInt(value, 10, 64)
		if err != nil || v < d.Min || v > d.Max {
			return errcode.Errorf(errcode.InvalidConfig, "%s is %.64q, want a number from %d to %d", d.Key, value, d.Min, d.Max)
		}
	case ConfigEnum:
		if slices.Contains(d.Values, value) {
			return nil
		}
		if d.Key == ConfigCleanupPolicy && strings.Contains(value, "compact") {
			return errcode.Errorf(errcode.InvalidConfig, "%s is %.64q: compaction is not built yet; only %s is", d.Key, value, CleanupDelete)
		}
		return errcode.Errorf(errcode.InvalidConfig, "%s is %.64q, want one of %s", d.Key, value, strings.Join(d.Values, ", "))
	default:
		panic(fmt.Sprintf("metadata: config type %d of %s", d.Type, d.Key))
	}
	return nil
}

// editDistance counts the single-character changes that make b of a
// (Levenshtein, 1966).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
