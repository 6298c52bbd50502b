package broker

import (
	"context"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

const (
	// maxDecompressedBytes bounds what a batch may unfold to: what it costs to look
	// through. None of it is kept: see maxUnfoldingBytes.
	maxDecompressedBytes = 256 << 20

	// maxUnfoldingBytes bounds the memory in which batches are decompressed, and
	// compressed anew, all of a node together. One batch may need more, and is then
	// alone: a window of batch.MaxWindowBytes, and the highest level of zstd.
	maxUnfoldingBytes = 40 << 20

	// maxGrownBytes bounds what was made of batches that their topics want to have
	// compressed by another codec, until they are in the log, all of a node together.
	maxGrownBytes = 32 << 20
)

// Unfolding returns the memory in which batches are decompressed.
func (b *Broker) Unfolding() *Budget { return b.unfolding }

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
	if r.b.unfolding.TryAcquire(bytes) {
		return nil
	}
	ctx := r.ctx
	if !r.until.IsZero() {
		timed, cancel := context.WithTimeout(ctx, r.until.Sub(r.b.opt.Now()))
		defer cancel()
		ctx = timed
	}
	switch {
	case r.b.unfolding.Acquire(ctx, bytes) == nil:
		return nil
	case r.b.stopping.Err() != nil:
		return errcode.Errorf(errcode.NotLeaderOrFollower, "the node is stopping")
	}
	return errcode.Errorf(errcode.RequestTimedOut, "no memory in time to decompress a batch in; nothing was appended")
}

// Give implements batch.Room.
func (r *unfoldingRoom) Give(bytes int64) { r.b.unfolding.Release(bytes) }
