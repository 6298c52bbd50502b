package vfs

import (
	"bytes"
	"math/bits"
)

const (
	sectorBytes = 512
	pageBytes   = 4096
	pageSectors = pageBytes / sectorBytes

	// maxFileBytes bounds the space map of a file: 32 MiB of bits.
	maxFileBytes = 1 << 40
)

// block is a page's bytes. It is never written again once it is shared: by the
// present and the durable state of a page, or by clones.
type block struct {
	shared bool
	b      [pageBytes]byte
}

var zeroBlock block // all zeros; never written

// share marks b and returns it. The flag is written once only: a block that
// arrived in a clone is marked already, and is read there under another lock.
func share(b *block) *block {
	if b != nil && !b.shared {
		b.shared = true
	}
	return b
}

// writable returns a block that may be written, with the bytes of b; nil is all
// zeros.
func writable(b *block) *block {
	switch {
	case b == nil:
		return new(block)
	case b.shared:
		return &block{b: b.b}
	}
	return b
}

func bytesOf(b *block) *[pageBytes]byte {
	if b == nil {
		return &zeroBlock.b
	}
	return &b.b
}

// sectors is a set of the sectors of one page.
type sectors uint8

// sectorsIn returns the sectors that hold the bytes [lo, hi) of a page.
func sectorsIn(lo, hi int) sectors {
	first, last := lo/sectorBytes, (hi-1)/sectorBytes
	return sectors(1<<(last+1) - 1<<first)
}

// page is a page of a file. A page that is all zeros, and durably so, has none.
//
// Invariant: a sector in none of the sets is equal in cur and old; if all sets
// are empty, old is nil and cur is durable.
type page struct {
	cur *block // as a reader sees it
	old *block // as it is durable

	dirty  sectors // written since the last sync began
	flight sectors // covered by a sync that runs
	lost   sectors // covered by a sync that failed
}

func (p *page) loose() sectors { return p.dirty | p.flight | p.lost }

// content is what a file holds. Guarded by Mem.mu.
type content struct {
	size    int64
	saved   int64 // the durable size
	resized bool  // the next sync makes size durable

	pages   map[int64]*page
	loose   map[int64]*page // those of pages with a set that is not empty
	space   bitmap          // pages that have their place on the disk
	syncing chan struct{}   // closed when the sync that runs ends; nil if none
}

func newContent() *content {
	return &content{pages: make(map[int64]*page), loose: make(map[int64]*page)}
}

func (c *content) readAt(p []byte, off int64) (n int) {
	p = p[:max(0, min(int64(len(p)), c.size-off))]
	for n < len(p) {
		i, at := (off+int64(n))/pageBytes, int((off+int64(n))%pageBytes)
		var cur *block
		if pg := c.pages[i]; pg != nil {
			cur = pg.cur
		}
		n += copy(p[n:], bytesOf(cur)[at:])
	}
	return n
}

// writeAt writes p at off. The space must have been taken.
func (c *content) writeAt(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	c.resize(max(c.size, off+int64(len(p))), off+int64(len(p)))
	for len(p) > 0 {
		i, at := off/pageBytes, int(off%pageBytes)
		n := min(len(p), pageBytes-at)
		c.writePage(i, at, p[:n])
		p, off = p[n:], off+int64(n)
	}
}

func (c *content) writePage(i int64, at int, p []byte) {
	pg := c.pages[i]
	if pg == nil {
		if bytes.Equal(p, zeroBlock.b[:len(p)]) {
			return // as it is already, and durably
		}
		pg = new(page)
		c.pages[i] = pg
	}
	c.touch(i, pg, sectorsIn(at, at+len(p)))
	if len(p) == pageBytes && pg.cur != nil && pg.cur.shared {
		pg.cur = new(block) // no need to copy what is overwritten
	}
	pg.cur = writable(pg.cur)
	copy(pg.cur.b[at:], p)
}

// touch marks sectors of a page as about to be written.
func (c *content) touch(i int64, pg *page, set sectors) {
	if pg.loose() == 0 {
		pg.old = share(pg.cur)
		c.loose[i] = pg
	}
	pg.dirty |= set
	pg.lost &^= set
}

