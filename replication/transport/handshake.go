package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The versions of the protocol between nodes that this build speaks. Which of
// them may be used follows from the cluster's feature level (R4); there is one.
const (
	minVersion = 1
	maxVersion = 1
)

const (
	helloBytes   = 40
	welcomeBytes = 48

	maxClusterBytes = 128 // of a cluster id
	maxReasonBytes  = 512 // of the text of a refusal
)

// magic opens every connection between nodes, in both directions: no TLS record,
// no Kafka frame and no other magic of Flotilla's begins so.
var magic = [4]byte{0xF1, 'N', 'O', 'D'}

// ErrHandshake matches the error of a connection that one of its ends refused.
var ErrHandshake = errors.New("transport: no agreement between two nodes")

// errSpeaksTLS is what an end without TLS sees of one with it.
var errSpeaksTLS = fmt.Errorf("%w: the other end speaks TLS, and this one does not: set up TLS between nodes on both, or on neither", ErrHandshake)

// lane numbers the connections of a session.
type laneNumber uint8

const (
	small laneNumber = 0 // votes, heartbeats, probes, answers, small calls
	bulk  laneNumber = 1 // entries, checkpoints, large calls and answers
	lanes            = 2
)

// hello is what the end that dialled says first.
type hello struct {
	min, max uint16 // versions that it speaks
	lane     laneNumber
	from, to int32  // nodes
	session  uint64 // drawn anew for each attempt; its connections share it
	cluster  string
}

// welcome is what the other end answers.
type welcome struct {
	refused  bool
	version  uint16 // agreed on
	min, max uint16 // versions that it speaks
	node     int32
	window   int64 // bytes of requests that it holds for the other end, see windows
	calls    int64
	cluster  string
	reason   string // of the refusal
}

func (h hello) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, magic[:]...)
	dst = binary.LittleEndian.AppendUint16(dst, h.min)
	dst = binary.LittleEndian.AppendUint16(dst, h.max)
	dst = append(dst, byte(h.lane), byte(len(h.cluster)), 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.from))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.to))
	dst = binary.LittleEndian.AppendUint64(dst, h.session)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = append(dst, 0, 0, 0, 0)
	return seal(append(dst, h.cluster...), start, helloBytes)
}

// seal puts the checksum into the last four bytes of the fixed part of what begins
// at start.
func seal(dst []byte, start, fixed int) []byte {
	binary.LittleEndian.PutUint32(dst[start+fixed-4:], sealOf(dst[start:], fixed))
	return dst
}

// sealOf is the checksum of everything but itself.
func sealOf(b []byte, fixed int) uint32 {
	return crc32.Update(crc32.Checksum(b[:fixed-4], castagnoli), castagnoli, b[fixed:])
}

// readHello reads a hello from who may be anybody: it reads no more than a hello's
// bytes, into memory of a fixed size.
func readHello(r io.Reader) (hello, error) {
	var buf [helloBytes + maxClusterBytes]byte
	b := buf[:helloBytes]
	if err := readFixed(r, b); err != nil {
		return hello{}, err
	}
	h := hello{min: binary.LittleEndian.Uint16(b[4:]), max: binary.LittleEndian.Uint16(b[6:])}
	if _, err := agree(h.min, h.max); err != nil {
		return h, err // what follows may differ
	}
	n := int(b[9])
	if n > maxClusterBytes {
		return hello{}, fmt.Errorf("%w: a cluster id of %d bytes, at most %d", ErrHandshake, n, maxClusterBytes)
	}
	b = buf[:helloBytes+n]
	if _, err := io.ReadFull(r, b[helloBytes:]); err != nil {
		return hello{}, fmt.Errorf("%w: cut off: %w", ErrHandshake, err)
	}
	if got, want := sealOf(b, helloBytes), binary.LittleEndian.Uint32(b[helloBytes-4:]); got != want {
		return hello{}, fmt.Errorf("%w: damaged: crc32c %08x, want %08x", ErrHandshake, got, want)
	}
	h.lane = laneNumber(b[8])
	h.from = int32(binary.LittleEndian.Uint32(b[12:]))
	h.to = int32(binary.LittleEndian.Uint32(b[16:]))
	h.session = binary.LittleEndian.Uint64(b[20:])
	h.cluster = string(b[helloBytes:])
	if h.lane >= lanes {
		return hello{}, fmt.Errorf("%w: connection %d of %d", ErrHandshake, h.lane, lanes)
	}
	return h, nil
}

