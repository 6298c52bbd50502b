package tidy

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"path"
	"strings"
)

// mark is how a format names itself.
type mark struct {
	Magic   string
	Version int
}

// offline reads the files of a data directory as docs/formats.md describes
// them. It shares no code with what wrote them, checks every checksum, and
// notes the formats that it has met.
type offline struct {
	fs     fs.FS
	seen   map[string]mark
	opaque bool // entries in logs hold anything, as in the golden files of the logs
}

func newOffline(fsys fs.FS) *offline { return &offline{fs: fsys, seen: make(map[string]mark)} }

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
	be         = binary.BigEndian

	errChecksum = errors.New("checksum does not match")
	errShort    = errors.New("cut off, or bytes left over")
)

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// note enters a format that was met, which always has to be met alike.
func (o *offline) note(format, magic string, version int) error {
	m := mark{magic, version}
	if old, ok := o.seen[format]; ok && old != m {
		return fmt.Errorf("%s: %+v, and elsewhere %+v", format, m, old)
	}
	o.seen[format] = m
	return nil
}

// file reads a file of a data directory.
func (o *offline) file(name string) error {
	b, err := fs.ReadFile(o.fs, name)
	if err != nil {
		return err
	}
	switch top, _, _ := strings.Cut(name, "/"); {
	case name == "LOCK":
		if len(b) > 0 {
			return errShort
		}
		return nil
	case name == "SPARE":
		if len(bytes.Trim(b, "\x00")) > 0 || len(b) != 1<<20 {
			return errShort
		}
		return nil
	case name == "IDENTITY":
		return o.identity(b)
	case path.Base(name) == "GENERATION":
		return o.generation(b)
	case name == "journal/RING":
		return o.ring(b)
	case top == "journal":
		return o.journal(b)
	case top == "votes", top == "metadata":
		return o.control(name, b)
	case strings.HasSuffix(name, ".seg"):
		_, err = o.segment(b)
		return err
	case strings.HasSuffix(name, ".index"):
		return o.index(name, b)
	case top == "shards":
		body, err := o.checkpoint(name, b)
		if err != nil {
			return err
		}
		if path.Base(path.Dir(name)) == "0" {
			return o.sections(body, nil)
		}
		return o.sections(body, o.partitionItem)
	}
	return errors.New("no format is known")
}

func (o *offline) identity(b []byte) error { return o.sealed("identity", b) }

func (o *offline) generation(b []byte) error { return o.sealed("generation", b) }

// sealed reads a line of JSON, and one with its checksum.
func (o *offline) sealed(format string, b []byte) error {
	line, sum, _ := bytes.Cut(b, []byte("\n"))
	if string(sum) != fmt.Sprintf("%08x\n", crc(line)) {
		return errChecksum
	}
	var id struct{ Format int }
	if err := json.Unmarshal(line, &id); err != nil {
		return err
	}
	return o.note(format, "", id.Format)
}

func (o *offline) ring(b []byte) error {
	if len(b) != 32 {
		return errShort
	}
	if le.Uint32(b[28:]) != crc(b[:28]) {
		return errChecksum
	}
	if slots := le.Uint32(b[12:]); slots < 2 || le.Uint64(b[16:])%4096 != 0 {
		return fmt.Errorf("ring of %d files of %d bytes", slots, le.Uint64(b[16:]))
	}
	return o.note("ring", string(b[:8]), int(le.Uint32(b[8:])))
}

func (o *offline) journal(b []byte) error {
	var head []byte
	for _, h := range [][]byte{b[:4096], b[4096:8192]} {
		if le.Uint32(h[4092:]) != crc(h[:4092]) {
			return errChecksum
		}
		if head == nil || le.Uint64(h[40:]) > le.Uint64(head[40:]) {
			head = h
		}
	}
	if le.Uint64(head[32:]) != uint64(len(b)) {
		return errShort
	}
	salt, lsn := head[48:56], uint64(0)
	for b = b[8192:]; len(b) >= 80; {
		if le.Uint32(b) != crc(append(bytes.Clone(salt), b[4:80]...)) {
			break
		}
		n := int(le.Uint32(b[8:]))
		end := 80 + (n+7)&^7
		if le.Uint32(b[4:]) != crc(b[80:end]) {
			return errChecksum
		}
		if next := le.Uint64(b[16:]); lsn != 0 && next != lsn+1 {
			return fmt.Errorf("LSN %d after %d", next, lsn)
		}
		lsn = le.Uint64(b[16:])
		if kind, raftType := b[76], b[78]; kind == 1 && raftType == 0 && !o.opaque {
			if err := o.entry(b[80+le.Uint32(b[12:]) : 80+n]); err != nil {
				return fmt.Errorf("LSN %d: %w", lsn, err)
			}
		}
		b = b[end:]
	}
	return o.note("journal", string(head[:8]), int(le.Uint32(head[8:])))
}

