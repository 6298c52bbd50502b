package doctor

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

// TermStep is what every data shard's term is raised by when loss is accepted.
// Terms rise by one a start, so it is above each term that was ever used, also
// if the newest votes are lost.
const TermStep = 1 << 16

// Action is one thing that a repair would do.
type Action struct {
	What  string   `json:"what"`
	Files []string `json:"files"`          // replaced or removed: a copy of each is kept
	Loss  []string `json:"loss,omitempty"` // what is given up; empty: nothing
}

// Refusal is a finding that a repair cannot mend, and keeps the node from
// starting.
type Refusal struct {
	File string `json:"file"`
	Why  string `json:"why"`
}

// Plan is what a repair would do.
type Plan struct {
	Actions []Action  `json:"actions"`
	Refused []Refusal `json:"refused,omitempty"`

	builds []build
}

// build writes the new content of some files below a directory that mirrors the
// data directory. what it leaves out of old is removed.
type build struct {
	old   []string // from the data directory: files that there are, and are replaced or removed
	write func(newDir string) error
}

// Lossy reports whether the plan gives up anything.
func (p *Plan) Lossy() bool {
	return slices.ContainsFunc(p.Actions, func(a Action) bool { return len(a.Loss) > 0 })
}

func (p *Plan) add(a Action, write func(newDir string) error) {
	p.Actions = append(p.Actions, a)
	p.builds = append(p.builds, build{old: a.Files, write: write})
}

func (p *Plan) refuse(file, format string, args ...any) {
	p.Refused = append(p.Refused, Refusal{File: file, Why: fmt.Sprintf(format, args...)})
}

// plan decides what to do about what was found. It reads, and changes nothing.
func (x *exam) plan() (*Plan, error) {
	p := new(Plan)
	for _, f := range x.report.Findings {
		served := f.Kind == "segment" || f.Kind == "index" || f.Kind == "directory" || f.served
		if f.Harmful && f.Remedy == RemedyNone && !served {
			p.refuse(f.File, "%s; %s", f.What, f.Advice)
		}
	}
	if x.idErr != nil && !errors.Is(x.idErr, node.ErrNewer) {
		x.planIdentity(p)
	}
	for id, s := range x.sorted() {
		if s.cp.ChainErr != nil {
			if err := x.planCheckpoints(p, id, s); err != nil {
				return nil, err
			}
		}
	}
	if x.broken[node.MetadataDir] && len(p.Refused) == 0 {
		x.planMetadata(p)
	}
	if x.broken[node.JournalDir] && len(p.Refused) == 0 {
		if err := x.planJournal(p); err != nil {
			return nil, err
		}
	}
	if len(x.parts) > 0 && len(p.Refused) == 0 {
		x.planGenerations(p)
	}
	if (x.broken[node.VotesDir] || p.Lossy()) && len(p.Refused) == 0 {
		x.planVotes(p)
	}
	x.planSegments(p)
	if len(x.indexes) > 0 {
		p.add(Action{What: "remove indexes, which the next start makes again", Files: x.relAll(x.indexes)}, nil)
	}
	return p, nil
}

// sorted walks the shards by id.
func (x *exam) sorted() func(yield func(uint32, *shard) bool) {
	return func(yield func(uint32, *shard) bool) {
		for _, id := range append([]uint32{0}, x.dataIDs()...) {
			if s := x.shards[id]; s != nil && !yield(id, s) {
				return
			}
		}
	}
}

func (x *exam) relAll(files []string) (out []string) {
	for _, f := range files {
		out = append(out, x.rel(f))
	}
	return out
}

