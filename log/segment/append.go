package segment

import (
	"encoding/binary"
	"fmt"

	"github.com/flotilla-log/flotilla/log/batch"
)

// Batch is one committed record batch. Body is the whole batch as it was
// proposed; its first 16 bytes are not used, since readers see others (R1):
// Base, the same length, Epoch. The bytes of Body are never changed.
type Batch struct {
	Base  int64
	Body  []byte
	Last  int32 // last offset - Base
	Epoch int32 // leader epoch
}

// End returns the offset after the batch.
func (b *Batch) End() int64 { return b.Base + int64(b.Last) + 1 }

// MaxTimestamp returns the greatest timestamp of its records, in ms, as its
// header says.
func (b *Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b.Body[35:])) }

func (b *Batch) appendPrefix(dst []byte) []byte {
	var p [batch.PrefixBytes]byte
	batch.PutPrefix(p[:], b.Base, int32(len(b.Body)-12), b.Epoch)
	return append(dst, p[:]...)
}

// AppendTo appends the batch as readers see it to dst.
func (b *Batch) AppendTo(dst []byte) []byte {
	return append(b.appendPrefix(dst), b.Body[batch.PrefixBytes:]...)
}

// Vectors appends to dst the bytes of the batches as readers see them. Batches
// of CopyBytes or more are given as they lie; smaller ones, and prefixes, are
// copied into runs, which share one new buffer.
func Vectors(dst [][]byte, bs []Batch) [][]byte {
	return layOut(dst, make([]byte, 0, runBytes(bs)), bs)
}

// runBytes returns how much of the batches Vectors copies.
func runBytes(bs []Batch) (n int) {
	for i := range bs {
		if len(bs[i].Body) < CopyBytes {
			n += len(bs[i].Body)
		} else {
			n += batch.PrefixBytes
		}
	}
	return n
}

// layOut is Vectors with the runs in run, which is empty and has the capacity.
func layOut(dst [][]byte, run []byte, bs []Batch) [][]byte {
	from := 0
	for i := range bs {
		body := bs[i].Body[batch.PrefixBytes:]
		run = bs[i].appendPrefix(run)
		if len(bs[i].Body) < CopyBytes {
			run = append(run, body...)
			continue
		}
		dst = append(dst, run[from:len(run):len(run)], body)
		from = len(run)
	}
	if from < len(run) {
		dst = append(dst, run[from:])
	}
	return dst
}

// Create makes the files of a new segment in dir, which must exist, and leaves
// them unsynced: they are durable after Sync, and then a sync of dir. Files of
// the same names are replaced.
func Create(files *Files, dir string, h Header) (*Segment, error) {
	s := &Segment{
		files: files, dir: dir, hdr: h,
		st:    startState(h.Base),
		index: indexState{loaded: true, size: indexHeaderBytes, last: -1},
	}
	if err := s.create(); err != nil {
		releaseAll(s.data, s.idx)
		return nil, err
	}
	return s, nil
}

func (s *Segment) create() (err error) {
	if s.data, err = s.files.create(s.Name()); err != nil {
		return err
	}
	if s.idx, err = s.files.create(s.indexName()); err != nil {
		return err
	}
	if _, err = s.data.WriteAt(s.hdr.append(nil), 0); err != nil {
		return fmt.Errorf("segment: write header of %s: %w", s.Name(), err)
	}
	if _, err = s.idx.WriteAt(appendIndexHeader(nil, s.hdr), 0); err != nil {
		return fmt.Errorf("segment: write header of %s: %w", s.indexName(), err)
	}
	return nil
}

