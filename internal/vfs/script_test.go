package vfs

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseScript(t *testing.T) {
	t.Parallel()
	inject, err := ParseScript(`
		# the third sync of a journal file fails, however it is done
		sync path=*.journal nth=3 err=EIO

		write path=seg/* after=2 times=2 delay=20ms
		write path=seg/* short=7 err=ENOSPC
		rename path=old applied err=EIO
		* path=full/* disk=full
	`)
	check(t, err)
	eio := Fault{Err: syscall.EIO}
	short := Fault{Err: syscall.ENOSPC, Short: 7}
	slow := Fault{Delay: 20 * time.Millisecond}
	for i, tt := range []struct {
		op   Op
		want Fault
	}{
		{Op{Kind: OpSync, Path: "/j/1.journal"}, Fault{}},
		{Op{Kind: OpWriteAt, Path: "/j/1.journal"}, Fault{}},
		{Op{Kind: OpSync, Path: "/j/journal"}, Fault{}},
		{Op{Kind: OpSyncData, Path: "2.journal"}, Fault{}},
		{Op{Kind: OpSyncData, Path: "/j/1.journal"}, eio},
		{Op{Kind: OpSyncData, Path: "/j/1.journal"}, Fault{}},
		{Op{Kind: OpWriteAt, Path: "/a/seg/1"}, short},
		{Op{Kind: OpWriteAt, Path: "/a/seg/b/1"}, Fault{}},
		{Op{Kind: OpWriteAt, Path: "seg/1"}, short},
		{Op{Kind: OpWriteAt, Path: "seg/1"}, slow},
		{Op{Kind: OpWriteAt, Path: "seg/1"}, slow},
		{Op{Kind: OpWriteAt, Path: "seg/1"}, short},
		{Op{Kind: OpRename, Path: "/d/new", From: "/d/old"}, Fault{Err: syscall.EIO, Applied: true}},
		{Op{Kind: OpRename, Path: "/d/new", From: "/d/older"}, Fault{}},
		{Op{Kind: OpCreate, Path: "/full/x"}, Fault{Full: true}},
	} {
		if diff := cmp.Diff(tt.want, inject(tt.op)); diff != "" {
			t.Errorf("%d %v (-want +got):\n%s", i, tt.op, diff)
		}
	}
}

func TestParseScriptErrors(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"nosuchop err=EIO",
		"write",
		"write path=x",
		"write applied",
		"write err=ENOTHING",
		"write err=EIO nth=0",
		"write err=EIO nth=x",
		"write err=EIO path=[",
		"write err=EIO what=ever",
		"write delay=20",
		"* disk=half",
	} {
		if _, err := ParseScript("\n" + text); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("ParseScript(%q) = %v, want an error that names line 2", text, err)
		}
	}
}

// FuzzParseScript checks that no script panics, nor the injector it makes.
func FuzzParseScript(f *testing.F) {
	f.Add("sync path=*.journal nth=3 err=EIO\n* disk=full", "/a/1.journal")
	f.Add("write path=a/[b-c]/* short=1", "a/b/c")
	f.Fuzz(func(t *testing.T, text, name string) {
		inject, err := ParseScript(text)
		if err != nil {
			return
		}
		for k := range opNames {
			inject(Op{Kind: OpKind(k), Path: name, From: name})
		}
	})
}
