package broker

import (
	"context"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

const (
	// maxDecompressedBytes bounds what a batch may unfold to: what it costs to look
	// through. None of it is kept: see smallUnfoldingBytes.
	maxDecompressedBytes = 256 << 20

	// The memory in which batches are decompressed, and compressed anew, all of a
	// node together, is in two parts, so that most batches never wait for the few
	// that need much. One that takes at most smallUnfoldBytes has its part of
	// smallUnfoldingBytes: every codec up to zstd's level 9, and a window of 2 MiB
	// beside it. Any other has it of largeUnfoldingBytes, and may need more: a window
	// of batch.MaxWindowBytes, and zstd's highest level; it is then alone there.
	smallUnfoldBytes    = 10 << 20
	smallUnfoldingBytes = 24 << 20
	largeUnfoldingBytes = 16 << 20

	// maxGrownBytes bounds what was made of batches that their topics want to have
	// compressed by another codec, until they are in the log, all of a node together.
	maxGrownBytes = 32 << 20
)

// unfolding is the memory in which a node's batches are decompressed.
type unfolding struct{ small, large *Budget }

func newUnfolding() unfolding {
	return unfolding{small: NewBudget(smallUnfoldingBytes), large: NewBudget(largeUnfoldingBytes)}
}

// of returns which part so many bytes are taken of.
func (u *unfolding) of(bytes int64) *Budget {
	if bytes <= smallUnfoldBytes {
		return u.small
	}
	return u.large
}

// Unfolding returns the memory in which batches are decompressed: of those that
// need little, and of those that need much.
func (b *Broker) Unfolding() (small, large *Budget) { return b.unfolding.small, b.unfolding.large }

// Recompressed returns the memory of what batches were recompressed to, until
// they are in the log.
func (b *Broker) Recompressed() *Budget { return b.grown }

// unfoldingRoom lets one request take of Broker.unfolding. Who holds some never
// waits for anything until it is given back.
type unfoldingRoom struct {
	b     *Broker
	ctx   context.Context
	until time.Time // zero: as long as ctx allows
}

var _ batch.Room = (*unfoldingRoom)(nil)

// Take implements batch.Room.
func (r *unfoldingRoom) Take(bytes int64) error {
	if e := r.await(r.b.unfolding.of(bytes), bytes, "no memory in time to decompress a batch in"); e != nil {
		return e
	}
	return nil
}

// Give implements batch.Room.
func (r *unfoldingRoom) Give(bytes int64) { r.b.unfolding.of(bytes).Release(bytes) }

// await takes bytes of a budget, or waits for them as long as the request may. In
// vain is what the error says after that: nothing was appended.
func (r *unfoldingRoom) await(from *Budget, bytes int64, inVain string) *errcode.Error {
	if from.TryAcquire(bytes) {
		return nil
	}
	ctx := r.ctx
	if !r.until.IsZero() {
		timed, cancel := context.WithTimeout(ctx, r.until.Sub(r.b.opt.Now()))
		defer cancel()
		ctx = timed
	}
	switch {
	case from.Acquire(ctx, bytes) == nil:
		return nil
	case r.b.stopping.Err() != nil:
		return errcode.Errorf(errcode.NotLeaderOrFollower, "the node is stopping; nothing was appended")
	}
	return errcode.Errorf(errcode.RequestTimedOut, "%s; nothing was appended", inVain)
}