// Append writes batches after the last one, as one vectored write, and starts
// their write-back; readers see them when it returns. Nothing is durable
// before Sync. The first batch must start at End, unless the segment is empty
// and starts at it, and each next one where the one before ends.
//
// After an error the segment is as before: bytes past its end are not part of
// it and are written over by the next Append. Whether to go on after an error
// is the caller's decision; only a full disk is safe to retry.
//
// Append keeps no reference to bs.
func (s *Segment) Append(bs []Batch) error {
	s.mu.Lock()
	from, x, sealed := s.st, s.index, s.sealed
	s.mu.Unlock()
	if sealed {
		panic("segment: append to a sealed segment")
	}
	to, es := from, entries{base: s.hdr.Base, last: x.last}
	var prefix [batch.PrefixBytes]byte
	for i := range bs {
		b := &bs[i]
		if b.Base != to.end {
			panic(fmt.Sprintf("segment: append at offset %d, want %d", b.Base, to.end))
		}
		es.note(b.Base, to)
		to = state{
			end:   b.End(),
			size:  to.size + int64(len(b.Body)),
			maxTS: max(to.maxTS, b.MaxTimestamp()),
			sum:   checksum(to.sum, b.appendPrefix(prefix[:0])),
		}
	}
	if to.size > MaxBytes {
		panic(fmt.Sprintf("segment: append makes %d bytes, limit %d", to.size, MaxBytes))
	}
	if err := s.begin(); err != nil {
		return err
	}
	defer s.finish()
	run := s.files.run(runBytes(bs))
	_, err := s.data.WriteVecAt(layOut(nil, *run, bs), from.size)
	s.files.runs.Put(run)
	if err != nil {
		return fmt.Errorf("segment: write %s: %w", s.Name(), err)
	}
	s.data.WriteBack(from.size, to.size-from.size)
	if err := s.addBlock(0, from, to, es); err != nil {
		return err
	}
	if from.size == HeaderBytes && len(bs) > 0 {
		s.setFirstTimestamp(bs[0].MaxTimestamp())
	}
	return nil
}

// addBlock writes a block to the index and publishes the state it reaches.
func (s *Segment) addBlock(flags uint16, from, to state, es entries) error {
	s.mu.Lock()
	at := s.index.size
	s.mu.Unlock()
	raw := appendBlock(nil, flags, from, to, es.list)
	if _, err := s.idx.WriteAt(raw, at); err != nil {
		return fmt.Errorf("segment: write %s: %w", s.indexName(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st = to
	if flags == blockSealed {
		s.index.size += int64(len(raw))
		s.sealed = true
		return nil
	}
	s.index.add(s.hdr.Base, from, len(raw), es.last)
	return nil
}

// begin opens both files for a write, unless earlier writes hold them, and
// keeps a concurrent Sync from letting them go before finish.
func (s *Segment) begin() error {
	s.mu.Lock()
	s.writing = s.data != nil
	held := s.writing
	s.mu.Unlock()
	if held {
		return nil
	}
	data, err := s.files.acquire(s.Name())
	if err != nil {
		return err
	}
	idx, err := s.files.acquire(s.indexName())
	if err != nil {
		data.release()
		return err
	}
	s.mu.Lock()
	s.data, s.idx, s.writing = data, idx, true
	s.mu.Unlock()
	return nil
}

func (s *Segment) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
}

// Seal ends the segment: it takes no more appends. The data file is cut to its
// length, and the index gets its footer. Like an append it is durable after
// the next Sync.
func (s *Segment) Seal() error {
	s.mu.Lock()
	st, x, sealed := s.st, s.index, s.sealed
	s.mu.Unlock()
	if sealed || s.damage != nil {
		return nil
	}
	if err := s.begin(); err != nil {
		return err
	}
	defer s.finish()
	size, err := s.data.Size()
	if err == nil && size > st.size {
		err = s.data.Truncate(st.size)
	}
	if err != nil {
		return fmt.Errorf("segment: seal %s: %w", s.Name(), err)
	}
	return s.addBlock(blockSealed, st, st, entries{last: x.last})
}

// Sync makes durable every batch that was appended before the call, and the
// index to it. The names of the files are the directory's to sync. It does
// nothing if nothing was written since the last Sync. After an error nothing
// is known of the bytes written since the last good one: the caller must stop
// (R9).
func (s *Segment) Sync() error {
	s.mu.Lock()
	st, size, gone := s.st, s.index.size, s.gone
	var data, idx *handle
	if s.data != nil {
		data, idx = s.data.retain(), s.idx.retain()
	}
	s.mu.Unlock()
	defer releaseAll(data, idx)
	if data == nil || gone {
		return nil
	}
	for _, h := range []*handle{data, idx} {
		if err := h.SyncData(); err != nil {
			return fmt.Errorf("segment: sync %s: %w", h.name, err)
		}
	}
	s.mu.Lock()
	var heldData, heldIdx *handle
	if !s.writing && s.st == st && s.index.size == size {
		heldData, heldIdx = s.takeHoldLocked()
	}
	s.mu.Unlock()
	releaseAll(heldData, heldIdx)
	return nil
}
