package journal

import (
	"fmt"
)

// ShardID names a shard: a Raft group, of which a node has one replica.
type ShardID uint32

// Record is one entry of a shard's log.
type Record struct {
	Index, Term uint64
	AppendedAt  int64 // Unix nanoseconds; 0 is the zero time
	Type        uint8 // Raft's log type
	Extensions  []byte
	Data        []byte
}

// shardKey names the log of one incarnation of a shard.
type shardKey struct {
	id          ShardID
	incarnation uint64
}

// entry is where one record lies. A full ring of small records has millions of
// them: keep it at 32 bytes.
type entry struct {
	order    uint64
	term     uint64
	slot     uint32
	units    uint32 // offset in the file, in units of alignBytes
	bytes    uint32 // on disk, with header and padding
	raftType uint8
}

func (e *entry) offset() int64 { return int64(e.units) * alignBytes }

// Shard is the log of one incarnation of a shard.
//
// Append, TruncateFrom and Drop are for one goroutine at a time (raft's, in
// practice); everything else is safe beside them and beside each other. What is
// read is durable: an entry is seen from the moment that Append could return.
type Shard struct {
	j   *Journal
	key shardKey

	// Guarded by j.mu.
	first   uint64  // index of entries[0]
	entries []entry // contiguous by index
	bytes   int64   // on disk, of entries
	busy    bool    // an Append, TruncateFrom or Drop is under way
	dead    bool    // dropped or replaced

	applied      uint64         // what Commit and Compact said
	unapplied    int64          // on-disk bytes of entries above applied
	reservations []*Reservation // not used up, oldest first
	reserved     int64          // sum of what is left of them
}

// Shard returns the log of one incarnation of a shard, empty if the journal
// holds none. All other incarnations of id are dead from then on: their records
// free their space, and handles to them return ErrDropped. Nothing of that is
// written; after a restart the same call is due again.
func (j *Journal) Shard(id ShardID, incarnation uint64) *Shard {
	j.mu.Lock()
	defer j.mu.Unlock()
	key := shardKey{id, incarnation}
	for k, s := range j.shards {
		if k.id == id && k != key {
			j.killLocked(s)
		}
	}
	s := j.shards[key]
	if s == nil {
		s = &Shard{j: j, key: key}
		j.shards[key] = s
	}
	j.grantLocked()
	return s
}

// Append appends recs and returns once they are durable.
//
// recs[0].Index must be Last()+1, or is free if the log is empty, and each next
// index one more; else Append returns ErrGap. A record above MaxRecordBytes is
// ErrTooLarge. Both write nothing. The records become contiguous in the journal
// except where a file ends; a crash keeps a prefix of them.
//
// Append never waits for space, only for the disk: see Reserve, whose bytes of
// this shard it uses up. It reads recs until it returns and keeps no reference.
func (s *Shard) Append(recs []Record) error {
	if len(recs) == 0 {
		return nil
	}
	crcs := make([]uint32, len(recs))
	var size int64
	for i := range recs {
		r := &recs[i]
		if n := int64(len(r.Extensions)) + int64(len(r.Data)); n > s.j.MaxRecordBytes() {
			return fmt.Errorf("%w: entry %d of %d bytes, limit %d", ErrTooLarge, r.Index, n, s.j.MaxRecordBytes())
		}
		if r.Index != recs[0].Index+uint64(i) || r.Index == 0 {
			return fmt.Errorf("%w: entry %d at position %d after %d", ErrGap, r.Index, i, recs[0].Index)
		}
		crcs[i] = payloadCRC(r.Extensions, r.Data)
		size += RecordBytes(len(r.Data), len(r.Extensions))
	}
	return s.submit(&request{s: s, kind: kindEntry, recs: recs, crcs: crcs, bytes: size})
}

// TruncateFrom removes the entries from index on and returns once that is
// durable. It is how Raft replaces a conflicting suffix. An index above Last
// changes nothing and writes nothing.
func (s *Shard) TruncateFrom(index uint64) error {
	return s.submit(&request{s: s, kind: kindTruncate, from: index})
}

