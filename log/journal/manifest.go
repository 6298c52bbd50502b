package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// ringName is the file that counts the ring's files. Without it the loss of the
// last files of a ring that still grows would leave a smaller ring that is
// intact by itself, since the files before them never name what follows.
const ringName = "RING"

// ringBytes is the length of that file.
const ringBytes = 32

var ringMagic = [8]byte{'F', 'L', 'O', 'T', 'R', 'I', 'N', 'G'}

// ring is the content of the file RING.
type ring struct {
	slots     uint32 // files that hold or held records
	fileBytes int64
}

func (r ring) encode() []byte {
	b := make([]byte, ringBytes)
	copy(b, ringMagic[:])
	le := binary.LittleEndian
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], r.slots)
	le.PutUint64(b[16:], uint64(r.fileBytes))
	le.PutUint32(b[ringBytes-4:], crc32.Checksum(b[:ringBytes-4], castagnoli))
	return b
}

// decodeRing decodes a RING file. One of another version is ErrVersion, all else
// that is wrong with it is damage.
func decodeRing(b []byte) (ring, error) {
	le := binary.LittleEndian
	if len(b) < ringBytes {
		return ring{}, fmt.Errorf("%d bytes, want %d", len(b), ringBytes)
	}
	if !bytes.Equal(b[:8], ringMagic[:]) {
		return ring{}, errMagic
	}
	if crc32.Checksum(b[:len(b)-4], castagnoli) != le.Uint32(b[len(b)-4:]) {
		return ring{}, errChecksum
	}
	if v := le.Uint32(b[8:]); v != version {
		return ring{}, fmt.Errorf("%w: version %d; this build reads version %d", ErrVersion, v, version)
	}
	if len(b) != ringBytes {
		return ring{}, fmt.Errorf("%d bytes, want %d", len(b), ringBytes)
	}
	return ring{slots: le.Uint32(b[12:]), fileBytes: int64(le.Uint64(b[16:]))}, nil
}

// readRing reads the RING file; found says that there is one. Damage is a
// *CorruptError.
func readRing(fsys vfs.FS, dir string) (r ring, found bool, err error) {
	name := path.Join(dir, ringName)
	b, err := vfs.ReadFile(fsys, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ring{}, false, nil
	case err != nil:
		return ring{}, false, fmt.Errorf("journal: read %s: %w", name, err)
	}
	if r, err = decodeRing(b); errors.Is(err, ErrVersion) {
		return ring{}, true, fmt.Errorf("%s: %w", name, err)
	} else if err != nil {
		return ring{}, true, &CorruptError{File: name, Err: err}
	}
	return r, true, nil
}

// writeRing makes the count of files durable. A new file counts before it can
// hold a record, and never leaves again.
func (j *Journal) writeRing(slots int) error {
	return vfs.WriteFile(j.fs, path.Join(j.dir, ringName), ring{slots: uint32(slots), fileBytes: j.opt.FileBytes}.encode())
}

// checkCount holds the files that are there against the RING file. A file that
// it does not count was being added at a crash, and holds nothing.
func (s *scan) checkCount() error {
	j := s.j
	name := path.Join(j.dir, ringName)
	if !s.counted {
		if j.recovery.Records > 0 && !j.opt.Uncounted {
			return &CorruptError{File: name, Err: errors.New("missing, and the journal holds records: how many files it had is not known")}
		}
		return nil
	}
	if n := len(j.files); n < int(s.ring.slots) {
		return &CorruptError{File: path.Join(j.dir, fileName(uint32(n))), Err: fmt.Errorf("missing: %s counts %d files, %d are there", ringName, s.ring.slots, n)}
	}
	for _, f := range j.files {
		if f.slot >= s.ring.slots && f.end > headerBytes {
			return &CorruptError{File: name, Err: fmt.Errorf("counts %d files, but %s holds records: it is older than the files", s.ring.slots, path.Base(f.path))}
		}
		if b := s.headers[f].fileBytes; b != s.ring.fileBytes {
			return &CorruptError{File: f.path, Err: fmt.Errorf("file of %d bytes in a ring of files of %d", b, s.ring.fileBytes)}
		}
	}
	return nil
}
