// Package doctor examines and repairs a data directory that no node serves
// from. It reads every byte of it through the packages that own the formats,
// compares what they say of each other, and puts what it finds in words: which
// file, where, what is wrong, what that costs, and what helps.
//
// # Check
//
// Check changes nothing. It reads the journal's records, the control logs, all
// checkpoints, all segments and all quarantine files by their checksums, and
// applies to the newest checkpoints what the logs hold above them, as a start
// would.
//
// # Repair
//
// Repair makes a plan out of what Check finds. Executed, it writes all new
// content into a directory of its own beside the others, with what is replaced:
//
//	repair-<time>/PLAN         what goes where, written once all of new/ is durable
//	repair-<time>/new/<path>   new content on its way
//	repair-<time>/old/<path>   what it replaced; nobody removes it
//	repair-<time>/DONE         it has come to its end
//
// A repair that is cut short before PLAN has changed nothing; after it, it is
// finished by the next one, and a node refuses to start until then.
//
// # What a repair with accepted loss guarantees
//
// Offsets that were acknowledged and are lost are given again, to other
// records. So that who has read them can tell, every data shard's term is
// raised by TermStep above each term that anything in the directory shows:
// leader epochs rise with it (R16), batches from then on carry an epoch that no
// earlier one had, and OffsetForLeaderEpoch for an earlier epoch answers where
// the records that are left of it end. A consumer that asks so before it goes
// on learns that its position lies in what was lost; one that never asks reads
// on above it. Idempotent producers whose last batches were lost get
// OUT_OF_ORDER_SEQUENCE_NUMBER and do not append silently.
package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

// Remedy says who mends a finding.
type Remedy string

const (
	RemedyNone   Remedy = "none"        // nothing to do, or only a copy of the directory helps
	RemedyStart  Remedy = "start"       // the next start mends it by itself
	RemedyRepair Remedy = "repair"      // flotilla repair, without loss
	RemedyLoss   Remedy = "accept-loss" // flotilla repair --accept-loss
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Kind    string `json:"kind"` // identity, generation, journal, votes, metadata, checkpoint, segment, index, quarantine, directory
	File    string `json:"file"` // from the data directory
	Offset  int64  `json:"offset"`
	Harmful bool   `json:"harmful"` // the node refuses to start, or refuses some reads; else it is good to know
	What    string `json:"what"`
	Cause   string `json:"cause,omitempty"`
	Loss    string `json:"loss,omitempty"` // what is lost, or cannot be read
	Remedy  Remedy `json:"remedy"`
	Advice  string `json:"advice"` // the remedy in words

	served bool // harmful, and the node starts and serves around it
}

// Summary counts what was read.
type Summary struct {
	Files          int   `json:"files"`
	Bytes          int64 `json:"bytes"`
	JournalRecords int   `json:"journal_records"`
	ControlRecords int   `json:"control_records"`
	Checkpoints    int   `json:"checkpoints"`
	Batches        int   `json:"batches"`
	Topics         int   `json:"topics"`
	Partitions     int   `json:"partitions"`
}

// Report is the result of Check.
type Report struct {
	Findings []Finding `json:"findings"`
	Summary  Summary   `json:"summary"`
}

// Harmed reports whether anything found is harmful.
func (r *Report) Harmed() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Harmful })
}

// Options of Check and Repair.
type Options struct {
	// Progress, if not nil, is told now and then which file is being read.
	Progress func(file string)
}

