package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// A generation is one time that the node served from a directory. IDENTITY
// counts them, and each part of the directory that has to fit the others holds
// the count in a file of its own. A part that is put back from an older copy is
// intact by itself, and may even reach as far as the checkpoints; its count
// tells that what was acknowledged since is not in it.
//
// A start first writes the next count beside the present one in IDENTITY, then
// into the parts, and then makes it the present one: at every crash in between
// each part holds one of the two.

// generationName is the file in each of countedDirs.
const generationName = "GENERATION"

// countedDirs are the parts that have to be of one generation. The segments are
// not among them: a range that is missing or old is found by its offsets and
// its checksums, and stops only the reads of that range.
var countedDirs = []string{journalDir, votesDir, metadataDir, shardsDir}

// ErrMismatched reports a part of a data directory that is missing, another
// directory's, or an older copy.
var ErrMismatched = errors.New("node: a part of the data directory does not belong to the rest")

// generation is what a part says of itself.
type generation struct {
	Format      int       `json:"format"`
	Incarnation hexNumber `json:"incarnation"` // the directory's, as in IDENTITY
	Generation  uint64    `json:"generation"`
}

func decodeGeneration(b []byte) (generation, error) {
	body, head, err := openSealed(b)
	if err != nil {
		return generation{}, err
	}
	if head.Format > directoryFormat {
		return generation{}, fmt.Errorf("%w: format %d, this version reads up to %d; start the newer version that wrote it", ErrNewer, head.Format, directoryFormat)
	}
	var g generation
	if err := json.Unmarshal(body, &g); err != nil {
		return generation{}, err
	}
	if g.Format < 1 || g.Incarnation == 0 || g.Generation == 0 {
		return generation{}, fmt.Errorf("incomplete: %s", body)
	}
	return g, nil
}

// checkParts refuses parts that do not belong to id, before anything in them is
// touched.
func (id *identity) checkParts(fsys vfs.FS, dir string) error {
	for _, part := range countedDirs {
		if err := id.checkPart(fsys, path.Join(dir, part)); err != nil {
			return err
		}
	}
	return nil
}

func (id *identity) checkPart(fsys vfs.FS, part string) error {
	file := path.Join(part, generationName)
	mismatch := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s; put back the whole directory or the part that belongs to it, or see flotilla check",
			ErrMismatched, file, fmt.Sprintf(format, args...))
	}
	b, err := vfs.ReadFile(fsys, file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && id.Generation == 0:
		return nil // the first start has not come to its end
	case errors.Is(err, fs.ErrNotExist):
		return mismatch("missing")
	case err != nil:
		return fmt.Errorf("node: %w", err)
	}
	g, err := decodeGeneration(b)
	switch {
	case errors.Is(err, ErrNewer):
		return fmt.Errorf("%w (file %s)", err, file)
	case err != nil:
		return mismatch("damaged: %v", err)
	case g.Incarnation != id.Incarnation:
		return mismatch("belongs to the directory of incarnation %016x, not %016x", uint64(g.Incarnation), uint64(id.Incarnation))
	case g.Generation != id.Generation && (id.Next == 0 || g.Generation != id.Next):
		return mismatch("is of generation %d, and %s of %d: one of the two is an older copy", g.Generation, identityName, id.Generation)
	}
	return nil
}

// turn begins the next generation, durably once it returns. Parts that are not
// of this one are refused from then on. After an error id is what the next start
// finds, or what it finds with a turn begun; both can be gone on with.
func (id *identity) turn(fsys vfs.FS, dir string) error {
	before := *id
	if id.Next == 0 { // else some parts may be of Next already
		id.Next = id.Generation + 1
	}
	write := func(file string, b []byte) error {
		if err := vfs.WriteFile(fsys, path.Join(dir, file), b); err != nil {
			return fmt.Errorf("node: %w", err)
		}
		return nil
	}
	if err := write(identityName, id.encode()); err != nil {
		*id = before
		return err
	}
	begun := *id
	g := generation{Format: directoryFormat, Incarnation: id.Incarnation, Generation: id.Next}
	for _, part := range countedDirs {
		if err := write(path.Join(part, generationName), seal(g)); err != nil {
			return err
		}
	}
	id.Generation, id.Next, id.Started = id.Next, 0, true
	err := write(identityName, id.encode())
	if err != nil {
		*id = begun
	}
	return err
}
