package partition

import (
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Record is one record of an internal partition. A nil Value deletes what there is
// under Key.
type Record struct{ Key, Value []byte }

// Folded is what the records of one internal partition say: the state that each
// replica has at hand, so that a coordinator can go on from it. Those to which the same
// records were folded say the same.
//
// Its methods are for who may call Apply then; those of what Clone returned, for one
// other goroutine.
type Folded interface {
	// Fold applies records, in their order, all or none: an error changes nothing,
	// and comes on every replica alike. It keeps nothing of them.
	Fold(rs []Record) error

	// Track has it note from now on what changes.
	Track()

	// Changes returns, for each key that was folded since Track or the Changes
	// before, its record as it is now. It takes time proportional to that. The bytes
	// stay as they are.
	Changes() []Record

	// Requeue gives Changes back that did not become durable: the next have them
	// too, as they are then.
	Requeue(rs []Record)

	// All walks the records that it is made of: those make the same of a new one, and
	// have the same order wherever it is the same.
	All(yield func(Record) bool)

	// Clone returns a copy that stays as it is, in much less time than All takes.
	Clone() Folded
}

// Folding makes what the records of an internal partition are folded into, with
// nothing in it.
//
// A nil Folding keeps the last value of each key, whatever it says. That will do for
// who only reads or rewrites checkpoints, or looks at the rest of a state; its hash is
// another one.
type Folding func(Internal) Folded

func (f Folding) make(i Internal) Folded {
	if f == nil {
		return &latest{byKey: make(map[string][]byte)}
	}
	return f(i)
}

// latest keeps the last value of each key.
type latest struct {
	byKey   map[string][]byte
	changed map[string]struct{} // nil: see Track
}

var _ Folded = (*latest)(nil)

// Fold implements Folded.
func (l *latest) Fold(rs []Record) error {
	if i := slices.IndexFunc(rs, func(r Record) bool { return r.Key == nil }); i >= 0 {
		return fmt.Errorf("%w: record %d has no key", ErrDamaged, i)
	}
	for _, r := range rs {
		if l.changed != nil {
			l.changed[string(r.Key)] = struct{}{}
		}
		if r.Value == nil {
			delete(l.byKey, string(r.Key))
			continue
		}
		l.byKey[string(r.Key)] = append([]byte{}, r.Value...)
	}
	return nil
}

// Track implements Folded.
func (l *latest) Track() { l.changed = make(map[string]struct{}) }

// Changes implements Folded.
func (l *latest) Changes() (rs []Record) {
	for _, k := range slices.Sorted(maps.Keys(l.changed)) {
		rs = append(rs, Record{Key: []byte(k), Value: l.byKey[k]})
	}
	clear(l.changed)
	return rs
}

// Requeue implements Folded.
func (l *latest) Requeue(rs []Record) {
	for _, r := range rs {
		l.changed[string(r.Key)] = struct{}{}
	}
}

// All implements Folded.
func (l *latest) All(yield func(Record) bool) {
	for _, k := range slices.Sorted(maps.Keys(l.byKey)) {
		if !yield(Record{Key: []byte(k), Value: l.byKey[k]}) {
			return
		}
	}
}

// Clone implements Folded.
func (l *latest) Clone() Folded { return &latest{byKey: maps.Clone(l.byKey)} }

// records walks what is to be written of f.
func (f *capturedFolded) records() iter.Seq[Record] {
	if f.all != nil {
		return f.all.All
	}
	return slices.Values(f.changed)
}

// append appends r as it stands in a checkpoint.
func (r Record) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Key)))
	b = append(b, r.Key...)
	if r.Value == nil {
		return binary.LittleEndian.AppendUint32(b, noValue)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Value)))
	return append(b, r.Value...)
}
