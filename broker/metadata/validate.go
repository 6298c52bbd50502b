package metadata

import (
	"math"
	"slices"
	"strconv"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// The keys of topic configs that are known, as in Kafka.
const (
	ConfigSegmentBytes    = "segment.bytes"
	ConfigMaxMessageBytes = "max.message.bytes"
)

// configRanges are the known keys; all values are whole numbers.
var configRanges = map[string]struct{ min, max int64 }{
	ConfigSegmentBytes:    {1 << 20, math.MaxInt32},
	ConfigMaxMessageBytes: {1 << 10, 16 << 20},
}

// CheckTopicName applies Kafka's rules for topic names. The error has the code
// errcode.InvalidTopic.
func CheckTopicName(name string) *errcode.Error {
	switch {
	case name == "":
		return errcode.Errorf(errcode.InvalidTopic, "topic name is empty")
	case name == "." || name == "..":
		return errcode.Errorf(errcode.InvalidTopic, "topic name is %q", name)
	case len(name) > MaxTopicNameBytes:
		return errcode.Errorf(errcode.InvalidTopic, "topic name has %d characters, at most %d", len(name), MaxTopicNameBytes)
	}
	for i := range len(name) {
		if !isTopicNameByte(name[i]) {
			return errcode.Errorf(errcode.InvalidTopic, "topic name %q has a character other than a-z, A-Z, 0-9, '.', '_' and '-'", name)
		}
	}
	return nil
}

func isTopicNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
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
		limits, ok := configRanges[c.Key]
		if !ok {
			return errcode.Errorf(errcode.InvalidConfig, "unknown topic config %q", c.Key)
		}
		v, err := strconv.ParseInt(c.Value, 10, 64)
		if err != nil || v < limits.min || v > limits.max {
			return errcode.Errorf(errcode.InvalidConfig, "%s is %q, want a number from %d to %d", c.Key, c.Value, limits.min, limits.max)
		}
	}
	return nil
}

func checkPartitions(n int) *errcode.Error {
	if n < 1 || n > MaxTopicPartitions {
		return errcode.Errorf(errcode.InvalidPartitions, "%d partitions, want 1 to %d", n, MaxTopicPartitions)
	}
	return nil
}

// checkStrings refuses what would not fit a command.
func checkStrings(ss ...string) *errcode.Error {
	for _, s := range ss {
		if len(s) > MaxStringBytes {
			return errcode.Errorf(errcode.InvalidRequest, "a string of %d bytes, at most %d", len(s), MaxStringBytes)
		}
	}
	return nil
}
