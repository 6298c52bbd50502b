package partition

import (
	"encoding/binary"
	"io"
	"math"

	"github.com/flotilla-log/flotilla/internal/section"
)

// A checkpoint (R13) is a stream of section lists (see internal/section): one
// base, and any number of deltas on top of it, oldest first. All have the same
// form; a base is a delta from nothing. It holds logical state only: nothing in
// it depends on the replica that wrote it.
//
// A list starts with one shard section; the others follow in the order below,
// each kind in as many sections as its items need. Items never span sections.
// All are mandatory, version 1 (little-endian, sizes in bytes):
//
//	kind            item
//	1 shard         apply version 2, shard clock 8, last number 4,
//	                last index 8, last term 8, index that the delta goes on 8,
//	                producer stamp 8, stamp floor 8, limits 20
//	2 deleted       number 4
//	3 partitions    number 4, topic id 16, index 4, metadata index 8,
//	                base epoch 4, config 25, log start 8, end 8,
//	                epoch count 4, then for each: epoch 4, start 8
//	4 forgotten     number 4, producer id 8
//	5 producers     number 4, producer id 8, epoch 2, last append 8,
//	                stamp 8, batch count 1, then for each: first sequence 4,
//	                last sequence 4, base offset 8, log append time 8
//	6 stamps        topic id 16, index 4, metadata index 8
//	7 timestamps    number 4, producer id 8, newest of its last batch 8
//	8 decisions     number 4, decided term 8, decision number 8
//	9 folded        number 4, key length 4, key, value length 4 (the greatest:
//	                no value), value
//
// Kinds 7 to 9 come from apply version 3 on: of each of the producers that has a
// timestamp, and of internal partitions.
//
// Within a kind, items are in ascending order of number and producer id, or of
// metadata index, topic id and index; those of one number in folded in the order of
// Folded. Applied in this order, an item replaces the older one of its number, or
// number and producer id, or number and key; a folded one without value takes it away.
const (
	sectionShard section.Kind = iota + 1
	sectionDeleted
	sectionPartitions
	sectionForgotten
	sectionProducers
	sectionStamps
	sectionTimestamps
	sectionDecisions
	sectionFolded

	lastSection = sectionFolded
)

const (
	checkpointVersion = 1

	// noValue stands for the length of a value that is not there.
	noValue = math.MaxUint32

	// sectionBytes is where a writer starts the next section of a kind.
	sectionBytes = 1 << 20

	shardBytes       = 2 + 8 + 4 + 8 + 8 + 8 + 8 + 8 + limitsBytes
	partitionBytes   = 4 + keyBytes + 8 + 4 + configBytes + 8 + 8 + 4
	epochBytes       = 4 + 8
	producerKeyBytes = 4 + 8
	producerBytes    = producerKeyBytes + 2 + 8 + 8 + 1
	timestampBytes   = producerKeyBytes + 8
	decidedBytes     = 4 + 8 + 8
	appendedBytes    = 4 + 4 + 8 + 8
	stampBytes       = keyBytes + 8
)

// header is what a checkpoint says of the whole shard.
type header struct {
	version       uint16
	clockMS       int64
	lastNumber    Number
	lastIndex     uint64
	lastTerm      uint64
	from          uint64
	producerStamp uint64
	stampFloor    uint64
	limits        Limits
}

func (s *State) header(from uint64) header {
	return header{
		version: s.version, clockMS: s.clockMS, lastNumber: s.lastNumber, lastIndex: s.lastIndex,
		lastTerm: s.lastTerm, from: from, producerStamp: s.recent.stamp, stampFloor: s.stampFloor, limits: s.limits,
	}
}

// WriteDelta writes the capture as one section list. It may run on any
// goroutine, beside Apply. What it wrote is durable when w says so.
func (c *Capture) WriteDelta(w io.Writer) error {
	lw := listWriter{w: section.NewWriter(w)}
	lw.start(sectionShard)
	lw.buf = c.header.append(lw.buf)
	lw.start(sectionDeleted)
	for _, n := range c.deleted {
		lw.buf = binary.LittleEndian.AppendUint32(lw.buf, uint32(n))
		lw.item()
	}
	lw.start(sectionPartitions)
	for i := range c.parts {
		lw.buf = c.parts[i].append(lw.buf)
		lw.item()
	}
	lw.start(sectionForgotten)
	for _, k := range c.forgotten {
		lw.buf = k.append(lw.buf)
		lw.item()
	}
	lw.start(sectionProducers)
	for i := range c.producers {
		lw.buf = c.producers[i].append(lw.buf)
		lw.item()
	}
	lw.start(sectionStamps)
	for _, st := range c.stamps {
		lw.buf = appendKey(lw.buf, st.key.topic, st.key.index, st.stamp)
		lw.item()
	}
	lw.start(sectionTimestamps)
	for i := range c.producers {
		if p := &c.producers[i]; p.timestamp != NoTime {
			lw.buf = p.producerKey.append(lw.buf)
			lw.buf = binary.LittleEndian.AppendUint64(lw.buf, uint64(p.timestamp))
			lw.item()
		}
	}
	c.writeInternal(&lw)
	return lw.close()
}

