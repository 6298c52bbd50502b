package consumergroup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/section"
)

// A snapshot is one section list (see internal/section) of sections of kind 1,
// version 1, mandatory. Their payloads hold the records that Groups is made of, one
// after another (little-endian):
//
//	0            4     4+n            8+n
//	+------------+-----+--------------+-------+
//	| key length | key | value length | value |
//	+------------+-----+--------------+-------+
//
// with keys and values as in package record. Groups follow each other by name: the
// group's records, if there are any, then its offsets by topic and partition. What
// this build has nothing to do with comes last, by key. No record is cut by the end
// of a section, and no key stands twice.
const sectionRecords section.Kind = 1

const (
	snapshotVersion = 1

	// sectionBytes is where a writer starts the next section.
	sectionBytes = 1 << 20
)

var (
	// ErrDamaged reports a snapshot that is cut off or changed.
	ErrDamaged = errors.New("consumergroup: damaged snapshot")

	// ErrUnsupported reports a snapshot of a newer build.
	ErrUnsupported = errors.New("consumergroup: unsupported snapshot")
)

// Hash is a digest of what a Groups says.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Hash returns the digest of g: two that say the same have the same, in whatever
// versions and order the records came. It takes time proportional to g.
func (g *Groups) Hash() Hash {
	h := sha256.New()
	if err := g.WriteSnapshot(h); err != nil {
		panic("consumergroup: hashing failed: " + err.Error()) // a hash takes all bytes
	}
	return Hash(h.Sum(nil))
}

// WriteSnapshot writes g to w. Those that say the same give the same bytes. It
// returns what w returns. It is a query: write a Clone to go on meanwhile.
func (g *Groups) WriteSnapshot(w io.Writer) error {
	sw := snapshotWriter{w: section.NewWriter(w)}
	for r := range g.All {
		sw.add(r)
	}
	sw.flush()
	if sw.err != nil {
		return sw.err
	}
	return sw.w.Close()
}

// snapshotWriter cuts records into sections. The first error is final.
type snapshotWriter struct {
	w   *section.Writer
	buf []byte
	err error
}

func (sw *snapshotWriter) add(r record.Record) {
	for _, b := range [][]byte{r.Key, r.Value} {
		sw.buf = binary.LittleEndian.AppendUint32(sw.buf, uint32(len(b)))
		sw.buf = append(sw.buf, b...)
	}
	if len(sw.buf) >= sectionBytes {
		sw.flush()
	}
}

func (sw *snapshotWriter) flush() {
	if len(sw.buf) > 0 && sw.err == nil {
		sw.err = sw.w.Write(section.Section{Kind: sectionRecords, Version: snapshotVersion, Mandatory: true, Payload: sw.buf})
	}
	sw.buf = sw.buf[:0]
}

// Restore reads a snapshot, one list, and no further. It returns an error that
// matches ErrDamaged or ErrUnsupported, or what r returned. A section
// that is not known and not mandatory is skipped. Memory is bounded by a multiple
// of the bytes that r has.
func Restore(r io.Reader) (*Groups, error) {
	g := NewGroups()
	sr := section.NewReader(r)
	for {
		at := sr.At()
		sec, err := sr.Next()
		switch {
		case err == io.EOF:
			return g, nil
		case errors.Is(err, section.ErrDamaged):
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		case err != nil:
			return nil, fmt.Errorf("consumergroup: read snapshot: %w", err)
		case sec.Kind == sectionRecords && sec.Version == snapshotVersion:
			if err := g.restore(sec.Payload); err != nil {
				return nil, fmt.Errorf("%w (section at %d)", err, at)
			}
		case sec.Mandatory:
			return nil, fmt.Errorf("%w: section of kind %d, version %d, at %d", ErrUnsupported, sec.Kind, sec.Version, at)
		}
	}
}

// restore folds the records of one section.
func (g *Groups) restore(b []byte) error {
	for len(b) > 0 {
		var parts [2][]byte
		for i := range parts {
			if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
				return fmt.Errorf("%w: a record is cut off", ErrDamaged)
			}
			n := binary.LittleEndian.Uint32(b)
			parts[i], b = b[4:4+n:4+n], b[4+n:]
		}
		before := g.records()
		switch err := g.Fold(record.Record{Key: parts[0], Value: parts[1]}); {
		case errors.Is(err, record.ErrVersion):
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		case g.records() == before:
			return fmt.Errorf("%w: the key %x stands twice", ErrDamaged, bytes.Clone(parts[0]))
		}
	}
	return nil
}
