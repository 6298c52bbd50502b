package doctor

import (
	"encoding/binary"
	"fmt"
	"math"
	"path"
	"slices"
	"sort"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/log/segment"
	"github.com/flotilla-log/flotilla/partition"
)

// keeps is what a new journal holds of one shard.
type keeps struct {
	s    *shard
	run  journal.Run
	from uint64 // index; above run.Last: only a stub
	stub bool   // an empty entry at the checkpoint's index stands for the log
}

// planJournal makes a new journal of what is intact and goes on from the
// checkpoints.
func (x *exam) planJournal(p *Plan) error {
	if !x.alone(p) {
		return nil
	}
	a := Action{What: "write a new journal of the entries that are intact and go on from the checkpoints", Files: x.partNames(node.JournalDir)}
	var all []keeps
	for _, id := range x.dataIDs() {
		s := x.shards[id]
		if s.cp.ChainErr != nil {
			return nil // refused already
		}
		var log journal.FoundLog
		if x.journal != nil {
			log = x.journal.Log(journal.ShardID(id), s.incarnation)
		}
		k := keeps{s: s}
		var ok bool
		switch k.run, ok = continues(log, s.index); {
		case ok:
			k.from = max(k.run.First, s.index)
			if s.index == 0 && k.run.First != 1 {
				p.refuse(node.JournalDir, "shard %d has no checkpoint, and its log begins at entry %d; %s", id, k.run.First, restoreAdvice)
				return nil
			}
		case s.index > 0:
			k.stub, k.from = true, s.index
		case s.maxTerm > 1 || len(log.Runs) > 0:
			p.refuse(node.JournalDir, "neither a checkpoint nor the start of the log is left of shard %d; %s", id, restoreAdvice)
			return nil
		default:
			continue // it was never used
		}
		lost, err := x.lost(log, k)
		if err != nil {
			return err
		}
		a.Loss = append(a.Loss, lost...)
		all = append(all, k)
	}
	if len(a.Loss) == 0 {
		a.Loss = []string{"entries that nothing tells of any more, if the damage held the last ones of a shard"}
	}
	p.add(a, func(newDir string) error { return x.writeJournal(path.Join(newDir, node.JournalDir), all) })
	return nil
}

// lost says what a shard loses with its log: what is behind a gap, record by
// record, and what nothing tells of.
func (x *exam) lost(log journal.FoundLog, k keeps) (out []string, err error) {
	end := k.s.index
	if !k.stub {
		end = k.run.Last
	}
	counts := make(map[partition.Number]int64)
	for _, r := range log.Runs {
		if r.First <= end {
			continue
		}
		out = append(out, fmt.Sprintf("entries [%d, %d] of shard %d", end+1, r.Last, k.s.id))
		for index := r.First; index <= r.Last; index++ {
			rec, err := x.journal.Read(r, index)
			if err != nil {
				return nil, err
			}
			if rec.Type == raftCommand {
				countRecords(rec.Data, counts)
			}
		}
	}
	if k.stub && len(out) == 0 {
		out = append(out, fmt.Sprintf("all entries of shard %d above index %d", k.s.id, end))
	}
	if k.s.state == nil {
		return out, nil
	}
	for v := range k.s.state.Partitions() {
		if n := counts[v.Number]; n > 0 {
			out = append(out, fmt.Sprintf("%s: at least %d records from offset %d on; acknowledged, if they were not repeated", x.name(v), n, v.End))
		} else if len(out) > 0 {
			out = append(out, fmt.Sprintf("%s: records from offset %d on, if there were any", x.name(v), v.End))
		}
	}
	return out, nil
}

// countRecords adds the records of an entry's batches, by partition.
func countRecords(entry []byte, counts map[partition.Number]int64) {
	d, err := partition.Decode(entry)
	if err != nil {
		return
	}
	for d.Next() {
		c := d.Command()
		if c.Kind != partition.KindProduce && c.Kind != partition.KindDecision {
			continue
		}
		for rest := c.Payload; len(rest) > 0; { // a Decision may have several
			b, after, err := batch.Split(rest)
			if err != nil {
				break
			}
			if h, err := batch.ParseHeader(b); err == nil {
				counts[c.Number] += int64(h.LastOffsetDelta) + 1
			}
			rest = after
		}
	}
}

// recordsAtOnce is how many entries go into a new journal with one sync.
const recordsAtOnce = 64

