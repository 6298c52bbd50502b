package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"slices"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// Found is one record as Inspect found it.
type Found struct {
	File          string
	Offset, Bytes int64 // in the file, with header and padding
	LSN, Synced   uint64
	Order         uint64 // LSN under which its content was first written
	Kind          string // entry, truncate, drop or mark
	Shard         ShardID
	Incarnation   uint64
	Record        Record // its bytes are valid until visit returns
}

// Damage is a range of a journal's file that does not hold what was written.
type Damage struct {
	File       string
	Offset, To int64  // half-open; To is 0 where the file as a whole is meant
	LSN        uint64 // the first that is missing there; 0 if it is not known
	Torn       bool   // nothing says that it was synced: the next start cuts it off
	Header     bool   // one copy of a file's header
	Err        error
}

// FileInfo is what the headers of one file say.
type FileInfo struct {
	File      string
	Slot      uint32
	Slots     uint32 // of the ring, when the header was written
	Bytes     int64
	Sequence  uint64
	SyncedLSN uint64
	Used      int64    // bytes up to the end of the last intact record
	Headers   [2]error // nil: intact
}

// Inspection is what Inspect found. Nothing was changed.
type Inspection struct {
	Slots   int // that RING counts, or -1
	RingErr error
	Files   []FileInfo // in order of sequence; those without an intact header first
	Records int
	Last    uint64 // highest LSN of an intact record
	Proven  uint64 // highest LSN that anything intact says was synced
	Damage  []Damage

	// OpenErr is what Open would answer: nil, ErrVersion or a *CorruptError.
	OpenErr error

	Logs []FoundLog // by shard and incarnation

	files []*inspected
}

// FoundLog is what is left of the log of one incarnation of a shard.
type FoundLog struct {
	Shard       ShardID
	Incarnation uint64
	Runs        []Run // ascending
}

// Run is a part of a log without a gap. Of a journal without damage the last
// run is the log, and what is before it was given up or compacted.
type Run struct {
	First, Last uint64 // indexes, both within
	places      []place
}

// place is where an entry lies.
type place struct {
	index, order, lsn uint64
	kind              kind
	file              int
	offset, bytes     int64
}

// Read reads an entry of the run, with fresh bytes. The Inspection is open.
func (in *Inspection) Read(run Run, index uint64) (Record, error) {
	if index < run.First || index > run.Last {
		return Record{}, fmt.Errorf("%w: index %d, the run has [%d, %d]", ErrNotFound, index, run.First, run.Last)
	}
	p := run.places[index-run.First]
	f := in.files[p.file]
	b := make([]byte, p.bytes)
	if _, err := f.ReadAt(b, p.offset); err != nil {
		return Record{}, fmt.Errorf("journal: read %s at offset %d: %w", f.info.File, p.offset, err)
	}
	h, ok := decodeRecordHeader(b, f.seed)
	if !ok || h.size() != p.bytes || payloadCRCPadded(b[recordHeaderBytes:]) != h.payloadCRC {
		return Record{}, &CorruptError{File: f.info.File, Offset: p.offset, LSN: p.lsn, Err: errChecksum}
	}
	return foundRecord(f.info.File, p.offset, &h, b[recordHeaderBytes:]).Record, nil
}

// Close releases the files.
func (in *Inspection) Close() {
	for _, f := range in.files {
		f.Close()
	}
}

// Log returns the log of one incarnation of a shard, without runs if there is
// none.
func (in *Inspection) Log(id ShardID, incarnation uint64) FoundLog {
	for _, l := range in.Logs {
		if l.Shard == id && l.Incarnation == incarnation {
			return l
		}
	}
	return FoundLog{Shard: id, Incarnation: incarnation}
}

// InspectOptions are those of Options that bear on what is damage.
type InspectOptions struct {
	Uncounted bool // see Options
}

