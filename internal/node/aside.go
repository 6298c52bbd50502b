package node

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// What a directory holds is set aside when it is damaged and the cluster has given
// its place to a fresh one (R20; see damage.go for when). It stays beside the fresh
// one, in a set:
//
//	aside-<incarnation>/WHY       which directory it was, what replaces it, and why;
//	                              written before the fresh one is asked for
//	aside-<incarnation>/IDENTITY  a copy, as it was
//	aside-<incarnation>/<part>    moved here: journal, votes, metadata, shards,
//	                              partitions, quarantine
//	aside-<incarnation>/DONE      it has come to its end
//
// From WHY on there is no way back: whatever cuts it short, the next start goes on
// with the same fresh incarnation. The parts are moved first; then IDENTITY becomes
// the fresh directory's, at once, by a rename; then DONE is written. A part that is
// in its old place has not been moved yet, since nothing new is made before DONE.

const (
	// AsidePrefix begins the names of such sets; the directory's old incarnation in
	// 16 hex digits follows.
	AsidePrefix = "aside-"

	// WhyName is the file in a set that says what it is.
	WhyName = "WHY"

	// maxAside is how many sets are kept, the newest ones.
	maxAside = 2

	asideFormat   = 1
	maxCauseBytes = 4 << 10
)

// ErrSettingAside reports a directory whose damaged parts are being set aside.
var ErrSettingAside = errors.New("node: the damaged parts of the data directory are still being set aside")

// asideParts is what is moved.
var asideParts = []string{journalDir, votesDir, metadataDir, shardsDir, dataDir, quarantineDir}

// aside is the content of WHY, and where it lies.
type aside struct {
	Format int `json:"format"`

	ClusterID string    `json:"cluster_id"`
	NodeID    int32     `json:"node_id"`
	Lost      hexNumber `json:"lost"`   // incarnation of the damaged directory
	Fresh     hexNumber `json:"fresh"`  // of the one that takes its place
	Shards    uint32    `json:"shards"` // of the damaged one's IDENTITY, or a fresh one's
	AtMS      int64     `json:"at_ms"`  // Unix time
	Cause     string    `json:"cause"`  // what is damaged, with file and offset

	// Joins and Nodes are the fresh directory's, as in its IDENTITY.
	Joins bool        `json:"joins,omitempty"`
	Nodes addressList `json:"nodes,omitempty"`

	done bool // it has come to its end
}

func (a *aside) name() string { return fmt.Sprintf("%s%016x", AsidePrefix, uint64(a.Lost)) }

func decodeWhy(b []byte) (aside, error) {
	body, head, err := openSealed(b)
	if err != nil {
		return aside{}, err
	}
	if head.Format > asideFormat {
		return aside{}, fmt.Errorf("%w: format %d, this version reads up to %d; start the newer version that wrote it", ErrNewer, head.Format, asideFormat)
	}
	var a aside
	if err := json.Unmarshal(body, &a); err != nil {
		return aside{}, err
	}
	if a.Format < 1 || a.ClusterID == "" || a.NodeID < 0 || a.Lost == 0 || a.Fresh == 0 || a.Lost == a.Fresh || a.Shards == 0 {
		return aside{}, fmt.Errorf("incomplete: %s", body)
	}
	if _, err := parseAddressList(string(a.Nodes)); err != nil {
		return aside{}, err
	}
	return a, nil
}

// asides reads the sets of a directory, oldest first. A folder without a WHY is none:
// nothing was moved there, or it is being removed.
func asides(fsys vfs.FS, dir string) (sets []aside, err error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, AsidePrefix) {
			continue
		}
		file := path.Join(dir, name, WhyName)
		b, err := vfs.ReadFile(fsys, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		done, lookErr := there(fsys, path.Join(dir, name, DoneName))
		var a aside
		if err = cmp.Or(err, lookErr); err == nil {
			a, err = decodeWhy(b)
		}
		if err == nil && a.name() != name {
			err = fmt.Errorf("it is of %s", a.name())
		}
		if err != nil && done {
			continue // nothing depends on it any more
		}
		if err != nil {
			return nil, fmt.Errorf("node: %w (file %s)", err, file)
		}
		a.done = done
		sets = append(sets, a)
	}
	slices.SortFunc(sets, func(a, b aside) int { return cmp.Compare(a.AtMS, b.AtMS) })
	return sets, nil
}

// unfinishedAside returns the set that has not come to its end; nil: there is none.
func unfinishedAside(fsys vfs.FS, dir string) (*aside, error) {
	sets, err := asides(fsys, dir)
	for i := range sets {
		if !sets[i].done {
			return &sets[i], nil
		}
	}
	return nil, err
}

// checkAside refuses a directory whose damaged parts are being set aside.
func checkAside(fsys vfs.FS, dir string) error {
	set, err := unfinishedAside(fsys, dir)
	if err == nil && set != nil {
		err = fmt.Errorf("%w: see %s; the node goes on with it once the other nodes are up", ErrSettingAside, path.Join(dir, set.name(), WhyName))
	}
	return err
}