func (o *offline) control(name string, b []byte) error {
	var first uint64
	if _, err := fmt.Sscanf(path.Base(name), "%020d", &first); err != nil {
		return err
	}
	for index := first; len(b) > 0; index++ {
		n, w := binary.Uvarint(b)
		if w <= 0 || n < 29 || uint64(len(b)-w) < n {
			return errShort
		}
		f := b[w:][:n]
		b = b[w:][n:]
		payload := f[28 : n-1]
		switch {
		case le.Uint32(f) != crc(f[4:]):
			return errChecksum
		case int(le.Uint32(f[4:])) != len(payload), le.Uint64(f[8:]) != index, le.Uint64(f[16:]) > index, f[n-1] != 0xe7:
			return fmt.Errorf("record %d: header %x, end %x", index, f[:28], f[n-1])
		}
		if err := o.note("control", "", int(f[26])); err != nil {
			return err
		}
		switch f[27] {
		case 'V':
			if len(payload) < 28 {
				return errShort
			}
		case 'D':
			if len(payload) != 4 {
				return errShort
			}
		case 'E':
			data := payload[21+le.Uint32(payload[16:]):]
			if payload[20] != 0 || o.opaque {
				continue
			}
			if err := o.command(data); err != nil {
				return fmt.Errorf("record %d: %w", index, err)
			}
		default:
			return fmt.Errorf("record %d of kind %q", index, f[27])
		}
	}
	return nil
}

// entry reads the data of a data shard's entry.
func (o *offline) entry(b []byte) error {
	if len(b) < 24 {
		return errShort
	}
	if err := o.note("entry", "", int(b[0])); err != nil {
		return err
	}
	count := le.Uint32(b[4:])
	for b = b[24:]; count > 0 && len(b) >= 12; count-- {
		head, n := int(le.Uint16(b[2:])), int(le.Uint32(b[4:]))
		if head < 12 || len(b) < head+n {
			return errShort
		}
		sizes := map[byte]int{2: 0, 3: 57, 4: 28, 5: 53, 6: 8, 7: 2, 8: 20}
		if b[0] == 9 {
			sizes[9] = 8 + max(1, (n-8)/18)*18
		}
		if b[0] == 10 { // batches, behind term and number
			if head != 32 || le.Uint16(b[12:]) != 3|1<<15 || le.Uint16(b[14:]) != 16 {
				return fmt.Errorf("a Decision with a header of %d bytes", head)
			}
			if err := o.batches(b[head : head+n]); err != nil {
				return err
			}
			sizes[10] = n
		}
		if want, ok := sizes[b[0]]; ok && n != want || !ok && b[0] != 1 {
			return fmt.Errorf("command of kind %d with %d bytes", b[0], n)
		}
		b = b[head+n:]
	}
	if count > 0 || len(b) > 0 {
		return errShort
	}
	return nil
}

// command reads the data of a metadata entry, as far as its fields.
func (o *offline) command(b []byte) error {
	if len(b) < 12 || b[1] < 1 || b[1] > 15 || b[2]|b[3] != 0 {
		return errShort
	}
	return o.note("command", "", int(b[0]))
}

