package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/flotilla-log/flotilla/log/batch"
)

// tamper changes the last byte of the first record batch of some segment file,
// checksum included: what no checksum can find, only the comparison with the
// files.
func tamper(dataDir string) (where string, err error) {
	segments, err := filepath.Glob(filepath.Join(dataDir, "partitions", "*", "*.seg"))
	if err != nil {
		return "", err
	}
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		at, size, ok := firstBatch(b)
		if !ok {
			continue
		}
		one := b[at : at+size]
		hurt(one)
		return fmt.Sprintf("%s, the batch at byte %d", name, at), os.WriteFile(name, b, 0o644)
	}
	return "", errors.New("no segment file holds a batch yet; send more")
}

// firstBatch looks for bytes that are a whole batch with a right checksum.
func firstBatch(b []byte) (at, size int, ok bool) {
	for at = range b {
		h, err := batch.ParseHeader(b[at:])
		if err != nil || h.Size() > len(b)-at {
			continue
		}
		if batch.CheckCRC(b[at:at+h.Size()]) == nil {
			return at, h.Size(), true
		}
	}
	return 0, 0, false
}

// hurt changes a byte of the last record's value, and makes the checksum right
// again. A record ends with its count of headers, so the byte before that is
// the value's.
func hurt(one []byte) {
	one[len(one)-2] ^= 1
	binary.BigEndian.PutUint32(one[17:], crc32.Checksum(one[21:], crc32.MakeTable(crc32.Castagnoli)))
}
