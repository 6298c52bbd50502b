//go:build linux

package main

import (
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
)

// blockRecords is how many offsets share one sum. What a partition once held is
// remembered as one number for each block: bounded, whatever the soak's length.
const blockRecords = 256

// value is what one record stands for: the n-th that a producer sent to the
// record's partition, counted from 0. Producers have a number that is never
// used again.
type value struct {
	producer uint32
	n        uint64
}

// ledger is what is known of one partition, and checks what is read of it
// against that. Its rules:
//
//   - Offsets have no gaps above the log start.
//   - A producer's values come in its order, each once, without gaps.
//   - What was acknowledged stands at the offset that was answered.
//   - An offset that was read holds the same record whenever it is read again.
//   - A log start or a high watermark never goes back.
//
// Safe for concurrent use.
type ledger struct {
	name string

	mu      sync.Mutex
	next    int64             // what the main reader expects
	start   int64             // highest log start seen
	seen    map[uint32]uint64 // by producer: the n that the main reader expects of it
	jumped  bool              // retention took what the main reader had not read
	acked   map[int64]value   // answered and not yet read by the main reader
	expired int64             // acknowledged, and retention took it before it was read
	retired map[uint32]bool   // producers that gave something up

	sums  map[int64]uint32 // of complete blocks, by their number
	sum   uint32           // of the block that is being read
	whole bool             // it was read from its first offset on
}

func newLedger(name string) *ledger {
	return &ledger{
		name: name, whole: true,
		seen: make(map[uint32]uint64), acked: make(map[int64]value),
		retired: make(map[uint32]bool), sums: make(map[int64]uint32),
	}
}

// record is one record as it was read.
type record struct {
	offset int64
	value  value
	sum    uint32 // of its bytes
}

// ack notes that v was acknowledged at offset.
func (l *ledger) ack(offset int64, v value) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, ok := l.acked[offset]; ok && other != v {
		return fmt.Errorf("%s: offset %d was answered for %+v and for %+v", l.name, offset, other, v)
	}
	if offset < l.next {
		// The main reader was there first, and counted: the value was below what
		// it now expects of the producer.
		if n := l.seen[v.producer]; v.n >= n && !l.jumped {
			return fmt.Errorf("%s: %+v was acknowledged at %d, and the reader, which is at %d, has not seen it", l.name, v, offset, l.next)
		}
		return nil
	}
	l.acked[offset] = v
	return nil
}

// retire says that a producer gave something up: from now on it may leave gaps.
func (l *ledger) retire(producer uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired[producer] = true
}

// read takes what the main reader got, in order, with the log start that came
// with it.
func (l *ledger) read(logStart int64, records []record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.moveStart(logStart); err != nil {
		return err
	}
	for _, r := range records {
		if err := l.one(r); err != nil {
			return fmt.Errorf("%s: offset %d: %w", l.name, r.offset, err)
		}
	}
	return nil
}

// moveStart notes a log start. -1 says that the server did not know it.
func (l *ledger) moveStart(to int64) error {
	if to < 0 || to == l.start {
		return nil
	}
	// Answers of two connections may cross, so a lower one is only old. What
	// was said to one reader is checked by that reader.
	if to < l.start {
		return nil
	}
	l.start = to
	for b := range l.sums {
		if (b+1)*blockRecords <= to {
			delete(l.sums, b)
		}
	}
	return nil
}

// one takes the next record of the main reader.
func (l *ledger) one(r record) error {
	switch {
	case r.offset < l.next:
		return fmt.Errorf("came again; %d is next", l.next)
	case r.offset > l.next && r.offset > l.start:
		return fmt.Errorf("a gap: %d is next, and the log starts at %d", l.next, l.start)
	case r.offset > l.next:
		l.jump(r.offset)
	}
	if want, ok := l.acked[r.offset]; ok {
		if want != r.value {
			return fmt.Errorf("holds %+v, and was acknowledged for %+v", r.value, want)
		}
		delete(l.acked, r.offset)
	}
	want, known := l.seen[r.value.producer]
	switch n := r.value.n; {
	case n < want:
		return fmt.Errorf("%+v came twice: %d is next of that producer", r.value, want)
	case n > want && !l.retired[r.value.producer] && (known || !l.jumped):
		return fmt.Errorf("%+v: %d of that producer is missing", r.value, want)
	}
	l.seen[r.value.producer] = r.value.n + 1
	l.add(r)
	return nil
}