// writeInternal writes what is of internal partitions.
func (c *Capture) writeInternal(lw *listWriter) {
	le := binary.LittleEndian
	lw.start(sectionDecisions)
	for i := range c.parts {
		if p := &c.parts[i]; p.config.Internal != NotInternal {
			lw.buf = le.AppendUint32(lw.buf, uint32(p.number))
			lw.buf = le.AppendUint64(lw.buf, p.decided.term)
			lw.buf = le.AppendUint64(lw.buf, p.decided.seq)
			lw.item()
		}
	}
	lw.start(sectionFolded)
	for _, f := range c.folded {
		for r := range f.records() {
			lw.buf = le.AppendUint32(lw.buf, uint32(f.number))
			lw.buf = r.append(lw.buf)
			lw.item()
			if lw.err != nil {
				return
			}
		}
	}
}

// listWriter cuts items into sections. The first error is kept for close.
type listWriter struct {
	w    *section.Writer
	kind section.Kind
	buf  []byte // items of kind that are not written yet
	err  error
}

// start ends the sections of the current kind and starts those of the next.
func (lw *listWriter) start(k section.Kind) {
	lw.flush()
	lw.kind = k
}

// item follows each item in buf.
func (lw *listWriter) item() {
	if len(lw.buf) >= sectionBytes {
		lw.flush()
	}
}

func (lw *listWriter) flush() {
	if len(lw.buf) > 0 && lw.err == nil {
		lw.err = lw.w.Write(section.Section{
			Kind: lw.kind, Version: checkpointVersion, Mandatory: true, Payload: lw.buf,
		})
	}
	lw.buf = lw.buf[:0]
}

func (lw *listWriter) close() error {
	lw.flush()
	if lw.err != nil {
		return lw.err
	}
	return lw.w.Close()
}

func (h header) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, h.version)
	b = le.AppendUint64(b, uint64(h.clockMS))
	b = le.AppendUint32(b, uint32(h.lastNumber))
	b = le.AppendUint64(b, h.lastIndex)
	b = le.AppendUint64(b, h.lastTerm)
	b = le.AppendUint64(b, h.from)
	b = le.AppendUint64(b, h.producerStamp)
	b = le.AppendUint64(b, h.stampFloor)
	return h.limits.append(b)
}

func decodeHeader(b []byte) header {
	le := binary.LittleEndian
	return header{
		version:       le.Uint16(b),
		clockMS:       int64(le.Uint64(b[2:])),
		lastNumber:    Number(le.Uint32(b[10:])),
		lastIndex:     le.Uint64(b[14:]),
		lastTerm:      le.Uint64(b[22:]),
		from:          le.Uint64(b[30:]),
		producerStamp: le.Uint64(b[38:]),
		stampFloor:    le.Uint64(b[46:]),
		limits:        decodeLimits(b[54:]),
	}
}

func (p *part) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(p.number))
	b = appendKey(b, p.key.topic, p.key.index, p.stamp)
	b = le.AppendUint32(b, uint32(p.baseEpoch))
	b = p.config.append(b)
	b = le.AppendUint64(b, uint64(p.logStart))
	b = le.AppendUint64(b, uint64(p.end))
	b = le.AppendUint32(b, uint32(len(p.epochs)))
	for _, e := range p.epochs {
		b = le.AppendUint32(b, uint32(e.Epoch))
		b = le.AppendUint64(b, uint64(e.Start))
	}
	return b
}

func (k producerKey) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(k.number))
	return binary.LittleEndian.AppendUint64(b, uint64(k.id))
}

func (p *capturedProducer) append(b []byte) []byte {
	le := binary.LittleEndian
	b = p.producerKey.append(b)
	b = le.AppendUint16(b, uint16(p.epoch))
	b = le.AppendUint64(b, uint64(p.lastMS))
	b = le.AppendUint64(b, p.stamp)
	b = append(b, p.window.count)
	for i := range int(p.window.count) {
		w := p.window.at(i)
		b = le.AppendUint32(b, uint32(w.first))
		b = le.AppendUint32(b, uint32(w.last))
		b = le.AppendUint64(b, uint64(w.base))
		b = le.AppendUint64(b, uint64(w.appendMS))
	}
	return b
}
