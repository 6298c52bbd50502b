package node

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

var update = flag.Bool("update", false, "write testdata/golden/v1 anew: only for a format that was never released")

// goldenIdentity is what testdata/golden/v1/IDENTITY says. Its incarnation has
// no exact float64: who reads it as one reads another node's.
var goldenIdentity = identity{
	Format: 1, ClusterID: "ABEiM0RVZneImaq7zN3u_w", NodeID: 2147483647, Shards: 4, Incarnation: 0xfedc_ba98_7654_3211,
}

// goldenRandom is the randomness from which openDir makes goldenIdentity.
var goldenRandom = []byte{
	0x11, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe,
	0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
	0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
}

// TestGolden makes a directory and compares its IDENTITY with that of format 1,
// and opens a directory with the old one. A difference is a new format, and
// needs a new number.
func TestGolden(t *testing.T) {
	t.Parallel()
	want := identity{NodeID: goldenIdentity.NodeID, Shards: goldenIdentity.Shards}
	open := func(fsys vfs.FS) (identity, bool) {
		t.Helper()
		id, fresh, lock, err := openDir(fsys, "data", want, bytes.NewReader(goldenRandom))
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Close(); err != nil {
			t.Fatal(err)
		}
		return id, fresh
	}

	now := vfs.NewMem(1)
	if id, fresh := open(now); !fresh || id != goldenIdentity {
		t.Errorf("a new directory has identity %+v, fresh %t; want %+v", id, fresh, goldenIdentity)
	}
	got, err := vfs.ReadFile(now, "data/"+identityName)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "golden", "v1", identityName)
	if *update {
		if err := vfs.MkdirAllSync(vfs.OS, filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), string(got)); diff != "" {
		t.Errorf("%s is written differently (-golden +now):\n%s", identityName, diff)
	}

	old := vfs.NewMem(2)
	if err := vfs.MkdirAllSync(old, "data"); err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFile(old, "data/"+identityName, golden); err != nil {
		t.Fatal(err)
	}
	if id, fresh := open(old); fresh || id != goldenIdentity {
		t.Errorf("the golden directory has identity %+v, fresh %t; want %+v", id, fresh, goldenIdentity)
	}
}

// TestGoldenGeneration compares what a part says of itself with format 1.
func TestGoldenGeneration(t *testing.T) {
	t.Parallel()
	want := generation{Format: 1, Incarnation: goldenIdentity.Incarnation, Generation: 7}
	path := filepath.Join("testdata", "golden", "v1", generationName)
	if *update {
		if err := os.WriteFile(path, seal(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), string(seal(want))); diff != "" {
		t.Errorf("%s is written differently (-golden +now):\n%s", generationName, diff)
	}
	if got, err := decodeGeneration(golden); err != nil || got != want {
		t.Errorf("the golden file says %+v, %v; want %+v", got, err, want)
	}
	for i := range golden {
		hurt := bytes.Clone(golden)
		hurt[i] ^= 1
		if _, err := decodeGeneration(hurt); err == nil {
			t.Errorf("byte %d changed, and it decodes", i)
		}
		if _, err := decodeGeneration(golden[:i]); err == nil {
			t.Errorf("cut off at %d, and it decodes", i)
		}
	}
	newer := seal(map[string]any{"format": 2})
	if _, err := decodeGeneration(newer); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer one: %v, want ErrNewer", err)
	}
}

// TestDecodeIdentity changes the golden file.
func TestDecodeIdentity(t *testing.T) {
	t.Parallel()
	golden, err := os.ReadFile(filepath.Join("testdata", "golden", "v1", identityName))
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(body string) []byte {
		return fmt.Appendf(nil, "%s\n%08x\n", body, crc32.Checksum([]byte(body), castagnoli))
	}
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"golden", golden, nil},
		{"newer format", sealed(`{"format":2,"cluster_id":"c","node_id":1,"shards":4,"incarnation":"1"}`), ErrNewer},
		{"newer format without today's fields", sealed(`{"format":2,"nodes":[]}`), ErrNewer},
		{"format 0", sealed(`{"format":0,"cluster_id":"c","node_id":1,"shards":4,"incarnation":"1"}`), ErrDamagedIdentity},
		{"no cluster id", sealed(`{"format":1,"node_id":1,"shards":4,"incarnation":"1"}`), ErrDamagedIdentity},
		{"no incarnation", sealed(`{"format":1,"cluster_id":"c","node_id":1,"shards":4}`), ErrDamagedIdentity},
		{"not JSON", sealed(`format 1`), ErrDamagedIdentity},
		{"a field that format 1 may have been given", sealed(`{"format":1,"cluster_id":"c","node_id":1,"shards":4,"incarnation":"1","note":"x"}`), nil},
		{"checksum in capitals", bytes.ToUpper(golden), ErrDamagedIdentity},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := decodeIdentity(tt.in); !errors.Is(err, tt.want) {
				t.Errorf("decodeIdentity(%q) error = %v, want %v", tt.in, err, tt.want)
			}
		})
	}
	for i := range golden {
		if _, err := decodeIdentity(golden[:i]); !errors.Is(err, ErrDamagedIdentity) {
			t.Errorf("cut off at %d: error = %v, want ErrDamagedIdentity", i, err)
		}
		for bit := range 8 {
			hurt := bytes.Clone(golden)
			hurt[i] ^= 1 << bit
			if _, err := decodeIdentity(hurt); !errors.Is(err, ErrDamagedIdentity) {
				t.Errorf("bit %d of byte %d flipped: error = %v, want ErrDamagedIdentity", bit, i, err)
			}
		}
	}
}
