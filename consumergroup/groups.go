package consumergroup

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// Groups is what the records of one partition of __consumer_offsets say: the
// groups as they were after their last rebalance, and the committed offsets.
//
// Fold and Clone change it and belong to one goroutine; the queries may run on
// others only while neither runs. What queries return is never changed.
type Groups struct {
	groups   map[string]*group
	metas    int // groups with a record
	offsets  int // of all groups
	assigned int // records of groups of KIP-848

	// others has the values of records of types that this build has nothing to do
	// with, by key. They are kept and handed on as they are, so that a build that
	// knows them finds them.
	others map[string][]byte

	owner *owner

	// changed has the keys that were folded since the last Changes; nil: see Track.
	changed map[string]struct{}
}

// owner marks the groups that a Groups may change in place. Clone gives both sides
// a new one: each then copies a group before it changes it for the first time.
type owner struct{ _ byte }

// group is one group. A group exists while it has a record or an offset.
type group struct {
	owner *owner // who may change this

	// meta is the group's record, never changed; nil in a group that has offsets
	// and never had members.
	meta *record.GroupMetadataValue

	consumer *consumerState // of a group of KIP-848; nil in others

	offsets map[TopicPartition]*record.OffsetCommitValue // the values are never changed
}

// TopicPartition names a partition, as committed offsets do.
type TopicPartition struct {
	Topic     string
	Partition int32
}

func (tp TopicPartition) compare(other TopicPartition) int {
	return cmp.Or(cmp.Compare(tp.Topic, other.Topic), cmp.Compare(tp.Partition, other.Partition))
}

// NewGroups returns what no record says anything of.
func NewGroups() *Groups {
	return &Groups{groups: make(map[string]*group), others: make(map[string][]byte), owner: new(owner)}
}

// Clone returns a copy that shares what neither side has changed since. It takes
// time proportional to the number of groups, not of offsets.
func (g *Groups) Clone() *Groups {
	g.owner = new(owner)
	return &Groups{
		groups: maps.Clone(g.groups), metas: g.metas, offsets: g.offsets, assigned: g.assigned, others: maps.Clone(g.others), owner: new(owner),
	}
}

// Fold applies one record; one without a value deletes. A record of a type that is
// not known is kept as it is. Fold keeps nothing of r.
//
// An error matches record.ErrDamaged or record.ErrVersion, and changes nothing.
func (g *Groups) Fold(r record.Record) error {
	var o record.PlainOffset
	if o.Read(r.Key, r.Value) {
		g.foldPlain(r.Key, &o)
		return nil
	}
	e, err := record.Decode(r.Key, r.Value)
	if err != nil {
		return fmt.Errorf("consumergroup: fold: %w", err)
	}
	g.fold(r, e)
	return nil
}

// FoldAll is Fold of each record in turn, of all or of none: what the entry that they
// came with has to be. It goes through rs twice.
func (g *Groups) FoldAll(rs iter.Seq[record.Record]) error {
	var (
		o      record.PlainOffset
		others []record.Entry // of the records that are not plain
		n      int
	)
	for r := range rs {
		if !o.Read(r.Key, r.Value) {
			e, err := record.Decode(r.Key, r.Value)
			if err != nil {
				return fmt.Errorf("consumergroup: fold record %d: %w", n, err)
			}
			others = append(others, e)
		}
		n++
	}
	for r := range rs {
		if o.Read(r.Key, r.Value) {
			g.foldPlain(r.Key, &o)
			continue
		}
		g.fold(r, others[0])
		others = others[1:]
	}
	return nil
}

// note notes that a key was folded.
func (g *Groups) note(key []byte) {
	if g.changed == nil {
		return
	}
	if _, noted := g.changed[string(key)]; !noted {
		g.changed[string(key)] = struct{}{}
	}
}

// foldPlain applies a record that says o.
func (g *Groups) foldPlain(key []byte, o *record.PlainOffset) {
	g.note(key)
	gr := g.groups[string(o.Group)] // as own does, without memory for the name
	if gr == nil || gr.owner != g.owner {
		gr = g.own(string(o.Group))
	}
	v := o.Value
	g.commit(gr, TopicPartition{string(o.Topic), o.Partition}, &v)
}

