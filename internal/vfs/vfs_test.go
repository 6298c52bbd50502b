package vfs

import (
	"fmt"
	"io/fs"
	"syscall"
	"testing"
)

// TestNoSpace tells a full disk that may be asked again from a failed sync, and
// from all else.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	at := func(op string, errno syscall.Errno) error {
		return fmt.Errorf("wrapped: %w", &fs.PathError{Op: op, Path: "x", Err: errno})
	}
	for _, tt := range []struct {
		err            error
		space, noFiles bool
	}{
		{nil, false, false},
		{syscall.ENOSPC, true, false},
		{at("write", syscall.ENOSPC), true, false},
		{at("pwritev", syscall.EDQUOT), true, false},
		{at("open", syscall.ENOSPC), true, false},
		{at("sync", syscall.ENOSPC), false, false},
		{at("fdatasync", syscall.ENOSPC), false, false},
		{at("fsync", syscall.EDQUOT), false, false},
		{at("syncdir", syscall.ENOSPC), false, false},
		{at("write", syscall.EIO), false, false},
		{at("open", syscall.EMFILE), false, true},
		{at("open", syscall.ENFILE), false, true},
	} {
		if space, noFiles := NoSpace(tt.err), NoFiles(tt.err); space != tt.space || noFiles != tt.noFiles {
			t.Errorf("%v: NoSpace %t, NoFiles %t; want %t, %t", tt.err, space, noFiles, tt.space, tt.noFiles)
		}
	}
	m := NewMem(1)
	f, err := m.Create("x")
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[OpKind]bool{OpWriteAt: true, OpSync: false, OpSyncData: false, OpSyncDir: false} {
		m.SetInjector(func(op Op) Fault { return Fault{Err: syscall.ENOSPC} })
		var err error
		switch kind {
		case OpWriteAt:
			_, err = f.WriteAt([]byte("x"), 0)
		case OpSync:
			err = f.Sync()
		case OpSyncData:
			err = f.SyncData()
		case OpSyncDir:
			err = m.SyncDir("/")
		}
		if NoSpace(err) != want {
			t.Errorf("%v: NoSpace(%v) = %t", kind, err, !want)
		}
	}
}
