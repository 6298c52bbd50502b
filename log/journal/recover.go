package journal

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// Recovery is what Open found and did.
type Recovery struct {
	Files   int
	Records int // intact, of all kinds

	Torn       bool   // there was a torn tail
	TornFile   string // where it began
	TornOffset int64

	RewrittenBytes  int64 // intact but not provably synced, written again
	RepairedHeaders int   // files of which a header was written again
}

// scan is one recovery under way.
type scan struct {
	j       *Journal
	repair  []*file // files whose two headers are not the same
	headers map[*file]fileHeader
	ring    ring
	counted bool // there is a RING file

	last   int          // position in files of the last with an intact record; 0 if none has
	next   uint64       // LSN expected behind it; 0 if there is no intact record
	proven uint64       // highest LSN that anything intact says was synced
	tail   []tailRecord // of the file at position last
	strays []stray      // by position in files, from last on
	logs   map[shardKey][]found
}

// found is a record that recovery found.
type found struct {
	index uint64
	lsn   uint64
	kind  kind
	entry entry
}

// tailRecord is an intact record of the last written file.
type tailRecord struct {
	lsn    uint64
	offset int64
	mark   bool
}

// recover reads the ring, decides what is torn or corrupt, and only then
// changes anything.
func (j *Journal) recover() error {
	if err := vfs.MkdirAllSync(j.fs, j.dir); err != nil {
		return fmt.Errorf("journal: make %s: %w", j.dir, err)
	}
	s := &scan{j: j, headers: make(map[*file]fileHeader), logs: make(map[shardKey][]found)}
	if err := s.openFiles(); err != nil {
		return err
	}
	if err := s.checkRing(); err != nil {
		return err
	}
	if err := s.scanFiles(); err != nil {
		return err
	}
	if err := s.checkCount(); err != nil {
		return err
	}
	if err := s.judgeTail(); err != nil {
		return err
	}
	s.buildLogs()
	if err := s.mend(); err != nil {
		return err
	}
	j.recovery.Files = len(j.files)
	j.event(Event{Kind: EventRecovered})
	r := j.recovery
	j.opt.Logger.Info("journal recovered", "dir", j.dir, "files", r.Files, "records", r.Records,
		"torn", r.Torn, "rewritten_bytes", r.RewrittenBytes, "repaired_headers", r.RepairedHeaders)
	return nil
}

// openFiles opens every file of the ring and reads its header.
func (s *scan) openFiles() error {
	var err error
	if s.ring, s.counted, err = readRing(s.j.fs, s.j.dir); err != nil {
		return err
	}
	names, err := s.j.fs.ReadDir(s.j.dir)
	if err != nil {
		return fmt.Errorf("journal: list %s: %w", s.j.dir, err)
	}
	for _, name := range names {
		number, ok := strings.CutSuffix(name, ".journal")
		if !ok {
			continue
		}
		slot, err := strconv.ParseUint(number, 10, 32)
		p := path.Join(s.j.dir, name)
		if err != nil || fileName(uint32(slot)) != name {
			return fmt.Errorf("journal: %s: not a name of a journal file", p)
		}
		if int(slot) != len(s.j.slots) {
			return &CorruptError{File: path.Join(s.j.dir, fileName(uint32(len(s.j.slots)))), Err: fmt.Errorf("missing, but %s is there", name)}
		}
		f, err := s.j.fs.Open(p)
		if err != nil {
			return fmt.Errorf("journal: open %s: %w", p, err)
		}
		jf := &file{path: p, slot: uint32(slot), f: f, end: headerBytes}
		s.j.slots = append(s.j.slots, jf)
		if err := s.readHeader(jf); err != nil {
			return err
		}
	}
	return nil
}

// readHeader takes the newer of the file's valid headers.
func (s *scan) readHeader(f *file) error {
	size, err := f.f.Size()
	if err != nil {
		return fmt.Errorf("journal: size of %s: %w", f.path, err)
	}
	if size < minFileBytes {
		return &CorruptError{File: f.path, Offset: size, Err: fmt.Errorf("file has %d bytes", size)}
	}
	var heads [2]fileHeader
	var errs [2]error
	b := make([]byte, headerBytes)
	if _, err := f.f.ReadAt(b, 0); err != nil {
		return fmt.Errorf("journal: read %s at offset 0: %w", f.path, err)
	}
	for i := range heads {
		if heads[i], errs[i] = decodeFileHeader(b[i*blockBytes:][:blockBytes]); errors.Is(errs[i], ErrVersion) {
			return fmt.Errorf("%s: %w", f.path, errs[i])
		}
	}
	h := heads[0]
	switch {
	case errs[0] != nil && errs[1] != nil:
		return &CorruptError{File: f.path, Err: fmt.Errorf("neither header is intact: %w", errs[0])}
	case errs[0] != nil || errs[1] == nil && heads[1].sequence > h.sequence:
		h = heads[1]
	}
	if errs[0] != nil || errs[1] != nil || heads[0] != heads[1] {
		s.repair = append(s.repair, f)
	}
	if h.slot != f.slot || h.fileBytes != size {
		return &CorruptError{File: f.path, Err: fmt.Errorf("header is of slot %d with %d bytes, the file has %d", h.slot, h.fileBytes, size)}
	}
	f.sequence, f.salt, f.seed = h.sequence, h.salt, seedOf(h.salt)
	s.headers[f] = h
	s.proven = max(s.proven, h.synced)
	return nil
}

