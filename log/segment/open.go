package segment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// scanBytes is how much of a data file is read at once to check its batches.
const scanBytes = 256 << 10

// OpenOptions say which segment to open and what it must hold.
type OpenOptions struct {
	TopicID   [16]byte
	Partition int32
	Base      int64 // from the file's name

	// End is the offset that the segment is cut to: batches at or above it are
	// removed, and everything below it must be there.
	End int64

	// Check, if not nil, judges each batch that is read because no index
	// vouches for it. An error is damage at that batch.
	Check func(batch.Header) error
}

// Open opens the segment of dir with that base offset and cuts it to End.
//
// A sealed segment that ends at or below End is taken by its footer and length
// alone. Otherwise the index is read; the batches after its last block that
// lies below End are read and checked by CRC, and the index is continued, or
// written anew if it is missing or damaged. What lies above End is cut off,
// data and index. Nothing is synced. On a full disk, an index that would have
// to grow stays as it is, and the segment takes no appends.
//
// If a batch below End is damaged or missing, Open changes nothing and returns
// a segment that ends before it; Damage tells. A damaged header is an error
// matching ErrCorrupt, and one of a newer build matches ErrVersion. Other
// errors are the file system's.
func Open(files *Files, dir string, opt OpenOptions) (*Segment, error) {
	s := &Segment{files: files, dir: dir, hdr: Header{Base: opt.Base}}
	h, err := files.acquire(s.Name())
	if err != nil {
		return nil, err
	}
	defer h.release()
	size, err := h.Size()
	if err != nil {
		return nil, fmt.Errorf("segment: size of %s: %w", s.Name(), err)
	}
	if err := s.readHeader(h.File, opt); err != nil {
		return nil, err
	}
	if size > MaxBytes {
		return nil, &CorruptError{File: s.Name(), Offset: opt.Base, Position: -1, Err: fmt.Errorf("%d bytes, limit %d", size, MaxBytes)}
	}
	raw, whole, err := s.openIndex(size, opt.End)
	if err != nil {
		return s, err
	}
	if !whole {
		if err := s.recover(h, raw, size, opt); err != nil {
			return nil, err
		}
	}
	s.prefixes.opened = s.st
	return s, nil
}

func (s *Segment) readHeader(f vfs.File, opt OpenOptions) error {
	damaged := func(err error) error {
		return &CorruptError{File: s.Name(), Offset: opt.Base, Position: 0, Err: err}
	}
	var b [HeaderBytes]byte
	err := readFull(f, b[:], 0)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged(err)
	}
	if err != nil {
		return fmt.Errorf("segment: read %s: %w", s.Name(), err)
	}
	h, err := parseHeader(b[:])
	switch {
	case errors.Is(err, ErrVersion):
		return fmt.Errorf("segment: open %s: %w", s.Name(), err)
	case err != nil:
		return damaged(err)
	case h.Base != opt.Base || h.TopicID != opt.TopicID || h.Partition != opt.Partition:
		return damaged(fmt.Errorf("header is of offset %d of %x-%d", h.Base, h.TopicID, h.Partition))
	}
	s.hdr = h
	return nil
}