// Drop removes the log for ever and returns once that is durable: its replica
// is gone. All later calls on it return ErrDropped.
func (s *Shard) Drop() error {
	return s.submit(&request{s: s, kind: kindDrop})
}

// submit queues req and waits until it is committed. If nobody writes, the
// caller does: a lone append is not handed from goroutine to goroutine.
func (s *Shard) submit(req *request) error {
	j := s.j
	j.mu.Lock()
	queued, err := s.enqueueLocked(req)
	reqs := j.takeLocked()
	j.mu.Unlock()
	if len(reqs) > 0 {
		j.commit(reqs)
		signal(j.wake) // for what has come in meanwhile, or the mark
	}
	if err != nil || !queued {
		return err
	}
	return <-req.done
}

// enqueueLocked checks req against the log and queues it. It returns false if
// there is nothing to do.
func (s *Shard) enqueueLocked(req *request) (bool, error) {
	j := s.j
	if err := j.usableLocked(); err != nil {
		return false, err
	}
	if s.dead {
		return false, s.droppedError()
	}
	if s.busy {
		panic("journal: concurrent writes to one shard")
	}
	last := s.lastLocked()
	switch req.kind {
	case kindEntry:
		if first := req.recs[0].Index; len(s.entries) > 0 && first != last+1 {
			return false, fmt.Errorf("%w: first entry %d, last in the log %d", ErrGap, first, last)
		}
		s.consumeLocked(req.bytes)
		j.space.queued += req.bytes
	case kindTruncate:
		if req.from > last {
			return false, nil
		}
	}
	s.busy = true
	req.done = make(chan error, 1)
	j.queue = append(j.queue, req)
	return true, nil
}

// Compact says that the entries up to and with upTo are no longer needed: a
// durable checkpoint covers them. Their space is free at once.
//
// It is not written. After a restart some or all of them can be back: Compact
// again, up to the checkpoint, before First and Last are believed.
func (s *Shard) Compact(upTo uint64) {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	s.commitLocked(upTo)
	if len(s.entries) == 0 || upTo < s.first {
		return
	}
	n := min(upTo-s.first+1, uint64(len(s.entries)))
	for i := range s.entries[:n] {
		s.freeLocked(&s.entries[i])
	}
	s.entries = s.entries[n:]
	s.first += n
	if len(s.entries) == 0 {
		s.entries = nil // let go of the array
	}
	s.j.freedLocked()
}

// Commit says that the entries up to and with upTo are applied, so that a
// checkpoint can free them. Those above count against the shard's share of the
// ring: see Reserve.
func (s *Shard) Commit(upTo uint64) {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	s.commitLocked(upTo)
	s.j.grantLocked()
}

func (s *Shard) commitLocked(upTo uint64) {
	if upTo <= s.applied {
		return
	}
	for i := max(s.applied+1, s.first); i <= min(upTo, s.lastLocked()); i++ {
		s.addUnappliedLocked(-int64(s.entries[i-s.first].bytes))
	}
	s.applied = upTo
}

// Affordable returns the first index of the entries up to and with upTo that may
// be kept beyond need: those of all shards together take half of what the ring
// may hold, in equal shares. A ring that a full disk keeps from growing holds
// what it has. What lies in the oldest file is not kept if it is in the way there: a
// restart brings back what had been let go of, and the disk may be full.
func (s *Shard) Affordable(upTo uint64) uint64 {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	share, cramped := s.shareLocked(), s.j.crampedLocked()
	at := upTo + 1
	for e := s.entryLocked(at - 1); e != nil; e = s.entryLocked(at - 1) {
		if share -= int64(e.bytes); share < 0 || cramped && e.slot == s.j.files[0].slot {
			break
		}
		at--
	}
	return at
}

