package vfs

import (
	"maps"
	"slices"
)

// Unsynced says what a power cut does to what was not synced.
type Unsynced uint8

const (
	Lose Unsynced = iota // all of it is gone
	Keep                 // all of it is there, as if just synced
	Coin                 // drawn by CrashOptions.Seed, as Mem's comment says
)

func (u Unsynced) String() string {
	switch u {
	case Lose:
		return "lose"
	case Keep:
		return "keep"
	}
	return "coin"
}

// CrashOptions chooses one of the states that a power cut may leave.
type CrashOptions struct {
	Seed     uint64 // for Coin
	Unsynced Unsynced
}

// CrashClone returns a new Mem with what is there after a power cut now; all of
// it is durable there. It has m's seed and capacity, and no locks, open files,
// faults or hooks. m is left as it is. The same operations, options and seeds
// give the same clone.
func (m *Mem) CrashClone(opt CrashOptions) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := NewMem(m.seed)
	out.capacity = m.capacity
	out.lastID = m.lastID
	cr := crash{Unsynced: opt.Unsynced, seed: mix64(m.seed ^ mix64(opt.Seed))}
	cr.names = m.survivingLocked(cr)
	out.root = cr.node(m.root)
	out.used = usedBy(out.root)
	return out
}

// crash draws one state of a Mem.
type crash struct {
	Unsynced
	seed  uint64
	names map[*node]map[string]*node // of the directories not as they are durable
}

// draw returns a number in [0, n) that depends on the seed, the node and where
// in it, and not on the order of the draws.
func (cr crash) draw(n *node, where int64, below uint64) uint64 {
	return mix64(cr.seed^mix64(n.id^mix64(uint64(where)))) % below
}

// Places of draws that belong to no sector.
const (
	atNames = -1 - iota
	atSize
	atEnd
)

// survivingLocked returns the names in each directory in which an operation
// survives that is not durable.
func (m *Mem) survivingLocked(cr crash) map[*node]map[string]*node {
	out := make(map[*node]map[string]*node)
	if cr.Unsynced == Lose {
		return out
	}
	left := make(map[*node]int) // edits that survive
	for _, op := range m.pending {
		for _, e := range op.edits {
			left[e.dir]++
		}
	}
	if cr.Unsynced == Coin {
		for dir, n := range left {
			left[dir] = int(cr.draw(dir, atNames, uint64(n)+1))
		}
	}
	for _, op := range m.pending {
		kept := !slices.ContainsFunc(op.edits, func(e edit) bool { return left[e.dir] <= 0 })
		for _, e := range op.edits {
			if !kept {
				left[e.dir] = 0 // so nothing later in either directory survives
				continue
			}
			left[e.dir]--
			if out[e.dir] == nil {
				out[e.dir] = maps.Clone(e.dir.dir.saved)
			}
			apply(out[e.dir], e)
		}
	}
	return out
}

// node returns what is left of n and of all below it.
func (cr crash) node(n *node) *node {
	out := &node{id: n.id, linked: true}
	if n.dir == nil {
		out.data = cr.content(n)
		return out
	}
	names, ok := cr.names[n]
	if !ok {
		names = n.dir.saved
	}
	out.dir = &dirNames{now: make(map[string]*node, len(names))}
	for base, child := range names {
		out.dir.now[base] = cr.node(child)
	}
	out.dir.saved = maps.Clone(out.dir.now)
	return out
}

func (cr crash) content(n *node) *content {
	c, out := n.data, newContent()
	out.size = cr.size(n)
	out.saved = out.size
	out.space = slices.Clone(c.space)
	out.space.release((out.size + pageBytes - 1) / pageBytes)
	for i, pg := range c.pages {
		room := out.size - i*pageBytes
		if room <= 0 {
			continue
		}
		b := cr.block(n, i, pg)
		if room < pageBytes && b != nil {
			b = &block{b: b.b}
			clear(b.b[room:])
		}
		if b != nil && b.b != zeroBlock.b {
			out.pages[i] = &page{cur: share(b)}
			out.space.add(i) // a truncation that did not survive had freed it
		}
	}
	return out
}

func (cr crash) size(n *node) int64 {
	now, saved := n.data.size, n.data.saved
	if cr.Unsynced == Lose || now == saved {
		return saved
	}
	if cr.Unsynced == Keep {
		return now
	}
	switch cr.draw(n, atSize, 3) {
	case 0:
		return saved
	case 1:
		return now
	}
	if now < saved {
		return now
	}
	first := saved/sectorBytes + 1 // the sector ends in between: [first, end)
	end := max(first, (now+sectorBytes-1)/sectorBytes)
	if first == end {
		return now
	}
	return (first + int64(cr.draw(n, atEnd, uint64(end-first)))) * sectorBytes
}

// block returns what is left of a page.
func (cr crash) block(n *node, i int64, pg *page) *block {
	loose := pg.loose()
	var kept sectors
	switch cr.Unsynced {
	case Keep:
		kept = loose
	case Coin:
		for s := range pageSectors {
			kept |= sectors(cr.draw(n, i*pageSectors+int64(s), 2)) << s & loose
		}
	}
	switch {
	case kept == loose: // or the page is durable as it is
		return pg.cur
	case kept == 0:
		return pg.old
	}
	return mix(pg.old, pg.cur, kept)
}

// usedBy returns the bytes that the files in and below n take.
func usedBy(n *node) (bytes int64) {
	if n.dir == nil {
		return n.data.space.bytes()
	}
	for _, child := range n.dir.now {
		bytes += usedBy(child)
	}
	return bytes
}

// KillClone returns a new Mem as the next process finds it after this one was
// killed: everything is there, and what was not synced may still be lost by a
// later power cut. Otherwise it is as CrashClone.
func (m *Mem) KillClone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := NewMem(m.seed)
	out.capacity = m.capacity
	out.lastID, out.lastDir = m.lastID, m.lastDir
	copies := make(map[*node]*node)
	out.root = copyNode(m.root, copies)
	for _, op := range m.pending {
		edits := slices.Clone(op.edits)
		for i, e := range edits {
			edits[i] = edit{entry{copyNode(e.dir, copies), e.base}, copyNode(e.n, copies)}
		}
		out.pending = append(out.pending, &dirOp{seq: op.seq, edits: edits, failed: op.failed})
	}
	out.used = usedBy(out.root)
	return out
}

func copyNode(n *node, copies map[*node]*node) *node {
	if n == nil || copies[n] != nil {
		return copies[n]
	}
	out := &node{id: n.id, linked: n.linked}
	copies[n] = out
	if n.dir == nil {
		out.data = n.data.copy()
		return out
	}
	out.dir = &dirNames{now: make(map[string]*node), saved: make(map[string]*node)}
	for base, child := range n.dir.now {
		out.dir.now[base] = copyNode(child, copies)
	}
	for base, child := range n.dir.saved {
		out.dir.saved[base] = copyNode(child, copies)
	}
	return out
}

// copy returns c without its syncs: what they cover has yet to be synced.
func (c *content) copy() *content {
	out := newContent()
	out.size, out.saved = c.size, c.saved
	out.resized = c.resized || c.syncing != nil
	out.space = slices.Clone(c.space)
	for i, pg := range c.pages {
		cp := &page{cur: share(pg.cur), old: share(pg.old), dirty: pg.dirty | pg.flight, lost: pg.lost}
		out.pages[i] = cp
		if cp.loose() != 0 {
			out.loose[i] = cp
		}
	}
	return out
}

// mix64 is the finaliser of SplitMix64: every bit of x changes every bit of the
// result with probability one half.
func mix64(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
