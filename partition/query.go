package partition

import (
	"iter"
	"maps"
	"slices"
	"sort"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// View is what one partition looks like. It shares nothing with the State.
type View struct {
	Number        Number
	TopicID       TopicID
	Index         int32
	MetadataIndex uint64 // of the newest command about the partition itself
	LogStart      int64
	End           int64 // offset of the next record; the high watermark
	BaseEpoch     int32
	LeaderEpoch   int32
	Producers     int
	Config        Config

	// Of an internal partition: term and number of the last decision; zeros before
	// the first.
	DecidedTerm, DecisionSeq uint64
}

// EpochEnd is an answer to OffsetForLeaderEpoch: the offset behind the last
// record of Epoch.
type EpochEnd struct {
	Epoch int32
	End   int64
}

// Lookup returns the number of a partition, if the shard has it.
func (s *State) Lookup(id TopicID, index int32) (Number, bool) {
	p := s.byKey[key{id, index}]
	if p == nil {
		return 0, false
	}
	return p.number, true
}

// Partition returns the partition of a number, if the shard has it.
func (s *State) Partition(n Number) (View, bool) {
	p := s.parts[n]
	if p == nil {
		return View{}, false
	}
	return s.view(p), true
}

// Partitions walks all partitions in the order of their numbers. It sorts them
// first, so it is not for a hot path.
func (s *State) Partitions() iter.Seq[View] {
	return func(yield func(View) bool) {
		for _, n := range s.numbers() {
			if !yield(s.view(s.parts[n])) {
				return
			}
		}
	}
}

// Epochs returns a copy of a partition's epoch history, oldest first.
func (s *State) Epochs(n Number) []EpochStart {
	p := s.parts[n]
	if p == nil {
		return nil
	}
	return slices.Clone([]EpochStart(p.epochs))
}

// EpochEnd answers OffsetForLeaderEpoch for partition n (R16): the greatest
// recorded epoch at or below epoch, and where it ends. An epoch that wrote
// nothing ends where the next one that did starts, or at the log end.
//
// The code is errcode.UnknownTopicOrPartition without such a partition,
// errcode.UnknownLeaderEpoch for an epoch above the partition's, and
// errcode.InvalidRequest for a negative one.
func (s *State) EpochEnd(n Number, epoch int32) (EpochEnd, errcode.Code) {
	p := s.parts[n]
	switch {
	case p == nil:
		return EpochEnd{Epoch: -1, End: -1}, errcode.UnknownTopicOrPartition
	case epoch < 0:
		return EpochEnd{Epoch: -1, End: -1}, errcode.InvalidRequest
	case epoch > s.epoch(p):
		return EpochEnd{Epoch: -1, End: -1}, errcode.UnknownLeaderEpoch
	}
	return p.epochs.end(epoch, p.end), errcode.None
}

// EpochAt returns the leader epoch of partition n's record at offset, or of the
// next one that will be there: -1 without such a partition, or if nothing at or
// below the offset is on record.
func (s *State) EpochAt(n Number, offset int64) int32 {
	p := s.parts[n]
	if p == nil {
		return -1
	}
	i := sort.Search(len(p.epochs), func(i int) bool { return p.epochs[i].Start > offset })
	if i == 0 {
		return -1
	}
	return p.epochs[i-1].Epoch
}

// ProducerView is what a partition remembers of one producer.
type ProducerView struct {
	ID           ProducerID
	Epoch        int16
	LastSequence int32

	// LastTimestamp is the newest timestamp of its last batch, in ms since 1970, or
	// NoTime if that was appended before apply version 3.
	LastTimestamp int64
}

// ProducersOf returns the producers that partition n remembers, in no order.
func (s *State) ProducersOf(n Number) []ProducerView {
	p := s.parts[n]
	if p == nil {
		return nil
	}
	all := make([]ProducerView, 0, len(p.producers))
	for id, pr := range p.producers {
		all = append(all, ProducerView{ID: id, Epoch: pr.epoch, LastSequence: pr.idle().LastSequence, LastTimestamp: pr.timestamp})
	}
	return all
}

// Folded returns what the records of internal partition n say, or nil if it is none
// or is not there. It is the state's own: it is not to be changed, and not to be read
// while the next entry is applied.
func (s *State) Folded(n Number) Folded {
	if p := s.parts[n]; p != nil {
		return p.folded
	}
	return nil
}

// Len returns the number of partitions.
func (s *State) Len() int { return len(s.parts) }

// Producers returns the number of producers remembered, over all partitions.
func (s *State) Producers() int { return s.recent.count }

// IdleProducers returns producers whose last append was at or before untilMS by
// the shard clock, those that appended longest ago first, and at most limit of
// them. It takes time proportional to what it returns.
func (s *State) IdleProducers(untilMS int64, limit int) []IdleProducer {
	var idle []IdleProducer
	// The order of last appends is that of the shard clock, which never goes
	// back.
	for pr := s.recent.oldest(); pr != nil && pr.lastMS <= untilMS && len(idle) < limit; pr = pr.next {
		idle = append(idle, pr.idle())
	}
	return idle
}

// Applied returns index and term of the last entry applied, or zeros.
func (s *State) Applied() (index, term uint64) { return s.lastIndex, s.lastTerm }

// ClockMS returns the shard clock, in ms since 1970: the greatest wall clock of
// the entries applied.
func (s *State) ClockMS() int64 { return s.clockMS }

// ApplyVersion returns the behaviour that the shard has agreed on.
func (s *State) ApplyVersion() uint16 { return s.version }

// Limits returns the limits that Apply enforces.
func (s *State) Limits() Limits { return s.limits }

func (s *State) view(p *part) View {
	return View{
		Number:        p.number,
		TopicID:       p.key.topic,
		Index:         p.key.index,
		MetadataIndex: p.stamp,
		LogStart:      p.logStart,
		End:           p.end,
		BaseEpoch:     p.baseEpoch,
		LeaderEpoch:   s.epoch(p),
		Producers:     len(p.producers),
		Config:        p.config,
		DecidedTerm:   p.decided.term,
		DecisionSeq:   p.decided.seq,
	}
}

func (s *State) numbers() []Number {
	return slices.Sorted(maps.Keys(s.parts))
}
