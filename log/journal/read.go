package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Read reads the entry at index into r, with fresh bytes that r owns. It
// returns ErrNotFound outside [First, Last], and a *CorruptError if the bytes
// are not those that were written. It may run beside everything but Close, and
// also on a failed journal: what was durable stays readable.
func (s *Shard) Read(index uint64, r *Record) error {
	h, payload, err := s.load(index)
	if err != nil {
		return err
	}
	*r = Record{
		Index:      h.index,
		Term:       h.term,
		AppendedAt: h.appendedAt,
		Type:       h.raftType,
		Extensions: payload[:h.extBytes:h.extBytes],
		Data:       payload[h.extBytes:],
	}
	return nil
}

// load reads and checks the record of an entry.
func (s *Shard) load(index uint64) (recordHeader, []byte, error) {
	j := s.j
	for {
		j.mu.Lock()
		e := s.entryLocked(index)
		if e == nil {
			err := s.absentLocked(index)
			j.mu.Unlock()
			return recordHeader{}, nil, err
		}
		place := *e
		f := j.slots[place.slot]
		seed := f.seed
		j.mu.Unlock()

		b := make([]byte, place.bytes)
		h, err := readRecord(f, seed, place, s.key, index, b)
		if err == nil {
			end := recordHeaderBytes + int(h.payloadBytes)
			return h, b[recordHeaderBytes:end:end], nil
		}
		// The record may have been copied forward, or compacted, and its place
		// used again, between the look-up and the read.
		j.mu.Lock()
		e = s.entryLocked(index)
		same := e != nil && *e == place
		j.mu.Unlock()
		if same {
			return recordHeader{}, nil, err
		}
	}
}

func (s *Shard) absentLocked(index uint64) error {
	if s.dead {
		return s.droppedError()
	}
	return fmt.Errorf("%w: index %d of shard %d, which has [%d, %d]", ErrNotFound, index, s.key.id, s.first, s.lastLocked())
}

// readRecord reads the record at place into b, of place.bytes, and checks that
// it is the one that the index means.
func readRecord(f *file, seed uint32, place entry, key shardKey, index uint64, b []byte) (recordHeader, error) {
	corrupt := func(err error) error {
		return &CorruptError{File: f.path, Offset: place.offset(), LSN: place.order, Err: err}
	}
	if _, err := f.f.ReadAt(b, place.offset()); err != nil {
		switch {
		case errors.Is(err, fs.ErrClosed):
			return recordHeader{}, ErrClosed
		case errors.Is(err, io.EOF):
			return recordHeader{}, corrupt(io.ErrUnexpectedEOF)
		}
		return recordHeader{}, fmt.Errorf("journal: read %s at offset %d: %w", f.path, place.offset(), err)
	}
	h, ok := decodeRecordHeader(b, seed)
	if !ok || h.size() != int64(len(b)) || payloadCRCPadded(b[recordHeaderBytes:]) != h.payloadCRC {
		return recordHeader{}, corrupt(errChecksum)
	}
	if h.kind != kindEntry || h.shard != key.id || h.incarnation != key.incarnation || h.index != index || h.order != place.order {
		return recordHeader{}, corrupt(fmt.Errorf("holds index %d of shard %d, want index %d of shard %d", h.index, h.shard, index, key.id))
	}
	return h, nil
}
