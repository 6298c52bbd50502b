package control

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// onBoth runs a test over tidwall/wal and over the double.
func onBoth(t *testing.T, test func(t *testing.T, fs vfs.FS, dir string)) {
	t.Run("tidwall", func(t *testing.T) {
		t.Parallel()
		test(t, vfs.OS, filepath.Join(t.TempDir(), "control"))
	})
	t.Run("double", func(t *testing.T) {
		t.Parallel()
		test(t, vfs.NewMem(1), "/data/control")
	})
}

func openLog(t *testing.T, fs vfs.FS, dir string, opt Options) *Log {
	t.Helper()
	l, err := OpenLog(fs, dir, opt)
	if err != nil {
		t.Fatalf("OpenLog: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func openVotes(t *testing.T, fs vfs.FS, dir string, opt Options) *Votes {
	t.Helper()
	v, err := OpenVotes(fs, dir, opt)
	if err != nil {
		t.Fatalf("OpenVotes: %v", err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

// entry returns a test entry. Its bytes are not zero, so that they can be told
// from bytes that were never written.
func entry(index, term uint64, dataBytes int) Entry {
	return Entry{
		Index: index, Term: term, Type: 3, AppendedAt: 1_700_000_000_123_456_789,
		Extensions: []byte{0xee, byte(index) | 1},
		Data:       bytes.Repeat([]byte{byte(index) | 0x80}, dataBytes),
	}
}

// entries returns one entry of each index in [first, next).
func entries(first, next, term uint64, dataBytes int) []Entry {
	var out []Entry
	for i := first; i < next; i++ {
		out = append(out, entry(i, term, dataBytes))
	}
	return out
}

// contentsOf reads a whole log.
func contentsOf(l *Log) ([]Entry, error) {
	var out []Entry
	if l.First() == 0 {
		return nil, nil
	}
	for i := l.First(); i <= l.Last(); i++ {
		var e Entry
		if err := l.Read(i, &e); err != nil {
			return nil, fmt.Errorf("Read(%d): %w", i, err)
		}
		out = append(out, e)
	}
	return out, nil
}

// image is the files of a directory, by name.
type image map[string][]byte

func readImage(t *testing.T, dir string) image {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	im := make(image)
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		im[f.Name()] = b
	}
	return im
}

// with returns im with one file replaced.
func (im image) with(name string, data []byte) image {
	out := make(image, len(im))
	for n, b := range im {
		out[n] = b
	}
	out[name] = data
	return out
}

// write puts the files into a new directory on the real file system.
func (im image) write(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for name, b := range im {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// mem returns the files in a directory of a new Mem, durable.
func (im image) mem(t *testing.T, dir string) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem(1)
	if err := vfs.MkdirAllSync(m, dir); err != nil {
		t.Fatal(err)
	}
	for name, b := range im {
		f, err := m.Create(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep})
}

// on puts the files into a directory of the real file system if fs is that, and
// else of a new Mem, and returns where it put them.
func (im image) on(t *testing.T, fs vfs.FS, dir string) vfs.FS {
	t.Helper()
	if fs != vfs.OS {
		return im.mem(t, dir)
	}
	im.write(t, dir)
	return fs
}
