package journal

import (
	"fmt"
	"math"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// windowBytes is what a scan reads at a time.
const windowBytes = 1 << 20

// window reads a file in large steps.
type window struct {
	f    vfs.File
	name string
	size int64
	buf  []byte
	off  int64 // of buf in the file
}

// at returns bytes [off, off+n) of the file, which holds them. They are valid
// until the next call.
func (w *window) at(off, n int64) ([]byte, error) {
	if off < w.off || off+n > w.off+int64(len(w.buf)) {
		want := min(max(n, windowBytes), w.size-off)
		if int64(cap(w.buf)) < want {
			w.buf = make([]byte, want)
		}
		w.buf, w.off = w.buf[:want], off
		if _, err := w.f.ReadAt(w.buf, off); err != nil {
			w.buf = w.buf[:0]
			return nil, fmt.Errorf("journal: read %s at offset %d: %w", w.name, off, err)
		}
	}
	return w.buf[off-w.off:][:n], nil
}

// scanRecords visits the intact records of f whose LSNs go on from expect, or
// start anywhere if expect is 0. It returns where the first other byte lies and
// the LSN that is expected there.
func scanRecords(f *file, size int64, expect uint64, visit func(h *recordHeader, offset int64)) (end int64, next uint64, err error) {
	w := &window{f: f.f, name: f.path, size: size}
	var h recordHeader // one for all: visit makes it escape
	for end = headerBytes; end+recordHeaderBytes <= size; {
		b, err := w.at(end, recordHeaderBytes)
		if err != nil {
			return 0, 0, err
		}
		var ok bool
		if h, ok = decodeRecordHeader(b, f.seed); !ok || expect != 0 && h.lsn != expect || end+h.size() > size {
			break
		}
		expect = h.lsn // known even if the payload is damaged
		if err := h.check(); err != nil {
			return 0, 0, fmt.Errorf("%s at offset %d, LSN %d: %w", f.path, end, h.lsn, err)
		}
		if b, err = w.at(end+recordHeaderBytes, h.size()-recordHeaderBytes); err != nil {
			return 0, 0, err
		}
		if payloadCRCPadded(b) != h.payloadCRC {
			break
		}
		visit(&h, end)
		end += h.size()
		expect = h.lsn + 1
	}
	return end, expect, nil
}

// stray is what the search past the last intact record of a file found: intact
// record headers.
type stray struct {
	found       int
	first, end  int64  // offsets of the first one, and behind the last one
	firstLSN    uint64 // of the first one
	minLSN      uint64 // of them
	least, most uint64 // of their synced LSNs
}

// searchHeaders looks for record headers in f from offset from on, at every
// place where one could be. Only the present use's salt lets one pass.
func searchHeaders(f *file, size, from int64) (stray, error) {
	const step = windowBytes
	s := stray{minLSN: math.MaxUint64, least: math.MaxUint64}
	w := &window{f: f.f, name: f.path, size: size}
	for base := from; base+recordHeaderBytes <= size; base += step {
		b, err := w.at(base, min(step+recordHeaderBytes-alignBytes, size-base))
		if err != nil {
			return s, err
		}
		for i := int64(0); i+recordHeaderBytes <= int64(len(b)); i += alignBytes {
			if b[i+76] == 0 { // the kind; spares runs of zeros the checksum
				continue
			}
			h, ok := decodeRecordHeader(b[i:], f.seed)
			if !ok {
				continue
			}
			if s.found == 0 {
				s.first, s.firstLSN = base+i, h.lsn
			}
			s.found++
			s.end = base + i + recordHeaderBytes
			s.minLSN = min(s.minLSN, h.lsn)
			s.least, s.most = min(s.least, h.synced), max(s.most, h.synced)
		}
	}
	return s, nil
}
