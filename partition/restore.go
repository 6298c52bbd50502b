package partition

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/flotilla-log/flotilla/internal/section"
)

// CheckpointError says where a checkpoint cannot be read, and why. It matches
// ErrDamaged or ErrUnsupported.
type CheckpointError struct {
	At      int64  // offset in the stream, in bytes, of the section
	Section uint16 // its kind, or zero
	Err     error
}

func (e *CheckpointError) Error() string {
	return fmt.Sprintf("partition: checkpoint section of kind %d at %d: %v", e.Section, e.At, e.Err)
}

// Unwrap returns what was wrong with the section.
func (e *CheckpointError) Unwrap() error { return e.Err }

// Restore reads a base and the deltas behind it, to the end of r, and returns
// the state as it was at the newest capture. Nothing in it is dirty.
//
// It returns a *CheckpointError that matches ErrDamaged or ErrUnsupported, or
// what r returned. A section that is unknown and not mandatory is skipped.
// Memory is bounded by a multiple of the bytes that r has. The state folds by key:
// see Folding.
func Restore(r io.Reader) (*State, error) { return Folding(nil).Restore(r) }

// Restore is the function of that name, for a state that folds with f.
func (f Folding) Restore(r io.Reader) (*State, error) {
	rs := &restorer{r: section.NewReader(r), s: f.New()}
	for {
		more, err := rs.r.More()
		if err != nil {
			return nil, fmt.Errorf("partition: read checkpoint: %w", err)
		}
		if !more {
			break
		}
		if err := rs.list(); err != nil {
			return nil, err
		}
	}
	if rs.lists == 0 {
		return nil, &CheckpointError{Err: fmt.Errorf("%w: empty", ErrDamaged)}
	}
	if err := rs.finish(); err != nil {
		return nil, &CheckpointError{At: rs.r.At(), Err: err}
	}
	return rs.s, nil
}

// Fold writes to dst, as one new base, what the base and deltas in srcs say,
// oldest first. It holds the state in memory meanwhile, and fails as Restore
// does; dst then holds nothing of use.
func Fold(dst io.Writer, srcs ...io.Reader) error {
	s, err := Restore(io.MultiReader(srcs...))
	if err != nil {
		return err
	}
	return s.WriteBase(dst)
}

// restorer builds a State from lists.
type restorer struct {
	r     *section.Reader
	s     *State
	lists int
	last  section.Kind // of the current list
}

// list reads one list.
func (rs *restorer) list() error {
	rs.last = 0
	for {
		at := rs.r.At()
		sec, err := rs.r.Next()
		if err == io.EOF {
			if rs.last == 0 {
				return &CheckpointError{At: at, Err: fmt.Errorf("%w: list without a shard section", ErrDamaged)}
			}
			rs.lists++
			return nil
		}
		if errors.Is(err, section.ErrDamaged) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		} else if err != nil {
			return fmt.Errorf("partition: read checkpoint: %w", err)
		} else {
			err = rs.section(sec)
		}
		if err != nil {
			return &CheckpointError{At: at, Section: uint16(sec.Kind), Err: err}
		}
	}
}

func (rs *restorer) section(sec section.Section) error {
	if known := sec.Kind <= lastSection && sec.Version == checkpointVersion; !known {
		if sec.Mandatory {
			return fmt.Errorf("%w: version %d", ErrUnsupported, sec.Version)
		}
		return nil
	}
	if sec.Kind > sectionStamps && rs.s.version < TimestampVersion {
		return fmt.Errorf("%w: in apply version %d", ErrDamaged, rs.s.version)
	}
	if first := rs.last == 0; first != (sec.Kind == sectionShard) || sec.Kind < rs.last {
		return fmt.Errorf("%w: after kind %d", ErrDamaged, rs.last)
	}
	rs.last = sec.Kind
	if sec.Kind == sectionShard {
		return rs.shard(sec.Payload)
	}
	in := reader{b: sec.Payload}
	for len(in.b) > 0 && in.err == nil {
		rs.item(sec.Kind, &in)
	}
	return in.err
}

func (rs *restorer) item(k section.Kind, in *reader) {
	switch k {
	case sectionDeleted:
		rs.deleted(in)
	case sectionPartitions:
		rs.partition(in)
	case sectionForgotten:
		rs.forgotten(in)
	case sectionProducers:
		rs.producer(in)
	case sectionTimestamps:
		rs.timestamp(in)
	case sectionDecisions:
		rs.decided(in)
	case sectionFolded:
		rs.folded(in)
	case sectionStamps:
		if b := in.take(stampBytes); b != nil {
			d := decodeDelete(b)
			rs.s.stamps[key{d.TopicID, d.Index}] = d.MetadataIndex
		}
	}
}

