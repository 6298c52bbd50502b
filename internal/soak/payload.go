//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
)

// maxPayloadBytes bounds a record's value.
const maxPayloadBytes = 40 << 10

// payload returns the bytes that stand for v: v itself and filler that does not
// compress. Length and filler follow from v, so that any byte that was changed,
// lost or exchanged shows. Most are small and a few are large.
func payload(v value) []byte {
	chance := rand.NewPCG(uint64(v.producer), v.n)
	limit := 1 << 10
	switch n := chance.Uint64() % 1000; {
	case n < 2:
		limit = maxPayloadBytes
	case n < 50:
		limit = 8 << 10
	}
	size := 12 + int(chance.Uint64()%uint64(limit-12))
	b := make([]byte, 12, size+8)
	binary.BigEndian.PutUint32(b, v.producer)
	binary.BigEndian.PutUint64(b[4:], v.n)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, chance.Uint64())
	}
	return b
}

// parse returns the record that stands at offset with the bytes b; false if they
// are not what any value's are.
func parse(offset int64, b []byte) (record, bool) {
	if len(b) < 12 {
		return record{}, false
	}
	v := value{binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:])}
	return record{offset: offset, value: v, sum: crc32.Checksum(b, castagnoli)}, bytes.Equal(b, payload(v))
}