// commands reads lines of hex, a command each.
func (o *offline) commands(b []byte) error {
	for line := range bytes.Lines(b) {
		c, err := hex.DecodeString(string(bytes.TrimSpace(line)))
		if err == nil {
			err = o.command(c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// batches reads record batches that follow each other.
func (o *offline) batches(b []byte) error {
	for len(b) > 0 {
		if len(b) < 61 || len(b) < 12+int(be.Uint32(b[8:])) {
			return errShort
		}
		n := 12 + int(be.Uint32(b[8:]))
		if be.Uint32(b[17:]) != crc(b[21:n]) {
			return errChecksum
		}
		if err := o.note("record batch", "", int(b[16])); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// covered is what an index says of its segment, and the segment of itself.
type covered struct {
	Bytes        uint32
	End          int64
	MaxTimestamp int64
	Prefixes     uint32
}

func (o *offline) segment(b []byte) (c covered, err error) {
	if len(b) < 128 {
		return c, errShort
	}
	if le.Uint32(b[124:]) != crc(b[:124]) {
		return c, errChecksum
	}
	c = covered{Bytes: uint32(len(b)), End: int64(le.Uint64(b[40:])), MaxTimestamp: math.MinInt64}
	if err := o.note("segment", string(b[:8]), int(le.Uint16(b[8:]))); err != nil {
		return c, err
	}
	if err := o.batches(b[128:]); err != nil {
		return c, err
	}
	for b = b[128:]; len(b) > 0; b = b[12+be.Uint32(b[8:]):] {
		if base := int64(be.Uint64(b)); base != c.End {
			return c, fmt.Errorf("batch at offset %d, want %d", base, c.End)
		}
		c.End += int64(be.Uint32(b[23:])) + 1
		c.MaxTimestamp = max(c.MaxTimestamp, int64(be.Uint64(b[35:])))
		c.Prefixes = crc32.Update(c.Prefixes, castagnoli, b[:16])
	}
	return c, nil
}

func (o *offline) index(name string, b []byte) error {
	data, err := fs.ReadFile(o.fs, strings.TrimSuffix(name, ".index")+".seg")
	if err != nil {
		return err
	}
	want, err := o.segment(data)
	if err != nil {
		return err
	}
	if le.Uint32(b[28:]) != crc(b[:28]) || le.Uint32(b[24:]) != le.Uint32(data[124:]) || le.Uint64(b[16:]) != le.Uint64(data[40:]) {
		return errChecksum
	}
	if err := o.note("index", string(b[:8]), int(le.Uint16(b[8:]))); err != nil {
		return err
	}
	var got covered
	at := uint32(128)
	for b = b[32:]; len(b) > 0; {
		n := 40 + 16*int(le.Uint16(b[4:]))
		if le.Uint32(b) != crc(b[4:n]) {
			return errChecksum
		}
		if sealed := le.Uint16(b[6:]) == 1; le.Uint32(b[8:]) != at || sealed && n != 40 {
			return fmt.Errorf("block from %d, want %d", le.Uint32(b[8:]), at)
		}
		got = covered{le.Uint32(b[12:]), int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:])), le.Uint32(b[32:])}
		at, b = got.Bytes, b[n:]
	}
	if got != want {
		return fmt.Errorf("index covers %+v, segment is %+v", got, want)
	}
	return nil
}

// checkpoint returns a checkpoint's body.
func (o *offline) checkpoint(name string, b []byte) ([]byte, error) {
	end := len(b) - 4
	if end < 64 {
		return nil, errShort
	}
	if le.Uint32(b[end:]) != crc(b[:end]) {
		return nil, errChecksum
	}
	kind := "base"
	if le.Uint64(b[40:]) != 0 {
		kind = "delta"
	}
	if want := fmt.Sprintf("%020d-%s.checkpoint", le.Uint64(b[24:]), kind); path.Base(name) != want {
		return nil, fmt.Errorf("holds what %s should", want)
	}
	return b[64+le.Uint32(b[12:]) : end], o.note("checkpoint", string(b[:4]), int(le.Uint16(b[4:])))
}

// sections reads one list. item, if not nil, returns the size of the first item
// of a section of that kind.
func (o *offline) sections(b []byte, item func(kind uint16, b []byte) int) error {
	count := uint32(0)
	for len(b) >= 16 {
		kind, version, n := le.Uint16(b[4:]), le.Uint16(b[6:]), 16+int(le.Uint32(b[12:]))
		if len(b) < n {
			return errShort
		}
		if le.Uint32(b) != crc(b[4:n]) {
			return errChecksum
		}
		payload := b[16:n]
		if b = b[n:]; kind == 0xffff {
			if len(b) > 0 || le.Uint32(payload) != count {
				return errShort
			}
			return nil
		}
		if err := o.note("section", "", int(version)); err != nil {
			return err
		}
		for count++; item != nil && len(payload) > 0; {
			k := item(kind, payload)
			if k == 0 || k > len(payload) {
				return fmt.Errorf("section of kind %d: item of %d bytes in %d", kind, k, len(payload))
			}
			payload = payload[k:]
		}
	}
	return errShort
}

// partitionItem returns the size of an item of a data shard's checkpoint.
func (o *offline) partitionItem(kind uint16, b []byte) int {
	switch {
	case kind == 1:
		return 74
	case kind == 2:
		return 4
	case kind == 3 && len(b) >= 81:
		return 81 + 12*int(le.Uint32(b[77:]))
	case kind == 4:
		return 12
	case kind == 5 && len(b) >= 31:
		return 31 + 24*int(b[30])
	case kind == 6:
		return 28
	case kind == 7 || kind == 8:
		return 20
	case kind == 9 && len(b) >= 12:
		key := int(le.Uint32(b[4:]))
		if key > len(b)-12 {
			return 0
		}
		if value := le.Uint32(b[8+key:]); value != 0xffffffff {
			return 12 + key + int(value)
		}
		return 12 + key
	}
	return 0
}

// groupItem returns the size of an item of a snapshot of groups: a key, which begins
// with a type of two bytes, and a value, each behind its length.
func groupItem(kind uint16, b []byte) int {
	if kind != 1 || len(b) < 4 {
		return 0
	}
	key := int(le.Uint32(b))
	if key < 2 || len(b) < 8+key {
		return 0
	}
	return 8 + key + int(le.Uint32(b[4+key:]))
}