// Inspect reads a whole journal that nobody has open, and changes nothing. It
// calls visit, if that is not nil, for each intact record, file by file in order
// of sequence and going on behind damage, so records that are in nobody's log
// any more are among them. An error of visit ends it. Memory is bounded by the
// largest record and some 100 bytes a record. Close gives the
// files back.
//
// The error is visit's or the file system's; damage is in the Inspection. A
// directory that is not there matches fs.ErrNotExist.
func Inspect(fsys vfs.FS, dir string, opt InspectOptions, visit func(*Found) error) (*Inspection, error) {
	in := &Inspection{Slots: -1}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: list %s: %w", dir, err)
	}
	if err := in.verdict(fsys, dir, opt); err != nil {
		return nil, err
	}
	r, counted, err := readRing(fsys, dir)
	switch {
	case errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion):
		in.RingErr = err
	case err != nil:
		return nil, err
	case counted:
		in.Slots = int(r.slots)
	case !opt.Uncounted:
		in.RingErr = &CorruptError{File: path.Join(dir, ringName), Err: fs.ErrNotExist}
	}
	for _, name := range names {
		if path.Ext(name) != ".journal" {
			continue
		}
		f, err := openInspected(fsys, path.Join(dir, name))
		if err != nil {
			in.Close()
			return nil, err
		}
		in.files = append(in.files, f)
	}
	slices.SortStableFunc(in.files, func(a, b *inspected) int { return cmp.Compare(a.info.Sequence, b.info.Sequence) })
	expect := uint64(0)
	logs := make(map[shardKey][]place)
	for i, f := range in.files {
		expect, err = f.walk(in, expect, func(h *recordHeader, at int64, payload []byte) error {
			if h.kind != kindMark {
				key := shardKey{h.shard, h.incarnation}
				logs[key] = append(logs[key], place{index: h.index, order: h.order, lsn: h.lsn, kind: h.kind, file: i, offset: at, bytes: h.size()})
			}
			if visit == nil {
				return nil
			}
			return visit(foundRecord(f.info.File, at, h, payload))
		})
		if err != nil {
			in.Close()
			return nil, err
		}
		in.Files = append(in.Files, f.info)
		in.Proven = max(in.Proven, f.info.SyncedLSN)
	}
	in.build(logs)
	named := false
	for i := range in.Damage {
		d := &in.Damage[i]
		d.Torn = !d.Header && in.OpenErr == nil
		named = named || !d.Header
	}
	if ce := (*CorruptError)(nil); errors.As(in.OpenErr, &ce) && !named {
		in.note(Damage{File: ce.File, Offset: ce.Offset, LSN: ce.LSN, Err: ce.Err})
	}
	return in, nil
}

// verdict does what Open does before it changes anything.
func (in *Inspection) verdict(fsys vfs.FS, dir string, opt InspectOptions) error {
	j := &Journal{fs: fsys, dir: dir, shards: make(map[shardKey]*Shard), opt: Options{Uncounted: opt.Uncounted, Logger: slog.New(slog.DiscardHandler)}}
	if err := j.opt.setDefaults(); err != nil {
		return err
	}
	defer func() {
		for _, f := range j.slots {
			f.f.Close()
		}
	}()
	s := &scan{j: j, headers: make(map[*file]fileHeader), logs: make(map[shardKey][]found)}
	for _, step := range []func() error{s.openFiles, s.checkRing, s.scanFiles, s.checkCount, s.judgeTail} {
		if err := step(); errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
			in.OpenErr = err
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// build replays each log's records by order, as recovery does, and keeps what
// is not contiguous apart.
func (in *Inspection) build(logs map[shardKey][]place) {
	for key, places := range logs {
		slices.SortStableFunc(places, func(a, b place) int {
			return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.lsn, b.lsn))
		})
		log := FoundLog{Shard: key.id, Incarnation: key.incarnation}
		for i, p := range places {
			if i+1 < len(places) && places[i+1].order == p.order {
				continue // a copy that was written later holds
			}
			switch p.kind {
			case kindEntry:
				log.insert(p)
			case kindTruncate:
				log.cut(p.index)
			case kindDrop:
				log.cut(0)
			}
		}
		if len(log.Runs) > 0 {
			in.Logs = append(in.Logs, log)
		}
	}
	slices.SortFunc(in.Logs, func(a, b FoundLog) int {
		return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Incarnation, b.Incarnation))
	})
}

func (l *FoundLog) insert(p place) {
	l.cut(p.index)
	if n := len(l.Runs); n == 0 || l.Runs[n-1].Last+1 != p.index {
		l.Runs = append(l.Runs, Run{First: p.index, Last: p.index - 1})
	}
	r := &l.Runs[len(l.Runs)-1]
	r.places, r.Last = append(r.places, p), p.index
}

// cut removes the entries from index on.
func (l *FoundLog) cut(index uint64) {
	for n := len(l.Runs); n > 0 && l.Runs[n-1].Last >= index; n = len(l.Runs) {
		r := &l.Runs[n-1]
		if r.First >= index {
			l.Runs = l.Runs[:n-1]
			continue
		}
		r.places, r.Last = r.places[:index-r.First], index-1
	}
}

// inspected is a file that is being inspected.
type inspected struct {
	vfs.File
	info FileInfo
	seed uint32
	ok   bool // a header is intact
}

