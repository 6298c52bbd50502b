package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

var (
	// ErrLoss reports a plan that gives something up, and that was not accepted.
	ErrLoss = errors.New("doctor: the repair gives up acknowledged data")

	// ErrRefused reports a plan that would not make the node start.
	ErrRefused = errors.New("doctor: the directory cannot be repaired")
)

var discard = slog.New(slog.DiscardHandler)

// RepairOptions say what Repair may do.
type RepairOptions struct {
	Options
	Execute    bool // else only the plan is made
	AcceptLoss bool // also if it gives up acknowledged data
	Now        time.Time
}

// Repaired is what Repair did.
type Repaired struct {
	Plan     *Plan
	Kept     string   // the directory with what was replaced, "" if nothing was
	Finished string   // a repair that had been cut short and is finished now
	Left     []string // files that are still damaged, and served around: what, and what to do about it
}

// Repair examines a data directory and, if asked to, repairs it: see the package
// comment. Without Execute nothing is changed. It holds the directory's lock.
//
// Errors: node.ErrInUse, node.ErrNotOurs, ErrRefused, ErrLoss (both with the
// plan), or the file system's. After an error, and after a crash, it can be
// called again.
func Repair(fsys vfs.FS, dir string, opt RepairOptions) (*Repaired, error) {
	lock, err := node.Lock(fsys, dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	done := &Repaired{Plan: new(Plan)}
	unfinished, err := node.Unfinished(fsys, dir)
	if err != nil {
		return nil, err
	}
	if unfinished != "" {
		if !opt.Execute {
			done.Plan.Actions = []Action{{What: "finish the repair of " + path.Base(unfinished) + ", which was cut short"}}
			return done, nil
		}
		if err := finish(fsys, dir, unfinished); err != nil {
			return nil, err
		}
		done.Finished = unfinished
	}
	x, err := examine(fsys, dir, opt.Options)
	if err != nil {
		return nil, err
	}
	defer x.close()
	if done.Plan, err = x.plan(); err != nil {
		return nil, err
	}
	switch {
	case len(done.Plan.Refused) > 0:
		return done, fmt.Errorf("%w: %s: %s", ErrRefused, done.Plan.Refused[0].File, done.Plan.Refused[0].Why)
	case len(done.Plan.builds) == 0:
		done.Left = x.harmed()
		return done, nil
	case !opt.Execute:
		return done, nil
	case done.Plan.Lossy() && !opt.AcceptLoss:
		return done, fmt.Errorf("%w: see the plan; give --accept-loss if that is what you want", ErrLoss)
	}
	if done.Kept, err = x.execute(done.Plan, opt.Now); err != nil {
		return done, err
	}
	after, err := examine(fsys, dir, opt.Options)
	if err != nil {
		return done, err
	}
	after.close()
	done.Left = after.harmed()
	return done, nil
}

// harmed lists what is damaged, and what to do about it.
func (x *exam) harmed() (all []string) {
	for _, f := range x.report.Findings {
		if f.Harmful {
			all = append(all, fmt.Sprintf("%s: %s; %s", f.File, f.What, f.Advice))
		}
	}
	return all
}

// move is one file of a PLAN.
type move struct {
	Path string `json:"path"` // from the data directory
	Had  bool   `json:"had"`  // there is a file that goes to old/
}

type planFile struct {
	Format int    `json:"format"`
	Moves  []move `json:"moves"`
}

// execute writes the new content, then PLAN, and carries it out.
func (x *exam) execute(p *Plan, now time.Time) (string, error) {
	if err := removeAbandoned(x.fs, x.dir); err != nil {
		return "", err
	}
	dir := x.path(node.RepairPrefix + now.UTC().Format("20060102T150405Z"))
	for base, n := dir, 2; ; n++ {
		if _, err := x.fs.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
		dir = fmt.Sprintf("%s-%d", base, n)
	}
	newDir := path.Join(dir, "new")
	if err := vfs.MkdirAllSync(x.fs, newDir); err != nil {
		return "", err
	}
	var moves []move
	for _, b := range p.builds {
		for _, name := range b.old {
			if !slices.ContainsFunc(moves, func(m move) bool { return m.Path == name }) {
				moves = append(moves, move{Path: name, Had: true})
			}
		}
		if b.write != nil {
			if err := b.write(newDir); err != nil {
				return "", fmt.Errorf("doctor: %w", err)
			}
		}
	}
	made, err := tree(x.fs, newDir, "")
	if err != nil {
		return "", err
	}
	for _, name := range made {
		if slices.ContainsFunc(moves, func(m move) bool { return m.Path == name }) {
			continue
		}
		_, err := x.fs.Stat(x.path(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		moves = append(moves, move{Path: name, Had: err == nil})
	}
	b, err := json.Marshal(planFile{Format: 1, Moves: moves})
	if err != nil {
		return "", err
	}
	if err := vfs.WriteFile(x.fs, path.Join(dir, node.PlanName), node.Seal(b)); err != nil {
		return "", err
	}
	return dir, finish(x.fs, x.dir, dir)
}

// tree returns the files below dir, from there.
func tree(fsys vfs.FS, dir, rel string) (out []string, err error) {
	names, err := fsys.ReadDir(path.Join(dir, rel))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		name = path.Join(rel, name)
		info, err := fsys.Stat(path.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			out = append(out, name)
			continue
		}
		below, err := tree(fsys, dir, name)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	return out, nil
}

// removeAbandoned removes what repairs left that never came to a PLAN: nothing
// but copies.
func removeAbandoned(fsys vfs.FS, dir string) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		full := path.Join(dir, name)
		if !strings.HasPrefix(name, node.RepairPrefix) {
			continue
		}
		if _, err := fsys.Stat(path.Join(full, node.PlanName)); errors.Is(err, fs.ErrNotExist) {
			if err := fsys.RemoveAll(full); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
	}
	return fsys.SyncDir(dir)
}

// decodePlan decodes a PLAN file.
func decodePlan(b []byte) (planFile, error) {
	var p planFile
	body, err := node.Unseal(b)
	if err == nil {
		err = json.Unmarshal(body, &p)
	}
	if err == nil && p.Format != 1 {
		err = fmt.Errorf("format %d, this version reads 1", p.Format)
	}
	if err != nil {
		return planFile{}, err
	}
	for _, m := range p.Moves {
		if m.Path == "." || !fs.ValidPath(m.Path) {
			return planFile{}, fmt.Errorf("path %q is not that of a file in the data directory", m.Path)
		}
	}
	return p, nil
}

// finish carries out the PLAN of a repair, from wherever it stopped.
func finish(fsys vfs.FS, dir, repair string) error {
	// The names may be in memory only, left by a repair that was killed.
	for _, d := range []string{dir, repair} {
		if err := fsys.SyncDir(d); err != nil {
			return err
		}
	}
	b, err := vfs.ReadFile(fsys, path.Join(repair, node.PlanName))
	if err != nil {
		return err
	}
	p, err := decodePlan(b)
	if err != nil {
		return fmt.Errorf("doctor: %s: %w", path.Join(repair, node.PlanName), err)
	}
	for _, m := range p.Moves {
		if err := m.do(fsys, dir, repair); err != nil {
			return fmt.Errorf("doctor: %s: %w", m.Path, err)
		}
	}
	if err := vfs.WriteFile(fsys, path.Join(repair, node.DoneName), nil); err != nil {
		return err
	}
	return fsys.RemoveAll(path.Join(repair, "new"))
}

// do moves the old file away and the new one to its place, as far as that is
// not done yet.
func (m move) do(fsys vfs.FS, dir, repair string) error {
	live, old, fresh := path.Join(dir, m.Path), path.Join(repair, "old", m.Path), path.Join(repair, "new", m.Path)
	there := func(name string) bool {
		_, err := fsys.Stat(name)
		return err == nil
	}
	if m.Had && there(live) && !there(old) {
		if err := rename(fsys, live, old); err != nil {
			return err
		}
	}
	if there(fresh) {
		return rename(fsys, fresh, live)
	}
	return nil
}

// rename moves a file between directories, durably.
func rename(fsys vfs.FS, from, to string) error {
	if err := vfs.MkdirAllSync(fsys, path.Dir(to)); err != nil {
		return err
	}
	if err := fsys.Rename(from, to); err != nil {
		return err
	}
	if err := fsys.SyncDir(path.Dir(to)); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(from))
}
