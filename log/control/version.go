package control

import (
	"errors"
	"fmt"
	"path"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// CheckVersion reads the log in dir, as far as it is intact, and returns an error
// that matches ErrVersion and names the file if a record is a newer build's. It
// changes nothing, and leaves all else that may be wrong to Open. A directory
// that does not exist is fine.
func CheckVersion(fsys vfs.FS, dir string) error {
	names, err := vfs.ReadDirIfThere(fsys, dir)
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	for _, name := range names {
		if indexOf(name) == 0 {
			continue
		}
		file := path.Join(dir, name)
		data, err := vfs.ReadFile(fsys, file)
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		for at := 0; at < len(data); {
			fr, n, ok := splitRecord(data[at:])
			if !ok {
				break
			}
			_, err := decodeFrame(fr)
			if errors.Is(err, ErrVersion) {
				return fmt.Errorf("%w, at byte %d of %s", err, at, file)
			}
			if err != nil {
				break
			}
			at += n
		}
	}
	return nil
}
