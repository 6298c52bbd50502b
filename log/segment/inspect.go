package segment

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// BadRange is a part of a data file that holds no intact batch.
type BadRange struct {
	Pos, To  int64 // bytes, half-open
	From     int64 // the offset that belongs at Pos
	Next     int64 // the base offset of the next intact batch, or -1: none follows
	Err      error
	Prefixes bool // the batches are intact, and their first 16 bytes are not those that the index knows
}

// Inspection is what Inspect found of a segment. Nothing was changed.
type Inspection struct {
	File      string
	Header    Header
	HeaderErr error // then nothing else was looked at
	Bytes     int64
	End       int64 // offset after the last intact batch
	Batches   int
	Bad       []BadRange

	IndexFile string
	IndexErr  error // what is wrong with the index; fs.ErrNotExist: there is none
	Sealed    bool  // by its footer
}

// InspectOptions say what Inspect is to find.
type InspectOptions struct {
	Dir       string
	File      string // of the data, in Dir; "": as Base has it
	Base      int64  // from the file's name
	TopicID   [16]byte
	Partition int32
	End       int64                    // what is at or above is not looked at: a start cuts it off
	Check     func(batch.Header) error // as in OpenOptions
}

// Inspect reads a segment that nobody has open, all of its batches by their
// checksums and their first 16 bytes by the index's, and changes nothing. It
// calls visit, if that is not nil, with each intact batch and its place, and
// goes on behind damage. The bytes are valid until visit returns. Memory is
// bounded by the index and the longest batch.
//
// The error is visit's or the file system's.
func Inspect(fsys vfs.FS, opt InspectOptions, visit func(pos int64, b []byte) error) (*Inspection, error) {
	in := &Inspection{
		File: path.Join(opt.Dir, cmp.Or(opt.File, DataName(opt.Base))), IndexFile: path.Join(opt.Dir, IndexName(opt.Base)), End: opt.Base,
	}
	f, err := fsys.Open(in.File)
	if err != nil {
		return nil, fmt.Errorf("segment: inspect: %w", err)
	}
	defer f.Close()
	if in.Bytes, err = f.Size(); err != nil {
		return nil, fmt.Errorf("segment: size of %s: %w", in.File, err)
	}
	// Of Segment only the checks of headers are used.
	s := &Segment{dir: opt.Dir, hdr: Header{Base: opt.Base}}
	if err := s.readHeader(f, OpenOptions{TopicID: opt.TopicID, Partition: opt.Partition, Base: opt.Base}); errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
		in.HeaderErr = err
		return in, nil
	} else if err != nil {
		return nil, err
	}
	in.Header = s.hdr
	raw, err := vfs.ReadFile(fsys, in.IndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		in.IndexErr = err
	} else if err != nil {
		return nil, fmt.Errorf("segment: read %s: %w", in.IndexFile, err)
	}
	w := &inspector{in: in, s: s, f: f, opt: opt}
	if in.IndexErr == nil {
		w.index(raw)
	}
	return in, w.walk(visit)
}

// inspector is one Inspect under way.
type inspector struct {
	in     *Inspection
	s      *Segment
	f      vfs.File
	opt    InspectOptions
	blocks []state // what the index says at the end of each block
	win    []byte
	winPos int64
}

// index reads what the index vouches for.
func (w *inspector) index(raw []byte) {
	in := w.in
	const everything = 1<<63 - 1
	x, _, sealed, err := scanIndex(raw, w.s.hdr, everything, in.Bytes)
	in.Sealed = sealed
	switch {
	case err != nil:
		in.IndexErr = err
		return
	case x.size != int64(len(raw)):
		in.IndexErr = fmt.Errorf("block at byte %d: %w", x.size, errIndex)
	}
	for at := int64(indexHeaderBytes); at < x.size; {
		blk, n, err := parseBlock(raw[at:])
		if err != nil {
			break
		}
		w.blocks = append(w.blocks, blk.end)
		at += int64(n)
	}
}

// at returns n bytes at pos, or nil if the file ends before.
func (w *inspector) at(pos, n int64) ([]byte, error) {
	if pos+n > w.in.Bytes {
		return nil, nil
	}
	if pos < w.winPos || pos+n > w.winPos+int64(len(w.win)) {
		want := min(max(n, scanBytes), w.in.Bytes-pos)
		if int64(cap(w.win)) < want {
			w.win = make([]byte, want)
		}
		w.win, w.winPos = w.win[:want], pos
		if err := readFull(w.f, w.win, pos); err != nil {
			w.win = nil
			return nil, fmt.Errorf("segment: read %s at byte %d: %w", w.in.File, pos, err)
		}
	}
	return w.win[pos-w.winPos:][:n], nil
}

// batchAt returns the intact batch at pos, which has to continue at, or why
// there is none. The error of the disk is separate.
func (w *inspector) batchAt(at walkPoint, loose bool) (h batch.Header, b []byte, bad, err error) {
	head, err := w.at(at.pos, batch.HeaderBytes)
	if err != nil || head == nil {
		return h, nil, errors.New("the file ends here"), err
	}
	st := state{end: w.opt.End, size: w.in.Bytes}
	if loose { // any offset from at.offset on
		if h, bad = batch.ParseHeader(head); bad != nil || h.BaseOffset < at.offset {
			return h, nil, errors.New("no batch"), nil
		}
		at.offset = h.BaseOffset
	}
	if h, bad = w.s.checkHeader(head, at, st); bad != nil {
		return h, nil, bad, nil
	}
	if b, err = w.at(at.pos, int64(h.Size())); err != nil {
		return h, nil, nil, err
	}
	if bad = batch.CheckCRC(b); bad == nil && w.opt.Check != nil {
		bad = w.opt.Check(h)
	}
	return h, b, bad, nil
}

