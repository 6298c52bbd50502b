package partition

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
)

// Hash is a digest of a State's logical content.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// changes is what a State notes between two captures.
type changes struct {
	parts   []*part // some may have been deleted since
	deleted []Number
	stamps  []stamped // keys whose stamp was set; the values may be outdated

	// from is the index of the last capture, and so the one that the next
	// delta goes on top of. Zero before the first.
	from uint64

	whole bool // everything counts as changed: see Succeed
}

// Capture is the part of a State that changed since the capture before it, or
// all of it: a frozen copy that may be written beside Apply.
type Capture struct {
	header    header
	whole     bool
	parts     []part // by number; only the fields that a checkpoint holds
	folded    []capturedFolded
	producers []capturedProducer
	forgotten []producerKey
	deleted   []Number
	stamps    []stamped
}

type producerKey struct {
	number Number
	id     ProducerID
}

type capturedProducer struct {
	producerKey
	epoch     int16
	lastMS    int64
	stamp     uint64
	window    window
	timestamp int64
}

// capturedFolded is what changed of what an internal partition has folded, or, with
// all, a copy of the whole.
type capturedFolded struct {
	number  Number
	changed []Record
	all     Folded // nil: changed
}

func compareProducerKeys(a, b producerKey) int {
	return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.id, b.id))
}

// End is the log end offset of a partition.
type End struct {
	Number Number
	End    int64
}

// Capture freezes what changed since the last Capture: since New everything,
// since Restore nothing, since Succeed everything. It takes time proportional to that,
// not to the State.
//
// The caller writes the capture, with WriteDelta, behind those before it, or
// gives it back with Requeue before the next Capture. One that is Whole goes on top
// of nothing, and those before it are not needed any more.
func (s *State) Capture() *Capture {
	c := &Capture{header: s.header(s.dirty.from)}
	whole := s.dirty.whole
	if whole {
		c = s.Freeze().c
		c.whole = true
	}
	for _, p := range s.dirty.parts {
		p.dirty = false
		if whole {
			p.settle()
		} else if s.parts[p.number] == p {
			c.parts = append(c.parts, p.frozen())
			c.addProducers(p)
			if p.folded != nil {
				c.folded = append(c.folded, capturedFolded{number: p.number, changed: p.folded.Changes()})
			}
		}
		p.changed, p.forgotten = nil, nil
	}
	if whole {
		s.dirty = changes{from: s.lastIndex}
		c.sort()
		return c
	}
	c.deleted = s.dirty.deleted
	for _, st := range s.dirty.stamps {
		if now, ok := s.stamps[st.key]; ok {
			c.stamps = append(c.stamps, stamped{st.key, now})
		}
	}
	s.dirty = changes{from: s.lastIndex}
	c.sort()
	return c
}

// Requeue takes back a capture that was not made durable, so that the next
// Capture holds its changes too. c must be the newest capture of s.
func (s *State) Requeue(c *Capture) {
	s.dirty.whole = s.dirty.whole || c.whole
	for i := range c.parts {
		if p := s.parts[c.parts[i].number]; p != nil {
			s.touch(p)
		}
	}
	for _, cp := range c.producers {
		if p := s.parts[cp.number]; p != nil && p.producers[cp.id] != nil {
			p.producers[cp.id].note()
		}
	}
	for _, f := range c.folded {
		if p := s.parts[f.number]; p != nil {
			p.folded.Requeue(f.changed)
		}
	}
	for _, k := range c.forgotten {
		if p := s.parts[k.number]; p != nil {
			p.forgotten = append(p.forgotten, k.id)
		}
	}
	s.dirty.deleted = append(s.dirty.deleted, c.deleted...)
	s.dirty.stamps = append(s.dirty.stamps, c.stamps...)
	s.dirty.from = c.header.from
}

// Index returns the index of the last entry that the capture includes.
func (c *Capture) Index() uint64 { return c.header.lastIndex }

// Whole reports whether the capture is all of the state, for which those before it are
// not needed.
func (c *Capture) Whole() bool { return c.whole }

// Dirty returns the partitions in the capture with their ends, by number: what
// has to be flushed and synced before the capture may be relied on (R13).
func (c *Capture) Dirty() []End {
	ends := make([]End, len(c.parts))
	for i := range c.parts {
		ends[i] = End{c.parts[i].number, c.parts[i].end}
	}
	return ends
}

// Deleted returns the partitions that were deleted since the capture before,
// by number.
func (c *Capture) Deleted() []Number { return slices.Clone(c.deleted) }

