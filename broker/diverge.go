package broker

import (
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// FetchedPart says what a reader has of a partition: everything below Offset,
// the last of it of the leader epoch Epoch.
type FetchedPart struct {
	Topic   TopicID
	Index   int32
	Offset  int64
	Epoch   int32  // at least 0
	Current int32  // newest leader epoch that the reader knows, -1: none
	Rack    string // as in FetchRequest
}

// Divergence is where a reader's records and the log's part: its greatest epoch
// at or below the reader's ends at End.
type Divergence struct {
	Epoch int32
	End   int64

	LogStart, HighWatermark int64 // of the partition then
}

// Diverges says where a reader's records are not the log's any more, if so
// (KIP-320). An epoch above the partition's is OFFSET_OUT_OF_RANGE, as in Kafka.
// An offset below the log start does not diverge: reading says what it is.
// A follower does not say: it may not have the epochs that the reader has, and the
// leader is where the reader comes back to if its offset is not there.
// confirmed is that of the request, whose parts share it.
func (b *Broker) Diverges(part FetchedPart, confirmed *Confirmed) (Divergence, bool, *errcode.Error) {
	if p := b.dir.find(part.Topic, part.Index); p != nil && b.mayFollow(p, part.Rack) {
		return Divergence{}, false, nil
	}
	p, err := b.led(part.Topic, part.Index, part.Current)
	if err != nil {
		return Divergence{}, false, err
	}
	end, code := p.shard.machine.epochEnd(p.number, part.Epoch)
	switch code {
	case errcode.None:
	case errcode.UnknownLeaderEpoch:
		return Divergence{}, false, errcode.Errorf(errcode.OffsetOutOfRange,
			"records of leader epoch %d, and partition %d is in %d", part.Epoch, part.Index, p.epoch())
	default:
		return Divergence{}, false, errcode.Errorf(code, "partition %d was deleted meanwhile", part.Index)
	}
	start, high, boundsErr := p.shard.store.Bounds(uint32(p.number))
	switch {
	case boundsErr != nil:
		return Divergence{}, false, CodeOf(boundsErr)
	case part.Offset < start, end.Epoch == part.Epoch && part.Offset <= end.End:
		return Divergence{}, false, nil
	case !confirmed.current(b, p): // a deposed leader has an older end (R19)
		return Divergence{}, false, errcode.Errorf(errcode.OffsetNotAvailable,
			"offset %d is not of leader epoch %d here, and this node may not lead any more", part.Offset, part.Epoch)
	}
	return Divergence{Epoch: end.Epoch, End: end.End, LogStart: start, HighWatermark: high}, true, nil
}