// shareLocked returns how many bytes may be kept of this shard beyond need; see
// Affordable.
func (s *Shard) shareLocked() int64 {
	files := s.j.maxFiles
	if s.j.diskFull {
		files = min(files, len(s.j.files))
	}
	return s.j.limitOf(files) / 2 / int64(max(len(s.j.shards), 1))
}

func (s *Shard) addUnappliedLocked(n int64) {
	s.unapplied += n
	s.j.space.unapplied += n
}

// First returns the index of the first entry, 0 if there is none.
func (s *Shard) First() uint64 {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	if len(s.entries) == 0 {
		return 0
	}
	return s.first
}

// Last returns the index of the last durable entry, 0 if there is none.
func (s *Shard) Last() uint64 {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	return s.lastLocked()
}

func (s *Shard) lastLocked() uint64 {
	if len(s.entries) == 0 {
		return 0
	}
	return s.first + uint64(len(s.entries)) - 1
}

// Head returns the term of an entry and its type, from memory; false if it is
// not there.
func (s *Shard) Head(index uint64) (term uint64, raftType uint8, ok bool) {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	if e := s.entryLocked(index); e != nil {
		return e.term, e.raftType, true
	}
	return 0, 0, false
}

func (s *Shard) entryLocked(index uint64) *entry {
	if index < s.first || index-s.first >= uint64(len(s.entries)) {
		return nil
	}
	return &s.entries[index-s.first]
}

func (s *Shard) droppedError() error {
	return fmt.Errorf("%w: shard %d, incarnation %x", ErrDropped, s.key.id, s.key.incarnation)
}

func (s *Shard) infoLocked() ShardInfo {
	info := ShardInfo{ID: s.key.id, Incarnation: s.key.incarnation, Bytes: s.bytes}
	if len(s.entries) > 0 {
		info.First, info.Last = s.first, s.lastLocked()
		info.OldestLSN = s.entries[0].order
	}
	return info
}

// insertLocked adds a durable entry at index. An index that does not continue
// the log replaces it: Append allows that only on an empty log, so what
// recovery still holds of it was compacted.
func (s *Shard) insertLocked(index uint64, e entry) {
	if len(s.entries) == 0 || index != s.lastLocked()+1 {
		s.truncateLocked(0)
		s.first = index
	}
	s.entries = append(s.entries, e)
	s.bytes += int64(e.bytes)
	s.j.space.live += int64(e.bytes)
	s.j.slots[e.slot].live += int64(e.bytes)
	if index > s.applied {
		s.addUnappliedLocked(int64(e.bytes))
	}
}

// truncateLocked removes the entries from index on.
func (s *Shard) truncateLocked(index uint64) {
	if len(s.entries) == 0 || index > s.lastLocked() {
		return
	}
	keep := max(index, s.first) - s.first
	for i := range s.entries[keep:] {
		e := &s.entries[keep+uint64(i)]
		s.freeLocked(e)
		if s.first+keep+uint64(i) > s.applied {
			s.addUnappliedLocked(-int64(e.bytes))
		}
	}
	s.entries = s.entries[:keep]
}

// freeLocked takes an entry's bytes off the accounts; the caller removes it.
func (s *Shard) freeLocked(e *entry) {
	s.bytes -= int64(e.bytes)
	s.j.space.live -= int64(e.bytes)
	s.j.slots[e.slot].live -= int64(e.bytes)
}

// killLocked ends a log: it was dropped, or another incarnation took its place.
func (j *Journal) killLocked(s *Shard) {
	s.truncateLocked(0)
	s.entries = nil
	s.dead = true
	for _, r := range s.reservations {
		j.space.reserved -= r.left
		r.left = 0
	}
	s.reservations, s.reserved = nil, 0
	delete(j.shards, s.key)
	j.freedLocked()
}

// freedLocked follows every release of live bytes: files may be free for their
// next use, and reservations may pass.
func (j *Journal) freedLocked() {
	if j.planLocked() != planNothing {
		signal(j.prepare)
	}
	j.grantLocked()
}

// Dir returns the directory of the journal.
func (s *Shard) Dir() string { return s.j.dir }
