package killtest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/flotilla-log/flotilla/internal/history"
)

// maxPayloadBytes bounds a record, so that it fits into a quarter of the
// smallest journal file used here.
const maxPayloadBytes = 40 << 10

// payload returns the bytes that stand for a value: the value itself and filler
// that does not compress. Length and filler follow from the value, so that any
// byte changed, lost or exchanged shows. Most are small and a few are large.
func payload(value int64) []byte {
	chance := rand.NewPCG(uint64(value), 0)
	limit := 1 << 10
	switch n := chance.Uint64() % 100; {
	case n < 5:
		limit = maxPayloadBytes
	case n < 30:
		limit = 8 << 10
	}
	b := make([]byte, 8, maxPayloadBytes+8)
	binary.BigEndian.PutUint64(b, uint64(value))
	for size := 8 + int(chance.Uint64()%uint64(limit-8)); len(b) < size; {
		b = binary.LittleEndian.AppendUint64(b, chance.Uint64())
	}
	return b
}

// valueOf returns the value that b stands for, or history.Garbled.
func valueOf(b []byte) int64 {
	if len(b) < 8 {
		return history.Garbled
	}
	value := int64(binary.BigEndian.Uint64(b))
	if value < 0 || !bytes.Equal(b, payload(value)) {
		return history.Garbled
	}
	return value
}

func TestPayload(t *testing.T) {
	t.Parallel()
	for value := range int64(500) {
		b := payload(value)
		if len(b) > maxPayloadBytes || valueOf(b) != value {
			t.Fatalf("value %d: %d bytes that stand for %d", value, len(b), valueOf(b))
		}
		last := bytes.Clone(b)
		last[len(b)-1] ^= 1
		for name, damaged := range map[string][]byte{
			"cut": b[:len(b)-1], "longer": append(bytes.Clone(b), 0), "changed": last, "empty": nil,
		} {
			if got := valueOf(damaged); got != history.Garbled {
				t.Fatalf("value %d %s: stands for %d", value, name, got)
			}
		}
	}
}
