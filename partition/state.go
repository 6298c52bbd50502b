package partition

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// State is the replicated state of one shard.
//
// Apply, Capture and Requeue change it and belong to one goroutine, the one
// that applies Raft's entries; the queries may run on others only while none of
// those runs. Whoever serves readers beside Apply keeps its own copy of what
// they need, from the Outcomes.
type State struct {
	version   uint16
	limits    Limits
	clockMS   int64
	lastIndex uint64
	lastTerm  uint64

	// Invariant: byKey holds each part of parts under its key, and no other.
	parts      map[Number]*part
	byKey      map[key]*part
	lastNumber Number // the newest that was given

	// stamps holds the metadata index of each deleted partition. stampFloor is
	// at or above every metadata index that was dropped from it.
	stamps     map[key]uint64
	stampFloor uint64

	recent recency // producers of all partitions
	dirty  changes // since the last Capture

	folding Folding
	records []Record // of the decision that is applied; reused

	// quarantined holds, by partition, the index of the entry that panicked. It
	// is this replica's alone. Nil until the first.
	quarantined map[Number]uint64
}

// key names a partition across the cluster.
type key struct {
	topic TopicID
	index int32
}

// part is one partition.
//
// Invariant: 0 <= logStart <= end.
type part struct {
	number    Number
	key       key
	stamp     uint64 // newest metadata index applied to it
	baseEpoch int32
	config    Config

	logStart  int64
	end       int64
	epochs    epochHistory
	producers map[ProducerID]*producer // nil until the first

	// Of an internal partition, else zero: the last decision that was applied, and
	// what all of them say.
	decided decided
	folded  Folded

	dirty bool
	// What changed among the producers since the last Capture. forgotten may
	// name some that are back.
	changed   []*producer
	forgotten []ProducerID
}

// New returns the state of a shard to which nothing was applied. It folds by key:
// see Folding.
func New() *State { return Folding(nil).New() }

// New returns the state of a shard to which nothing was applied, which folds with f.
func (f Folding) New() *State {
	return &State{
		folding: f,
		version: MinApplyVersion,
		limits:  DefaultLimits,
		parts:   make(map[Number]*part),
		byKey:   make(map[key]*part),
		stamps:  make(map[key]uint64),
	}
}

// Apply applies the commands of one committed entry of the shard, and puts one
// Result for each, and the effects, into out, replacing what it held. index and
// term are the Raft entry's.
//
// An error means that the replica cannot go on: ErrDamaged, ErrUnsupported, or
// ErrOrder if index is not above every applied one or term is below the last,
// and the state is then as it was; or ErrBroken, and it must not be used any
// more. A command that is refused is no error: its Result says so, and the others
// take effect; nor is one that panics: see Quarantine.
//
// The Outcome's effects alias entry until the next Apply with the same Outcome.
// A produce of known producers does not allocate, once out has grown.
func (s *State) Apply(index, term uint64, entry []byte, out *Outcome) error {
	out.reset()
	if index <= s.lastIndex || term < s.lastTerm {
		return fmt.Errorf("%w: index %d term %d after index %d term %d", ErrOrder, index, term, s.lastIndex, s.lastTerm)
	}
	if term > maxTerm {
		return fmt.Errorf("%w: term %d, at most %d", ErrUnsupported, term, maxTerm)
	}
	d, err := Decode(entry)
	if err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	s.lastIndex, s.lastTerm = index, term
	s.clockMS = max(s.clockMS, d.Header.WallClockMS)
	out.HashAsked = d.Header.HashAsked
	for d.Next() {
		if err := s.applyOne(d.Command(), d.Header.DecidedTerm, out); err != nil {
			return err
		}
	}
	return nil
}

// noResult is a Result that names nothing yet.
var noResult = Result{BaseOffset: -1, LastOffset: -1, LogAppendTimeMS: NoTime, LogStart: -1, LeaderEpoch: -1}

// application is one command while it is applied.
type application struct {
	s       *State
	out     *Outcome
	res     Result
	decided uint64
	part    *part // that it is about; nil: none, or none yet
	fold    bool  // State.records are to be folded, once all else is done
}

