package journal

const (
	inlineBytes  = 4 << 10 // smaller data is copied into a run, not given an iovec of its own
	keepRunBytes = 4 << 20 // a larger buffer is not kept for the next commit
)

// placed is a record of the run, and what follows from it once it is durable.
type placed struct {
	s     *Shard
	kind  kind
	copy  bool // of a record that the index holds at another place
	index uint64
	entry entry
	req   *request // completed with this record; nil before its last one
}

// run is what is written next: consecutive records for the file being written.
// It belongs to the writer.
type run struct {
	file   *file
	budget int64 // bytes that may still be placed; see Journal.budgetLocked

	iov   [][]byte
	buf   []byte // headers, small payloads, padding; its parts before open are in iov
	open  int
	bytes int64
	lsn   uint64 // of the next record
	items []placed
	spare []*request // the queue's other array

	copies []copyRef // what is left to copy forward of the oldest file
	copied uint64    // that file's sequence
}

// start sets the writer to the end of the recovered journal.
func (w *run) start(j *Journal) {
	w.file = j.files[j.at]
	w.lsn = j.nextLSN
	w.budget = j.budgetLocked()
}

// add encodes one record behind the run.
func (w *run) add(h *recordHeader, ext, data []byte) {
	h.lsn = w.lsn
	w.lsn++
	if h.order == 0 {
		h.order = h.lsn
	}
	h.payloadBytes, h.extBytes = uint32(len(ext)+len(data)), uint32(len(ext))
	w.buf = h.encode(w.buf, w.file.seed)
	w.buf = append(w.buf, ext...)
	if len(data) < inlineBytes {
		w.buf = append(w.buf, data...)
	} else {
		w.closePart()
		w.iov = append(w.iov, data)
	}
	size := h.size()
	w.buf = append(w.buf, zeroPad[:size-recordHeaderBytes-int64(h.payloadBytes)]...)
	w.bytes += size
	w.budget -= size
}

// closePart moves the open part of buf to iov. A part keeps its bytes if buf is
// later moved to a larger array.
func (w *run) closePart() {
	if w.open < len(w.buf) {
		w.iov = append(w.iov, w.buf[w.open:])
		w.open = len(w.buf)
	}
}

// offset is where the next record of the run will lie.
func (w *run) offset() int64 { return w.file.end + w.bytes }

func (w *run) reset() {
	clear(w.iov)
	clear(w.items)
	w.iov, w.items, w.bytes, w.open = w.iov[:0], w.items[:0], 0, 0
	if w.buf = w.buf[:0]; cap(w.buf) > keepRunBytes {
		w.buf = nil
	}
}