// Check examines the data directory dir. Damage is in the Report; the error is
// node.ErrInUse, node.ErrNotOurs or the file system's, and then there is no
// Report. It holds the directory's lock meanwhile. Memory is bounded by the
// state that a node keeps, some 100 bytes for each record of the journal, and
// the longest single file but segments.
func Check(fsys vfs.FS, dir string, opt Options) (*Report, error) {
	lock, err := node.Lock(fsys, dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	x, err := examine(fsys, dir, opt)
	if err != nil {
		return nil, err
	}
	x.close()
	return &x.report, nil
}

// exam is what is known of a directory while it is examined.
type exam struct {
	fs     vfs.FS
	dir    string
	opt    Options
	report Report

	id       node.Identity
	idErr    error
	parts    map[string]error // of its GENERATION; nil: as it should be
	votes    map[uint32]control.Vote
	votesIn  *control.Inspection // nil: there is no such folder
	metaIn   *control.Inspection
	metaRuns []run
	journal  *journal.Inspection
	meta     *metadata.State   // nil: not known
	shards   map[uint32]*shard // 0 is the metadata shard
	broken   map[string]bool   // folders, and shards/<n>, with harm that a repair deals with as a whole
	segments []segmentHarm
	indexes  []string
}

// run is a part of the metadata log without a gap: the indexes [first, last].
type run struct{ first, last uint64 }

// shard is what is known of one replica.
type shard struct {
	id          uint32
	incarnation uint64
	cp          replication.CheckpointsFound
	index, term uint64 // of the newest checkpoint, 0: none
	maxTerm     uint64 // highest that anything shows
	end         uint64 // last index of the log that goes on from the checkpoint
	lost        bool   // the log does not reach the checkpoint
	checkpoint  *partition.State
	state       *partition.State // with the log applied
}

func (x *exam) close() {
	if x.journal != nil {
		x.journal.Close()
	}
}

func (x *exam) path(names ...string) string { return path.Join(append([]string{x.dir}, names...)...) }

// rel returns a path as findings have it.
func (x *exam) rel(file string) string {
	return strings.TrimPrefix(strings.TrimPrefix(file, path.Clean(x.dir)), "/")
}

func (x *exam) find(f Finding) {
	f.File = x.rel(f.File)
	x.report.Findings = append(x.report.Findings, f)
}

// reading counts a file, and tells of it.
func (x *exam) reading(file string) {
	x.report.Summary.Files++
	if info, err := x.fs.Stat(file); err == nil {
		x.report.Summary.Bytes += info.Size()
	}
	if x.opt.Progress != nil {
		x.opt.Progress(x.rel(file))
	}
}

// examine looks at everything, in the order in which one thing explains the
// next.
func examine(fsys vfs.FS, dir string, opt Options) (*exam, error) {
	x := &exam{
		fs: fsys, dir: path.Clean(dir), opt: opt,
		parts: make(map[string]error), votes: make(map[uint32]control.Vote),
		shards: make(map[uint32]*shard), broken: make(map[string]bool),
	}
	for _, step := range []func() error{
		x.names, x.identity, x.generations, x.readVotes, x.readJournal, x.readMetadata, x.dataShards, x.partitions, x.quarantines,
	} {
		if err := step(); err != nil {
			x.close()
			return nil, err
		}
	}
	x.advise()
	return x, nil
}

// advise sends one of several nodes to the others with what a repair of it alone would
// give up, or does not mend.
func (x *exam) advise() {
	if file, _ := x.others(); file == "" {
		return
	}
	for i := range x.report.Findings {
		f := &x.report.Findings[i]
		switch {
		case !f.Harmful || f.Advice == upgradeAdvice:
		case f.Kind == "segment" && (f.Remedy == RemedyLoss || f.Remedy == RemedyNone):
			f.Remedy, f.Advice = RemedyStart, "start it with the other nodes: what another replica has is fetched from it; reads of what none has go on to fail"
		case f.Kind == "quarantine" && f.served:
			f.Remedy, f.Advice = RemedyStart, "start it with the other nodes: they heal the partition; where it is in quarantine on them too, "+f.Advice
		case f.Remedy == RemedyLoss, f.Advice == restoreAdvice, f.Remedy == RemedyRepair && (f.Kind == "identity" || f.Kind == "generation"):
			f.Remedy, f.Advice, f.Loss = RemedyStart, othersAdvice, "nothing, if a majority of the replicas is whole"
		}
	}
}

// names looks for what does not belong into the directory.
func (x *exam) names() error {
	names, err := x.fs.ReadDir(x.dir)
	if err != nil {
		return fmt.Errorf("doctor: %w", err)
	}
	ours := []string{"LOCK", "lost+found", node.IdentityName, node.JournalDir, node.VotesDir, node.MetadataDir, node.ShardsDir, node.PartitionsDir, node.QuarantineDir, node.SpareName}
	for _, name := range names {
		if slices.Contains(ours, name) || strings.HasPrefix(name, node.RepairPrefix) || strings.HasSuffix(name, ".tmp") {
			continue
		}
		if strings.HasPrefix(name, node.AsidePrefix) {
			continue
		}
		x.find(Finding{Kind: "directory", File: name, Offset: -1, What: "not a file of a node",
			Remedy: RemedyNone, Advice: "keep nothing else in a data directory"})
	}
	set, err := node.UnfinishedAside(x.fs, x.dir)
	if err != nil {
		return err
	}
	if set != "" {
		x.find(Finding{Kind: "directory", File: set, Offset: -1, Harmful: true, What: "damaged data that is still being set aside",
			Cause: "the node was stopped on the way", Remedy: RemedyStart, Advice: "start the node as one of its cluster: it goes on once the other nodes are up"})
	}
	repair, err := node.Unfinished(x.fs, x.dir)
	if err != nil {
		return err
	}
	if repair != "" {
		x.find(Finding{Kind: "directory", File: repair, Offset: -1, Harmful: true, What: "a repair that was cut short",
			Cause: "the repair was killed, or the machine stopped", Remedy: RemedyRepair, Advice: "run flotilla repair --execute again: it goes on where it stopped"})
	}
	return nil
}

// Advice that several findings share.
const (
	restoreAdvice = "put back a copy of the whole directory"
	startAdvice   = "nothing to do: the next start mends it"
	repairAdvice  = "run flotilla repair"
	lossAdvice    = "put back a copy of the whole directory, or give up what is lost with flotilla repair --accept-loss"
	othersAdvice  = "start it with damage.policy heal, and with the other nodes: they give it what it lost"
	rotCause      = "the disk or something else changed bytes that were synced"
	upgradeAdvice = "install the version that wrote it"
)

func (x *exam) identity() error {
	file := x.path(node.IdentityName)
	x.id, x.idErr = node.ReadIdentity(x.fs, x.dir)
	f := Finding{Kind: "identity", File: file, Offset: 0, Harmful: true, Loss: "nothing, if it can be put together again", Remedy: RemedyRepair, Advice: repairAdvice}
	switch {
	case x.idErr == nil:
		x.reading(file)
		return nil
	case errors.Is(x.idErr, fs.ErrNotExist):
		f.Offset, f.What, f.Cause = -1, "missing", "somebody removed it"
	case errors.Is(x.idErr, node.ErrNewer):
		f.What, f.Remedy, f.Advice, f.Loss = x.idErr.Error(), RemedyNone, upgradeAdvice, ""
	case errors.Is(x.idErr, node.ErrDamagedIdentity):
		f.What, f.Cause = x.idErr.Error(), rotCause
	default:
		return x.idErr
	}
	x.find(f)
	return nil
}

// generations compares what the parts say of themselves with IDENTITY, and with
// each other if that is damaged.
func (x *exam) generations() error {
	for _, part := range node.Parts() {
		file := x.path(part, node.GenerationName)
		g, err := node.ReadGeneration(x.fs, x.path(part))
		f := Finding{Kind: "generation", File: file, Offset: 0, Harmful: true, Remedy: RemedyLoss, Advice: lossAdvice,
			Loss: "what was acknowledged since that copy was taken, if it is one"}
		switch {
		case errors.Is(err, fs.ErrNotExist) && x.idErr == nil && x.id.Generation == 0:
			continue
		case errors.Is(err, fs.ErrNotExist):
			f.Offset, f.What, f.Cause = -1, "missing", "somebody removed it, or put something else in the place of "+part
		case errors.Is(err, node.ErrNewer):
			f.What, f.Remedy, f.Advice, f.Loss = err.Error(), RemedyNone, upgradeAdvice, ""
		case err != nil && !isDamage(err):
			return err
		case err != nil: // a part from elsewhere would have brought one that is intact
			f.What, f.Cause, f.Remedy, f.Advice, f.Loss = "damaged: "+err.Error(), rotCause, RemedyRepair, repairAdvice, "nothing"
		case x.idErr != nil:
			x.reading(file)
			continue // identity puts itself together out of these
		case g.Incarnation != x.id.Incarnation:
			f.What, f.Cause = fmt.Sprintf("belongs to the directory of incarnation %016x, not %016x", g.Incarnation, x.id.Incarnation), part+" of another node was put here"
			f.Remedy, f.Advice, f.Loss = RemedyNone, "put back the right "+part, ""
		case g.Generation != x.id.Generation && (x.id.Next == 0 || g.Generation != x.id.Next):
			f.What = fmt.Sprintf("is of generation %d, IDENTITY of %d", g.Generation, x.id.Generation)
			f.Cause = "one of the two was put back from an older copy"
		default:
			x.reading(file)
			continue
		}
		x.parts[part] = errors.New(f.What)
		x.find(f)
	}
	return nil
}

// isDamage tells bytes that are wrong from a disk that does not read.
func isDamage(err error) bool {
	var pe *fs.PathError
	return !errors.As(err, &pe)
}
