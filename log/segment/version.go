package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// CheckVersion reads the headers of the newest segment in a partition's
// directory, and of its index, and returns an error that matches ErrVersion and
// names the file if one is intact and a newer build's: a newer build would have
// written the newest. It changes nothing, and leaves all else to Open. A
// directory that does not exist is fine.
func CheckVersion(fsys vfs.FS, dir string) error {
	names, err := vfs.ReadDirIfThere(fsys, dir)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	newest := int64(-1)
	for _, name := range names {
		if base, ok := ParseName(name); ok {
			newest = max(newest, base)
		}
	}
	if newest < 0 {
		return nil
	}
	for _, f := range []struct {
		name  string
		bytes int
		check func([]byte) error
	}{
		{DataName(newest), HeaderBytes, func(b []byte) error { _, err := parseHeader(b); return err }},
		{IndexName(newest), indexHeaderBytes, checkIndexVersion},
	} {
		file := path.Join(dir, f.name)
		b, err := vfs.ReadHead(fsys, file, f.bytes)
		if err != nil {
			return fmt.Errorf("segment: %w", err)
		}
		if err := f.check(b); errors.Is(err, ErrVersion) {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// checkIndexVersion refuses an intact header of an index that a newer build
// wrote, and accepts everything else.
func checkIndexVersion(b []byte) error {
	if len(b) < indexHeaderBytes || string(b[:8]) != indexMagic || checksum(0, b[:28]) != binary.LittleEndian.Uint32(b[28:]) {
		return nil
	}
	if format, flags := binary.LittleEndian.Uint16(b[8:]), binary.LittleEndian.Uint16(b[10:]); format > Format || flags != 0 {
		return fmt.Errorf("%w: format %d, flags %#x; this build reads format %d without flags", ErrVersion, format, flags, Format)
	}
	return nil
}
