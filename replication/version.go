package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// CheckVersion reads the headers of the checkpoints in the directory of one
// replica, and returns an error that matches ErrUnsupported and names the file if
// one is intact and a newer build's. It changes nothing, and leaves all else that
// may be wrong to OpenCheckpoints. A directory that does not exist is fine.
func CheckVersion(fsys vfs.FS, dir string) error {
	names, err := vfs.ReadDirIfThere(fsys, dir)
	if err != nil {
		return fmt.Errorf("replication: checkpoints: %w", err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, checkpointSuffix) {
			continue
		}
		file := path.Join(dir, name)
		head, err := vfs.ReadHead(fsys, file, 8)
		if err != nil {
			return fmt.Errorf("replication: checkpoint: %w", err)
		}
		le := binary.LittleEndian
		if len(head) < 8 || le.Uint32(head) != checkpointMagic || le.Uint16(head[4:]) == checkpointFormat && le.Uint16(head[6:]) == 0 {
			continue
		}
		// Only its checksum, behind everything, tells a newer format from damage.
		b, err := vfs.ReadFile(fsys, file)
		if err != nil {
			return fmt.Errorf("replication: checkpoint: %w", err)
		}
		if _, _, err := decodeCheckpoint(b); errors.Is(err, ErrUnsupported) {
			return fmt.Errorf("%w (file %s)", err, file)
		}
	}
	return nil
}
