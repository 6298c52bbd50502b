package consumergroup

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/assign"
	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// TopicInfo is a topic that there is.
type TopicInfo struct {
	Name       string
	ID         record.TopicID
	Partitions int32
}

// Topics are all topics of the cluster at one moment. It is not changed, and safe
// for concurrent use.
type Topics struct {
	version int64
	byName  map[string]*TopicInfo
	byID    map[record.TopicID]*TopicInfo
	names   []string // in order
}

// NewTopics returns Topics with the given ones, whose names and ids differ. version
// grows with every change.
func NewTopics(version int64, topics []TopicInfo) *Topics {
	t := &Topics{
		version: version,
		byName:  make(map[string]*TopicInfo, len(topics)), byID: make(map[record.TopicID]*TopicInfo, len(topics)),
	}
	for _, info := range topics {
		t.byName[info.Name], t.byID[info.ID] = &info, &info
	}
	t.names = slices.Sorted(maps.Keys(t.byName))
	return t
}

// matching returns the names of the topics that a regular expression stands for, in
// order.
func (t *Topics) matching(re *Regex) (names []string) {
	for _, name := range t.names {
		if re.Match(name) {
			names = append(names, name)
		}
	}
	return names
}

// subscription is what a member of a group of KIP-848 subscribes to, as topics that
// there are.
func (t *Topics) subscription(s *consumerState, v *record.ConsumerMemberValue) []record.TopicID {
	names := v.Topics
	if re := required(v.Regex); re != "" && s.regexes[re] != nil {
		names = slices.Concat(names, s.regexes[re].Topics)
	}
	ids := make([]record.TopicID, 0, len(names))
	for _, name := range names {
		if info := t.byName[name]; info != nil {
			ids = append(ids, info.ID)
		}
	}
	slices.SortFunc(ids, compareID)
	return slices.Compact(ids)
}

func compareID(a, b record.TopicID) int { return slices.Compare(a[:], b[:]) }

// subscribed returns the topics that the members of a group subscribe to, in the
// order of their ids, and a digest of them that is not 0: it differs once one of
// them has come, gone or grown.
func (t *Topics) subscribed(s *consumerState) (topics []assign.Topic, digest int64) {
	seen := make(map[record.TopicID]struct{})
	for _, v := range s.members {
		for _, id := range t.subscription(s, v) {
			seen[id] = struct{}{}
		}
	}
	h := sha256.New()
	for _, id := range slices.SortedFunc(maps.Keys(seen), compareID) {
		info := t.byID[id]
		topics = append(topics, assign.Topic{ID: id, Partitions: info.Partitions})
		h.Write(id[:])
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(info.Partitions)))
	}
	sum := int64(binary.BigEndian.Uint64(h.Sum(nil)))
	return topics, cmp.Or(sum, 1)
}
