package batch

import (
	"encoding/binary"
	"math/bits"
)

const (
	xxhPrime1 uint32 = 2654435761
	xxhPrime2 uint32 = 2246822519
	xxhPrime3 uint32 = 3266489917
	xxhPrime4 uint32 = 668265263
	xxhPrime5 uint32 = 374761393
)

// xxh32Of returns the 32-bit xxHash of b with seed 0, the checksum of LZ4 frames.
func xxh32Of(b []byte) uint32 {
	h := newXXH32()
	h.write(b)
	return h.sum()
}

// xxh32 is the hash of bytes that come in pieces.
type xxh32 struct {
	lanes [4]uint32
	bytes uint32   // that were written, as the hash counts them
	rest  [16]byte // the last bytes%16 of them, which fill no stripe yet
}

func newXXH32() xxh32 {
	h := xxh32{lanes: [4]uint32{0, xxhPrime2, 0, 0}}
	h.lanes[0] = h.lanes[1] + xxhPrime1
	h.lanes[3] -= xxhPrime1
	return h
}

func (h *xxh32) write(b []byte) {
	n := int(h.bytes % 16)
	h.bytes += uint32(len(b))
	if n > 0 {
		m := copy(h.rest[n:], b)
		if b = b[m:]; n+m < len(h.rest) {
			return
		}
		h.stripes(h.rest[:])
	}
	copy(h.rest[:], h.stripes(b))
}

// stripes hashes b as far as it fills stripes, and returns what is left.
func (h *xxh32) stripes(b []byte) []byte {
	for ; len(b) >= 16; b = b[16:] {
		for i := range h.lanes {
			h.lanes[i] = bits.RotateLeft32(h.lanes[i]+binary.LittleEndian.Uint32(b[4*i:])*xxhPrime2, 13) * xxhPrime1
		}
	}
	return b
}

// sum returns the hash of what was written so far.
func (h *xxh32) sum() uint32 {
	sum := xxhPrime5
	if h.bytes >= 16 {
		sum = bits.RotateLeft32(h.lanes[0], 1) + bits.RotateLeft32(h.lanes[1], 7) +
			bits.RotateLeft32(h.lanes[2], 12) + bits.RotateLeft32(h.lanes[3], 18)
	}
	sum += h.bytes
	b := h.rest[:h.bytes%16]
	for ; len(b) >= 4; b = b[4:] {
		sum = bits.RotateLeft32(sum+binary.LittleEndian.Uint32(b)*xxhPrime3, 17) * xxhPrime4
	}
	for _, c := range b {
		sum = bits.RotateLeft32(sum+uint32(c)*xxhPrime5, 11) * xxhPrime1
	}
	sum = (sum ^ sum>>15) * xxhPrime2
	sum = (sum ^ sum>>13) * xxhPrime3
	return sum ^ sum>>16
}