// Frozen is a State's whole content at one index: a copy that may be hashed, or
// written, beside Apply.
type Frozen struct{ c *Capture }

// Freeze copies s. It takes time proportional to the State, and a small part of
// what Hash takes. It is for the goroutine of Apply, as Folded.Clone is.
func (s *State) Freeze() *Frozen {
	c := &Capture{
		header:    s.header(0),
		parts:     make([]part, 0, len(s.parts)),
		producers: make([]capturedProducer, 0, s.recent.count),
		stamps:    make([]stamped, 0, len(s.stamps)),
	}
	for _, p := range s.parts {
		c.parts = append(c.parts, p.frozen())
		c.freezeFolded(p)
	}
	for pr := s.recent.oldest(); pr != nil; pr = pr.next {
		c.producers = append(c.producers, pr.frozen())
	}
	for k, stamp := range s.stamps {
		c.stamps = append(c.stamps, stamped{k, stamp})
	}
	return &Frozen{c}
}

// Index returns the index of the last entry that f includes.
func (f *Frozen) Index() uint64 { return f.c.header.lastIndex }

// Hash returns a digest of the whole logical state: states to which the same
// entries were applied have the same one, however they were restored meanwhile.
// One call at a time.
func (f *Frozen) Hash() Hash {
	h := sha256.New()
	if err := f.WriteBase(h); err != nil {
		panic("partition: hashing failed: " + err.Error()) // a hash takes all bytes
	}
	return Hash(h.Sum(nil))
}

// WriteBase writes f as one base, which takes no part in the sequence of
// captures. One call at a time.
func (f *Frozen) WriteBase(w io.Writer) error {
	f.c.sort()
	return f.c.WriteDelta(w)
}

// StateHash returns the hash of s as it is: Frozen.Hash of Freeze.
func (s *State) StateHash() Hash { return s.Freeze().Hash() }

// WriteBase writes s as it is: Frozen.WriteBase of Freeze.
func (s *State) WriteBase(w io.Writer) error { return s.Freeze().WriteBase(w) }

// full captures everything, and leaves s as it is.
func (s *State) full() *Capture {
	c := s.Freeze().c
	c.sort()
	return c
}

// frozen returns what a checkpoint holds of p. Histories are never changed in
// place, so it is safe to alias one.
func (p *part) frozen() part {
	return part{
		number: p.number, key: p.key, stamp: p.stamp, baseEpoch: p.baseEpoch, config: p.config,
		logStart: p.logStart, end: p.end, epochs: p.epochs, decided: p.decided,
	}
}

// freezeFolded adds all that p has folded.
func (c *Capture) freezeFolded(p *part) {
	if p.folded != nil {
		c.folded = append(c.folded, capturedFolded{number: p.number, all: p.folded.Clone()})
	}
}

func (pr *producer) frozen() capturedProducer {
	return capturedProducer{
		producerKey: producerKey{pr.part.number, pr.id},
		epoch:       pr.epoch, lastMS: pr.lastMS, stamp: pr.stamp, window: pr.window, timestamp: pr.timestamp,
	}
}

// addProducers adds what changed among p's producers.
func (c *Capture) addProducers(p *part) {
	for _, pr := range p.changed {
		pr.noted = false
		if p.producers[pr.id] == pr {
			c.producers = append(c.producers, pr.frozen())
		}
	}
	for _, id := range p.forgotten {
		if p.producers[id] == nil {
			c.forgotten = append(c.forgotten, producerKey{p.number, id})
		}
	}
}

// settle forgets what changed of p, which a capture holds.
func (p *part) settle() {
	for _, pr := range p.changed {
		pr.noted = false
	}
	if p.folded != nil {
		p.folded.Changes()
	}
}

// sort brings everything into the one order that is written.
func (c *Capture) sort() {
	slices.SortFunc(c.parts, func(a, b part) int { return cmp.Compare(a.number, b.number) })
	slices.SortFunc(c.folded, func(a, b capturedFolded) int { return cmp.Compare(a.number, b.number) })
	slices.SortFunc(c.producers, func(a, b capturedProducer) int {
		return compareProducerKeys(a.producerKey, b.producerKey)
	})
	slices.SortFunc(c.forgotten, compareProducerKeys)
	c.forgotten = slices.Compact(c.forgotten)
	slices.Sort(c.deleted)
	c.deleted = slices.Compact(c.deleted)
	slices.SortFunc(c.stamps, compareStamped)
	c.stamps = slices.Compact(c.stamps)
}