// shard takes a list's header. A list goes on top of exactly the one before it,
// so that a delta that is missing is found.
func (rs *restorer) shard(b []byte) error {
	if len(b) != shardBytes {
		return fmt.Errorf("%w: shard section of %d bytes, want %d", ErrDamaged, len(b), shardBytes)
	}
	h := decodeHeader(b)
	switch {
	case h.version > MaxApplyVersion:
		return fmt.Errorf("%w: apply version %d, this build has %d", ErrUnsupported, h.version, MaxApplyVersion)
	case h.version < MinApplyVersion:
		return fmt.Errorf("%w: apply version %d", ErrDamaged, h.version)
	case h.from != rs.s.lastIndex:
		return fmt.Errorf("%w: delta goes on index %d, have %d", ErrDamaged, h.from, rs.s.lastIndex)
	case h.version < rs.s.version, h.clockMS < rs.s.clockMS, h.lastNumber < rs.s.lastNumber,
		h.lastIndex < rs.s.lastIndex, h.lastTerm < rs.s.lastTerm, h.lastTerm > maxTerm,
		h.producerStamp < rs.s.recent.stamp, h.stampFloor < rs.s.stampFloor, !h.limits.valid():
		return fmt.Errorf("%w: header %+v does not continue the one before", ErrDamaged, h)
	}
	rs.s.version, rs.s.clockMS, rs.s.limits = h.version, h.clockMS, h.limits
	rs.s.lastNumber, rs.s.lastIndex, rs.s.lastTerm = h.lastNumber, h.lastIndex, h.lastTerm
	rs.s.recent.stamp, rs.s.stampFloor = h.producerStamp, h.stampFloor
	return nil
}

func (rs *restorer) deleted(in *reader) {
	if b := in.take(4); b != nil {
		// A partition created and deleted between two captures is not there.
		delete(rs.s.parts, Number(binary.LittleEndian.Uint32(b)))
	}
}

func (rs *restorer) partition(in *reader) {
	le := binary.LittleEndian
	b := in.take(partitionBytes)
	if b == nil {
		return
	}
	d := decodeDelete(b[4:])
	p := &part{
		number:    Number(le.Uint32(b)),
		key:       key{d.TopicID, d.Index},
		stamp:     d.MetadataIndex,
		baseEpoch: int32(le.Uint32(b[4+deleteBytes:])),
	}
	b = b[4+deleteBytes+4:]
	if err := checkConfig(b, rs.s.version); err != nil {
		in.err = err
		return
	}
	p.config = decodeConfig(b)
	p.logStart, p.end = int64(le.Uint64(b[configBytes:])), int64(le.Uint64(b[configBytes+8:]))
	rs.epochs(in, p, int64(le.Uint32(b[configBytes+16:])))
	old := rs.s.parts[p.number]
	switch {
	case in.err != nil:
		return
	case p.number == 0 || p.number > rs.s.lastNumber || p.key.index < 0 || p.baseEpoch < 0 || p.baseEpoch > maxTerm ||
		!p.config.valid() || p.logStart < 0 || p.logStart > p.end:
		in.damaged("partition %d: %+v", p.number, *p)
		return
	case old != nil && (old.key != p.key || old.end > p.end || old.logStart > p.logStart || old.config.Internal != p.config.Internal):
		in.damaged("partition %d: does not continue the one before", p.number)
		return
	case old != nil:
		p.producers, p.decided, p.folded = old.producers, old.decided, old.folded
		for _, pr := range p.producers {
			pr.part = p
		}
	case p.config.Internal != NotInternal:
		p.folded = rs.s.folding.make(p.config.Internal)
	}
	rs.s.parts[p.number] = p
}

// decided reads the last decision of a partition of this list.
func (rs *restorer) decided(in *reader) {
	le := binary.LittleEndian
	b := in.take(decidedBytes)
	if b == nil {
		return
	}
	n, d := Number(le.Uint32(b)), decided{term: le.Uint64(b[4:]), seq: le.Uint64(b[12:])}
	p := rs.s.parts[n]
	if p == nil || p.folded == nil || d.term > rs.s.lastTerm || (d.term == 0) != (d.seq == 0) ||
		d.term < p.decided.term || d.term == p.decided.term && d.seq < p.decided.seq {
		in.damaged("decision %d of term %d of partition %d", d.seq, d.term, n)
		return
	}
	p.decided = d
}

// folded reads one record of an internal partition, and folds it.
func (rs *restorer) folded(in *reader) {
	b := in.take(4)
	if b == nil {
		return
	}
	n := Number(binary.LittleEndian.Uint32(b))
	p := rs.s.parts[n]
	if p == nil || p.folded == nil {
		in.damaged("a record of partition %d, which is not internal", n)
		return
	}
	r := Record{Key: in.block(false), Value: in.block(true)}
	if in.err != nil {
		return
	}
	if err := p.folded.Fold([]Record{r}); err != nil {
		in.damaged("a record of partition %d: %v", n, err)
	}
}

// epochs reads p's epoch history of n epochs.
func (rs *restorer) epochs(in *reader, p *part, n int64) {
	if n*epochBytes > int64(len(in.b)) {
		in.damaged("partition %d: %d epochs in %d bytes", p.number, n, len(in.b))
		return
	}
	last := EpochStart{Epoch: -1, Start: -1}
	p.epochs = make(epochHistory, 0, n)
	for range n {
		b := in.take(epochBytes)
		e := EpochStart{int32(binary.LittleEndian.Uint32(b)), int64(binary.LittleEndian.Uint64(b[4:]))}
		if e.Epoch <= last.Epoch || e.Start <= last.Start || e.Start > p.end {
			in.damaged("partition %d: epoch %d at %d after %d at %d", p.number, e.Epoch, e.Start, last.Epoch, last.Start)
			return
		}
		p.epochs = append(p.epochs, e)
		last = e
	}
}