// planIdentity puts IDENTITY together from what the parts say of themselves and
// from the metadata.
func (x *exam) planIdentity(p *Plan) {
	if !x.alone(p) {
		return
	}
	id := node.Identity{Started: true}
	for _, part := range node.Parts() {
		g, err := node.ReadGeneration(x.fs, x.path(part))
		switch {
		case err != nil:
			p.refuse(node.IdentityName, "it cannot be put together again: %s: %v", path.Join(part, node.GenerationName), err)
			return
		case id.Incarnation != 0 && g.Incarnation != id.Incarnation:
			p.refuse(node.IdentityName, "it cannot be put together again: the parts are of different directories")
			return
		case id.Generation != 0 && g.Generation != id.Generation && (max(g.Generation, id.Generation) != min(g.Generation, id.Generation)+1 || id.Next != 0 && g.Generation != id.Next):
			p.refuse(node.IdentityName, "it cannot be put together again: %s is of generation %d, another part of %d", part, g.Generation, id.Generation)
			return
		case id.Generation != 0 && g.Generation != id.Generation:
			id.Generation, id.Next = min(g.Generation, id.Generation), max(g.Generation, id.Generation)
		case id.Generation == 0:
			id.Generation = g.Generation
		}
		id.Incarnation = g.Incarnation
	}
	if x.meta == nil || x.meta.Image().ClusterID() == "" {
		p.refuse(node.IdentityName, "it cannot be put together again: the metadata does not say which cluster the node belongs to")
		return
	}
	im := x.meta.Image()
	id.ClusterID, id.NodeID, id.FeatureLevel = im.ClusterID(), -1, im.FeatureLevel()
	for n := range im.Nodes() {
		if n.Incarnation == id.Incarnation {
			id.NodeID = int32(n.ID)
		}
	}
	for range im.Shards() {
		id.Shards++
	}
	if id.NodeID < 0 || id.Shards == 0 {
		p.refuse(node.IdentityName, "it cannot be put together again: the metadata does not know this directory, %016x", id.Incarnation)
		return
	}
	a := Action{What: fmt.Sprintf("write IDENTITY again: cluster %s, node %d, %d shards", id.ClusterID, id.NodeID, id.Shards)}
	if errors.Is(x.idErr, node.ErrDamagedIdentity) {
		a.Files = []string{node.IdentityName}
	}
	x.id = id
	p.add(a, func(newDir string) error {
		return vfs.WriteFile(x.fs, path.Join(newDir, node.IdentityName), id.Encode())
	})
}

// planGenerations gives every part the count of IDENTITY.
func (x *exam) planGenerations(p *Plan) {
	if !x.alone(p) {
		return
	}
	a := Action{What: fmt.Sprintf("count the parts as of generation %d", x.id.Generation)}
	var parts []string
	for _, f := range x.report.Findings {
		if f.Kind != "generation" || f.Remedy == RemedyNone {
			continue
		}
		parts = append(parts, path.Dir(f.File))
		if f.Offset >= 0 {
			a.Files = append(a.Files, f.File)
		}
		if f.Remedy == RemedyLoss {
			a.Loss = append(a.Loss, fmt.Sprintf("%s may be an older copy: what was acknowledged since it was taken", path.Dir(f.File)))
		}
	}
	g := node.Generation{Incarnation: x.id.Incarnation, Generation: x.id.Generation}
	p.add(a, func(newDir string) error {
		for _, part := range parts {
			if err := x.write(newDir, path.Join(part, node.GenerationName), g.Encode()); err != nil {
				return err
			}
		}
		return nil
	})
}

// write makes a new file of a repair.
func (x *exam) write(newDir, name string, b []byte) error {
	full := path.Join(newDir, name)
	if err := vfs.MkdirAllSync(x.fs, path.Dir(full)); err != nil {
		return err
	}
	return vfs.WriteFile(x.fs, full, b)
}

// planCheckpoints goes back to the newest checkpoints from which the log still
// reaches on. If it reaches as far as the ones that are given up, nothing is
// lost with them.
func (x *exam) planCheckpoints(p *Plan, id uint32, s *shard) error {
	dir := x.path(node.ShardsDir, strconv.Itoa(int(id)))
	var indexes []uint64
	var newest uint64
	for _, f := range s.cp.Files {
		var index uint64
		if _, err := fmt.Sscanf(path.Base(f.File), "%020d-", &index); err != nil {
			continue
		}
		newest = max(newest, index)
		if f.Err == nil && f.Incarnation == s.incarnation && uint32(f.Shard) == id {
			indexes = append(indexes, index)
		}
	}
	slices.Sort(indexes)
	indexes = append([]uint64{0}, slices.Compact(indexes)...)
	for _, index := range slices.Backward(indexes) {
		var drop []string
		for _, f := range s.cp.Files {
			if f.Err != nil || f.Incarnation != s.incarnation || uint32(f.Shard) != id || f.Index > index {
				drop = append(drop, path.Base(f.File))
			}
		}
		try := &shard{id: id, incarnation: s.incarnation, maxTerm: s.maxTerm}
		var err error
		if try.cp, err = replication.InspectCheckpoints(x.fs, dir, func(name string) bool { return slices.Contains(drop, name) }); err != nil {
			return err
		}
		if try.cp.ChainErr != nil || index > 0 && len(try.cp.Chain) == 0 {
			continue
		}
		if n := len(try.cp.Chain); n > 0 {
			try.index, try.term = try.cp.Chain[n-1].Index, try.cp.Chain[n-1].Term
		}
		ok, err := x.reaches(try, newest)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		try.maxTerm = max(try.maxTerm, s.maxTerm)
		x.shards[id] = try
		a := Action{What: fmt.Sprintf("take the checkpoint of shard %d at index %d, from which the log still goes on", id, index)}
		if index == 0 {
			a.What = fmt.Sprintf("do without a checkpoint of shard %d: the log still goes back to its start", id)
		}
		for _, name := range drop {
			a.Files = append(a.Files, x.rel(path.Join(dir, name)))
		}
		p.add(a, nil)
		return nil
	}
	p.refuse(x.rel(dir), "no checkpoint is left of shard %d from which its log reaches to index %d: its offsets, producers and epochs are lost; %s", id, newest, restoreAdvice)
	return nil
}

