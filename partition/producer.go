package partition

import "math"

// windowBatches is how many of its last batches a producer may send again, as
// in Kafka: clients keep at most five requests in flight.
const windowBatches = 5

// producer is one producer's recent past on one partition.
//
// Invariant: its window holds at least one batch, all of epoch.
type producer struct {
	id     ProducerID
	part   *part
	epoch  int16
	lastMS int64 // shard clock at its last append

	// timestamp is the newest of its last batch, in ms, or NoTime if that came before
	// TimestampVersion: all replicas have to know it, or none.
	timestamp int64

	window window

	// Its place in the order of last appends over the whole shard.
	stamp      uint64
	prev, next *producer

	noted bool // is in part.changed
}

// note keeps pr for the next capture.
func (pr *producer) note() {
	if !pr.noted {
		pr.noted = true
		pr.part.changed = append(pr.part.changed, pr)
	}
}

// idle returns pr as an ExpireProducers lists it.
func (pr *producer) idle() IdleProducer {
	return IdleProducer{Number: pr.part.number, ID: pr.id, Epoch: pr.epoch, LastSequence: pr.window.at(int(pr.window.count) - 1).last}
}

// appended is a batch that a producer appended.
type appended struct {
	first, last int32 // sequences
	base        int64 // offset of the first record
	appendMS    int64 // the log append time answered, or NoTime
}

// lastOffset returns the offset of the batch's last record.
func (b appended) lastOffset() int64 {
	return b.base + int64((b.last-b.first)&math.MaxInt32)
}

// window holds the last batches of a producer, as a ring.
//
// Invariant: each batch starts at the sequence after the one before it, and at
// a higher offset.
type window struct {
	ring  [windowBatches]appended
	start uint8 // of the oldest
	count uint8
}

func (w *window) clear() { *w = window{} }

// at returns the i-th oldest batch.
func (w *window) at(i int) appended { return w.ring[(int(w.start)+i)%windowBatches] }

// push appends b, and drops the oldest batch if the window is full.
func (w *window) push(b appended) {
	if w.count == windowBatches {
		w.start = (w.start + 1) % windowBatches
		w.count--
	}
	w.ring[(w.start+w.count)%windowBatches] = b
	w.count++
}

// find returns the batch with both sequences.
func (w *window) find(first, last int32) (appended, bool) {
	for i := range int(w.count) {
		if b := w.at(i); b.first == first && b.last == last {
			return b, true
		}
	}
	return appended{}, false
}

// next returns the sequence that continues the window.
func (w *window) next() int32 { return addSequence(w.at(int(w.count)-1).last, 1) }

// addSequence returns seq + n. Sequences wrap from math.MaxInt32 to 0.
func addSequence(seq, n int32) int32 {
	return int32((int64(seq) + int64(n)) & math.MaxInt32)
}

// recency orders the producers of a shard by their last append.
//
// The order is part of the state, because the limit on producers acts on it:
// a producer's stamp is the count of appends, over the shard, at its last one.
type recency struct {
	head, tail *producer // oldest, newest
	count      int
	stamp      uint64 // the newest given
}

func (r *recency) oldest() *producer { return r.head }

// touch makes pr, which may be new, the newest.
func (r *recency) touch(pr *producer) {
	r.stamp++
	if pr.stamp != 0 {
		r.remove(pr)
	}
	r.push(pr, r.stamp)
}

// push adds pr as the newest. stamp is above all others.
func (r *recency) push(pr *producer, stamp uint64) {
	pr.stamp, pr.prev, pr.next = stamp, r.tail, nil
	if r.tail == nil {
		r.head = pr
	} else {
		r.tail.next = pr
	}
	r.tail = pr
	r.count++
}

// has reports whether pr is in the order: a panic may have left it outside.
func (r *recency) has(pr *producer) bool { return pr.prev != nil || pr.next != nil || r.head == pr }

func (r *recency) remove(pr *producer) {
	if pr.prev == nil {
		r.head = pr.next
	} else {
		pr.prev.next = pr.next
	}
	if pr.next == nil {
		r.tail = pr.prev
	} else {
		pr.next.prev = pr.prev
	}
	pr.prev, pr.next = nil, nil
	r.count--
}