func (w *inspector) walk(visit func(pos int64, b []byte) error) error {
	in := w.in
	st := startState(in.Header.Base)
	whole, blockFrom, next := true, st, 0
	for st.end < w.opt.End && st.size < in.Bytes {
		h, b, bad, err := w.batchAt(walkPoint{st.end, st.size}, false)
		if err != nil {
			return err
		}
		if bad != nil {
			r := BadRange{Pos: st.size, From: st.end, Next: -1, Err: bad}
			if r.To, r.Next, err = w.resync(st); err != nil {
				return err
			}
			in.Bad = append(in.Bad, r)
			whole = false // the running checksum is lost with it
			if r.Next < 0 {
				break
			}
			st.size, st.end = r.To, r.Next
			continue
		}
		if visit != nil {
			if err := visit(st.size, b); err != nil {
				return err
			}
		}
		in.Batches++
		st = st.advance(h, b[:batch.PrefixBytes])
		in.End = st.end
		if !whole || next == len(w.blocks) || st.size < w.blocks[next].size {
			continue
		}
		if st != w.blocks[next] {
			whole = false
			in.Bad = append(in.Bad, BadRange{Pos: blockFrom.size, To: st.size, From: blockFrom.end, Next: st.end, Prefixes: true,
				Err: fmt.Errorf("the first 16 bytes of the batches of offsets [%d, %d) do not match the index", blockFrom.end, st.end)})
		}
		blockFrom = st
		next++
	}
	if in.IndexErr == nil && whole && next < len(w.blocks) && !(in.Sealed && next == len(w.blocks)-1) && st.end < w.opt.End {
		in.IndexErr = fmt.Errorf("it covers the offsets below %d, the segment ends at %d", w.blocks[len(w.blocks)-1].end, st.end)
	}
	return nil
}

// resync finds the next intact batch behind damage at st, at any byte.
func (w *inspector) resync(st state) (to, next int64, err error) {
	for pos := st.size + 1; pos+batch.HeaderBytes <= w.in.Bytes; pos++ {
		head, err := w.at(pos, batch.HeaderBytes)
		if err != nil {
			return 0, 0, err
		}
		// Magic, and a length that fits: spares the rest most bytes.
		if head[16] != batch.Magic || int64(binary.BigEndian.Uint32(head[8:])) > w.in.Bytes-pos {
			continue
		}
		h, _, bad, err := w.batchAt(walkPoint{st.end, pos}, true)
		if err != nil {
			return 0, 0, err
		}
		if bad == nil {
			return pos, h.BaseOffset, nil
		}
	}
	return w.in.Bytes, -1, nil
}

// ReadHeader reads the header of a data file, whatever its name. The error
// matches ErrVersion for a newer one, and fs.ErrNotExist; another one means
// damage, or is the file system's.
func ReadHeader(fsys vfs.FS, file string) (Header, error) {
	f, err := fsys.Open(file)
	if err != nil {
		return Header{}, fmt.Errorf("segment: %w", err)
	}
	defer f.Close()
	b := make([]byte, HeaderBytes)
	if err := readFull(f, b, 0); err != nil {
		return Header{}, fmt.Errorf("segment: read %s: %w", file, err)
	}
	h, err := parseHeader(b)
	if err != nil {
		return Header{}, fmt.Errorf("segment: %s: %w", file, err)
	}
	return h, nil
}

// IndexBlock is what one block of an index says: of the segment up to its end,
// but for Start and Entries.
type IndexBlock struct {
	Pos, Bytes      int64 // of the block, in the index
	Start, End      int64 // positions in the data file
	EndOffset       int64
	MaxTimestamp    int64 // ms; math.MinInt64: none
	PrefixSum       uint32
	Footer          bool
	Entries         []IndexEntry
	HeaderBase      int64 // of the index's header
	HeaderSegmentID uint32
}

// IndexEntry points to a batch.
type IndexEntry struct{ RelativeOffset, Position, MaxTimestampBefore int64 }

// ReadIndex reads an index file by itself and calls visit for each block. The
// error is visit's or the file system's, or says where the file is damaged.
func ReadIndex(fsys vfs.FS, file string, visit func(IndexBlock) error) error {
	raw, err := vfs.ReadFile(fsys, file)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	le := binary.LittleEndian
	if len(raw) < indexHeaderBytes || string(raw[:8]) != indexMagic || checksum(0, raw[:28]) != le.Uint32(raw[28:]) {
		return fmt.Errorf("segment: %s at byte 0: not the header of an index", file)
	}
	if v, flags := le.Uint16(raw[8:]), le.Uint16(raw[10:]); v != Format || flags != 0 {
		return fmt.Errorf("segment: %s: %w: format %d, flags %#x", file, ErrVersion, v, flags)
	}
	for at := int64(indexHeaderBytes); at < int64(len(raw)); {
		blk, n, err := parseBlock(raw[at:])
		if err != nil {
			return fmt.Errorf("segment: %s at byte %d: %w", file, at, err)
		}
		out := IndexBlock{
			Pos: at, Bytes: int64(n), Start: blk.start.size, End: blk.end.size, EndOffset: blk.end.end, MaxTimestamp: blk.end.maxTS,
			PrefixSum: blk.end.sum, Footer: blk.flags == blockSealed, HeaderBase: int64(le.Uint64(raw[16:])), HeaderSegmentID: le.Uint32(raw[24:]),
		}
		for i := range blk.len() {
			e := blk.entry(i)
			out.Entries = append(out.Entries, IndexEntry{int64(e.rel), int64(e.pos), e.maxTS})
		}
		if err := visit(out); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