// checkRing puts the files in order of sequence, and checks that none is
// missing: each use, and each growth, took the next number.
func (s *scan) checkRing() error {
	j := s.j
	if len(j.slots) == 0 {
		if s.ring.slots > 0 {
			return s.checkCount()
		}
		return nil
	}
	j.files = slices.Clone(j.slots)
	slices.SortFunc(j.files, func(a, b *file) int { return cmp.Compare(a.sequence, b.sequence) })
	newest := s.headers[j.files[len(j.files)-1]]
	for i, f := range j.files {
		if i > 0 && f.sequence != j.files[i-1].sequence+1 {
			return &CorruptError{File: f.path, Err: fmt.Errorf("sequence %d follows %d", f.sequence, j.files[i-1].sequence)}
		}
		if b := s.headers[f].fileBytes; b != newest.fileBytes {
			return &CorruptError{File: f.path, Err: fmt.Errorf("file of %d bytes in a ring of files of %d", b, newest.fileBytes)}
		}
	}
	if int(newest.slots) != len(j.files) {
		return &CorruptError{File: path.Join(j.dir, fileName(uint32(len(j.files)))), Err: fmt.Errorf("ring has %d files, its newest header says %d", len(j.files), newest.slots)}
	}
	if newest.fileBytes != j.opt.FileBytes {
		j.opt.Logger.Warn("journal keeps its file size", "dir", j.dir, "file_bytes", newest.fileBytes, "configured", j.opt.FileBytes)
		j.opt.FileBytes = newest.fileBytes
	}
	return nil
}

// scanFiles reads the intact records in the order in which they were written,
// up to the first LSN that is missing.
func (s *scan) scanFiles() error {
	for i, f := range s.j.files {
		var tail []tailRecord
		end, next, err := scanRecords(f, s.j.opt.FileBytes, s.next, func(h *recordHeader, offset int64) {
			s.visit(f, h, offset)
			tail = append(tail, tailRecord{lsn: h.lsn, offset: offset, mark: h.kind == kindMark})
		})
		if err != nil {
			return err
		}
		s.next = next
		if len(tail) == 0 {
			continue
		}
		if i > 0 && s.j.files[i-1].end == headerBytes {
			return &CorruptError{File: s.j.files[i-1].path, Offset: headerBytes, Err: fmt.Errorf("no intact record, but %s has some", path.Base(f.path))}
		}
		f.end, s.last, s.tail = end, i, tail
	}
	return nil
}

func (s *scan) visit(f *file, h *recordHeader, offset int64) {
	s.j.recovery.Records++
	s.proven = max(s.proven, h.synced)
	if h.kind == kindMark {
		return
	}
	key := shardKey{h.shard, h.incarnation}
	s.logs[key] = append(s.logs[key], found{
		index: h.index,
		lsn:   h.lsn,
		kind:  h.kind,
		entry: entry{
			order:    h.order,
			term:     h.term,
			slot:     f.slot,
			units:    uint32(offset / alignBytes),
			bytes:    uint32(h.size()),
			raftType: h.raftType,
		},
	})
}

// judgeTail searches on past the last intact record, and tells a torn tail from
// corruption (R8): see the package comment.
func (s *scan) judgeTail() error {
	files := s.j.files
	var all stray
	for i := s.last; i < len(files); i++ {
		from := int64(headerBytes)
		if i == s.last {
			from = files[i].end
		}
		st, err := searchHeaders(files[i], s.j.opt.FileBytes, from)
		if err != nil {
			return err
		}
		s.strays = append(s.strays, st)
		if st.found == 0 {
			continue
		}
		if all.found == 0 {
			all = st
		}
		all.minLSN, all.least, all.most = min(all.minLSN, st.minLSN), min(all.least, st.least), max(all.most, st.most)
		s.proven = max(s.proven, st.most)
	}
	missing := s.next
	if missing == 0 {
		// No record is intact, so where the LSNs begin is not known. Records
		// of one unsynced commit agree on what was synced before it, and at
		// least one LSN between that and the first intact header is torn.
		if all.found == 0 {
			s.next = s.proven + 1
			return nil
		}
		missing = all.minLSN - 1
		if all.least == all.most && all.most < missing {
			missing = all.most + 1
		}
	}
	s.next = missing
	if s.proven >= missing {
		f, offset := s.damage()
		return &CorruptError{File: f.path, Offset: offset, LSN: missing, Err: fmt.Errorf("LSN %d is missing, but all up to %d were synced", missing, s.proven)}
	}
	if all.found > 0 {
		f, offset := s.damage()
		s.j.recovery.Torn, s.j.recovery.TornFile, s.j.recovery.TornOffset = true, f.path, offset
		s.j.event(Event{Kind: EventTornTail, File: f.path, Bytes: offset})
	}
	return nil
}

// damage says where the first missing record lies: behind the last intact one,
// unless that ends its file and the next one has lost its first.
func (s *scan) damage() (*file, int64) {
	files := s.j.files
	f := files[s.last]
	for i, st := range s.strays {
		switch {
		case st.found == 0:
			continue
		case i > 0 && (st.first > headerBytes || st.firstLSN == s.next):
			return files[s.last+i], headerBytes
		}
		break
	}
	return f, f.end
}

// buildLogs replays each shard's records by order. Of copies of one record the
// last written is taken: the file of the others is reused first.
func (s *scan) buildLogs() {
	for key, records := range s.logs {
		slices.SortStableFunc(records, func(a, b found) int {
			return cmp.Or(cmp.Compare(a.entry.order, b.entry.order), cmp.Compare(a.lsn, b.lsn))
		})
		log := &Shard{j: s.j, key: key}
		for i, r := range records {
			if i+1 < len(records) && records[i+1].entry.order == r.entry.order {
				continue
			}
			switch r.kind {
			case kindEntry:
				log.insertLocked(r.index, r.entry)
			case kindTruncate:
				log.truncateLocked(r.index)
			case kindDrop:
				log.truncateLocked(0)
			}
		}
		if len(log.entries) > 0 {
			s.j.shards[key] = log
		}
	}
	s.logs = nil
}
