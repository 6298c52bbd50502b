package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	// frameHeaderBytes is the size of what stands before a frame's data.
	frameHeaderBytes = 32

	// maxFrameBytes bounds the data of one frame: so much another shard's has to
	// wait for.
	maxFrameBytes = 256 << 10

	// maxMessageBytes bounds a message: more than any record of a journal.
	maxMessageBytes = 1<<30 + 64<<20

	// maxTextBytes bounds the text of an error that is an answer.
	maxTextBytes = 4 << 10

	// maxAnswerBytes bounds an answer of Raft's, which holds a few numbers.
	maxAnswerBytes = 4 << 10
)

// errFrame reports bytes that are no frame of this protocol, or one that breaks
// its rules. The connection ends.
var errFrame = errors.New("transport: damaged or unexpected frame")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frameKind says what a frame is. The zero kind is never sent.
type frameKind uint8

const (
	frameRequest  frameKind = 1 // a piece of a request
	frameAnswer   frameKind = 2 // a piece of an answer
	frameCancel   frameKind = 3 // nobody waits for a request's answer; what is missing of it does not follow
	framePing     frameKind = 4 // asks for a pong of its number, on the same connection
	framePong     frameKind = 5
	frameReceived frameKind = 6 // number bytes of the bulk connection have been received

	lastFrameKind = frameReceived
)

// Flags of a frame.
const (
	frameFirst uint8 = 1 << 0 // begins its message
	frameLast  uint8 = 1 << 1 // ends it
)

// op says what a request asks.
type op uint8

const (
	opAppendEntries   op = 1
	opRequestVote     op = 2
	opRequestPreVote  op = 3
	opTimeoutNow      op = 4
	opInstallSnapshot op = 5
	opProbe           op = 6
	opCall            op = 7

	lastOp = opCall
)

// answerCode says whether an answer is one, or which error.
type answerCode uint8

const (
	answerOK          answerCode = 0
	answerError       answerCode = 1 // an error of the replica's Raft
	answerUnreachable answerCode = 2 // ErrUnreachable
	answerOther       answerCode = 3 // ErrOtherReplica
	answerRefused     answerCode = 4 // ErrRefused
	answerWithdrawn   answerCode = 5 // the request was cancelled, and nothing came of it

	lastAnswerCode = answerWithdrawn
)

// frameHeader is a frame but for its data.
type frameHeader struct {
	length  uint32 // of the data
	kind    frameKind
	flags   uint8
	op      op
	code    answerCode
	number  uint64
	shard   uint32
	total   uint32 // bytes of data in all frames of the message
	dataCRC uint32 // zero over TLS
}

// append appends the header's bytes to dst.
func (h frameHeader) append(dst []byte) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, h.length)
	dst = append(dst, byte(h.kind), h.flags, byte(h.op), byte(h.code))
	dst = binary.LittleEndian.AppendUint64(dst, h.number)
	dst = binary.LittleEndian.AppendUint32(dst, h.shard)
	dst = binary.LittleEndian.AppendUint32(dst, h.total)
	dst = binary.LittleEndian.AppendUint32(dst, h.dataCRC)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// decodeFrameHeader is the inverse of append. It returns an error that matches
// errFrame for anything that append does not make of a header within the limits.
func decodeFrameHeader(b []byte) (frameHeader, error) {
	if len(b) != frameHeaderBytes {
		return frameHeader{}, fmt.Errorf("%w: header of %d bytes, want %d", errFrame, len(b), frameHeaderBytes)
	}
	if got, want := crc32.Checksum(b[:28], castagnoli), binary.LittleEndian.Uint32(b[28:]); got != want {
		return frameHeader{}, fmt.Errorf("%w: header with crc32c %08x, want %08x", errFrame, got, want)
	}
	h := frameHeader{
		length:  binary.LittleEndian.Uint32(b),
		kind:    frameKind(b[4]),
		flags:   b[5],
		op:      op(b[6]),
		code:    answerCode(b[7]),
		number:  binary.LittleEndian.Uint64(b[8:]),
		shard:   binary.LittleEndian.Uint32(b[16:]),
		total:   binary.LittleEndian.Uint32(b[20:]),
		dataCRC: binary.LittleEndian.Uint32(b[24:]),
	}
	return h, h.check()
}

// check holds a header against the limits, before anything is allocated for it.
func (h frameHeader) check() error {
	fail := func(what string) error { return fmt.Errorf("%w: %s: %+v", errFrame, what, h) }
	message := h.kind == frameRequest || h.kind == frameAnswer
	switch {
	case h.kind == 0 || h.kind > lastFrameKind:
		return fail("unknown kind")
	case !message && (h.length != 0 || h.flags != 0 || h.op != 0 || h.code != 0 || h.shard != 0 || h.total != 0 || h.dataCRC != 0):
		return fail("a frame of this kind has a number and nothing else")
	case !message:
		return nil
	case h.op == 0 || h.op > lastOp:
		return fail("unknown operation")
	case h.flags&^(frameFirst|frameLast) != 0:
		return fail("unknown flags")
	case h.code > lastAnswerCode || h.kind == frameRequest && h.code != answerOK:
		return fail("unknown code")
	case h.length > maxFrameBytes || h.length > h.total || h.total > h.largest():
		return fail("too large")
	case h.length == 0 && h.total != 0:
		return fail("a frame without data")
	case h.flags == frameFirst|frameLast && h.length != h.total, h.flags != frameFirst|frameLast && h.length == h.total:
		return fail("a message of one frame is its first and last")
	}
	return nil
}

// largest is how many bytes the message of h may have.
func (h frameHeader) largest() uint32 {
	switch {
	case h.kind == frameAnswer && h.code != answerOK:
		return maxTextBytes
	case h.op == opCall && h.kind == frameRequest:
		return MaxCallBytes + callHeadBytes
	case h.op == opCall:
		return MaxCallBytes
	case h.kind == frameAnswer:
		return maxAnswerBytes
	case h.op == opAppendEntries || h.op == opInstallSnapshot:
		return maxMessageBytes
	}
	return lightBytes
}

// sum is the checksum of a frame's data.
func sum(parts [][]byte) (crc uint32) {
	for _, p := range parts {
		crc = crc32.Update(crc, castagnoli, p)
	}
	return crc
}
