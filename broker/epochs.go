package broker

import (
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
)

// EpochPart asks where a leader epoch of a partition ends.
type EpochPart struct {
	Topic   TopicID
	Index   int32
	Current int32 // newest leader epoch that the client knows, -1: none
	Epoch   int32 // that is asked for, at least 0
}

// EpochResult answers one EpochPart: the greatest epoch at or below the one that
// was asked for that wrote something, and the offset behind its last record
// (R16). With Err, both are -1.
type EpochResult struct {
	Err   *errcode.Error
	Epoch int32
	End   int64

	LogStart, HighWatermark int64 // of the partition then; -1 if unknown
}

// EpochEnd answers one EpochPart. An epoch above the partition's is
// UNKNOWN_LEADER_EPOCH.
func (b *Broker) EpochEnd(part EpochPart) EpochResult {
	r := EpochResult{Epoch: -1, End: -1, LogStart: -1, HighWatermark: -1}
	p := b.dir.find(part.Topic, part.Index)
	switch {
	case p == nil:
		r.Err = b.absent(part.Topic, part.Index)
		return r
	case p.quarantined():
		r.Err = b.quarantineError(p, p.quarantine)
		return r
	}
	if r.Err = p.checkEpoch(part.Current); r.Err != nil {
		return r
	}
	end, v, code := p.shard.machine.epochEnd(p.number, part.Epoch)
	if code != errcode.None {
		r.Err = errcode.Errorf(code, "leader epoch %d of partition %d, which is in %d", part.Epoch, part.Index, p.epoch())
		return r
	}
	r.Epoch, r.End, r.LogStart, r.HighWatermark = end.Epoch, end.End, v.LogStart, v.End
	return r
}

func (m *machine) epochEnd(n partition.Number, epoch int32) (partition.EpochEnd, partition.View, errcode.Code) {
	m.mu.Lock()
	defer m.mu.Unlock()
	end, code := m.state.EpochEnd(n, epoch)
	v, _ := m.state.Partition(n)
	return end, v, code
}
