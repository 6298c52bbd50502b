package sim

import (
	"errors"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// hurt is one way to damage one file.
type hurt struct {
	name string // of the damage
	file string // that it is done to
	at   int    // where, -1: the file as a whole
	do   func(disk *vfs.Mem) error
}

// rewrite replaces a file by what change makes of it.
func rewrite(file string, change func([]byte) []byte) func(*vfs.Mem) error {
	return func(disk *vfs.Mem) error {
		b, err := vfs.ReadFile(disk, file)
		if err != nil {
			return err
		}
		return vfs.WriteFile(disk, file, change(b))
	}
}

// kindOf names the kind of a file, for the table.
func kindOf(file string) string {
	name := strings.TrimPrefix(file, dataDir+"/")
	top, _, _ := strings.Cut(name, "/")
	switch base := path.Base(name); {
	case base == "GENERATION" || base == "RING" || base == "IDENTITY":
		return base
	case strings.HasSuffix(base, ".seg"):
		return "segment"
	case strings.HasSuffix(base, ".index"):
		return "index"
	case name == "shards/0" || strings.HasPrefix(name, "shards/0/"):
		return "checkpoint, metadata"
	case strings.HasPrefix(name, "shards/"):
		return "checkpoint, data"
	case top == "metadata":
		return "metadata log"
	}
	return top
}

// positions are the places of a file that are damaged: all of a small one in a
// long run, and else some of those that formats give a meaning, and some others.
func positions(rng *rand.Rand, b []byte, kind string, most int) []int {
	if len(b) <= most {
		all := make([]int, len(b))
		for i := range all {
			all[i] = i
		}
		return all
	}
	special := []int{0, 4, 8, 12, 20, 30, 40, 60, 4090, 4096, 4100, len(b) - 1}
	if kind == "journal" {
		for i := range 80 {
			special = append(special, 8192+i)
		}
	}
	if kind == "segment" { // the headers of batches
		var starts []int
		for at := 128; at+batch.HeaderBytes <= len(b); {
			starts = append(starts, at)
			h, err := batch.ParseHeader(b[at:])
			if err != nil {
				break
			}
			at += h.Size()
		}
		for _, i := range []int{0, len(starts) / 2, len(starts) - 1} {
			for k := range batch.PrefixBytes + 8 {
				special = append(special, starts[i]+k)
			}
		}
	}
	rng.Shuffle(len(special), func(i, j int) { special[i], special[j] = special[j], special[i] })
	var at []int
	for _, p := range special {
		if p < len(b) && len(at) < (most+1)/2 {
			at = append(at, p)
		}
	}
	for i := len(at); len(at) < most; i++ {
		at = append(at, i*len(b)/most+rng.IntN(max(1, len(b)/most)))
	}
	return at
}

// hurts are the damages of a directory. old is an older state of it.
func hurts(t *testing.T, rng *rand.Rand, disk, old *vfs.Mem, most int) (all []hurt) {
	files := everyFile(t, disk, dataDir)
	byKind := make(map[string][]string)
	for _, file := range files {
		if path.Base(file) == "LOCK" {
			continue
		}
		kind := kindOf(file)
		b, err := vfs.ReadFile(disk, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range positions(rng, b, kind, most) {
			bit := byte(1) << rng.IntN(8)
			all = append(all, hurt{"a flipped bit", file, at, rewrite(file, func(b []byte) []byte { b[at] ^= bit; return b })})
		}
		for _, at := range positions(rng, b, kind, max(2, most/4)) {
			all = append(all, hurt{"cut off", file, at, rewrite(file, func(b []byte) []byte { return b[:at] })})
			all = append(all, hurt{"a zeroed range", file, at, rewrite(file, func(b []byte) []byte { clear(b[at:min(len(b), at+512)]); return b })})
		}
		all = append(all, hurt{"missing", file, -1, func(disk *vfs.Mem) error { return disk.Lose(file) }})
		for _, other := range byKind[kind] {
			all = append(all, hurt{"swapped with another", file, -1, func(disk *vfs.Mem) error {
				a, err := vfs.ReadFile(disk, file)
				if err != nil {
					return err
				}
				b, err := vfs.ReadFile(disk, other)
				if err != nil {
					return err
				}
				return errors.Join(vfs.WriteFile(disk, file, b), vfs.WriteFile(disk, other, a))
			}})
		}
		byKind[kind] = append(byKind[kind], file)
		if was, err := vfs.ReadFile(old, file); err == nil && string(was) != string(b) {
			all = append(all, hurt{"an older copy", file, -1, func(disk *vfs.Mem) error { return vfs.WriteFile(disk, file, was) }})
		}
	}
	for _, dir := range []string{"journal", "votes", "metadata", "shards", "shards/1", "partitions"} {
		full := dataDir + "/" + dir
		all = append(all, hurt{"the folder missing", full, -1, func(disk *vfs.Mem) error { return disk.Lose(full) }})
		all = append(all, hurt{"an older copy of the folder", full, -1, func(disk *vfs.Mem) error {
			if err := disk.Lose(full); err != nil {
				return err
			}
			for _, name := range everyFile(t, old, full) {
				b, err := vfs.ReadFile(old, name)
				if err != nil {
					return err
				}
				if err := errors.Join(vfs.MkdirAllSync(disk, path.Dir(name)), vfs.WriteFile(disk, name, b)); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	return all
}

// The outcomes of a damage.
const (
	mendedByStart = "the start mends it"
	servedRest    = "served, but for a range"
	mendedByHand  = "refused; repaired without loss"
	mendedAtLoss  = "refused; repaired, accepting loss"
	notMended     = "refused; a copy is needed"
	undetected    = "not noticed: the newest record is taken for torn"
)
