package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

// Raft's types of entries (raft.LogType).
const (
	raftCommand = 0
	raftNoop    = 1
)

func (x *exam) readVotes() error {
	dir := x.path(node.VotesDir)
	in, err := control.Inspect(x.fs, dir, func(f *control.Found) error {
		switch f.Kind {
		case "vote":
			x.votes[f.Shard] = f.Vote
		case "delete":
			delete(x.votes, f.Shard)
		default:
			return nil // reported by what a start says
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		x.broken[node.VotesDir] = true
		x.find(Finding{Kind: "votes", File: dir, Offset: -1, Harmful: true, What: "missing", Cause: "somebody removed it, or it is not mounted",
			Loss: "for whom the replicas voted", Remedy: RemedyLoss, Advice: lossAdvice})
		return nil
	}
	if err != nil {
		return err
	}
	x.votesIn = in
	x.control("votes", node.VotesDir, in, "for whom a replica voted")
	shards := x.founded()
	if x.idErr != nil || !x.id.Started || x.broken[node.VotesDir] {
		return nil
	}
	for id := range shards + 1 {
		if _, ok := x.votes[id]; !ok {
			x.broken[node.VotesDir] = true
			x.find(Finding{Kind: "votes", File: dir, Offset: -1, Harmful: true, What: fmt.Sprintf("no vote of shard %d is on record", id),
				Cause: "its file is missing or another's", Loss: "for whom the replica voted", Remedy: RemedyLoss, Advice: lossAdvice})
		}
	}
	return nil
}

// control reports what is wrong with a control log.
func (x *exam) control(kind, part string, in *control.Inspection, loss string) {
	x.report.Summary.ControlRecords += in.Records
	for _, file := range in.Files {
		x.reading(file)
	}
	for _, d := range in.Damage {
		f := Finding{Kind: kind, File: d.File, Offset: d.Offset, Harmful: !d.Torn, What: d.Err.Error(), Cause: rotCause, Remedy: RemedyLoss, Advice: lossAdvice}
		switch {
		case errors.Is(d.Err, control.ErrVersion):
			f.Cause, f.Remedy, f.Advice = "a newer version wrote it", RemedyNone, upgradeAdvice
		case d.Torn:
			f.Cause, f.Remedy, f.Advice = "a write that a crash cut short; it was not acknowledged", RemedyStart, startAdvice
		default:
			f.Loss = fmt.Sprintf("%s: record %d", loss, d.Index)
			x.broken[part] = true
		}
		x.find(f)
	}
}

func (x *exam) readJournal() error {
	dir := x.path(node.JournalDir)
	in, err := journal.Inspect(x.fs, dir, journal.InspectOptions{Uncounted: x.idErr == nil && x.id.Generation == 0}, nil)
	if errors.Is(err, fs.ErrNotExist) {
		x.broken[node.JournalDir] = true
		x.find(Finding{Kind: "journal", File: dir, Offset: -1, Harmful: true, What: "missing", Cause: "somebody removed it, or it is not mounted",
			Loss: "everything that was acknowledged since the newest checkpoints", Remedy: RemedyLoss, Advice: lossAdvice})
		return nil
	}
	if err != nil {
		return err
	}
	x.journal = in
	x.report.Summary.JournalRecords = in.Records
	for _, f := range in.Files {
		x.reading(f.File)
	}
	opens := in.OpenErr == nil
	for _, d := range in.Damage {
		f := Finding{Kind: "journal", File: d.File, Offset: d.Offset, What: d.Err.Error()}
		switch {
		case errors.Is(d.Err, journal.ErrVersion):
			f.Harmful, f.Cause, f.Remedy, f.Advice = true, "a newer version wrote it", RemedyNone, upgradeAdvice
		case d.Header && opens:
			f.What = "one of the two headers: " + f.What
			f.Cause, f.Remedy, f.Advice = "a crash while the file was given its next use, or the disk", RemedyStart, startAdvice
		case opens:
			f.Cause, f.Remedy, f.Advice = "a write that a crash cut short; it was not acknowledged", RemedyStart, startAdvice
		default:
			f.Harmful, f.Cause, f.Remedy, f.Advice = true, rotCause, RemedyLoss, lossAdvice
			if d.LSN != 0 {
				f.What = fmt.Sprintf("record %d: %s", d.LSN, f.What)
			}
			f.Loss = "the records there, and what follows them in the logs of their shards"
		}
		x.find(f)
	}
	if opens {
		return nil
	}
	x.broken[node.JournalDir] = true
	var ce *journal.CorruptError
	named := errors.As(in.OpenErr, &ce) && slices.ContainsFunc(in.Damage, func(d journal.Damage) bool { return d.File == ce.File })
	if !named {
		f := Finding{Kind: "journal", File: dir, Offset: -1, Harmful: true, What: in.OpenErr.Error(), Remedy: RemedyLoss, Advice: lossAdvice}
		if ce != nil {
			f.File, f.Offset, f.What = ce.File, ce.Offset, ce.Err.Error()
			f.Cause, f.Loss = "a file was removed, exchanged or put back from an older copy, or the disk changed it", "the records that are missing, and what follows them in the logs of their shards"
		} else {
			f.Cause, f.Remedy, f.Advice = "a newer version wrote it", RemedyNone, upgradeAdvice
			delete(x.broken, node.JournalDir)
		}
		x.find(f)
	}
	return nil
}

// readMetadata restores the metadata shard from its checkpoint and its log.
func (x *exam) readMetadata() error {
	dir := x.path(node.MetadataDir)
	s, err := x.openShard(uint32(replication.MetadataShard))
	if err != nil {
		return err
	}
	meta := metadata.New()
	if s.index > 0 {
		b, err := io.ReadAll(s.cp.Bodies)
		if err != nil {
			return err
		}
		if meta, err = metadata.Restore(bytes.NewReader(b)); err != nil {
			x.badChain(s, err)
			meta = nil
		}
	} else if s.cp.ChainErr != nil {
		meta = nil
	}
	applyErr := error(nil)
	applied := s.index
	in, err := control.Inspect(x.fs, dir, func(f *control.Found) error {
		if f.Kind != "entry" {
			return nil
		}
		s.maxTerm = max(s.maxTerm, f.Entry.Term)
		if n := len(x.metaRuns); n > 0 && x.metaRuns[n-1].last+1 == f.Index {
			x.metaRuns[n-1].last = f.Index
		} else {
			x.metaRuns = append(x.metaRuns, run{f.Index, f.Index})
		}
		if meta != nil && applyErr == nil && f.Index == applied+1 {
			applied++
			if f.Entry.Type == raftCommand {
				if _, applyErr = meta.Apply(f.Index, f.Entry.Term, f.Entry.Data); applyErr != nil {
					x.broken[node.MetadataDir] = true
					x.find(Finding{Kind: "metadata", File: f.File, Offset: f.Offset, Harmful: true, What: applyErr.Error(),
						Cause: "the log is another's, or a newer version wrote it", Remedy: RemedyNone, Advice: restoreAdvice})
				}
			}
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		in, err = new(control.Inspection), nil
	}
	if err != nil {
		return err
	}
	x.metaIn, x.meta, s.end = in, meta, applied
	x.control("metadata", node.MetadataDir, in, "changes of topics and settings")
	var first, last uint64
	if n := len(x.metaRuns); n > 0 {
		first, last = x.metaRuns[0].first, x.metaRuns[n-1].last
	}
	x.checkLog(s, "metadata", dir, node.MetadataDir, first, last)
	x.checkVote(s)
	if meta != nil {
		x.report.Summary.Topics = meta.Image().TopicCount()
	}
	return nil
}

// checkLog reports a log that does not continue the newest checkpoint: what a
// start refuses (replication.ErrLostLog).
func (x *exam) checkLog(s *shard, kind, file, part string, first, last uint64) {
	if s.cp.ChainErr != nil {
		return
	}
	if last == 0 && s.index == 0 && (s.maxTerm <= 1 || x.broken[part]) || last != 0 && first <= s.index+1 && s.index <= last {
		return
	}
	s.lost = true
	if x.broken[part] {
		return // explained already
	}
	x.broken[part] = true
	x.find(Finding{
		Kind: kind, File: file, Offset: -1, Harmful: true,
		What:   fmt.Sprintf("shard %d has a checkpoint at index %d, and its log holds [%d, %d]", s.id, s.index, first, last),
		Cause:  "the log or the checkpoints were removed, exchanged or put back from an older copy",
		Loss:   "what was acknowledged and is in neither", // of the two
		Remedy: RemedyLoss, Advice: lossAdvice,
	})
}

// checkVote reports a vote from before what its replica has stored: what a start
// refuses (replication.ErrOldVote).
func (x *exam) checkVote(s *shard) {
	v, ok := x.votes[s.id]
	if !ok || v.Term >= s.maxTerm || x.broken[node.VotesDir] {
		return
	}
	x.broken[node.VotesDir] = true
	x.find(Finding{Kind: "votes", File: x.path(node.VotesDir), Offset: -1, Harmful: true,
		What:  fmt.Sprintf("shard %d is in term %d, and has stored what was written in term %d", s.id, v.Term, s.maxTerm),
		Cause: "an older copy was put back", Loss: "for whom the replica voted since", Remedy: RemedyLoss, Advice: lossAdvice})
}

// openShard reads a replica's checkpoints.
func (x *exam) openShard(id uint32) (*shard, error) {
	s := &shard{id: id, incarnation: x.votes[id].Incarnation, maxTerm: x.votes[id].Term}
	x.shards[id] = s
	dir := x.path(node.ShardsDir, strconv.Itoa(int(id)))
	found, err := replication.InspectCheckpoints(x.fs, dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.cp = found
	x.report.Summary.Checkpoints += len(found.Files)
	for _, f := range found.Files {
		x.reading(f.File)
		s.maxTerm = max(s.maxTerm, f.Term)
		switch {
		case errors.Is(f.Err, replication.ErrUnsupported):
			x.find(Finding{Kind: "checkpoint", File: f.File, Offset: 0, Harmful: true, What: f.Err.Error(), Cause: "a newer version wrote it", Remedy: RemedyNone, Advice: upgradeAdvice})
		case f.Err != nil:
			x.broken[path.Join(node.ShardsDir, strconv.Itoa(int(id)))] = true
			x.find(Finding{Kind: "checkpoint", File: f.File, Offset: 0, Harmful: true, What: f.Err.Error(), Cause: rotCause,
				Loss: "offsets, producers and epochs, unless an older checkpoint and the log still reach as far", Remedy: RemedyRepair, Advice: repairAdvice + "; it says whether that is so"})
		case s.incarnation == 0:
			s.incarnation = f.Incarnation
		case f.Incarnation != s.incarnation || uint32(f.Shard) != id:
			x.broken[path.Join(node.ShardsDir, strconv.Itoa(int(id)))] = true
			s.cp.ChainErr = fmt.Errorf("%s is of shard %d, incarnation %016x", f.File, f.Shard, f.Incarnation)
			x.find(Finding{Kind: "checkpoint", File: f.File, Offset: 0, Harmful: true,
				What:  fmt.Sprintf("it is of shard %d, incarnation %016x, not of shard %d, incarnation %016x", f.Shard, f.Incarnation, id, s.incarnation),
				Cause: "it was exchanged with another's", Loss: "offsets, producers and epochs, unless an older checkpoint and the log still reach as far",
				Remedy: RemedyRepair, Advice: repairAdvice + "; it says whether that is so"})
		}
	}
	if found.ChainErr != nil && !x.broken[path.Join(node.ShardsDir, strconv.Itoa(int(id)))] {
		x.badChain(s, found.ChainErr)
	}
	if n := len(found.Chain); n > 0 && s.cp.ChainErr == nil {
		s.index, s.term = found.Chain[n-1].Index, found.Chain[n-1].Term
	}
	return s, nil
}

// badChain reports checkpoints that are intact each, and wrong together.
func (x *exam) badChain(s *shard, err error) {
	dir := path.Join(node.ShardsDir, strconv.Itoa(int(s.id)))
	s.cp.ChainErr, s.index = err, 0
	x.broken[dir] = true
	file := x.path(dir)
	if n := len(s.cp.Files); n > 0 {
		file = s.cp.Files[n-1].File
	}
	x.find(Finding{Kind: "checkpoint", File: file, Offset: -1, Harmful: true, What: err.Error(), Cause: "a file is missing, exchanged or damaged",
		Loss: "offsets, producers and epochs, unless an older checkpoint and the log still reach as far", Remedy: RemedyRepair, Advice: repairAdvice + "; it says whether that is so"})
}

// dataShards restores every data shard as a start would.
func (x *exam) dataShards() error {
	ids, err := x.shardIDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		s, err := x.openShard(id)
		if err != nil {
			return err
		}
		if err := x.restore(s); err != nil {
			return err
		}
	}
	return nil
}

// founded counts the data shards that the directory has a replica of from its begin on:
// those that the cluster was founded with, unless the node joined it later.
func (x *exam) founded() uint32 {
	if x.id.Joins {
		return 0
	}
	return x.id.Shards
}

// shardIDs are the data shards that the identity counts, or that anything is
// there of.
func (x *exam) shardIDs() ([]uint32, error) {
	var ids []uint32
	for id := range x.founded() {
		ids = append(ids, id+1)
	}
	names, err := x.fs.ReadDir(x.path(node.ShardsDir))
	if errors.Is(err, fs.ErrNotExist) {
		x.broken[node.ShardsDir] = true
		x.find(Finding{Kind: "checkpoint", File: x.path(node.ShardsDir), Offset: -1, Harmful: true, What: "missing", Cause: "somebody removed it, or it is not mounted",
			Loss: "offsets, producers and epochs", Remedy: RemedyNone, Advice: restoreAdvice})
		return ids, nil
	}
	if err != nil {
		return nil, fmt.Errorf("doctor: %w", err)
	}
	for _, name := range names {
		n, err := strconv.ParseUint(name, 10, 32)
		switch {
		case name == node.GenerationName || path.Ext(name) == ".tmp":
		case err != nil || strconv.FormatUint(n, 10) != name:
			x.find(Finding{Kind: "directory", File: x.path(node.ShardsDir, name), Offset: -1, What: "not a shard's", Remedy: RemedyNone, Advice: "keep nothing else in a data directory"})
		case n > 0 && !slices.Contains(ids, uint32(n)):
			ids = append(ids, uint32(n))
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// restore reads a shard's state and applies its log.
func (x *exam) restore(s *shard) error {
	s.checkpoint = partition.New()
	var body []byte
	if s.index > 0 {
		var err error
		if body, err = io.ReadAll(s.cp.Bodies); err != nil {
			return err
		}
		if s.checkpoint, err = partition.Restore(bytes.NewReader(body)); err != nil {
			x.badChain(s, err)
		}
	}
	if s.cp.ChainErr != nil {
		s.checkpoint = nil
		return nil
	}
	s.state = partition.New()
	if s.index > 0 {
		s.state, _ = partition.Restore(bytes.NewReader(body)) // it did just now
	}
	s.end = s.index
	if x.journal == nil {
		s.lost = true
		return nil
	}
	log := x.journal.Log(journal.ShardID(s.id), s.incarnation)
	r, ok := continues(log, s.index)
	var first, last uint64
	if n := len(log.Runs); n > 0 {
		first, last = log.Runs[n-1].First, log.Runs[n-1].Last
	}
	if ok {
		first, last = r.First, r.Last
	}
	x.checkLog(s, "journal", x.path(node.JournalDir), node.JournalDir, first, last)
	if !ok {
		s.lost = s.lost || s.index > 0
		return nil
	}
	return x.replay(s, r)
}

// continues returns the run of a log that goes on from a checkpoint.
func continues(log journal.FoundLog, index uint64) (journal.Run, bool) {
	for _, r := range slices.Backward(log.Runs) {
		if r.First <= index+1 && index <= r.Last {
			return r, true
		}
	}
	return journal.Run{}, false
}

// replay applies the log above the checkpoint.
func (x *exam) replay(s *shard, r journal.Run) error {
	var out partition.Outcome
	for index := r.First; index <= r.Last; index++ {
		rec, err := x.journal.Read(r, index)
		if err != nil {
			return err
		}
		s.maxTerm = max(s.maxTerm, rec.Term)
		if index <= s.index || rec.Type != raftCommand {
			s.end = max(s.end, index)
			continue
		}
		if err := s.state.Apply(index, rec.Term, rec.Data, &out); err != nil {
			x.broken[node.JournalDir] = true
			x.find(Finding{Kind: "journal", File: x.path(node.JournalDir), Offset: -1, Harmful: true,
				What:  fmt.Sprintf("entry %d of shard %d: %v", index, s.id, err),
				Cause: "the log and the checkpoint are not of one history, or a newer version wrote it", Remedy: RemedyNone, Advice: restoreAdvice})
			return nil
		}
		s.end = index
	}
	x.checkVote(s)
	return nil
}