func (a *application) apply(c Command) {
	a.res.Kind, a.res.Number = c.Kind, c.Number
	if c.Kind == KindProduce {
		a.produce(c)
		return
	}
	// R3: a decision of a leader that was deposed since must not take effect.
	if a.decided != a.s.lastTerm {
		a.refuse(errcode.NotLeaderOrFollower, ReasonTerm, int64(a.s.lastTerm), int64(a.decided))
		return
	}
	switch c.Kind {
	case KindTermStart: // moved the term, like every entry
	case KindCreatePartition:
		if c := decodeCreate(c.Payload); a.knows(c.Config.minVersion()) {
			a.create(c)
		}
	case KindDeletePartition:
		a.delete(decodeDelete(c.Payload))
	case KindSetPartitionConfig:
		if c := decodeSetConfig(c.Payload); a.knows(c.Config.minVersion()) {
			a.setConfig(c)
		}
	case KindAdvanceLogStart:
		a.advance(a.part, c.Number, int64(binary.LittleEndian.Uint64(c.Payload)))
	case KindSetApplyVersion:
		a.setVersion(binary.LittleEndian.Uint16(c.Payload))
	case KindSetLimits:
		a.setLimits(decodeLimits(c.Payload))
	case KindExpireProducers:
		if a.knows(ExpireVersion) {
			a.expire(decodeExpire(c.Payload))
		}
	case KindDecision:
		if a.knows(DecisionVersion) {
			a.decide(decodeDecision(c))
		}
	default:
		panic(fmt.Sprintf("partition: %v passed Decode", c.Kind))
	}
}

// knows refuses the command if it needs a newer apply version than the shard
// has agreed on. A leader does not propose such a command; if one did, replicas
// that know it must not act on it while others may still join that do not.
func (a *application) knows(version uint16) bool {
	if version > a.s.version {
		a.refuse(errcode.UnsupportedVersion, ReasonVersion, int64(version), int64(a.s.version))
		return false
	}
	return true
}

// refuse makes the command change nothing.
func (a *application) refuse(c errcode.Code, r Reason, want, have int64) {
	a.res.Code, a.res.Reason, a.res.Want, a.res.Have = c, r, want, have
}

// effect appends an effect on p, and returns it to be filled in.
func (a *application) effect(k EffectKind, p *part) *Effect {
	a.out.Effects = append(a.out.Effects, Effect{Kind: k, Number: p.number, Command: len(a.out.Results)})
	return &a.out.Effects[len(a.out.Effects)-1]
}

// about puts p's bounds into the result.
func (a *application) about(p *part) {
	a.res.Number, a.res.LogStart, a.res.LeaderEpoch = p.number, p.logStart, a.s.epoch(p)
}

// epoch returns p's leader epoch (R16).
func (s *State) epoch(p *part) int32 { return p.baseEpoch + int32(s.lastTerm) }

func (a *application) create(c CreatePartition) {
	k := key{c.TopicID, c.Index}
	if c.BaseEpoch < 0 || c.BaseEpoch > maxTerm || c.Index < 0 || !c.Config.valid() {
		a.refuse(errcode.InvalidRequest, ReasonConfig, 0, int64(c.BaseEpoch))
		return
	}
	if p := a.s.byKey[k]; p != nil {
		a.recreate(p, c)
		return
	}
	if have, want := c.MetadataIndex, a.s.stampOf(k); have <= want {
		a.refuse(errcode.InvalidUpdateVersion, ReasonStamp, int64(want), int64(have))
		return
	}
	if n := len(a.s.parts); n >= int(a.s.limits.MaxPartitions) || a.s.lastNumber == math.MaxUint32 {
		a.refuse(errcode.PolicyViolation, ReasonPartitions, int64(a.s.limits.MaxPartitions), int64(n))
		return
	}
	a.s.lastNumber++
	p := &part{number: a.s.lastNumber, key: k, stamp: c.MetadataIndex, baseEpoch: c.BaseEpoch, config: c.Config}
	if c.Config.Internal != NotInternal {
		p.folded = a.s.folding.make(c.Config.Internal)
		p.folded.Track()
	}
	a.s.parts[p.number], a.s.byKey[k] = p, p
	delete(a.s.stamps, k)
	a.s.touch(p)
	a.about(p)
	e := a.effect(EffectCreated, p)
	e.TopicID, e.Index, e.Config = c.TopicID, c.Index, c.Config
}

// recreate answers a CreatePartition for the existing p.
func (a *application) recreate(p *part, c CreatePartition) {
	a.about(p)
	if c.MetadataIndex <= p.stamp {
		a.res.Duplicate = true
		return
	}
	if c.Config.Internal != p.config.Internal {
		a.refuse(errcode.InvalidRequest, ReasonConfig, int64(p.config.Internal), int64(c.Config.Internal))
		return
	}
	a.configure(p, c.MetadataIndex, c.Config)
}

