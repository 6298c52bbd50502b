package control

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// sectorBytes is the unit in which a power cut keeps or loses bytes (package
// vfs). Disks with larger sectors only make the losses coarser.
const sectorBytes = 512

// segment is a scanned segment file.
//
// Invariant: ends[i] is the offset after record first+i, and [0, intact) holds
// exactly those records.
type segment struct {
	name   string
	first  uint64
	data   []byte
	ends   []int
	intact int
}

func (s *segment) next() uint64 { return s.first + uint64(len(s.ends)) }

// accept is given each intact record of a log in turn, before anything on disk
// is changed. It keeps no reference to the payload, and returns ErrVersion or
// errMalformed for a record that the log cannot use.
type accept func(f frame) error

// scan fills s.ends and s.intact from s.data. In the last segment it stops at a
// torn record. Other damage is a *CorruptError for the file at path; a record
// of a newer build is ErrVersion.
func (s *segment) scan(path string, last bool, accept accept) error {
	for s.intact < len(s.data) {
		n, err := checkRecord(s.data[s.intact:], s.next(), accept)
		switch {
		case err == nil:
			s.intact += n
			s.ends = append(s.ends, s.intact)
			continue
		case errors.Is(err, ErrVersion):
			return fmt.Errorf("%w, at byte %d of %s", err, s.intact, path)
		case !last:
			err = fmt.Errorf("%w, in a segment that was synced whole", err)
		case !errors.Is(err, errDamaged): // intact, and wrong
		case !tornAt(s.data, s.intact):
			err = fmt.Errorf("%w, and no part of it is missing", err)
		case durableAfter(s.data, s.intact, s.next()) > s.next():
			err = fmt.Errorf("%w, and a later record says that it was synced", err)
		default:
			return nil
		}
		return &CorruptError{Path: path, Offset: int64(s.intact), Err: err}
	}
	return nil
}

// checkRecord returns the length of the record at the start of b, which has to
// be intact, acceptable and number index.
func checkRecord(b []byte, index uint64, accept accept) (n int, err error) {
	fr, n, ok := splitRecord(b)
	if !ok {
		return 0, fmt.Errorf("%w: does not end within the file", errDamaged)
	}
	f, err := decodeFrame(fr)
	if err != nil {
		return 0, err
	}
	if f.index != index {
		return 0, fmt.Errorf("record %d where %d belongs", f.index, index)
	}
	return n, accept(f)
}

// tornAt reports whether the damaged record at off lacks bytes as a write lacks
// them that a power cut ended. Bytes that were never written read as zeros or
// lie beyond the file's end, since a segment is only ever appended to. So if
// every sector's part of the record holds something, and so does its last byte,
// all of it was written, and has changed since.
func tornAt(data []byte, off int) bool {
	size, w := binary.Uvarint(data[off:])
	if w < 0 {
		return false // an overlong size: not zeros, and not cut off
	}
	head := off + w + headerBytes
	if w == 0 || head > len(data) {
		return true
	}
	if data[head-1] == 0 || lostSector(data, off, head) {
		return true
	}
	if size != payloadLen(data[off+w:])+frameBytes {
		return false
	}
	if size > uint64(len(data)-off-w) {
		return true
	}
	end := off + w + int(size)
	return data[end-1] == 0 || lostSector(data, off, end)
}

// lostSector reports whether [lo, hi) of data, cut at the sectors of the file,
// has a part that is all zeros.
func lostSector(data []byte, lo, hi int) bool {
	for lo < hi {
		end := min(hi, lo-lo%sectorBytes+sectorBytes)
		if allZero(data[lo:end]) {
			return true
		}
		lo = end
	}
	return false
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// durableAfter returns the greatest durable field of the intact records that
// follow the damaged record index at off, or 0. Record bounds are lost with the
// damage, so it looks for a frame at every byte.
func durableAfter(data []byte, off int, index uint64) uint64 {
	var durable uint64
	for p := off + 1; p+frameBytes <= len(data); {
		b := data[p:]
		n := payloadLen(b) + frameBytes
		if b[26] != frameVersion || n > uint64(len(b)) || binary.LittleEndian.Uint64(b[8:]) <= index {
			p++
			continue
		}
		f, err := decodeFrame(b[:n])
		if err != nil {
			p++
			continue
		}
		durable = max(durable, f.durable)
		p += int(n)
	}
	return durable
}
