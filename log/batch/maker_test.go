package batch

import (
	"bytes"
	"testing"
	"testing/synctest"
)

// TestCodersOutliveBubbles uses the pools from several bubbles, one after the
// other, as tests of a node do.
func TestCodersOutliveBubbles(t *testing.T) {
	plain := bytes.Repeat([]byte("some text that repeats. "), 100)
	for _, codec := range []Codec{Gzip, Snappy, LZ4, Zstd} {
		for range 8 {
			synctest.Test(t, func(t *testing.T) {
				packed, err := compress(nil, plain, codec, DefaultLevel)
				if err != nil {
					t.Fatal(err)
				}
				got, err := decompress(nil, packed, codec, len(plain))
				if err != nil || !bytes.Equal(got, plain) {
					t.Fatalf("%v: %d bytes, %v; want %d", codec, len(got), err, len(plain))
				}
			})
		}
	}
}
