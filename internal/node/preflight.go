package node

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/log/segment"
	"github.com/flotilla-log/flotilla/replication"
)

// checkVersions refuses a directory in which something was written by a newer
// version, before anything in it is opened to be changed: recovery writes the
// journal's tail again before the first segment is looked at.
//
// The feature level in IDENTITY, which is judged before this, is what refuses
// the directory of a cluster that was upgraded. This finds single files that came
// from elsewhere. Of the partitions it looks at the newest segment of a thousand
// at most, evenly spread: all of 100,000 took 26 s on a busy machine. Others are
// refused when they are restored, before they are written to.
func checkVersions(fsys vfs.FS, dir string) error {
	err := errors.Join(
		control.CheckVersion(fsys, path.Join(dir, votesDir)),
		control.CheckVersion(fsys, path.Join(dir, metadataDir)),
		journal.CheckVersion(fsys, path.Join(dir, journalDir)),
		eachIn(fsys, path.Join(dir, shardsDir), math.MaxInt, replication.CheckVersion),
		eachIn(fsys, path.Join(dir, dataDir), maxPartitionsChecked, segment.CheckVersion),
	)
	for _, newer := range []error{control.ErrVersion, journal.ErrVersion, segment.ErrVersion, replication.ErrUnsupported} {
		if errors.Is(err, newer) {
			return fmt.Errorf("%w: %w; start the newer version that wrote it: nothing was changed", ErrNewer, err)
		}
	}
	return err
}

// maxPartitionsChecked bounds what checkVersions takes for partitions.
const maxPartitionsChecked = 1000

// eachIn calls check for what is in dir, up to the first error, or for limit of
// it, evenly spread.
func eachIn(fsys vfs.FS, dir string, limit int, check func(vfs.FS, string) error) error {
	names, err := vfs.ReadDirIfThere(fsys, dir)
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	// Its count is no part of it: see checkParts.
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, generationName) })
	for n, i := min(limit, len(names)), 0; i < n; i++ {
		if err := check(fsys, path.Join(dir, names[i*len(names)/n])); err != nil {
			return err
		}
	}
	return nil
}