func (x *exam) writeJournal(dir string, all []keeps) (err error) {
	opt := journal.Options{}
	if x.journal != nil {
		for _, f := range x.journal.Files {
			opt.FileBytes = max(opt.FileBytes, f.Bytes)
		}
		if opt.FileBytes != 0 && (opt.FileBytes%4096 != 0 || opt.FileBytes < 32<<10) {
			opt.FileBytes = 0
		}
		opt.MaxBytes = opt.FileBytes * int64(max(4, 2*len(x.journal.Files)+2))
	}
	opt.Logger = discard
	j, err := journal.Open(x.fs, dir, opt)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := j.Close(); err == nil {
			err = cerr
		}
	}()
	for _, k := range all {
		log := j.Shard(journal.ShardID(k.s.id), k.s.incarnation)
		if k.stub {
			if err := log.Append([]journal.Record{{Index: k.s.index, Term: max(1, k.s.term), Type: raftNoop}}); err != nil {
				return err
			}
			continue
		}
		var recs []journal.Record
		for index := k.from; index <= k.run.Last; index++ {
			rec, err := x.journal.Read(k.run, index)
			if err != nil {
				return err
			}
			if recs = append(recs, rec); len(recs) == recordsAtOnce || index == k.run.Last {
				if err := log.Append(recs); err != nil {
					return err
				}
				recs = recs[:0]
			}
		}
	}
	return nil
}

// planMetadata makes a new log of the metadata shard: lost entries are filled
// with ones that skip producer ids, which are what must not be given twice.
func (x *exam) planMetadata(p *Plan) {
	s := x.shards[0]
	if s.cp.ChainErr != nil || !x.alone(p) {
		return
	}
	first := s.index
	if first == 0 {
		if len(x.metaRuns) == 0 || x.metaRuns[0].first != 1 {
			p.refuse(node.MetadataDir, "the metadata shard has no checkpoint, and the start of its log is lost; %s", restoreAdvice)
			return
		}
		first = 1
	}
	last := first
	if n := len(x.metaRuns); n > 0 {
		last = max(last, x.metaRuns[n-1].last)
	}
	a := Action{What: "write a new log of the metadata shard of the entries that are intact", Files: x.partNames(node.MetadataDir)}
	at := first
	for _, r := range x.metaRuns {
		if r.last >= at {
			if r.first > at {
				a.Loss = append(a.Loss, fmt.Sprintf("entries [%d, %d] of the metadata shard: changes of topics and settings", at, r.first-1))
			}
			at = r.last + 1
		}
	}
	if at <= first {
		a.Loss = append(a.Loss, fmt.Sprintf("entries of the metadata shard above index %d: changes of topics and settings", first))
	}
	a.Loss = append(a.Loss, fmt.Sprintf("entries of the metadata shard above index %d, if there were any", last))
	p.add(a, func(newDir string) error { return x.writeMetadata(path.Join(newDir, node.MetadataDir), first, last) })
}

// spareEntries is how many entries may be lost behind the last one that is
// known.
const spareEntries = 64

func (x *exam) writeMetadata(dir string, first, last uint64) error {
	entries := make(map[uint64]control.Entry)
	_, err := control.Inspect(x.fs, x.path(node.MetadataDir), func(f *control.Found) error {
		if f.Kind == "entry" && f.Index >= first {
			e := f.Entry
			e.Index = f.Index
			entries[f.Index] = e
		}
		return nil
	})
	if err != nil && x.partNames(node.MetadataDir) != nil {
		return err
	}
	log, err := control.OpenLog(x.fs, dir, control.Options{})
	if err != nil {
		return err
	}
	term := max(1, x.shards[0].term)
	var all []control.Entry
	for index := first; index <= last+spareEntries; index++ {
		e, ok := entries[index]
		switch {
		case ok && e.Term >= term:
			term = e.Term
		case index == first:
			e = control.Entry{Index: index, Term: term, Type: raftNoop}
		default:
			e = control.Entry{Index: index, Term: term, Data: metadata.Append(nil, term, metadata.AllocateProducerIDs{Count: metadata.MaxProducerIDBlock})}
		}
		all = append(all, e)
	}
	if err := log.Append(all); err != nil {
		_ = log.Close()
		return err
	}
	return log.Close()
}

