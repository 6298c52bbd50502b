package client

import (
	"errors"
	"testing"

	"github.com/flotilla-log/flotilla/log/batch"
)

// FuzzCheckBatches checks, for any bytes that a server may answer, that
// checkBatches does not panic, and that what it calls good is so by itself, and
// within what was asked for.
func FuzzCheckBatches(f *testing.F) {
	var b batch.Builder
	b.Reset()
	if err := b.Append(946_684_800_000, []byte("key"), []byte("value"), nil); err != nil {
		f.Fatal(err)
	}
	one, err := b.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(one, int64(0), int64(1))
	f.Add(append(one, one...), int64(0), int64(-1))
	f.Add(one[:len(one)-1], int64(0), int64(-1))
	f.Fuzz(func(t *testing.T, in []byte, offset, end int64) {
		if offset < 0 {
			return // none is asked for
		}
		good, records, next, err := checkBatches(in, offset, end)
		if err != nil && !errors.Is(err, ErrCorrupt) || (err == nil) != (good == len(in)) {
			t.Fatalf("%d of %d bytes are good, error %v", good, len(in), err)
		}
		if next < offset || good > 0 && end >= 0 && next > end || good == 0 && records != 0 {
			t.Fatalf("%d records up to %d, asked for %d below %d", records, next, offset, end)
		}
		if g, r, n, err := checkBatches(in[:good], offset, end); err != nil || g != good || r != records || n != next {
			t.Fatalf("what is good, by itself: %d bytes, %d records up to %d, %v; before: %d, %d, %d", g, r, n, err, good, records, next)
		}
	})
}