// there reports whether a file exists.
func there(fsys vfs.FS, name string) (bool, error) {
	_, err := fsys.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// newAside draws the incarnation of the directory that takes the place of a damaged
// one, and writes WHY. When it returns nil there is no way back.
func newAside(fsys vfs.FS, dir string, a aside, rand io.Reader) (*aside, error) {
	var raw [8]byte
	for a.Fresh == 0 || a.Fresh == a.Lost {
		if _, err := io.ReadFull(rand, raw[:]); err != nil {
			return nil, fmt.Errorf("node: identity: %w", err)
		}
		a.Fresh = hexNumber(binary.LittleEndian.Uint64(raw[:]) | 1) // never zero
	}
	a.Format, a.Cause = asideFormat, strings.ToValidUTF8(a.Cause[:min(len(a.Cause), maxCauseBytes)], "")
	set := path.Join(dir, a.name())
	if err := vfs.MkdirAllSync(fsys, set); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	if err := vfs.WriteFile(fsys, path.Join(set, WhyName), seal(&a)); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	return &a, nil
}

// move moves the damaged parts into the set, and makes the directory the fresh one. It
// may be called again after an error or a crash, and the directory's lock is held. The
// fresh directory has to be registered in the place of the damaged one.
func (a *aside) move(fsys vfs.FS, dir string) error {
	set := path.Join(dir, a.name())
	id, _, err := readIdentity(fsys, dir)
	known := err == nil && id.Incarnation != 0
	switch {
	case err != nil && !errors.Is(err, ErrDamagedIdentity):
		return err
	case known && id.Incarnation != a.Lost && id.Incarnation != a.Fresh:
		return fmt.Errorf("%w: %s is of incarnation %016x, and %s says that %016x is replaced by %016x; move that folder away",
			ErrMismatched, path.Join(dir, identityName), uint64(id.Incarnation), path.Join(set, WhyName), uint64(a.Lost), uint64(a.Fresh))
	}
	if !known || id.Incarnation != a.Fresh {
		if err := a.moveParts(fsys, dir, set); err != nil {
			return fmt.Errorf("node: damaged parts are set aside: %w", err)
		}
	}
	if err := vfs.WriteFile(fsys, path.Join(set, DoneName), nil); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	a.done = true
	return nil
}

func (a *aside) moveParts(fsys vfs.FS, dir, set string) error {
	own, err := vfs.ReadFile(fsys, path.Join(dir, identityName))
	if err == nil {
		err = vfs.WriteFile(fsys, path.Join(set, identityName), own)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, part := range asideParts {
		if err := fsys.Rename(path.Join(dir, part), path.Join(set, part)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// In this order: what has its new name is not to lose its old one only.
	if err := errors.Join(fsys.SyncDir(set), fsys.SyncDir(dir)); err != nil {
		return err
	}
	fresh := identity{
		Format: directoryFormat, ClusterID: a.ClusterID, NodeID: a.NodeID, Shards: a.Shards,
		Incarnation: a.Fresh, Replaces: a.Lost, Joins: a.Joins, Nodes: a.Nodes,
	}
	return vfs.WriteFile(fsys, path.Join(dir, identityName), fresh.encode())
}

// pruneAside removes the oldest sets until there are maxAside, and then, while less
// than need bytes of the disk are free, the oldest sets and the records of the newest:
// the disk has to take what the others send, who have all of it.
func pruneAside(fsys vfs.FS, dir string, need int64, log *slog.Logger) error {
	sets, err := asides(fsys, dir)
	if err == nil {
		err = removeRemains(fsys, dir, sets)
	}
	if err != nil {
		return err
	}
	for ; len(sets) > maxAside && sets[0].done; sets = sets[1:] {
		if err := sets[0].remove(fsys, dir, fmt.Sprintf("%d newer ones are kept", maxAside), log); err != nil {
			return err
		}
	}
	const full = "the disk has too little room for what the other nodes send"
	for i, a := range sets {
		free, err := fsys.Free(dir)
		if err != nil || free >= need || !a.done {
			return err
		}
		if i < len(sets)-1 {
			err = a.remove(fsys, dir, full, log)
		} else if records := path.Join(dir, a.name(), dataDir); err == nil {
			log.Warn("removing the records that were set aside", "folder", records, "why", full)
			err = fsys.RemoveAll(records)
		}
		if err != nil {
			return fmt.Errorf("node: %w", err)
		}
	}
	return nil
}

// remove removes a set. Without its WHY it is none, so that one goes first: what a
// crash leaves of it is not gone on with.
func (a *aside) remove(fsys vfs.FS, dir, why string, log *slog.Logger) error {
	set := path.Join(dir, a.name())
	log.Warn("removing what was set aside for damage", "folder", set, "why", why)
	if err := errors.Join(fsys.Remove(path.Join(set, WhyName)), fsys.SyncDir(set)); err != nil {
		return err
	}
	return fsys.RemoveAll(set)
}

// removeRemains removes folders that are no sets: of one that was being made, and
// nothing was moved there, or of one that was being removed.
func removeRemains(fsys vfs.FS, dir string, sets []aside) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, AsidePrefix) || slices.ContainsFunc(sets, func(a aside) bool { return a.name() == name }) {
			continue
		}
		is, err := there(fsys, path.Join(dir, name, WhyName))
		if err == nil && !is {
			err = fsys.RemoveAll(path.Join(dir, name))
		}
		if err != nil {
			return fmt.Errorf("node: %w", err)
		}
	}
	return nil
}

// bytesBelow returns how long the files below a directory are together; none if it
// does not exist.
func bytesBelow(fsys vfs.FS, dir string) (total int64, err error) {
	names, err := vfs.ReadDirIfThere(fsys, dir)
	for _, name := range names {
		full := path.Join(dir, name)
		info, statErr := fsys.Stat(full)
		below := int64(0)
		switch {
		case statErr != nil:
			err = errors.Join(err, statErr)
		case info.IsDir():
			below, statErr = bytesBelow(fsys, full)
			err = errors.Join(err, statErr)
		default:
			below = info.Size()
		}
		total += below
	}
	return total, err
}