// fold applies a record that says e.
func (g *Groups) fold(r record.Record, e record.Entry) {
	g.note(r.Key)
	switch e := e.(type) {
	case *record.OffsetCommit:
		g.foldOffset(e)
	case *record.GroupMetadata:
		g.foldMeta(e)
	default:
		if g.foldConsumer(e) {
			break
		}
		if r.Value == nil {
			delete(g.others, string(r.Key))
			break
		}
		g.others[string(r.Key)] = slices.Clone(r.Value)
	}
}

func (g *Groups) foldOffset(e *record.OffsetCommit) {
	tp := TopicPartition{e.Topic, e.Partition}
	if e.Value == nil {
		old := g.groups[e.Group]
		if old == nil || old.offsets[tp] == nil {
			return
		}
		gr := g.own(e.Group)
		delete(gr.offsets, tp)
		g.offsets--
		g.release(e.Group, gr)
		return
	}
	g.commit(g.own(e.Group), tp, e.Value)
}

// commit notes what a group has committed, which is to be changed.
func (g *Groups) commit(gr *group, tp TopicPartition, v *record.OffsetCommitValue) {
	if gr.offsets == nil {
		gr.offsets = make(map[TopicPartition]*record.OffsetCommitValue)
	}
	n := len(gr.offsets)
	gr.offsets[tp] = v
	g.offsets += len(gr.offsets) - n
}

func (g *Groups) foldMeta(e *record.GroupMetadata) {
	if e.Value == nil && g.groups[e.Group] == nil {
		return
	}
	gr := g.own(e.Group)
	if gr.meta != nil {
		g.metas--
	}
	if e.Value != nil {
		g.metas++
	}
	gr.meta = e.Value
	g.release(e.Group, gr)
}

// own returns the group of a name to be changed.
func (g *Groups) own(name string) *group {
	gr := g.groups[name]
	switch {
	case gr == nil:
		gr = &group{owner: g.owner}
	case gr.owner == g.owner:
		return gr
	default:
		gr = &group{owner: g.owner, meta: gr.meta, consumer: gr.consumer.clone(), offsets: maps.Clone(gr.offsets)}
	}
	g.groups[name] = gr
	return gr
}

// release forgets a group of which nothing is left.
func (g *Groups) release(name string, gr *group) {
	if gr.meta == nil && gr.consumer == nil && len(gr.offsets) == 0 {
		delete(g.groups, name)
	}
}

// Len returns the number of groups.
func (g *Groups) Len() int { return len(g.groups) }

// Offsets returns the number of committed offsets.
func (g *Groups) Offsets() int { return g.offsets }

// records returns how many records it takes to say what g says.
func (g *Groups) records() int { return g.metas + g.offsets + g.assigned + len(g.others) }

// Names returns the names of all groups, in order.
func (g *Groups) Names() []string { return slices.Sorted(maps.Keys(g.groups)) }

// Has reports whether there is a group of that name.
func (g *Groups) Has(name string) bool { return g.groups[name] != nil }

// Offset returns what a group has committed for a partition, or nil.
func (g *Groups) Offset(name string, tp TopicPartition) *record.OffsetCommitValue {
	if gr := g.groups[name]; gr != nil {
		return gr.offsets[tp]
	}
	return nil
}

// Committed returns all that a group has committed, by topic and partition.
func (g *Groups) Committed(name string) iter.Seq2[TopicPartition, *record.OffsetCommitValue] {
	return func(yield func(TopicPartition, *record.OffsetCommitValue) bool) {
		gr := g.groups[name]
		if gr == nil {
			return
		}
		for _, tp := range slices.SortedFunc(maps.Keys(gr.offsets), TopicPartition.compare) {
			if v := gr.offsets[tp]; v != nil && !yield(tp, v) {
				return
			}
		}
	}
}

// Topics returns the topics that any group has an offset of, by name and id. It takes
// time proportional to the number of offsets. A new leader compares it with the
// topics that there are, and tells the Coordinator which are deleted.
func (g *Groups) Topics() []Topic {
	topics := make(map[Topic]struct{})
	for _, gr := range g.groups {
		for tp, v := range gr.offsets {
			topics[Topic{tp.Topic, v.TopicID}] = struct{}{}
		}
	}
	return slices.SortedFunc(maps.Keys(topics), func(a, b Topic) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.ID[:], b.ID[:]))
	})
}

// meta returns the record of a group, or nil.
func (g *Groups) meta(name string) *record.GroupMetadataValue {
	if gr := g.groups[name]; gr != nil {
		return gr.meta
	}
	return nil
}