// jump goes on at an offset, because what was before it is gone.
func (l *ledger) jump(to int64) {
	for offset := range l.acked {
		if offset < to {
			delete(l.acked, offset)
			l.expired++
		}
	}
	l.next, l.whole, l.jumped = to, false, true
	clear(l.seen) // what was skipped may have held anybody's
}

// add adds a record to the sums.
func (l *ledger) add(r record) {
	if r.offset%blockRecords == 0 {
		l.sum, l.whole = 0, true
	}
	l.sum = chain(l.sum, r)
	l.next = r.offset + 1
	if l.next%blockRecords == 0 && l.whole {
		l.sums[r.offset/blockRecords] = l.sum
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chain extends a sum by a record.
func chain(sum uint32, r record) uint32 {
	var b [16]byte
	for i := range 8 {
		b[i] = byte(r.offset >> (8 * i))
	}
	for i := range 4 {
		b[8+i] = byte(r.sum >> (8 * i))
	}
	return crc32.Update(sum, castagnoli, b[:])
}

// ends returns the acknowledged offsets that nobody has read, which must be none
// once the main reader is at the end.
func (l *ledger) unread() (offsets []int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for offset := range l.acked {
		if offset >= l.start {
			offsets = append(offsets, offset)
		}
	}
	slices.Sort(offsets)
	return offsets
}

// position returns where the main reader is.
func (l *ledger) position() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// lost returns how many acknowledged records retention took unread.
func (l *ledger) lost() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expired
}

// replay checks what another reader of the same partition gets, against the sums
// of the main reader. The zero next is set by the first record.
type replay struct {
	l     *ledger
	next  int64 // -1 before the first record
	start int64
	sum   uint32
	whole bool
}

func newReplay(l *ledger) *replay { return &replay{l: l, next: -1} }

// read takes what the reader got, in order. Its blocks count checked.
func (p *replay) read(logStart int64, records []record) (checked int, err error) {
	if logStart >= 0 {
		if logStart < p.start {
			return 0, fmt.Errorf("%s: the log start went back from %d to %d", p.l.name, p.start, logStart)
		}
		p.start = logStart
	}
	for _, r := range records {
		switch {
		case p.next >= 0 && r.offset < p.next:
			return checked, fmt.Errorf("%s: offset %d came again to a reader at %d", p.l.name, r.offset, p.next)
		case p.next >= 0 && r.offset > p.next && r.offset > p.start:
			return checked, fmt.Errorf("%s: a gap: offset %d came to a reader at %d, and the log starts at %d", p.l.name, r.offset, p.next, p.start)
		case r.offset != p.next:
			p.whole = false
		}
		if r.offset%blockRecords == 0 {
			p.sum, p.whole = 0, true
		}
		p.sum, p.next = chain(p.sum, r), r.offset+1
		if p.next%blockRecords == 0 && p.whole {
			ok, err := p.l.matches(r.offset/blockRecords, p.sum)
			if err != nil {
				return checked, err
			}
			if ok {
				checked++
			}
		}
	}
	return checked, nil
}

// matches compares a block's sum with that of the main reader, if it has one.
func (l *ledger) matches(block int64, sum uint32) (known bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	want, known := l.sums[block]
	if known && want != sum {
		return true, fmt.Errorf("%s: offsets %d to %d do not hold what they held: sum %08x, was %08x",
			l.name, block*blockRecords, (block+1)*blockRecords-1, sum, want)
	}
	return known, nil
}
