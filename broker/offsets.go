package broker

import (
	"context"
	"errors"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition/store"
)

// maxLookups is how many look-ups by time a node works on at once: each may
// hold a batch.
const maxLookups = 4

// NeedsDisk reports whether the answer may have to be read from disk, so that
// who reads a connection must not wait for it.
func (p *OffsetPart) NeedsDisk() bool { return p.At == OffsetForTime || p.At == OffsetMaxTimestamp }

// Offset answers one OffsetPart. It may wait for disks, or its turn at them, at
// most until ctx ends, if NeedsDisk.
func (b *Broker) Offset(ctx context.Context, part OffsetPart) OffsetResult {
	return b.Offsets(ctx, []OffsetPart{part})[0]
}

func (b *Broker) offset(ctx context.Context, part *OffsetPart) (OffsetResult, *errcode.Error) {
	p, refused := b.led(part.Topic, part.Index, part.Epoch)
	if refused != nil {
		return OffsetResult{}, refused
	}
	if part.NeedsDisk() {
		return b.offsetByTime(ctx, p, part)
	}
	start, end, err := p.shard.store.Bounds(uint32(p.number))
	if err != nil {
		return OffsetResult{}, CodeOf(err)
	}
	r := OffsetResult{Offset: end, TimestampMS: -1, Epoch: p.epoch()}
	if part.At == OffsetEarliest {
		r.Offset = start
		if epoch := p.shard.machine.epochAt(p.number, start); epoch >= 0 {
			r.Epoch = epoch // of the record that is there
		}
	}
	return r, nil
}

func (b *Broker) offsetByTime(ctx context.Context, p *placed, part *OffsetPart) (OffsetResult, *errcode.Error) {
	if part.At == OffsetForTime && part.TimestampMS < 0 {
		return OffsetResult{}, errcode.Errorf(errcode.InvalidRequest, "timestamp %d; give milliseconds since 1970, at least 0", part.TimestampMS)
	}
	select {
	case b.lookups <- struct{}{}:
		defer func() { <-b.lookups }()
	case <-ctx.Done():
		return OffsetResult{}, errcode.Errorf(errcode.RequestTimedOut, "no turn at the disk in time")
	}
	lim := batch.Limits{MaxDecompressedBytes: maxDecompressedBytes, Room: &unfoldingRoom{b: b, ctx: ctx}}
	var at store.TimedOffset
	var found bool
	var err error
	if part.At == OffsetMaxTimestamp {
		at, found, err = p.shard.store.MaxTimestamp(uint32(p.number), lim)
	} else {
		at, found, err = p.shard.store.OffsetForTime(uint32(p.number), part.TimestampMS, lim)
	}
	switch {
	case errors.Is(err, store.ErrUnknownPartition), errors.Is(err, store.ErrClosed), errors.Is(err, batch.ErrNoRoom):
		return OffsetResult{}, CodeOf(err)
	case err != nil: // what a batch is found to be by now is the storage's fault
		return OffsetResult{}, &errcode.Error{Code: errcode.KafkaStorageError, Detail: err.Error()}
	case !found:
		return OffsetResult{Offset: -1, TimestampMS: -1, Epoch: -1}, nil
	}
	return OffsetResult{Offset: at.Offset, TimestampMS: at.TimestampMS, Epoch: at.LeaderEpoch}, nil
}
