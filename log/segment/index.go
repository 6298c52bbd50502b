package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	indexMagic       = "FLOTIDX1"
	indexHeaderBytes = 32
	blockBytes       = 40 // without entries
	entryBytes       = 16

	blockSealed = 1 // flag: the footer

	// entryEvery is the least distance in the data file between two entries.
	entryEvery = 4 << 10

	// A mark is kept in memory for every markEvery bytes of data, or
	// markIndexEvery bytes of index where writes were tiny, so that a look-up
	// reads one bounded region of the index file.
	markEvery      = 1 << 20
	markIndexEvery = 16 << 10

	// maxIndexBytes bounds what is read of an index. A longer one, which only
	// a very long run of tiny writes makes, is rebuilt, and thereby smaller.
	maxIndexBytes = 64 << 20
)

var errIndex = errors.New("not an index block")

// indexState is what is known of an index file. Guarded by Segment.mu.
type indexState struct {
	loaded bool // marks are filled in; a sealed segment loads them at first use
	marks  []mark
	size   int64 // of the valid blocks, header included
	last   int64 // position of the last entry, -1 if none
}

// mark says that the block at indexPos starts at data position pos, with the
// batch of the given relative offset, that sum is the running checksum of the
// prefixes before it, and that no timestamp before pos is above maxTS. Marks are
// never changed once added.
type mark struct {
	rel, pos, indexPos, sum uint32
	maxTS                   int64
}

func (m mark) entry() entry { return entry{rel: m.rel, pos: m.pos, maxTS: m.maxTS} }

// entry is one index entry.
type entry struct {
	rel, pos uint32
	maxTS    int64 // greatest timestamp before pos
}

// block is a decoded block. entries aliases the input.
type block struct {
	flags      uint16
	start, end state // start.size, and all of end
	entries    []byte
}

func appendIndexHeader(dst []byte, h Header) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, indexHeaderBytes)...)
	b := dst[at:]
	copy(b, indexMagic)
	binary.LittleEndian.PutUint16(b[8:], Format)
	binary.LittleEndian.PutUint64(b[16:], uint64(h.Base))
	binary.LittleEndian.PutUint32(b[24:], h.crc())
	binary.LittleEndian.PutUint32(b[28:], checksum(0, b[:28]))
	return dst
}

func appendBlock(dst []byte, flags uint16, from, to state, entries []entry) []byte {
	at := len(dst)
	dst = slices.Grow(dst, blockBytes+len(entries)*entryBytes)
	dst = dst[:at+blockBytes+len(entries)*entryBytes]
	b := dst[at:]
	binary.LittleEndian.PutUint16(b[4:], uint16(len(entries)))
	binary.LittleEndian.PutUint16(b[6:], flags)
	binary.LittleEndian.PutUint32(b[8:], uint32(from.size))
	binary.LittleEndian.PutUint32(b[12:], uint32(to.size))
	binary.LittleEndian.PutUint64(b[16:], uint64(to.end))
	binary.LittleEndian.PutUint64(b[24:], uint64(to.maxTS))
	binary.LittleEndian.PutUint32(b[32:], to.sum)
	binary.LittleEndian.PutUint32(b[36:], 0)
	for i, e := range entries {
		p := b[blockBytes+i*entryBytes:]
		binary.LittleEndian.PutUint32(p, e.rel)
		binary.LittleEndian.PutUint32(p[4:], e.pos)
		binary.LittleEndian.PutUint64(p[8:], uint64(e.maxTS))
	}
	binary.LittleEndian.PutUint32(b, checksum(0, b[4:]))
	return dst
}