func openInspected(fsys vfs.FS, name string) (_ *inspected, err error) {
	f := &inspected{info: FileInfo{File: name, Used: headerBytes}}
	if f.File, err = fsys.Open(name); err != nil {
		return nil, fmt.Errorf("journal: open %s: %w", name, err)
	}
	if f.info.Bytes, err = f.Size(); err != nil {
		return nil, fmt.Errorf("journal: size of %s: %w", name, err)
	}
	b := make([]byte, headerBytes)
	if n, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("journal: read %s at offset %d: %w", name, n, err)
	}
	for i := range f.info.Headers {
		h, err := decodeFileHeader(b[i*blockBytes:][:blockBytes])
		f.info.Headers[i] = err
		if err == nil && (!f.ok || h.sequence > f.info.Sequence) {
			f.ok, f.seed = true, seedOf(h.salt)
			f.info.Slot, f.info.Slots, f.info.Sequence, f.info.SyncedLSN = h.slot, h.slots, h.sequence, h.synced
		}
	}
	return f, nil
}

var kindNames = map[kind]string{kindEntry: "entry", kindTruncate: "truncate", kindDrop: "drop", kindMark: "mark"}

// walk visits the intact records of f, of which expect is the first LSN (0: not
// known), and notes what lies between them. It returns the LSN after the last.
func (f *inspected) walk(in *Inspection, expect uint64, visit func(h *recordHeader, at int64, payload []byte) error) (uint64, error) {
	for i, err := range f.info.Headers {
		if err != nil {
			d := Damage{File: f.info.File, Offset: int64(i) * blockBytes, To: int64(i+1) * blockBytes, Header: true, Err: err}
			in.Damage = append(in.Damage, d)
		}
	}
	if !f.ok {
		return expect, nil
	}
	w := &window{f: f.File, name: f.info.File, size: f.info.Bytes}
	gap, why := int64(0), error(nil) // where damage begins, 0: there is none
	for at := int64(headerBytes); at+recordHeaderBytes <= f.info.Bytes; {
		b, err := w.at(at, recordHeaderBytes)
		if err != nil {
			return 0, err
		}
		var h recordHeader
		ok := b[76] != 0 // the kind; spares runs of zeros the checksum
		if ok {
			h, ok = decodeRecordHeader(b, f.seed)
		}
		if ok && at+h.size() > f.info.Bytes {
			ok = false
		}
		if ok && expect != 0 && h.lsn < expect {
			ok = false // of an end that was given up
		}
		if !ok {
			if gap == 0 {
				gap, why = at, errChecksum
			}
			at += alignBytes
			continue
		}
		if gap == 0 && expect != 0 && h.lsn != expect {
			gap, why = at, errors.New("records are missing before it")
		}
		if gap != 0 {
			in.note(Damage{File: f.info.File, Offset: gap, To: at, LSN: expect, Err: why})
			gap = 0
		}
		if b, err = w.at(at, h.size()); err != nil {
			return 0, err
		}
		in.Proven = max(in.Proven, h.synced)
		expect = h.lsn + 1
		if payload := b[recordHeaderBytes:]; payloadCRCPadded(payload) != h.payloadCRC {
			in.note(Damage{File: f.info.File, Offset: at, To: at + h.size(), LSN: h.lsn, Err: fmt.Errorf("payload of entry %d of shard %d: %w", h.index, h.shard, errChecksum)})
		} else if err := h.check(); err != nil {
			in.note(Damage{File: f.info.File, Offset: at, To: at + h.size(), LSN: h.lsn, Err: err})
		} else {
			in.Records++
			in.Last = h.lsn
			if err := visit(&h, at, payload); err != nil {
				return 0, err
			}
		}
		at += h.size()
		f.info.Used = at
	}
	// What follows the last record is old bytes, unless they were the next LSN.
	if gap != 0 && expect != 0 && expect <= in.Proven {
		in.note(Damage{File: f.info.File, Offset: gap, To: f.info.Bytes, LSN: expect, Err: why})
	}
	return expect, nil
}

func (in *Inspection) note(d Damage) { in.Damage = append(in.Damage, d) }

func foundRecord(file string, at int64, h *recordHeader, payload []byte) *Found {
	return &Found{
		File: file, Offset: at, Bytes: h.size(), LSN: h.lsn, Synced: h.synced, Order: h.order,
		Kind: kindNames[h.kind], Shard: h.shard, Incarnation: h.incarnation,
		Record: Record{
			Index: h.index, Term: h.term, AppendedAt: h.appendedAt, Type: h.raftType,
			Extensions: payload[:h.extBytes:h.extBytes], Data: payload[h.extBytes:h.payloadBytes:h.payloadBytes],
		},
	}
}
