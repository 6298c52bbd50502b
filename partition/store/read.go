package store

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/segment"
)

// ExtentKind numbers the kinds of place that a partition's batches lie in. The
// numbers are part of formats; those without a constant user are reserved.
type ExtentKind uint8

const (
	ExtentMemory  ExtentKind = 1 // the tail
	ExtentSegment ExtentKind = 2 // a segment file
	ExtentSpill   ExtentKind = 3 // small tails of many partitions in one file
	ExtentJournal ExtentKind = 4 // the journal
	ExtentRemote  ExtentKind = 5 // another store
	ExtentMissing ExtentKind = 6 // known to be damaged or not there yet
)

// Chunk is a run of whole batches, as readers see them. Its bytes do not change
// while it is held. Memory that it holds is not counted by the store, so its
// holder bounds it, and gives it back in bounded time (a slow consumer's bytes
// are copied out or read again).
type Chunk struct {
	Kind  ExtentKind // ExtentMemory or ExtentSegment
	End   int64      // the next offset to read
	Bytes int64      // 0 if there is nothing to read yet, or no whole batch fits

	// Vectors holds the bytes if Kind is ExtentMemory. They are shared and must
	// not be changed; the slice of slices is the holder's.
	Vectors [][]byte

	// [Pos, Pos+Bytes) of File is what to read if Kind is ExtentSegment. File
	// may be unlinked by now, and stays readable until Release (R15).
	File vfs.File
	Pos  int64

	r segment.Range
}

// Release gives the chunk back. It must be called once.
func (c *Chunk) Release() {
	c.Vectors, c.File = nil, nil
	c.r.Release()
}

// AppendTo appends the chunk's bytes to dst, reading the file if need be.
func (c *Chunk) AppendTo(dst []byte) ([]byte, error) {
	for _, v := range c.Vectors {
		dst = append(dst, v...)
	}
	if c.Kind != ExtentSegment {
		return dst, nil
	}
	at := len(dst)
	dst = append(dst, make([]byte, c.Bytes)...)
	if n, err := c.File.ReadAt(dst[at:], c.Pos); n < len(dst)-at {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return dst[:at], fmt.Errorf("store: read %s: %w", c.File.Name(), err)
	}
	return dst, nil
}

// Read returns batches from the one that contains offset on, up to maxBytes in
// all, from one extent: what lies in the next one is the next Read's. If the
// first batch alone is longer than maxBytes it is returned with minOneBatch, and
// else the chunk is empty. At the partition's end the chunk is empty too. The
// caller releases the chunk.
//
// Errors: ErrUnknownPartition; a *RangeError, with the present bounds, for an
// offset below the log start or above the end; a *segment.CorruptError for
// damaged or missing bytes; or the file system's. Checksums of the batches
// themselves are the consumer's to check.
func (sh *Shard) Read(key uint32, offset int64, maxBytes int, minOneBatch bool) (*Chunk, error) {
	for {
		sh.mu.Lock()
		p := sh.parts[key]
		if p == nil {
			sh.mu.Unlock()
			return nil, ErrUnknownPartition
		}
		if offset < p.logStart || offset > p.end {
			err := &RangeError{Offset: offset, Start: p.logStart, End: p.end}
			sh.mu.Unlock()
			return nil, err
		}
		if offset >= p.tailStartLocked() {
			tail := p.tail
			sh.mu.Unlock()
			return memoryChunk(tail, offset, maxBytes, minOneBatch), nil
		}
		seg := p.segmentLocked(offset)
		if seg == nil || offset >= seg.End() {
			err := p.missingLocked(offset)
			sh.mu.Unlock()
			return nil, err
		}
		sh.mu.Unlock()
		c, err := segmentChunk(seg, offset, maxBytes, minOneBatch)
		// Unlinked since we looked: the log start has passed offset, or it was repaired.
		if !errors.Is(err, segment.ErrGone) {
			sh.met(p, seg, err)
			return c, err
		}
	}
}

// segmentLocked returns the last segment that starts at or below offset.
func (p *part) segmentLocked(offset int64) *segment.Segment {
	i := sort.Search(len(p.segs), func(i int) bool { return p.segs[i].Base() > offset })
	if i == 0 {
		return nil
	}
	return p.segs[i-1]
}

// missingLocked says why no segment holds offset.
func (p *part) missingLocked(offset int64) *segment.CorruptError {
	for _, d := range p.damage {
		if d.From <= offset && offset < d.To {
			return d.Err
		}
	}
	return &segment.CorruptError{File: p.dir(), Offset: offset, Position: -1, Err: errors.New("no segment holds it")}
}

func memoryChunk(tail []segment.Batch, offset int64, maxBytes int, minOneBatch bool) *Chunk {
	c := &Chunk{Kind: ExtentMemory, End: offset}
	from := sort.Search(len(tail), func(i int) bool { return tail[i].End() > offset })
	to := from
	for ; to < len(tail); to++ {
		n := int64(len(tail[to].Body))
		if c.Bytes+n > int64(maxBytes) && (to > from || !minOneBatch) {
			break
		}
		c.Bytes += n
		c.End = tail[to].End()
	}
	if from < to {
		c.Vectors = segment.Vectors(nil, tail[from:to])
	}
	return c
}

func segmentChunk(seg *segment.Segment, offset int64, maxBytes int, minOneBatch bool) (*Chunk, error) {
	r, err := seg.Range(offset, int64(maxBytes))
	if err != nil {
		return nil, err
	}
	if r.Bytes > int64(maxBytes) && !minOneBatch {
		r.Release()
		return &Chunk{Kind: ExtentMemory, End: offset}, nil
	}
	return &Chunk{Kind: ExtentSegment, End: r.End, Bytes: r.Bytes, File: r.File, Pos: r.Pos, r: r}, nil
}
