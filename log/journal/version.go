package journal

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// CheckVersion reads the headers of the files in dir, and returns an error that
// matches ErrVersion and names the file if one is intact and a newer build's. It
// changes nothing, and leaves all else that may be wrong to Open. A directory
// that does not exist is fine.
func CheckVersion(fsys vfs.FS, dir string) error {
	names, err := vfs.ReadDirIfThere(fsys, dir)
	if err != nil {
		return fmt.Errorf("journal: list %s: %w", dir, err)
	}
	if _, _, err := readRing(fsys, dir); errors.Is(err, ErrVersion) {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".journal") {
			continue
		}
		file := path.Join(dir, name)
		b, err := vfs.ReadHead(fsys, file, headerBytes)
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		for ; len(b) >= blockBytes; b = b[blockBytes:] {
			if _, err := decodeFileHeader(b[:blockBytes]); errors.Is(err, ErrVersion) {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return nil
}
