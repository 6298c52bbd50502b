package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

// setApplyVersion stands for the command of that name in a proposal.
type setApplyVersion struct{ version uint16 }

// askHash stands for an entry that asks for the state's hash. The entry needs a
// command, and has one that changes nothing.
type askHash struct{}

// applyVersions gives, by feature level, the newest apply version that a data
// shard may be raised to.
var applyVersions = [metadata.MaxFeatureLevel + 1]uint16{0: 1, 1: 1, 2: 2, 3: 3}

// nextApplyVersion returns the apply version that a shard should have: the newest
// that the cluster's feature level allows and all of its replicas know. known
// holds what each replica knows, and 0 for one that has not said.
func nextApplyVersion(level uint16, known []uint16) uint16 {
	v := applyVersions[level]
	if len(known) == 0 {
		return partition.MinApplyVersion
	}
	return max(partition.MinApplyVersion, min(v, slices.Min(known)))
}

// ownVersion returns the newest apply version that this node knows: what the
// replicas of a shard know that has no other.
func ownVersion(replication.ShardID) []uint16 { return []uint16{partition.MaxApplyVersion} }

// recordLevel makes the data directory say that it may hold what the cluster's
// feature level allows, before anything of it is written.
func (b *Broker) recordLevel(level uint16) error {
	if level <= uint16(b.recorded.Load()) {
		return nil
	}
	if err := b.opt.RecordLevel(level); err != nil {
		return fmt.Errorf("broker: feature level %d: %w", level, err)
	}
	b.recorded.Store(uint32(level))
	return nil
}

// raise proposes the apply version that shard s should have, if that is newer
// than the one it has, and returns when it is applied: see settle.
func (r *reconciler) raise(ctx context.Context, giveUp <-chan struct{}, im *metadata.Image, s *dataShard) error {
	want := nextApplyVersion(im.FeatureLevel(), r.b.opt.ReplicaVersions(s.id))
	if want <= s.applyVersion() {
		return nil
	}
	err := r.proposeAll(ctx, giveUp, s, []any{setApplyVersion{want}})
	if errors.Is(err, errGivenUp) {
		return nil // the next pass proposes it again
	}
	if err != nil {
		return fmt.Errorf("raise shard %d to apply version %d: %w", s.id, want, err)
	}
	r.b.opt.Log.Info("apply version raised", "shard", s.id, "version", want)
	return nil
}

// applyVersion returns the apply version that the shard has agreed on, as of the
// last entry applied here. What needs a newer one must not be proposed.
func (s *dataShard) applyVersion() uint16 { return uint16(s.version.Load()) }

// needsNewer adds what to do to the error of an entry, or a checkpoint, that only
// a newer version understands.
func needsNewer(err error) error {
	if errors.Is(err, partition.ErrUnsupported) || errors.Is(err, metadata.ErrUnsupported) {
		return fmt.Errorf("%w: a newer version has written it; start that one on this directory, in which nothing was changed", err)
	}
	return err
}

// published is what a data shard's machine lets others see beside Apply.
type published struct {
	version   atomic.Uint32
	limits    atomic.Pointer[partition.Limits]
	producers atomic.Int64 // remembered

	quarantined atomic.Int64 // partitions, on this replica

	// See succession: another replica's state is in place, and in no checkpoint yet; and
	// the index of the first checkpoint that had one.
	unsettled atomic.Bool
	soundFrom atomic.Uint64
}
