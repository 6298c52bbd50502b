package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
)

// ErrForgotten reports a replica whose log is there and whose vote record is
// not. It may have voted for another log than its own, so it must not go on
// under its name (R11, R20).
var ErrForgotten = errors.New("broker: a replica has lost its vote record")

type shardID = replication.ShardID

// dataShard is this node's replica of a data shard.
type dataShard struct {
	id      replication.ShardID
	replica *replication.Replica[partition.Result]
	store   *store.Shard
	machine *machine
	catchUp *catchUp
	published

	// The newest metadata of which this shard lacked nothing, in the term in
	// which it led; the reconciler's.
	complete   *metadata.Image
	completeIn uint64

	// turns counts how often this node has got or lost the shard's leadership, or
	// another leader's term has begun, as far as it has applied.
	turns atomic.Uint64
	freed atomic.Bool // something was deleted since the last checkpoint began for that reason
}

// turned has those who wait for the shard's partitions look at them again: who leads
// it has changed. What a fetch has read before is told by turns, which moves first.
func (s *dataShard) turned() {
	s.turns.Add(1)
	s.store.WakeAll()
}

// replicaID returns this node's replica of a shard: the one on record, or a new
// incarnation, durable before it is used (R11).
func (b *Broker) replicaID(shard replication.ShardID) (replication.ReplicaID, error) {
	id := replication.ReplicaID{Node: b.opt.NodeID}
	if v, ok := b.opt.Votes.Load(uint32(shard)); ok {
		id.Incarnation = v.Incarnation
		return id, nil
	}
	if b.opt.Established && b.founded(shard) {
		return id, fmt.Errorf("%w: shard %d, in %s; is a part of the data directory missing, or not mounted? See flotilla check", ErrForgotten, shard, b.opt.Votes.Dir())
	}
	if shard != replication.MetadataShard {
		for _, s := range b.opt.Journal.Shards() {
			if s.ID == journal.ShardID(shard) && s.Last > 0 {
				return id, fmt.Errorf("%w: shard %d has entries up to %d in the journal", ErrForgotten, shard, s.Last)
			}
		}
		if has, err := b.hasCheckpoint(shard); err != nil || has {
			return id, errors.Join(err, fmt.Errorf("%w: shard %d, in %s; it has a checkpoint in %s", ErrForgotten, shard, b.opt.Votes.Dir(), b.checkpointDir(shard)))
		}
	} else if last := b.opt.MetadataLog.Last(); last > 0 {
		return id, fmt.Errorf("%w: the metadata shard has entries up to %d", ErrForgotten, last)
	}
	var raw [8]byte
	id.Incarnation = b.place(shard)
	if id.Incarnation == 0 && !b.founded(shard) {
		return id, fmt.Errorf("%w: shard %d, and the directory of incarnation %016x", errNotFounder, shard, b.opt.Incarnation)
	}
	for id.Incarnation == 0 {
		if _, err := io.ReadFull(b.opt.Rand, raw[:]); err != nil {
			return id, fmt.Errorf("broker: incarnation: %w", err)
		}
		id.Incarnation = binary.LittleEndian.Uint64(raw[:])
	}
	return id, b.opt.Votes.Store(uint32(shard), control.Vote{Incarnation: id.Incarnation})
}

func (b *Broker) checkpointDir(shard replication.ShardID) string {
	return path.Join(b.opt.ShardsDir, strconv.Itoa(int(shard)))
}

// openMetadata opens the metadata shard's replica.
func (b *Broker) openMetadata() error {
	id, err := b.replicaID(replication.MetadataShard)
	if err != nil {
		return err
	}
	b.metaState = &metaMachine{applied: func() {
		b.reconciler.kick()
		b.retention.changed()
	}}
	to, voters := b.connect(replication.MetadataShard, id)
	b.meta, err = replication.Open(replication.Options[metadata.Result]{
		Shard: replication.MetadataShard, ID: id, FSM: b.metaState, Now: b.opt.Now, Log: b.opt.Log,
		Control: b.opt.MetadataLog, Votes: b.opt.Votes,
		FS: b.opt.FS, CheckpointDir: b.checkpointDir(replication.MetadataShard), KeepFreeBytes: b.opt.KeepFreeBytes,
		Transport: to, Bootstrap: voters,
		Encode: func(term uint64, _ int64, ps []*replication.Proposal[metadata.Result]) []byte {
			return metadata.Append(nil, term, ps[0].Command.(metadata.Command))
		},
		TermStart: metadata.TermStart{}, MaxCommands: 1, CommandOverheadBytes: commandOverheadBytes,
		OnFailed: b.opt.OnFailed, OnLeading: b.reconciler.kick,
	})
	return err
}

