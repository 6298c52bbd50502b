package partition

import "sort"

// EpochStart says that the first batch of a leader epoch is at an offset.
type EpochStart struct {
	Epoch int32
	Start int64
}

// epochHistory lists the epochs that wrote something, oldest first.
//
// Invariant: epochs and starts ascend strictly. The elements of a history are
// never changed in place: captures alias them beside Apply.
type epochHistory []EpochStart

// record notes a batch of epoch at base.
func (h epochHistory) record(epoch int32, base int64) epochHistory {
	n := len(h)
	if n > 0 && h[n-1].Epoch == epoch {
		return h
	}
	if n > 0 && h[n-1].Start == base {
		h = h[: n-1 : n-1] // its records are all below the log start
	}
	return append(h, EpochStart{epoch, base})
}

// from returns the history of what is at or above logStart. The epoch that
// covers logStart starts there.
func (h epochHistory) from(logStart int64) epochHistory {
	i := sort.Search(len(h), func(i int) bool { return h[i].Start > logStart })
	if i == 0 || i == 1 && h[0].Start == logStart {
		return h
	}
	kept := append(epochHistory(nil), h[i-1:]...)
	kept[0].Start = logStart
	return kept
}

// end returns the greatest recorded epoch at or below epoch, and where it ends
// in a log that ends at logEnd. An epoch below all recorded ones answers itself
// and the first start.
func (h epochHistory) end(epoch int32, logEnd int64) EpochEnd {
	i := sort.Search(len(h), func(i int) bool { return h[i].Epoch > epoch })
	e := EpochEnd{Epoch: epoch, End: logEnd}
	if i > 0 {
		e.Epoch = h[i-1].Epoch
	}
	if i < len(h) {
		e.End = h[i].Start
	}
	return e
}