// parseBlock decodes the block at the start of b and returns its length.
func parseBlock(b []byte) (block, int, error) {
	if len(b) < blockBytes {
		return block{}, 0, errIndex
	}
	n := blockBytes + int(binary.LittleEndian.Uint16(b[4:]))*entryBytes
	if len(b) < n || checksum(0, b[4:n]) != binary.LittleEndian.Uint32(b) {
		return block{}, 0, errIndex
	}
	return block{
		flags: binary.LittleEndian.Uint16(b[6:]),
		start: state{size: int64(binary.LittleEndian.Uint32(b[8:]))},
		end: state{
			size:  int64(binary.LittleEndian.Uint32(b[12:])),
			end:   int64(binary.LittleEndian.Uint64(b[16:])),
			maxTS: int64(binary.LittleEndian.Uint64(b[24:])),
			sum:   binary.LittleEndian.Uint32(b[32:]),
		},
		entries: b[blockBytes:n],
	}, n, nil
}

// follows reports whether blk can come after st in a data file of size bytes.
func (blk *block) follows(st state, size int64) bool {
	if blk.flags == blockSealed {
		return len(blk.entries) == 0 && blk.end == st
	}
	return blk.flags == 0 && blk.start.size == st.size && blk.end.size > st.size && blk.end.size <= size &&
		blk.end.end > st.end && blk.end.maxTS >= st.maxTS
}

func (blk *block) entry(i int) entry {
	p := blk.entries[i*entryBytes:]
	return entry{
		rel:   binary.LittleEndian.Uint32(p),
		pos:   binary.LittleEndian.Uint32(p[4:]),
		maxTS: int64(binary.LittleEndian.Uint64(p[8:])),
	}
}

func (blk *block) len() int { return len(blk.entries) / entryBytes }

// add accounts for a block that begins after st and is n bytes long.
func (x *indexState) add(base int64, st state, n int, lastEntry int64) {
	m := mark{rel: uint32(st.end - base), pos: uint32(st.size), indexPos: uint32(x.size), sum: st.sum, maxTS: st.maxTS}
	if k := len(x.marks); k == 0 || m.pos-x.marks[k-1].pos >= markEvery || m.indexPos-x.marks[k-1].indexPos >= markIndexEvery {
		x.marks = append(x.marks, m)
	}
	x.size += int64(n)
	if lastEntry >= 0 {
		x.last = lastEntry
	}
}

// entries collects the entries of one block.
type entries struct {
	base, last int64
	list       []entry
}

// note is called for every batch in turn, with the state before it.
func (e *entries) note(firstOffset int64, before state) {
	if e.last >= 0 && before.size-e.last < entryEvery {
		return
	}
	e.last = before.size
	e.list = append(e.list, entry{rel: uint32(firstOffset - e.base), pos: uint32(before.size), maxTS: before.maxTS})
}

// scanIndex reads the blocks of raw, an index file, that continue each other
// and end at or below end in offset and within size in the data file. It
// returns the state they reach and whether a footer follows. A damaged header
// is an error; a damaged block ends the scan, which the caller sees by
// comparing the index size with len(raw).
func scanIndex(raw []byte, h Header, end, size int64) (x indexState, st state, sealed bool, err error) {
	x, st = indexState{loaded: true, size: indexHeaderBytes, last: -1}, startState(h.Base)
	if len(raw) < indexHeaderBytes {
		return x, st, false, errIndex
	}
	if want := appendIndexHeader(nil, h); string(raw[:indexHeaderBytes]) != string(want) {
		return x, st, false, fmt.Errorf("index header %x, want %x", raw[:indexHeaderBytes], want)
	}
	for {
		blk, n, err := parseBlock(raw[x.size:])
		if err != nil || !blk.follows(st, size) || blk.end.end > end {
			return x, st, false, nil
		}
		if blk.flags == blockSealed {
			x.size += int64(n)
			return x, st, true, nil
		}
		last := int64(-1)
		if k := blk.len(); k > 0 {
			last = int64(blk.entry(k - 1).pos)
		}
		x.add(h.Base, st, n, last)
		st = blk.end
	}
}

// parseFooter decodes the last bytes of an index file as the footer of a
// sealed segment whose data file is size bytes long.
func parseFooter(b []byte, h Header, size int64) (state, bool) {
	blk, n, err := parseBlock(b)
	if err != nil || n != blockBytes || blk.flags != blockSealed || blk.end.size != size || blk.end.end <= h.Base {
		return state{}, false
	}
	return blk.end, true
}