// openData opens the replica of a data shard.
func (b *Broker) openData(shard replication.ShardID) (*dataShard, error) {
	id, err := b.replicaID(shard)
	if err != nil {
		return nil, err
	}
	s := &dataShard{id: shard, store: b.opt.Store.Shard(uint32(shard))}
	s.store.OnFlush(func(topicID [16]byte, index int32) { b.retention.grew(partitionKey{topicID, index}) })
	s.machine = &machine{
		shard: s, store: s.store, node: b.opt.Store, dir: b.dir, log: b.opt.Log,
		id: id, hashes: b.hashes, quarantines: b.quarantines, poison: b.opt.poison,
		placed: b.lookAt, freed: func() { b.noteFreed(s) },
		returned: make(chan *partition.Capture, 1), unsound: b.repairs.kick,
	}
	s.store.OnDamage(func(d store.Damage) { b.repairs.found(s, d) })
	s.catchUp = &catchUp{b: b, shard: s}
	// Restore would find it out too, but after other replicas have run.
	if err := b.quarantines.check(shard); err != nil {
		return nil, err
	}
	to, voters := b.connect(shard, id)
	s.replica, err = replication.Open(replication.Options[partition.Result]{
		Shard: shard, ID: id, Now: b.opt.Now, Log: b.opt.Log,
		FSM:     b.opt.wrap(s.machine),
		Journal: b.opt.Journal, Votes: b.opt.Votes,
		FS: b.opt.FS, CheckpointDir: b.checkpointDir(shard), KeepFreeBytes: b.opt.KeepFreeBytes, Fold: partition.Fold,
		Transport: to, Bootstrap: voters, CatchUp: s.catchUp, Sound: s.soundAt,
		Encode: encodeEntry, TermStart: termStart{},
		EntryOverheadBytes: partition.EntryOverheadBytes, CommandOverheadBytes: commandOverheadBytes,
		OnFailed: b.opt.OnFailed,
		OnLeading: func() {
			s.turned()
			b.reconciler.kick()
			b.contacts.kick()
			b.repairs.kick()
			b.coordinators.kick()
		},
	})
	return s, err
}

// lookAt says that a partition has come, or is configured. It does not block.
func (b *Broker) lookAt(key partitionKey) {
	b.retention.look(key)
	b.coordinators.kick()
}

// commandOverheadBytes is more than a command takes in an entry, beside a batch.
const commandOverheadBytes = 128

// termStart stands for the command of that name in a proposal.
type termStart struct{}

// advanceLogStart stands for the command of that name in a proposal.
type advanceLogStart struct {
	number partition.Number
	offset int64
}

// encoders holds builders of entries.
var encoders = sync.Pool{New: func() any { return new(partition.EntryBuilder) }}

// encodeEntry lays out an entry of a data shard. A proposal without a Command
// is a Produce.
func encodeEntry(term uint64, wallMS int64, ps []*produceProposal) []byte {
	e := encoders.Get().(*partition.EntryBuilder)
	defer encoders.Put(e)
	e.Reset(nil, partition.EntryHeader{DecidedTerm: term, WallClockMS: wallMS})
	for _, p := range ps {
		switch c := p.Command.(type) {
		case nil:
			e.Produce(partition.Number(p.Queue), p.Payload)
		case termStart:
			e.TermStart()
		case partition.CreatePartition:
			e.CreatePartition(c)
		case partition.DeletePartition:
			e.DeletePartition(c)
		case partition.SetPartitionConfig:
			e.SetPartitionConfig(c)
		case partition.ExpireProducers:
			e.ExpireProducers(c)
		case partition.Decision:
			e.Decision(c)
		case setApplyVersion:
			e.SetApplyVersion(c.version)
		case askHash:
			e.AskHash()
			e.SetApplyVersion(partition.MinApplyVersion)
		case advanceLogStart:
			e.AdvanceLogStart(c.number, c.offset)
		case partition.Limits:
			e.SetLimits(c)
		default:
			panic(fmt.Sprintf("broker: cannot encode a %T", c))
		}
	}
	return e.Bytes()
}