// openIndex returns the index file's bytes, nil if it is missing or unusable,
// or, for a sealed segment that ends at or below end, whole.
func (s *Segment) openIndex(size, end int64) (raw []byte, whole bool, err error) {
	h, err := s.files.acquire(s.indexName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer h.release()
	n, err := h.Size()
	if err != nil {
		return nil, false, fmt.Errorf("segment: size of %s: %w", s.indexName(), err)
	}
	if n < indexHeaderBytes || n > maxIndexBytes {
		return nil, false, nil
	}
	if n >= indexHeaderBytes+blockBytes {
		var foot [blockBytes]byte
		if err := readFull(h.File, foot[:], n-blockBytes); err != nil {
			return nil, false, fmt.Errorf("segment: read %s: %w", s.indexName(), err)
		}
		if st, ok := parseFooter(foot[:], s.hdr, size); ok && st.end <= end {
			s.st, s.sealed, s.index = st, true, indexState{size: n, last: -1}
			return nil, true, nil
		}
	}
	raw = make([]byte, n)
	if err := readFull(h.File, raw, 0); err != nil {
		return nil, false, fmt.Errorf("segment: read %s: %w", s.indexName(), err)
	}
	return raw, false, nil
}

// recover brings the segment to opt.End: as far as the index vouches for the
// data, and from there batch by batch.
func (s *Segment) recover(h *handle, raw []byte, size int64, opt OpenOptions) error {
	x, st, sealed, indexErr := scanIndex(raw, s.hdr, opt.End, size)
	es := entries{base: s.hdr.Base, last: x.last}
	after, blocks := x, []byte(nil)
	from, to := st, st
	flush := func() {
		if to.size > from.size {
			at := len(blocks)
			blocks = appendBlock(blocks, 0, from, to, es.list)
			after.add(s.hdr.Base, from, len(blocks)-at, es.last)
			from, es.list = to, nil
		}
	}
	err := s.walk(h.File, st, state{end: opt.End, size: size}, func(before state, hd batch.Header, prefix []byte) error {
		if opt.Check != nil {
			if err := opt.Check(hd); err != nil {
				return &CorruptError{File: s.Name(), Offset: before.end, Position: before.size, Err: err}
			}
		}
		es.note(hd.BaseOffset, before)
		to = before.advance(hd, prefix)
		if to.size-from.size >= markEvery {
			flush()
		}
		return nil
	})
	flush()
	s.st, s.index, s.sealed = to, after, sealed && len(blocks) == 0
	var damage *CorruptError
	if errors.As(err, &damage) {
		s.damage = damage
		s.readByMarks()
		return nil
	}
	if err != nil {
		return err
	}
	if size > to.size {
		if err := h.Truncate(to.size); err != nil {
			return fmt.Errorf("segment: cut %s: %w", s.Name(), err)
		}
	}
	if indexErr == nil && len(blocks) == 0 && x.size == int64(len(raw)) {
		return nil
	}
	err = s.rewriteIndex(indexErr != nil, x.size, blocks)
	if vfs.NoSpace(err) {
		s.readByMarks()
		return nil
	}
	return err
}

// readByMarks makes a segment whose index file cannot be brought to its end
// read-only: look-ups start at the marks.
func (s *Segment) readByMarks() {
	s.sealed = true
	s.index.size = 0
	for i := range s.index.marks {
		s.index.marks[i].indexPos = 0
	}
}

// rewriteIndex cuts the index file to size, or makes a new one, and appends
// blocks.
func (s *Segment) rewriteIndex(fresh bool, size int64, blocks []byte) (err error) {
	var h *handle
	if fresh {
		s.files.log.Info("segment index rebuilt", "file", s.indexName())
		if h, err = s.files.create(s.indexName()); err != nil {
			return err
		}
		blocks = append(appendIndexHeader(nil, s.hdr), blocks...)
		size = 0
	} else {
		if h, err = s.files.acquire(s.indexName()); err != nil {
			return err
		}
		err = h.Truncate(size)
	}
	defer h.release()
	if err == nil {
		_, err = h.WriteAt(blocks, size)
	}
	if err != nil {
		return fmt.Errorf("segment: write %s: %w", s.indexName(), err)
	}
	return nil
}

// walk reads whole batches from st on and checks framing, offsets and CRC,
// until to.end is reached. to.size bounds the bytes. What is not an intact
// batch before that is a *CorruptError.
func (s *Segment) walk(f vfs.File, st, to state, fn func(before state, h batch.Header, prefix []byte) error) error {
	var win []byte
	var winPos int64
	// need returns n bytes at the current position.
	need := func(n int64) ([]byte, error) {
		if st.size+n > to.size {
			return nil, io.ErrUnexpectedEOF
		}
		if st.size < winPos || st.size+n > winPos+int64(len(win)) {
			want := min(max(n, scanBytes), to.size-st.size)
			if int64(cap(win)) < want {
				win = make([]byte, want)
			}
			win, winPos = win[:want], st.size
			if err := readFull(f, win, winPos); err != nil {
				win = nil
				return nil, err
			}
		}
		return win[st.size-winPos:][:n], nil
	}
	for st.end < to.end {
		at := walkPoint{offset: st.end, pos: st.size}
		head, err := need(batch.HeaderBytes)
		if err != nil {
			return s.readError(at, err)
		}
		h, err := s.checkHeader(head, at, to)
		if err != nil {
			return s.corruptAt(at, err)
		}
		b, err := need(int64(h.Size()))
		if err != nil {
			return s.readError(at, err)
		}
		if err := batch.CheckCRC(b); err != nil {
			return s.corruptAt(at, err)
		}
		if err := fn(st, h, b[:batch.PrefixBytes]); err != nil {
			return err
		}
		st = st.advance(h, b[:batch.PrefixBytes])
	}
	return nil
}

// Verify reads the whole segment as of the call and checks every batch by CRC,
// and the prefixes by the index's running checksum, which also has to be intact
// then. Damage is a *CorruptError that names the file.
func (s *Segment) Verify() error {
	s.mu.Lock()
	st, size := s.st, s.index.size
	s.mu.Unlock()
	h, err := s.files.acquire(s.Name())
	if err != nil {
		return s.openError(s.hdr.Base, err)
	}
	defer h.release()
	if err := s.readHeader(h.File, OpenOptions{TopicID: s.hdr.TopicID, Partition: s.hdr.Partition, Base: s.hdr.Base}); err != nil {
		return err
	}
	raw := s.readIndex(0, size)
	_, reached, _, err := scanIndex(raw, s.hdr, st.end, st.size)
	if err == nil && reached != st {
		err = fmt.Errorf("index ends at offset %d, the segment at %d", reached.end, st.end)
	}
	if err != nil {
		return &CorruptError{File: s.indexName(), Offset: reached.end, Position: -1, Err: err}
	}
	return s.verifyPrefixes(h.File, raw, st)
}

// verifyPrefixes walks the data and compares what it finds after each block of
// the index raw with what the block says.
func (s *Segment) verifyPrefixes(f vfs.File, raw []byte, st state) error {
	cur := startState(s.hdr.Base)
	if cur == st {
		return nil
	}
	raw = raw[indexHeaderBytes:]
	blk, n, err := parseBlock(raw)
	start := cur
	err = errors.Join(err, s.walk(f, cur, st, func(before state, h batch.Header, prefix []byte) error {
		cur = before.advance(h, prefix)
		if cur.size < blk.end.size {
			return nil
		}
		if cur != blk.end {
			return s.corruptAt(walkPoint{start.end, start.size}, fmt.Errorf("prefixes of the batches up to offset %d do not match the index", blk.end.end))
		}
		start, raw = cur, raw[n:]
		if cur == st {
			return nil
		}
		blk, n, err = parseBlock(raw)
		return err
	}))
	return err
}