func (a *application) setConfig(c SetPartitionConfig) {
	p := a.s.byKey[key{c.TopicID, c.Index}]
	switch {
	case p == nil:
		a.refuse(errcode.UnknownTopicOrPartition, ReasonNoPartition, 0, 0)
	case !c.Config.valid():
		a.about(p)
		a.refuse(errcode.InvalidRequest, ReasonConfig, 0, 0)
	case c.Config.Internal != p.config.Internal:
		a.about(p)
		a.refuse(errcode.InvalidRequest, ReasonConfig, int64(p.config.Internal), int64(c.Config.Internal))
	case c.MetadataIndex < p.stamp:
		a.about(p)
		a.refuse(errcode.InvalidUpdateVersion, ReasonStamp, int64(p.stamp), int64(c.MetadataIndex))
	case c.MetadataIndex == p.stamp:
		a.about(p)
		a.res.Duplicate = true
	default:
		a.about(p)
		a.configure(p, c.MetadataIndex, c.Config)
	}
}

// configure gives p a config that a newer metadata entry caused.
func (a *application) configure(p *part, stamp uint64, c Config) {
	a.s.touch(p)
	p.stamp = stamp
	if p.config == c {
		return
	}
	p.config = c
	e := a.effect(EffectConfigSet, p)
	e.TopicID, e.Index, e.Config = p.key.topic, p.key.index, c
}

// delete succeeds for a partition that does not exist: its stamp then refuses a
// create that was decided earlier and arrives later.
func (a *application) delete(c DeletePartition) {
	k := key{c.TopicID, c.Index}
	p := a.s.byKey[k]
	have, want := c.MetadataIndex, a.s.stampOf(k)
	switch {
	case p == nil && have <= want:
		a.res.Duplicate = true
		return
	case p != nil && have < p.stamp:
		a.about(p)
		a.refuse(errcode.InvalidUpdateVersion, ReasonStamp, int64(p.stamp), int64(have))
		return
	}
	a.s.remember(k, have)
	if p == nil {
		return
	}
	a.res.Number = p.number
	a.s.drop(p)
	e := a.effect(EffectDeleted, p)
	e.TopicID, e.Index = c.TopicID, c.Index
}

func (a *application) advance(p *part, n Number, offset int64) {
	switch {
	case p == nil:
		a.refuse(errcode.UnknownTopicOrPartition, ReasonNoPartition, 0, int64(n))
		return
	case offset < 0 || offset > p.end:
		a.about(p)
		a.refuse(errcode.OffsetOutOfRange, ReasonLogStart, p.end, offset)
		return
	case offset <= p.logStart:
		a.about(p)
		a.res.Duplicate = true
		return
	}
	a.s.touch(p)
	a.res.Removed = offset - p.logStart
	p.logStart = offset
	p.epochs = p.epochs.from(offset)
	a.about(p)
	a.effect(EffectLogStartMoved, p).LogStart = offset
}

func (a *application) setVersion(v uint16) {
	if v <= a.s.version {
		a.res.Duplicate = true
		return
	}
	a.s.version = v
}

func (a *application) setLimits(l Limits) {
	if !l.valid() {
		a.refuse(errcode.InvalidRequest, ReasonConfig, 0, 0)
		return
	}
	a.res.Duplicate = l == a.s.limits
	a.s.limits = l
}

// expire forgets those of the listed producers that are as the leader found
// them. Which they are is answered by Producers, and by the next IdleProducers.
func (a *application) expire(c ExpireProducers) {
	a.res.Duplicate = true
	for _, idle := range c.Producers {
		p := a.s.parts[idle.Number]
		if p == nil {
			continue
		}
		// The same epoch and sequence could be a later life's: a producer that
		// was forgotten, and came back with the batch that it sent last.
		if pr := p.producers[idle.ID]; pr != nil && pr.idle() == idle && pr.lastMS <= c.UntilMS {
			a.s.forget(pr)
			a.res.Duplicate = false
		}
	}
}

// stampOf returns the metadata index at or below which a command about a
// partition that does not exist is outdated.
func (s *State) stampOf(k key) uint64 { return max(s.stamps[k], s.stampFloor) }

// drop removes p and its producers.
func (s *State) drop(p *part) {
	for _, pr := range p.producers {
		s.recent.remove(pr)
	}
	delete(s.parts, p.number)
	delete(s.byKey, p.key)
	delete(s.quarantined, p.number)
	s.dirty.deleted = append(s.dirty.deleted, p.number)
}

// touch notes that p changed.
func (s *State) touch(p *part) {
	if !p.dirty {
		p.dirty = true
		s.dirty.parts = append(s.dirty.parts, p)
	}
}