// resize sets the size. The next sync makes it durable if it changed, or if
// bytes up to end were written that a failed sync left beyond the durable size.
func (c *content) resize(size, end int64) {
	if size != c.size || end > c.saved {
		c.resized = true
	}
	c.size = size
}

// truncate sets the size. What a shorter file loses is zeros from now on, in
// sectors that a failed sync left unknown too: the next sync frees their place.
func (c *content) truncate(size int64) {
	if size < c.size {
		for i, pg := range c.pages {
			if at := max(0, size-i*pageBytes); at < pageBytes {
				c.clearPage(i, pg, int(at))
			}
		}
	}
	c.resize(size, 0)
}

// clearPage makes the bytes of a page from at on zeros.
func (c *content) clearPage(i int64, pg *page, at int) {
	c.touch(i, pg, sectorsIn(at, pageBytes))
	if at == 0 {
		pg.cur = nil
	} else if pg.cur != nil {
		pg.cur = writable(pg.cur)
		clear(pg.cur.b[at:])
	}
}

// flight is what one sync covers, as of its start: what is written while it
// runs is left to the next one.
type flight struct {
	pages   []flightPage
	size    int64
	resized bool
}

type flightPage struct {
	i    int64
	pg   *page
	data *block
	set  sectors
}

func (c *content) beginSync() flight {
	fl := flight{size: c.size, resized: c.resized}
	c.resized = false
	for i, pg := range c.loose {
		if pg.dirty == 0 {
			continue
		}
		fl.pages = append(fl.pages, flightPage{i, pg, share(pg.cur), pg.dirty})
		pg.flight, pg.dirty = pg.dirty, 0
	}
	return fl
}

func (c *content) endSync(fl flight, ok bool) {
	if ok && fl.resized {
		c.saved = fl.size
	}
	for _, fp := range fl.pages {
		pg := fp.pg
		pg.flight = 0
		if !ok {
			pg.lost |= fp.set &^ pg.dirty
			continue
		}
		if pg.loose() != 0 {
			pg.old = mix(pg.old, fp.data, fp.set)
		}
		c.settle(fp.i, pg)
	}
}

// abandonSync undoes beginSync: the process ended before the sync did.
func (c *content) abandonSync(fl flight) {
	c.resized = c.resized || fl.resized
	for _, fp := range fl.pages {
		fp.pg.dirty |= fp.set
		fp.pg.flight = 0
	}
}

// settle forgets the durable state of a page that is durable as it is.
func (c *content) settle(i int64, pg *page) {
	if pg.loose() != 0 {
		return
	}
	pg.old = nil
	delete(c.loose, i)
	if pg.cur == nil || pg.cur.b == zeroBlock.b {
		delete(c.pages, i)
	}
}

// mix returns base with the sectors of set taken from over.
func mix(base, over *block, set sectors) *block {
	out := &block{b: *bytesOf(base)}
	for s := range pageSectors {
		if set&(1<<s) != 0 {
			lo, hi := s*sectorBytes, (s+1)*sectorBytes
			copy(out.b[lo:hi], bytesOf(over)[lo:hi])
		}
	}
	return out
}

// bitmap is a set of page numbers.
type bitmap []uint64

func (b bitmap) has(i int64) bool {
	return i/64 < int64(len(b)) && b[i/64]&(1<<(i%64)) != 0
}

func (b *bitmap) add(i int64) {
	for i/64 >= int64(len(*b)) {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

// bytes returns the bytes that the pages take.
func (b bitmap) bytes() (n int64) {
	for _, word := range b {
		n += int64(bits.OnesCount64(word)) * pageBytes
	}
	return n
}

// release takes out the pages from first on and returns the bytes they took.
func (b bitmap) release(first int64) (freed int64) {
	for w := first / 64; w < int64(len(b)); w++ {
		gone := b[w]
		if w == first/64 {
			gone &^= 1<<(first%64) - 1
		}
		freed += int64(bits.OnesCount64(gone)) * pageBytes
		b[w] &^= gone
	}
	return freed
}
