package metadata

import (
	"slices"
	"strings"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// GroupsTopic holds committed offsets and consumer groups, as in Kafka.
const GroupsTopic = "__consumer_offsets"

// InternalLevel is the first feature level at which there are internal topics: their
// partitions need apply version 3.
const InternalLevel = 3

// GroupsSegmentBytes is the segment.bytes of GroupsTopic, as in Kafka.
const GroupsSegmentBytes = 100 << 20

// InternalName reports whether a name is one of Kafka's internal topics. Clients
// create no such topics.
func InternalName(name string) bool {
	return name == GroupsTopic || name == "__transaction_state" || name == "__share_group_state"
}

// Internal reports whether t is an internal topic: only its coordinators write to it,
// it has the partitions that it was created with, and stays.
//
// A topic of that name that a client has created before InternalLevel is an ordinary
// one, and is told by its cleanup.policy: compact is that of internal topics alone.
func (t *Topic) Internal() bool { return internal(t.Name, t.Configs) }

func internal(name string, configs []Config) bool {
	return name == GroupsTopic && ConfigValue(configs, ConfigCleanupPolicy) == cleanupCompact
}

// CanonicalInternalConfigs is CanonicalConfigs for an internal topic, of which the
// cleanup.policy is compact, and stays so.
func CanonicalInternalConfigs(configs []Config) ([]Config, *errcode.Error) {
	isPolicy := func(c Config) bool { return c.Key == ConfigCleanupPolicy }
	i := slices.IndexFunc(configs, isPolicy)
	if i < 0 || strings.TrimSpace(configs[i].Value) != cleanupCompact {
		return nil, errcode.Errorf(errcode.InvalidConfig, "the cleanup.policy of an internal topic is %s", cleanupCompact)
	}
	canonical, err := CanonicalConfigs(slices.Delete(slices.Clone(configs), i, i+1))
	switch {
	case err != nil:
		return nil, err
	case slices.ContainsFunc(canonical, isPolicy):
		return nil, errcode.Errorf(errcode.InvalidConfig, "%s is set twice", ConfigCleanupPolicy)
	}
	return slices.Insert(canonical, i, Config{ConfigCleanupPolicy, cleanupCompact}), nil
}

// InternalConfigs returns the configs of GroupsTopic when it is created.
func InternalConfigs() map[string]string {
	return map[string]string{ConfigCleanupPolicy: cleanupCompact, ConfigSegmentBytes: "104857600"}
}

// checkConfigs is CheckConfigs for a topic of a name, which may be internal.
func (im *Image) checkConfigs(name string, configs []Config) *errcode.Error {
	if im.featureLevel >= InternalLevel && internal(name, configs) {
		_, err := CanonicalInternalConfigs(configs)
		return err
	}
	return CheckConfigs(configs)
}

// CheckNotInternal refuses, of an internal topic, what would change which partitions
// it has, or what is in them. The error has the code errcode.InvalidTopic.
func (t *Topic) CheckNotInternal(what string) *errcode.Error {
	if !t.Internal() {
		return nil
	}
	return errcode.Errorf(errcode.InvalidTopic, "topic %s is internal: clients may not %s", t.Name, what)
}
