package partition

import (
	"encoding/binary"
	"fmt"
)

// Command is one command of an entry. Payload and TLVs alias the entry.
type Command struct {
	Kind    Kind
	Number  Number
	TLVs    []byte // as written; see entry.go
	Payload []byte
}

// Decoder walks the commands of an entry without copying.
//
//	d, err := Decode(entry)
//	for d.Next() {
//		use(d.Command())
//	}
//
// Decode has checked all of the entry's framing before the first Next, so the
// walk cannot fail.
type Decoder struct {
	Header EntryHeader
	Count  int // commands in the entry

	rest []byte
	cmd  Command
}

// Decode checks entry as far as its framing goes, and returns a Decoder over
// its commands. It returns an error that matches ErrDamaged for bytes that are
// not an entry, and ErrUnsupported for a format, flag, command, mandatory TLV or
// apply version that this build does not know. It never panics.
func Decode(entry []byte) (Decoder, error) {
	if len(entry) < entryHeaderBytes {
		return Decoder{}, fmt.Errorf("%w: entry of %d bytes", ErrDamaged, len(entry))
	}
	if f := entry[0]; f != entryFormat {
		return Decoder{}, fmt.Errorf("%w: entry format %d, this build reads %d", ErrUnsupported, f, entryFormat)
	}
	if f := entry[1]; f&^flagHashAsked != 0 {
		return Decoder{}, fmt.Errorf("%w: entry flags %#x", ErrUnsupported, f)
	}
	d := Decoder{
		Header: EntryHeader{
			ApplyVersion: binary.LittleEndian.Uint16(entry[2:]),
			DecidedTerm:  binary.LittleEndian.Uint64(entry[8:]),
			WallClockMS:  int64(binary.LittleEndian.Uint64(entry[16:])),
			HashAsked:    entry[1]&flagHashAsked != 0,
		},
		rest: entry[entryHeaderBytes:],
	}
	if v := d.Header.ApplyVersion; v > MaxApplyVersion {
		return Decoder{}, fmt.Errorf("%w: entry of apply version %d, this build has %d", ErrUnsupported, v, MaxApplyVersion)
	} else if v < MinApplyVersion {
		return Decoder{}, fmt.Errorf("%w: entry of apply version %d", ErrDamaged, v)
	}
	if d.Header.WallClockMS < 0 {
		return Decoder{}, fmt.Errorf("%w: wall clock %d ms", ErrDamaged, d.Header.WallClockMS)
	}
	return d, d.check(binary.LittleEndian.Uint32(entry[4:]))
}

// check walks all frames of a copy of d.
func (d *Decoder) check(count uint32) error {
	walk := d.rest
	for uint32(d.Count) < count {
		cmd, size, err := decodeFrame(walk)
		if err == nil {
			err = cmd.checkPayload(d.Header.ApplyVersion)
		}
		if err != nil {
			return fmt.Errorf("command %d of %d: %w", d.Count, count, err)
		}
		walk = walk[size:]
		d.Count++
	}
	if len(walk) > 0 {
		return fmt.Errorf("%w: %d bytes after %d commands", ErrDamaged, len(walk), count)
	}
	return nil
}

// Next moves to the next command, and reports whether there is one.
func (d *Decoder) Next() bool {
	if len(d.rest) == 0 {
		return false
	}
	cmd, size, err := decodeFrame(d.rest)
	if err != nil {
		panic(fmt.Sprintf("partition: entry changed while it was read: %v", err))
	}
	d.cmd, d.rest = cmd, d.rest[size:]
	return true
}

// Command returns the command that Next moved to.
func (d *Decoder) Command() Command { return d.cmd }

// decodeFrame returns the first command of b and the size of its frame.
func decodeFrame(b []byte) (Command, int, error) {
	if len(b) < frameHeaderBytes {
		return Command{}, 0, fmt.Errorf("%w: frame header of %d bytes", ErrDamaged, len(b))
	}
	kind := Kind(b[0])
	if kind == 0 {
		return Command{}, 0, fmt.Errorf("%w: command of kind 0", ErrDamaged)
	}
	if kind > lastKind {
		return Command{}, 0, fmt.Errorf("%w: command %v", ErrUnsupported, kind)
	}
	if b[1] != 0 {
		return Command{}, 0, fmt.Errorf("%w: %v with flags %#x", ErrUnsupported, kind, b[1])
	}
	head := int(binary.LittleEndian.Uint16(b[2:]))
	payload := int64(binary.LittleEndian.Uint32(b[4:]))
	if head < frameHeaderBytes || int64(len(b)) < int64(head)+payload {
		return Command{}, 0, fmt.Errorf("%w: %v with a header of %d bytes and a payload of %d, in %d bytes",
			ErrDamaged, kind, head, payload, len(b))
	}
	size := head + int(payload)
	cmd := Command{
		Kind:    kind,
		Number:  Number(binary.LittleEndian.Uint32(b[8:])),
		TLVs:    b[frameHeaderBytes:head:head],
		Payload: b[head:size:size],
	}
	if len(cmd.TLVs) == 0 {
		return cmd, size, nil
	}
	return cmd, size, checkTLVs(cmd)
}

// checkTLVs refuses TLVs that are malformed, out of order, or mandatory and not
// known: only a Decision has one that is.
func checkTLVs(cmd Command) error {
	last := -1
	for b := cmd.TLVs; len(b) > 0; {
		if len(b) < tlvHeaderBytes {
			return fmt.Errorf("%w: %v: TLV header of %d bytes", ErrDamaged, cmd.Kind, len(b))
		}
		t := binary.LittleEndian.Uint16(b)
		n := tlvHeaderBytes + int(binary.LittleEndian.Uint16(b[2:]))
		typ := int(t &^ tlvMandatory)
		if len(b) < n || typ <= last {
			return fmt.Errorf("%w: %v: TLV of type %d after %d, %d bytes of %d", ErrDamaged, cmd.Kind, typ, last, n, len(b))
		}
		if t&tlvMandatory != 0 && (cmd.Kind != KindDecision || TLVType(typ) != TLVDecisionNumber) {
			return fmt.Errorf("%w: %v with mandatory TLV %d", ErrUnsupported, cmd.Kind, typ)
		}
		b, last = b[n:], typ
	}
	return nil
}

// tlv returns the value of the mandatory TLV of a type, or nil if there is none.
func (c Command) tlv(want TLVType) []byte {
	for b := c.TLVs; len(b) > 0; { // well-formed: see checkTLVs
		t := binary.LittleEndian.Uint16(b)
		n := tlvHeaderBytes + int(binary.LittleEndian.Uint16(b[2:]))
		if t == uint16(want)|tlvMandatory {
			return b[tlvHeaderBytes:n]
		}
		b = b[n:]
	}
	return nil
}
