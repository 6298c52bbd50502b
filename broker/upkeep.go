package broker

import (
	"context"
	"errors"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

const (
	defaultProducerExpiry = 24 * time.Hour
	defaultHashInterval   = 10 * time.Minute

	// expiryChecks is how often idle producers are looked for while one becomes
	// old enough to expire, so that it goes at most a tenth later.
	expiryChecks = 10

	// expiryBatch is how many producers one command lists: few enough for the
	// smallest journal file.
	expiryBatch = 250
)

// upkeep does what the leader of a data shard does by itself as time goes by: it
// lets idle producers expire (R2), and asks for state hashes (R4).
//
// It has no clock: tick is told the time.
type upkeep struct {
	b          *Broker
	expireAt   time.Time                      // of the next look for idle producers
	hashAt     time.Time                      // of the next state hashes
	hashedUpTo map[replication.ShardID]uint64 // the entry that asked last
}

func newUpkeep(b *Broker, now time.Time) *upkeep {
	return &upkeep{
		b: b, expireAt: now.Add(b.expiryPeriod()), hashAt: now.Add(b.opt.HashInterval),
		hashedUpTo: make(map[replication.ShardID]uint64),
	}
}

func (b *Broker) expiryPeriod() time.Duration {
	return max(b.opt.ProducerExpiry/expiryChecks, time.Second)
}

// run ticks for as long as the broker runs.
func (u *upkeep) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-u.b.stopping.Done():
			return
		}
		now := u.b.opt.Now()
		timer.Reset(u.tick(u.b.stopping, now).Sub(now))
	}
}

// tick does what is due at now, and returns when the next is.
func (u *upkeep) tick(ctx context.Context, now time.Time) (next time.Time) {
	if !now.Before(u.expireAt) {
		u.expireAt = now.Add(u.b.expiryPeriod())
		u.each("idle producers could not be expired; trying again later", func(s *dataShard) error {
			return u.expire(ctx, s, now)
		})
	}
	if !now.Before(u.hashAt) {
		u.hashAt = now.Add(u.b.opt.HashInterval)
		u.each("the state hash could not be asked for; trying again later", func(s *dataShard) error {
			return u.ask(ctx, s)
		})
	}
	if u.hashAt.Before(u.expireAt) {
		return u.hashAt
	}
	return u.expireAt
}

// each calls do for the shards that this node leads.
func (u *upkeep) each(failed string, do func(*dataShard) error) {
	for _, s := range u.b.carried() {
		if s.replica.Leading() == 0 {
			continue
		}
		if err := do(s); err != nil && u.b.stopping.Err() == nil && !errors.Is(err, replication.ErrStopped) {
			u.b.opt.Log.Warn(failed, "shard", s.id, "err", err)
		}
	}
}

// expire forgets the producers of s that appended nothing for ProducerExpiry,
// by the shard clock as it will be: the entry's wall clock moves it on. The work
// is proportional to what expires.
func (u *upkeep) expire(ctx context.Context, s *dataShard, now time.Time) error {
	if s.applyVersion() < partition.ExpireVersion {
		return nil
	}
	for {
		idle := s.machine.idleProducers(now.UnixMilli(), u.b.opt.ProducerExpiry.Milliseconds(), expiryBatch)
		if len(idle.Producers) == 0 {
			return nil
		}
		if err := u.b.reconciler.proposeAll(ctx, nil, s, []any{idle}); err != nil {
			return err
		}
	}
}

// ask has s report its state hash, unless nothing happened since the last time.
func (u *upkeep) ask(ctx context.Context, s *dataShard) error {
	if s.replica.Applied() <= u.hashedUpTo[s.id] {
		return nil
	}
	if err := u.b.reconciler.proposeAll(ctx, nil, s, []any{askHash{}}); err != nil {
		return err
	}
	u.hashedUpTo[s.id] = s.replica.Applied()
	return nil
}

// AskStateHash has every replica of a data shard that this node leads report its
// state hash (see Options.OnStateHash and StateHashes), and returns when the
// request is applied here.
func (b *Broker) AskStateHash(ctx context.Context, shard uint32) error {
	s := b.carried()[replication.ShardID(shard)]
	if s == nil {
		return errcode.Errorf(errcode.ResourceNotFound, "this node has no data shard %d", shard)
	}
	return b.reconciler.proposeAll(ctx, nil, s, []any{askHash{}})
}