// reaches reports whether the log goes on from a checkpoint and reaches index,
// and applies it.
func (x *exam) reaches(s *shard, index uint64) (bool, error) {
	if s.id == uint32(replication.MetadataShard) {
		for _, r := range x.metaRuns {
			if r.first <= s.index+1 && s.index <= r.last {
				s.end = r.last
				return r.last >= index, nil
			}
		}
		return false, nil
	}
	if x.journal == nil {
		return false, nil
	}
	r, ok := continues(x.journal.Log(journal.ShardID(s.id), s.incarnation), s.index)
	if !ok || r.Last < index {
		return false, nil
	}
	broken, found := x.broken[node.JournalDir], len(x.report.Findings)
	err := x.restore(s)
	good := err == nil && s.cp.ChainErr == nil && len(x.report.Findings) == found
	x.report.Findings = x.report.Findings[:found]
	x.broken[node.JournalDir] = broken
	return good, err
}

// alone refuses a directory of one of several nodes: what it forgot the others may
// count on.
func (x *exam) alone(p *Plan) bool {
	file, says := x.others()
	if file != "" {
		p.refuse(file, "%s: a replica that lost something is made new from the others; %s", says, othersAdvice)
	}
	return file == ""
}

// others returns a file that says that the node is one of several, and what it says;
// "" if nothing does.
func (x *exam) others() (file, says string) {
	if x.idErr == nil && (x.id.Joins || strings.Contains(x.id.Founders, ",")) {
		return node.IdentityName, "the node is one of a cluster's"
	}
	if x.meta != nil {
		nodes := 0
		for range x.meta.Image().Nodes() {
			nodes++
		}
		if nodes > 1 {
			return node.MetadataDir, fmt.Sprintf("the cluster has %d nodes", nodes)
		}
	}
	for id, s := range x.sorted() {
		for _, f := range s.cp.Chain {
			if len(f.Voters) > 1 {
				return x.rel(f.File), fmt.Sprintf("shard %d has %d voters", id, len(f.Voters))
			}
		}
	}
	return "", ""
}

// partNames returns the files of a folder but its GENERATION, from the data
// directory.
func (x *exam) partNames(part string) (out []string) {
	names, err := x.fs.ReadDir(x.path(part))
	if err != nil {
		return nil // it is missing
	}
	for _, name := range names {
		if name != node.GenerationName && !strings.HasPrefix(name, node.GenerationName) {
			out = append(out, path.Join(part, name))
		}
	}
	return out
}

// planSegments leaves the batches that cannot be read out of their segments,
// and mends those of which only the first 16 bytes are wrong. One of several nodes
// fetches what it lacks, as long as it knows that it lacks it.
func (x *exam) planSegments(p *Plan) {
	others, _ := x.others()
	for _, h := range x.segments {
		m := mend{x: x, h: h, history: checkpointEpochs(x, h.part)}
		a := Action{Files: []string{x.rel(h.in.File)}}
		if h.in.IndexErr == nil || !strings.Contains(h.in.IndexErr.Error(), "not exist") {
			a.Files = append(a.Files, x.rel(h.in.IndexFile))
		}
		mended := 0
		for _, bad := range h.in.Bad {
			if bad.Prefixes || m.canMend(bad) {
				mended++
				continue
			}
			to := bad.Next
			if to < 0 {
				to = h.opt.End
			}
			a.Loss = append(a.Loss, fmt.Sprintf("offsets [%d, %d) of %s, which cannot be read already: bytes [%d, %d) of %s", bad.From, to, x.name(h.part), bad.Pos, bad.To, x.rel(h.in.File)))
		}
		if others != "" && len(a.Loss) > 0 {
			continue
		}
		a.What = fmt.Sprintf("write %s again, with the first 16 bytes of %d batches mended and %d ranges left out", x.rel(h.in.File), mended, len(h.in.Bad)-mended)
		a.Files = slices.DeleteFunc(a.Files, func(name string) bool { return slices.Contains(x.relAll(x.indexes), name) })
		p.add(a, m.write)
	}
}

func checkpointEpochs(x *exam, v partition.View) []partition.EpochStart {
	for _, s := range x.shards {
		if s.checkpoint == nil {
			continue
		}
		if w, ok := s.checkpoint.Partition(v.Number); ok && w.TopicID == v.TopicID && w.Index == v.Index {
			return s.checkpoint.Epochs(v.Number)
		}
	}
	return nil
}
