package consumergroup

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// Track has g note from now on what changes, for Changes. A Clone does not.
func (g *Groups) Track() {
	if g.changed == nil {
		g.changed = make(map[string]struct{})
	}
}

// Changes returns what has changed since Track, or since the Changes before: for each
// key that was folded its record as it is now, by key. Folding these into what g was
// then gives what it is. It takes time proportional to what has changed. The records'
// bytes are not to be changed; they stay as they are.
func (g *Groups) Changes() []record.Record {
	out := make([]record.Record, 0, len(g.changed))
	for key := range g.changed {
		out = append(out, g.current([]byte(key)))
	}
	clear(g.changed)
	slices.SortFunc(out, func(a, b record.Record) int { return bytes.Compare(a.Key, b.Key) })
	return out
}

// Requeue gives back Changes that were not made durable: the next have them too, as
// they are then.
func (g *Groups) Requeue(rs []record.Record) {
	for _, r := range rs {
		g.changed[string(r.Key)] = struct{}{}
	}
}

// current returns the record of a key that was folded.
func (g *Groups) current(key []byte) record.Record {
	e, err := record.Decode(key, nil)
	if err != nil {
		panic(fmt.Sprintf("consumergroup: a key that was folded does not decode: %v", err))
	}
	switch e := e.(type) {
	case *record.OffsetCommit:
		e.Value = g.Offset(e.Group, TopicPartition{e.Topic, e.Partition})
	case *record.GroupMetadata:
		e.Value = g.meta(e.Group)
	default:
		if !g.currentConsumer(e) {
			return record.Record{Key: key, Value: g.others[string(key)]}
		}
	}
	return e.Encode()
}

// All returns the records that g is made of: by group, its own, that of a classic group
// before those of one of KIP-848, before its offsets', which are by topic and partition; what this build has nothing to do with comes last.
func (g *Groups) All(yield func(record.Record) bool) {
	for _, name := range g.Names() {
		if v := g.meta(name); v != nil && !yield((&record.GroupMetadata{Group: name, Value: v}).Encode()) {
			return
		}
		if s := g.consumer(name); s != nil && !s.all(name, yield) {
			return
		}
		for tp, v := range g.Committed(name) {
			if !yield((&record.OffsetCommit{Group: name, Topic: tp.Topic, Partition: tp.Partition, Value: v}).Encode()) {
				return
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(g.others)) {
		if !yield(record.Record{Key: []byte(key), Value: g.others[key]}) {
			return
		}
	}
}