// planVotes writes every replica's vote again, with its term raised.
func (x *exam) planVotes(p *Plan) {
	if !x.alone(p) {
		return
	}
	votes := make(map[uint32]control.Vote)
	for id := range x.founded() + 1 {
		v, ok := x.votes[id]
		s := x.shards[id]
		if s == nil {
			p.refuse(node.VotesDir, "nothing is left of shard %d; %s", id, restoreAdvice)
			return
		}
		if !ok || v.Incarnation == 0 {
			v.Incarnation = s.incarnation
		}
		if v.Incarnation == 0 && x.journal != nil {
			for _, l := range x.journal.Logs {
				if uint32(l.Shard) == id {
					v.Incarnation = l.Incarnation
				}
			}
		}
		if v.Incarnation == 0 {
			p.refuse(node.VotesDir, "nothing says which incarnation the replica of shard %d is; %s", id, restoreAdvice)
			return
		}
		v.Term = max(v.Term, s.maxTerm) + TermStep
		votes[id] = v
	}
	a := Action{What: fmt.Sprintf("raise the term of every shard by %d, so that readers can tell what is new", TermStep), Files: x.partNames(node.VotesDir)}
	if x.broken[node.VotesDir] {
		a.Loss = []string{"for whom the replicas voted: of no use on a single node"}
	}
	p.add(a, func(newDir string) error {
		v, err := control.OpenVotes(x.fs, path.Join(newDir, node.VotesDir), control.Options{})
		if err != nil {
			return err
		}
		for id := range x.founded() + 1 {
			if err := v.Store(id, votes[id]); err != nil {
				_ = v.Close()
				return err
			}
		}
		return v.Close()
	})
}

// mend writes a segment again.
type mend struct {
	x       *exam
	h       segmentHarm
	history []partition.EpochStart
}

// prefix returns the first 16 bytes that the batch of n bytes at an offset has
// to have.
func (m *mend) prefix(from, n int64) []byte {
	i := sort.Search(len(m.history), func(i int) bool { return m.history[i].Start > from })
	if i == 0 {
		return nil
	}
	b := make([]byte, batch.PrefixBytes)
	batch.PutPrefix(b, from, int32(n-12), m.history[i-1].Epoch)
	return b
}

// mended returns the batch of a bad range if only its first 16 bytes are wrong:
// these follow from its place.
func (m *mend) mended(bad segment.BadRange) []byte {
	n := bad.To - bad.Pos
	next := bad.Next
	if next < 0 {
		next = m.h.opt.End
	}
	prefix := m.prefix(bad.From, n)
	if prefix == nil || n < batch.HeaderBytes || n > math.MaxInt32 {
		return nil
	}
	b := make([]byte, n)
	f, err := m.x.fs.Open(m.h.in.File)
	if err != nil {
		return nil
	}
	defer f.Close()
	if k, err := f.ReadAt(b, bad.Pos); int64(k) != n && err != nil {
		return nil
	}
	copy(b, prefix)
	hd, err := batch.ParseHeader(b)
	if err != nil || hd.LastOffset()+1 != next || batch.CheckCRC(b) != nil {
		return nil
	}
	return b
}

func (m *mend) canMend(bad segment.BadRange) bool { return m.mended(bad) != nil }

// write copies what is intact, into a new segment behind each range that is
// left out.
func (m *mend) write(newDir string) (err error) {
	in := m.h.in
	dir := path.Join(newDir, m.x.rel(m.h.opt.Dir))
	if err := vfs.MkdirAllSync(m.x.fs, dir); err != nil {
		return err
	}
	w := &segmentWriter{fs: m.x.fs, dir: dir, head: in.Header}
	defer func() {
		if cerr := w.close(); err == nil {
			err = cerr
		}
	}()
	bads := slices.DeleteFunc(slices.Clone(in.Bad), func(b segment.BadRange) bool { return b.Prefixes })
	take := func(pos int64) error { // of the bad ranges below pos
		for len(bads) > 0 && bads[0].Pos < pos {
			if b := m.mended(bads[0]); b == nil {
				if err := w.close(); err != nil {
					return err
				}
			} else if err := w.add(b); err != nil {
				return err
			}
			bads = bads[1:]
		}
		return nil
	}
	_, err = segment.Inspect(m.x.fs, m.h.opt, func(pos int64, b []byte) error {
		if err := take(pos); err != nil {
			return err
		}
		return w.add(b)
	})
	if err != nil {
		return err
	}
	return take(math.MaxInt64)
}

// segmentWriter writes batches into segment files.
type segmentWriter struct {
	fs   vfs.FS
	dir  string
	head segment.Header
	f    vfs.File
	at   int64
}

func (w *segmentWriter) add(b []byte) (err error) {
	if w.f == nil {
		w.head.Base = int64(binary.BigEndian.Uint64(b))
		if w.f, err = w.fs.Create(path.Join(w.dir, segment.DataName(w.head.Base))); err != nil {
			return err
		}
		head := w.head.Encode()
		if _, err := w.f.WriteAt(head, 0); err != nil {
			return err
		}
		w.at = int64(len(head))
	}
	n, err := w.f.WriteAt(b, w.at)
	w.at += int64(n)
	return err
}

// close ends the file that is being written; the next batch begins another.
func (w *segmentWriter) close() error {
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return w.fs.SyncDir(w.dir)
}
