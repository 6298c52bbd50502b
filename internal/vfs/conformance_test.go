package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestConformance holds OS and Mem to the same contract.
func TestConformance(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		run  func(t *testing.T, fsys FS, dir string)
	}{
		{"create and open", testCreateOpen},
		{"errors", testErrors},
		{"read and write", testReadWrite},
		{"vector", testVector},
		{"truncate", testTruncate},
		{"preallocate", testPreallocate},
		{"rename", testRename},
		{"remove while open", testRemoveWhileOpen},
		{"remove all", testRemoveAll},
		{"directories", testDirectories},
		{"closed file", testClosedFile},
		{"lock", testLock},
		{"free", testFree},
		{"helpers", testHelpers},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Run("OS", func(t *testing.T) {
				t.Parallel()
				tt.run(t, OS, t.TempDir())
			})
			t.Run("Mem", func(t *testing.T) {
				t.Parallel()
				m := NewMem(1)
				check(t, m.MkdirAll("/a/dir"))
				tt.run(t, m, "/a/dir")
			})
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func create(t *testing.T, fsys FS, name, data string) File {
	t.Helper()
	f, err := fsys.Create(name)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteAt([]byte(data), 0)
	check(t, err)
	return f
}

func contentOf(t *testing.T, fsys FS, name string) string {
	t.Helper()
	b, err := ReadFile(fsys, name)
	check(t, err)
	return string(b)
}

func testCreateOpen(t *testing.T, fsys FS, dir string) {
	name := dir + "/x"
	f := create(t, fsys, name, "hello")
	if f.Name() != name {
		t.Errorf("Name = %q, want %q", f.Name(), name)
	}
	_, err := fsys.Create(name)
	wantErr(t, "Create again", err, fs.ErrExist)
	g, err := fsys.Open(name)
	check(t, err)
	defer g.Close()
	_, err = g.WriteAt([]byte("J"), 0)
	check(t, err)
	if got := contentOf(t, fsys, name); got != "Jello" {
		t.Errorf("content %q, want Jello", got)
	}
	info, err := fsys.Stat(name)
	check(t, err)
	if info.Name() != "x" || info.Size() != 5 || info.IsDir() || !info.Mode().IsRegular() {
		t.Errorf("Stat = %s %d %v %v", info.Name(), info.Size(), info.IsDir(), info.Mode())
	}
}

func testErrors(t *testing.T, fsys FS, dir string) {
	create(t, fsys, dir+"/file", "")
	check(t, fsys.MkdirAll(dir+"/sub/deep"))

	open := func(name string) error { _, err := fsys.Open(dir + name); return err }
	mk := func(name string) error { _, err := fsys.Create(dir + name); return err }
	stat := func(name string) error { _, err := fsys.Stat(dir + name); return err }
	list := func(name string) error { _, err := fsys.ReadDir(dir + name); return err }
	lock := func(name string) error { _, err := fsys.Lock(dir + name); return err }
	tests := []struct {
		what string
		err  error
		want error
	}{
		{"Open missing", open("/no"), fs.ErrNotExist},
		{"Open in missing directory", open("/no/file"), fs.ErrNotExist},
		{"Open directory", open("/sub"), syscall.EISDIR},
		{"Open below file", open("/file/x"), syscall.ENOTDIR},
		{"Create in missing directory", mk("/no/file"), fs.ErrNotExist},
		{"Create over directory", mk("/sub"), fs.ErrExist},
		{"Stat missing", stat("/no"), fs.ErrNotExist},
		{"ReadDir missing", list("/no"), fs.ErrNotExist},
		{"ReadDir file", list("/file"), syscall.ENOTDIR},
		{"SyncDir missing", fsys.SyncDir(dir + "/no"), fs.ErrNotExist},
		{"SyncDir file", fsys.SyncDir(dir + "/file"), syscall.ENOTDIR},
		{"Lock directory", lock("/sub"), syscall.EISDIR},
		{"Lock in missing directory", lock("/no/x"), fs.ErrNotExist},
		{"Remove missing", fsys.Remove(dir + "/no"), fs.ErrNotExist},
		{"Remove full directory", fsys.Remove(dir + "/sub"), syscall.ENOTEMPTY},
		{"MkdirAll over file", fsys.MkdirAll(dir + "/file/x"), syscall.ENOTDIR},
		{"Rename missing", fsys.Rename(dir+"/no", dir+"/x"), fs.ErrNotExist},
		{"Rename into missing directory", fsys.Rename(dir+"/file", dir+"/no/x"), fs.ErrNotExist},
		{"Rename over directory", fsys.Rename(dir+"/file", dir+"/sub"), fs.ErrExist},
		{"Rename directory over file", fsys.Rename(dir+"/sub", dir+"/file"), syscall.ENOTDIR},
		{"Rename into itself", fsys.Rename(dir+"/sub", dir+"/sub/deep/x"), syscall.EINVAL},
	}
	for _, tt := range tests {
		wantErr(t, tt.what, tt.err, tt.want)
	}
}

func testReadWrite(t *testing.T, fsys FS, dir string) {
	f := create(t, fsys, dir+"/x", "")
	data := bytes.Repeat([]byte("0123456789abcdef"), 700) // 11,200 bytes: not whole pages
	n, err := f.WriteAt(data, 5000)
	check(t, err)
	if n != len(data) {
		t.Errorf("WriteAt = %d, want %d", n, len(data))
	}
	want := append(make([]byte, 5000), data...)
	if got := contentOf(t, fsys, dir+"/x"); got != string(want) {
		t.Error("content differs, or the hole is not zeros")
	}
	size := int64(len(want))
	for _, tt := range []struct {
		off  int64
		len  int
		n    int
		want error
	}{
		{0, 100, 100, nil},
		{4990, 20, 20, nil},
		{size - 10, 10, 10, nil},
		{size - 10, 11, 10, io.EOF},
		{size, 1, 0, io.EOF},
		{size + 99999, 10, 0, io.EOF},
		{0, 0, 0, nil},
	} {
		p := make([]byte, tt.len)
		n, err := f.ReadAt(p, tt.off)
		if n != tt.n || !errors.Is(err, tt.want) {
			t.Errorf("ReadAt(%d bytes, %d) = %d, %v, want %d, %v", tt.len, tt.off, n, err, tt.n, tt.want)
		}
		if n > 0 && !bytes.Equal(p[:n], want[tt.off:tt.off+int64(n)]) {
			t.Errorf("ReadAt(%d bytes, %d) read something else", tt.len, tt.off)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("ReadAt(-1) succeeded")
	}
	if _, err := f.WriteAt(make([]byte, 1), -1); err == nil {
		t.Error("WriteAt(-1) succeeded")
	}
	if n, err := f.WriteAt(nil, size+1); n != 0 || err != nil {
		t.Errorf("WriteAt of nothing = %d, %v", n, err)
	}
	if got, err := f.Size(); got != size || err != nil {
		t.Errorf("Size = %d, %v, want %d", got, err, size)
	}
	check(t, f.SyncData())
	check(t, f.Sync())
	check(t, fsys.SyncDir(dir))
	f.WriteBack(0, size)
	f.WriteBack(0, 0)
}

func testVector(t *testing.T, fsys FS, dir string) {
	f := create(t, fsys, dir+"/x", "")
	for _, count := range []int{0, 1, 2, 1023, 1024, 1025, 2500} {
		var bufs [][]byte
		var want []byte
		for i := range count {
			b := bytes.Repeat([]byte{byte(i%255 + 1)}, i%7) // empty ones among them
			bufs = append(bufs, b)
			want = append(want, b...)
		}
		check(t, f.Truncate(0))
		n, err := f.WriteVecAt(bufs, 3)
		check(t, err)
		if n != int64(len(want)) {
			t.Errorf("WriteVecAt of %d buffers = %d, want %d", count, n, len(want))
		}
		if len(want) > 0 {
			want = append(make([]byte, 3), want...)
		}
		if got := contentOf(t, fsys, dir+"/x"); got != string(want) {
			t.Errorf("content after %d buffers differs", count)
		}
	}
	if _, err := f.WriteVecAt([][]byte{{1}}, -1); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("WriteVecAt(-1) = %v, want EINVAL", err)
	}
}

func testTruncate(t *testing.T, fsys FS, dir string) {
	f := create(t, fsys, dir+"/x", "0123456789")
	check(t, f.Truncate(4))
	check(t, f.Truncate(6))
	if got := contentOf(t, fsys, dir+"/x"); got != "0123\x00\x00" {
		t.Errorf("content %q: bytes cut off came back", got)
	}
	check(t, f.Truncate(10000))
	check(t, f.Truncate(0))
	if size, err := f.Size(); size != 0 || err != nil {
		t.Errorf("Size = %d, %v, want 0", size, err)
	}
	if err := f.Truncate(-1); err == nil {
		t.Error("Truncate(-1) succeeded")
	}
}

func testPreallocate(t *testing.T, fsys FS, dir string) {
	f := create(t, fsys, dir+"/x", "data")
	check(t, f.Preallocate(100_000))
	want := append([]byte("data"), make([]byte, 100_000-4)...)
	if got := contentOf(t, fsys, dir+"/x"); got != string(want) {
		t.Error("content after Preallocate is not the old bytes and zeros")
	}
	check(t, f.Preallocate(10))
	check(t, f.Preallocate(0))
	if size, err := f.Size(); size != 100_000 || err != nil {
		t.Errorf("Size = %d, %v: Preallocate made the file shorter", size, err)
	}
}

func testRename(t *testing.T, fsys FS, dir string) {
	check(t, fsys.MkdirAll(dir+"/sub"))
	create(t, fsys, dir+"/a", "A")
	b := create(t, fsys, dir+"/b", "B")
	check(t, fsys.Rename(dir+"/a", dir+"/b"))
	if got := contentOf(t, fsys, dir+"/b"); got != "A" {
		t.Errorf("content %q, want A", got)
	}
	p := make([]byte, 1)
	if _, err := b.ReadAt(p, 0); err != nil || p[0] != 'B' {
		t.Errorf("the replaced file reads %q, %v, want B", p, err)
	}
	check(t, fsys.Rename(dir+"/b", dir+"/b"))
	check(t, fsys.Rename(dir+"/b", dir+"/sub/c"))
	check(t, fsys.Rename(dir+"/sub", dir+"/moved"))
	if got := contentOf(t, fsys, dir+"/moved/c"); got != "A" {
		t.Errorf("content %q, want A", got)
	}
	names, err := fsys.ReadDir(dir)
	check(t, err)
	if diff := cmp.Diff([]string{"moved"}, names); diff != "" {
		t.Errorf("ReadDir (-want +got):\n%s", diff)
	}
}

func testRemoveWhileOpen(t *testing.T, fsys FS, dir string) {
	f := create(t, fsys, dir+"/x", "old")
	check(t, fsys.Remove(dir+"/x"))
	create(t, fsys, dir+"/x", "new")
	_, err := f.WriteAt([]byte("more"), 3)
	check(t, err)
	check(t, f.Sync())
	p := make([]byte, 7)
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != "oldmore" {
		t.Errorf("the removed file reads %q, %v", p, err)
	}
	if got := contentOf(t, fsys, dir+"/x"); got != "new" {
		t.Errorf("content %q, want new", got)
	}
}

func testRemoveAll(t *testing.T, fsys FS, dir string) {
	check(t, fsys.MkdirAll(dir+"/a/b/c"))
	create(t, fsys, dir+"/a/b/x", "x")
	create(t, fsys, dir+"/file", "x")
	check(t, fsys.RemoveAll(dir+"/a"))
	check(t, fsys.RemoveAll(dir+"/file"))
	check(t, fsys.RemoveAll(dir+"/never/was"))
	names, err := fsys.ReadDir(dir)
	check(t, err)
	if len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

func testDirectories(t *testing.T, fsys FS, dir string) {
	check(t, fsys.MkdirAll(dir+"/b/c"))
	check(t, fsys.MkdirAll(dir+"/b/c"))
	create(t, fsys, dir+"/c", "")
	create(t, fsys, dir+"/a", "")
	names, err := fsys.ReadDir(dir)
	check(t, err)
	if diff := cmp.Diff([]string{"a", "b", "c"}, names); diff != "" {
		t.Errorf("ReadDir (-want +got):\n%s", diff)
	}
	info, err := fsys.Stat(dir + "/b/")
	check(t, err)
	if !info.IsDir() || !info.Mode().IsDir() || info.Name() != "b" {
		t.Errorf("Stat = %s %v %v", info.Name(), info.IsDir(), info.Mode())
	}
	check(t, fsys.Remove(dir+"/b/c"))
	check(t, fsys.SyncDir(dir+"/b"))
}

func testClosedFile(t *testing.T, fsys FS, dir string) {
	f := create(t, fsys, dir+"/x", "data")
	check(t, f.Close())
	p := make([]byte, 4)
	_, err := f.ReadAt(p, 0)
	wantErr(t, "ReadAt", err, fs.ErrClosed)
	_, err = f.WriteAt(p, 0)
	wantErr(t, "WriteAt", err, fs.ErrClosed)
	_, err = f.WriteVecAt([][]byte{p}, 0)
	wantErr(t, "WriteVecAt", err, fs.ErrClosed)
	_, err = f.Size()
	wantErr(t, "Size", err, fs.ErrClosed)
	wantErr(t, "Truncate", f.Truncate(1), fs.ErrClosed)
	wantErr(t, "Preallocate", f.Preallocate(10), fs.ErrClosed)
	wantErr(t, "Sync", f.Sync(), fs.ErrClosed)
	wantErr(t, "SyncData", f.SyncData(), fs.ErrClosed)
	wantErr(t, "Close", f.Close(), fs.ErrClosed)
	f.WriteBack(0, 4)
}

func testLock(t *testing.T, fsys FS, dir string) {
	l, err := fsys.Lock(dir + "/LOCK")
	check(t, err)
	_, err = fsys.Lock(dir + "/LOCK")
	wantErr(t, "second Lock", err, ErrLocked)
	check(t, l.Close())
	wantErr(t, "second Close", l.Close(), fs.ErrClosed)
	l, err = fsys.Lock(dir + "/LOCK")
	check(t, err)
	check(t, l.Close())
	if _, err := fsys.Stat(dir + "/LOCK"); err != nil {
		t.Errorf("Lock left no file: %v", err)
	}
}

func testFree(t *testing.T, fsys FS, dir string) {
	free, err := fsys.Free(dir)
	check(t, err)
	if free <= 0 {
		t.Errorf("Free = %d", free)
	}
	_, err = fsys.Free(dir + "/no")
	wantErr(t, "Free of nothing", err, fs.ErrNotExist)
	u, err := fsys.Usage(dir)
	check(t, err)
	if u.FreeBytes <= 0 || u.TotalBytes < u.FreeBytes {
		t.Errorf("Usage = %+v", u)
	}
	_, err = fsys.Usage(dir + "/no")
	wantErr(t, "Usage of nothing", err, fs.ErrNotExist)
}

func testHelpers(t *testing.T, fsys FS, dir string) {
	check(t, MkdirAllSync(fsys, dir+"/a/b/c"))
	check(t, MkdirAllSync(fsys, dir+"/a/b/c/"))
	name := path.Join(dir, "a/b/c/file")
	for _, data := range []string{"one", "", "three"} {
		check(t, WriteFile(fsys, name, []byte(data)))
		if got := contentOf(t, fsys, name); got != data {
			t.Errorf("ReadFile = %q, want %q", got, data)
		}
	}
	create(t, fsys, name+".tmp", "left by a crash")
	check(t, WriteFile(fsys, name, []byte("four")))
	names, err := fsys.ReadDir(path.Dir(name))
	check(t, err)
	if diff := cmp.Diff([]string{"file"}, names); diff != "" {
		t.Errorf("ReadDir (-want +got):\n%s", diff)
	}
	_, err = ReadFile(fsys, dir+"/no")
	wantErr(t, "ReadFile of nothing", err, fs.ErrNotExist)
	if err := MkdirAllSync(fsys, name); err == nil {
		t.Error("MkdirAllSync over a file succeeded")
	}
	if err := WriteFile(fsys, dir+"/no/x", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("WriteFile in no directory = %v", err)
	}
}

func TestOSFile(t *testing.T) {
	t.Parallel()
	f := create(t, OS, t.TempDir()+"/x", "x")
	of, ok := f.(OSFile)
	if !ok || of.OSFile() == nil || of.OSFile().Name() != f.Name() {
		t.Fatal("a file of OS has no *os.File")
	}
	info, err := os.Stat(f.Name())
	check(t, err)
	if perm := info.Mode().Perm(); perm&0o007 != 0 {
		t.Errorf("mode %v: others may use the file", perm)
	}
}