func (rs *restorer) forgotten(in *reader) {
	if b := in.take(producerKeyBytes); b != nil {
		if p := rs.s.parts[Number(binary.LittleEndian.Uint32(b))]; p != nil {
			delete(p.producers, ProducerID(binary.LittleEndian.Uint64(b[4:])))
		}
	}
}

func (rs *restorer) producer(in *reader) {
	le := binary.LittleEndian
	b := in.take(producerBytes)
	if b == nil {
		return
	}
	pr := &producer{
		part:   rs.s.parts[Number(le.Uint32(b))],
		id:     ProducerID(le.Uint64(b[4:])),
		epoch:  int16(le.Uint16(b[12:])),
		lastMS: int64(le.Uint64(b[14:])),
		stamp:  le.Uint64(b[22:]),

		timestamp: NoTime,
	}
	count := b[30]
	if pr.part == nil || pr.id < 0 || pr.epoch < 0 || pr.stamp == 0 || pr.stamp > rs.s.recent.stamp ||
		pr.lastMS < 0 || pr.lastMS > rs.s.clockMS || count == 0 || count > windowBatches {
		in.damaged("producer %d epoch %d of partition %d", pr.id, pr.epoch, le.Uint32(b))
		return
	}
	for range count {
		if b = in.take(appendedBytes); b == nil {
			return
		}
		a := appended{
			first:    int32(le.Uint32(b)),
			last:     int32(le.Uint32(b[4:])),
			base:     int64(le.Uint64(b[8:])),
			appendMS: int64(le.Uint64(b[16:])),
		}
		if !pr.window.takes(a, pr.part.end) {
			in.damaged("producer %d of partition %d: batch %+v", pr.id, pr.part.number, a)
			return
		}
		pr.window.push(a)
	}
	if pr.part.producers == nil {
		pr.part.producers = make(map[ProducerID]*producer)
	}
	pr.part.producers[pr.id] = pr
}

// timestamp reads the newest timestamp of a producer's last batch.
func (rs *restorer) timestamp(in *reader) {
	le := binary.LittleEndian
	b := in.take(timestampBytes)
	if b == nil {
		return
	}
	n, id := Number(le.Uint32(b)), ProducerID(le.Uint64(b[4:]))
	p := rs.s.parts[n]
	if p == nil || p.producers[id] == nil {
		in.damaged("a timestamp of producer %d of partition %d, which is not there", id, n)
		return
	}
	p.producers[id].timestamp = int64(le.Uint64(b[12:]))
}

// takes reports whether b may follow the batches of w in a log that ends at end.
func (w *window) takes(b appended, end int64) bool {
	if b.first < 0 || b.last < 0 || b.base < 0 || b.base >= end || b.lastOffset() >= end {
		return false
	}
	return w.count == 0 || b.first == w.next() && b.base > w.at(int(w.count)-1).lastOffset()
}

// finish derives what the lists do not hold.
func (rs *restorer) finish() error {
	s := rs.s
	var producers []*producer
	for _, n := range s.numbers() {
		p := s.parts[n]
		if other := s.byKey[p.key]; other != nil {
			return fmt.Errorf("%w: partitions %d and %d are both %v-%d", ErrDamaged, other.number, n, p.key.topic, p.key.index)
		}
		s.byKey[p.key] = p
		delete(s.stamps, p.key) // of an earlier life
		if p.folded != nil {
			p.folded.Track()
		}
		for _, pr := range p.producers {
			producers = append(producers, pr)
		}
	}
	s.dropStampsBelowFloor()
	slices.SortFunc(producers, func(a, b *producer) int { return cmp.Compare(a.stamp, b.stamp) })
	for i, pr := range producers {
		if i > 0 && producers[i-1].stamp == pr.stamp {
			return fmt.Errorf("%w: producers %d and %d share stamp %d", ErrDamaged, producers[i-1].id, pr.id, pr.stamp)
		}
		s.recent.push(pr, pr.stamp)
	}
	s.dirty.from = s.lastIndex
	return nil
}

// reader takes bytes off a section's payload. The first error is kept.
type reader struct {
	b   []byte
	err error
}

// take returns the next n bytes, or nil if there are fewer.
func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.damaged("item of %d bytes, want %d", len(r.b), n)
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// block returns the next bytes that begin with their length; nil if none may say
// that there are none, and it does.
func (r *reader) block(none bool) []byte {
	b := r.take(4)
	if b == nil {
		return nil
	}
	n := binary.LittleEndian.Uint32(b)
	if none && n == noValue {
		return nil
	}
	if uint64(n) > uint64(len(r.b)) {
		r.damaged("a record of %d bytes, with %d left", n, len(r.b))
		return nil
	}
	return r.take(int(n))
}

func (r *reader) damaged(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
	}
}
