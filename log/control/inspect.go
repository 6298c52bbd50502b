package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// Found is one record as Inspect found it: a vote, a deletion of one, or an
// entry of a Raft log.
type Found struct {
	File          string
	Offset, Bytes int64 // in the file, with its size
	Index         uint64
	Durable       uint64 // every record below had been synced when it was written
	Kind          string // vote, delete or entry
	Shard         uint32 // of a vote or a delete
	Vote          Vote
	Entry         Entry // aliases what was read
}

// Damage is a range of a file that does not hold what was written.
type Damage struct {
	File       string
	Offset, To int64  // half-open; To is 0 where the file as a whole is meant
	Index      uint64 // of the record that belongs there; 0 if it is not known
	Torn       bool   // the next start cuts it off
	Err        error
}

// Inspection is what Inspect found. Nothing was changed.
type Inspection struct {
	Files       []string // that count, in order
	First, Next uint64   // records [First, Next), as far as names and records tell
	Records     int      // intact ones
	Damage      []Damage
}

// Inspect reads the whole log in dir, of votes or of entries, which nobody has
// open, and changes nothing. It calls visit, if that is not nil, for each
// intact record in order, and goes on behind damage. Memory is bounded by the
// longest file.
//
// The error is visit's or the file system's. A directory that is not there
// matches fs.ErrNotExist.
func Inspect(fsys vfs.FS, dir string, visit func(*Found) error) (*Inspection, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("control: list %s: %w", dir, err)
	}
	in := new(Inspection)
	c, err := classify(dir, names)
	if ce := (*CorruptError)(nil); errors.As(err, &ce) {
		in.Damage = append(in.Damage, Damage{File: ce.Path, Err: ce.Err})
		return in, nil
	}
	for i, name := range c.names {
		file := path.Join(dir, name)
		data, err := vfs.ReadFile(fsys, file)
		if err != nil {
			return nil, err
		}
		in.Files = append(in.Files, file)
		s := segment{name: name[:20], first: indexOf(name), data: data}
		if i == 0 {
			in.First, in.Next = s.first, s.first
		} else if s.first != in.Next {
			err := fmt.Errorf("begins at record %d, the segment before it ends before %d", s.first, in.Next)
			in.Damage = append(in.Damage, Damage{File: file, Index: in.Next, Err: err})
		}
		if err := in.walk(file, &s, i == len(c.names)-1, visit); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// walk visits the records of one file.
func (in *Inspection) walk(file string, s *segment, last bool, visit func(*Found) error) error {
	torn := -1 // where Open would cut
	verdict := s.scan(file, last, func(frame) error { return nil })
	if verdict == nil && s.intact < len(s.data) {
		torn = s.intact
	}
	in.Next = s.first
	for at := 0; at < len(s.data); {
		found, n, err := findRecord(s.data[at:], in.Next)
		if err == nil {
			found.File, found.Offset, found.Bytes = file, int64(at), int64(n)
			in.Records++
			in.Next = found.Index + 1
			if visit != nil {
				if err := visit(found); err != nil {
					return err
				}
			}
			at += n
			continue
		}
		to := nextRecord(s.data, at+1, in.Next)
		in.Damage = append(in.Damage, Damage{File: file, Offset: int64(at), To: int64(to), Index: in.Next, Torn: at == torn, Err: err})
		if at = to; at < len(s.data) {
			fr, _, _ := splitRecord(s.data[at:])
			in.Next = binary.LittleEndian.Uint64(fr[8:])
		}
	}
	return nil
}

// findRecord decodes the record at the start of b, which has to have that
// number.
func findRecord(b []byte, index uint64) (*Found, int, error) {
	fr, n, ok := splitRecord(b)
	if !ok {
		return nil, 0, fmt.Errorf("%w: does not end within the file", errDamaged)
	}
	f, err := decodeFrame(fr)
	if err == nil && f.index != index {
		err = fmt.Errorf("record %d where %d belongs", f.index, index)
	}
	if err != nil {
		return nil, 0, err
	}
	out := &Found{Index: f.index, Durable: f.durable}
	if f.kind == kindEntry {
		out.Kind = "entry"
		out.Entry, err = decodeEntry(f)
		return out, n, err
	}
	c, err := decodeChange(f)
	out.Kind, out.Shard, out.Vote = "vote", c.shard, c.vote
	if c.remove {
		out.Kind = "delete"
	}
	return out, n, err
}

// nextRecord returns where the next intact record of at least that number
// begins, from offset from on, or the end of data.
func nextRecord(data []byte, from int, index uint64) int {
	for at := from; at < len(data); at++ {
		fr, _, ok := splitRecord(data[at:])
		if !ok || len(fr) < frameBytes || payloadLen(fr) != uint64(len(fr)-frameBytes) {
			continue
		}
		if f, err := decodeFrame(fr); err == nil && f.index >= index {
			return at
		}
	}
	return len(data)
}