// readFixed reads the fixed part of a hello or a welcome, whose magic it checks
// as soon as it is there: who speaks something else may send no more.
func readFixed(r io.Reader, b []byte) error {
	if _, err := io.ReadFull(r, b[:len(magic)]); err != nil {
		return fmt.Errorf("%w: the other end sent nothing, or too little: %w", ErrHandshake, err)
	}
	switch {
	case b[0] == 0x15 && b[1] == 3 || b[0] == 0x16 && b[1] == 3:
		return errSpeaksTLS
	case [4]byte(b) != magic:
		return fmt.Errorf("%w: the other end speaks another protocol: it began with %q. This port is for Flotilla's nodes only", ErrHandshake, b[:len(magic)])
	}
	if _, err := io.ReadFull(r, b[len(magic):]); err != nil {
		return fmt.Errorf("%w: cut off: %w", ErrHandshake, err)
	}
	return nil
}

// agree returns the version that both ends use: the newest that both speak.
func agree(lo, hi uint16) (uint16, error) {
	if lo > maxVersion || hi < minVersion || lo > hi {
		return 0, fmt.Errorf("%w: the other end speaks versions %d to %d of the protocol between nodes, and this one %d to %d: upgrade the older of both nodes",
			ErrHandshake, lo, hi, minVersion, maxVersion)
	}
	return min(hi, maxVersion), nil
}

func (w welcome) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, magic[:]...)
	dst = binary.LittleEndian.AppendUint16(dst, w.min)
	dst = binary.LittleEndian.AppendUint16(dst, w.max)
	dst = append(dst, byte(len(w.cluster)))
	if w.refused {
		dst = append(dst, 1)
	} else {
		dst = append(dst, 0)
	}
	dst = binary.LittleEndian.AppendUint16(dst, w.version)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(w.reason)))
	dst = append(dst, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(w.node))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(w.window))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(w.calls))
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = append(dst, 0, 0, 0, 0)
	return seal(append(append(dst, w.cluster...), w.reason...), start, welcomeBytes)
}

// readWelcome reads a welcome. A refusal is a welcome, and no error.
func readWelcome(r io.Reader) (welcome, error) {
	var buf [welcomeBytes + maxClusterBytes + maxReasonBytes]byte
	b := buf[:welcomeBytes]
	if err := readFixed(r, b); err != nil {
		return welcome{}, err
	}
	w := welcome{min: binary.LittleEndian.Uint16(b[4:]), max: binary.LittleEndian.Uint16(b[6:])}
	if _, err := agree(w.min, w.max); err != nil {
		return w, err // what follows may differ
	}
	cluster, reason := int(b[8]), int(binary.LittleEndian.Uint16(b[12:]))
	if cluster > maxClusterBytes || reason > maxReasonBytes {
		return welcome{}, fmt.Errorf("%w: a cluster id of %d bytes and a reason of %d, at most %d and %d",
			ErrHandshake, cluster, reason, maxClusterBytes, maxReasonBytes)
	}
	b = buf[:welcomeBytes+cluster+reason]
	if _, err := io.ReadFull(r, b[welcomeBytes:]); err != nil {
		return welcome{}, fmt.Errorf("%w: cut off: %w", ErrHandshake, err)
	}
	if got, want := sealOf(b, welcomeBytes), binary.LittleEndian.Uint32(b[welcomeBytes-4:]); got != want {
		return welcome{}, fmt.Errorf("%w: damaged: crc32c %08x, want %08x", ErrHandshake, got, want)
	}
	w.refused = b[9] != 0
	w.version = binary.LittleEndian.Uint16(b[10:])
	w.node = int32(binary.LittleEndian.Uint32(b[16:]))
	w.window = int64(binary.LittleEndian.Uint64(b[20:]))
	w.calls = int64(binary.LittleEndian.Uint64(b[28:]))
	w.cluster = string(b[welcomeBytes : welcomeBytes+cluster])
	w.reason = string(b[welcomeBytes+cluster:])
	return w, nil
}
