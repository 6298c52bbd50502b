package control

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestNoRoom fails each operation of each kind of change, one at a time, as a
// full disk does, or a process with too many files. The log is as before, or as
// the truncation would have left it; the same change passes afterwards; and what
// was acknowledged survives a power cut. So does a log that meets a failed sync
// on the way, which is latched.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	type step struct {
		name string
		do   func(l *Log) error
		then []Entry
	}
	var begin []Entry
	all := entries(11, 40, 1, 700)
	steps := []step{
		{"append", func(l *Log) error { return l.Append(all[6:9]) }, all[:9]},
		{"truncate front", func(l *Log) error { return l.TruncateFront(14) }, all[3:6]},
		{"truncate back", func(l *Log) error { return l.TruncateBack(13) }, all[:3]},
		{"truncate all", func(l *Log) error { return l.TruncateFront(99) }, nil},
		{"begin anew", func(l *Log) error { return errors.Join(l.TruncateBack(1), l.Append(entries(5, 7, 1, 700))) }, entries(5, 7, 1, 700)},
	}
	begin = all[:6]
	for _, st := range steps {
		for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EMFILE} {
			for nth := 1; ; nth++ {
				m := vfs.NewMem(1)
				l := openLog(t, m, "/log", Options{})
				if err := l.Append(begin); err != nil {
					t.Fatal(err)
				}
				seen, hit := 0, vfs.Op{}
				m.SetInjector(func(op vfs.Op) vfs.Fault {
					switch op.Kind {
					case vfs.OpCreate, vfs.OpOpen, vfs.OpWriteAt, vfs.OpRename, vfs.OpSync, vfs.OpSyncData:
					default:
						return vfs.Fault{}
					}
					if errno == syscall.EMFILE && op.Kind != vfs.OpCreate && op.Kind != vfs.OpOpen {
						return vfs.Fault{}
					}
					if seen++; seen != nth {
						return vfs.Fault{}
					}
					hit = op
					return vfs.Fault{Err: errno, Short: 700}
				})
				err := st.do(l)
				m.SetInjector(nil)
				if seen < nth {
					break
				}
				what := fmt.Sprintf("%s, %v at %v %s", st.name, errno, hit.Kind, hit.Path)
				if hit.Kind == vfs.OpSync || hit.Kind == vfs.OpSyncData {
					if !errors.Is(err, ErrFailed) || !errors.Is(err, errno) {
						t.Errorf("%s: %v, want ErrFailed: a sync that failed", what, err)
					}
					continue
				}
				if !errors.Is(err, ErrNoRoom) || !errors.Is(err, errno) || errors.Is(err, ErrFailed) {
					t.Errorf("%s: %v, want ErrNoRoom", what, err)
					continue
				}
				got, err := contentsOf(l)
				if err != nil || !cmp.Equal(got, begin) && !cmp.Equal(got, st.then) && len(got) > 0 {
					t.Errorf("%s: then it holds %s, %v", what, indexes(got), err)
				}
				if err := st.do(l); err != nil {
					t.Errorf("%s: again: %v", what, err)
				}
				checkLog(t, l, st.then)
				checkLog(t, openLog(t, m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose}), "/log", Options{}), st.then)
			}
		}
	}
}

// TestMakeRoom finds a full disk, whose owner makes room when asked.
func TestMakeRoom(t *testing.T) {
	t.Parallel()
	m, asked := vfs.NewMem(1), 0
	v := openVotes(t, m, "/votes", Options{MakeRoom: func() bool {
		asked++
		m.SetInjector(nil)
		return true
	}})
	m.SetInjector(func(op vfs.Op) vfs.Fault { return vfs.Fault{Full: true} })
	if err := v.Store(1, Vote{Term: 7, Candidate: []byte(strings.Repeat("c", 900))}); err != nil || asked != 1 {
		t.Errorf("Store = %v, asked %d times for room, want once", err, asked)
	}
	if got := votesOf(openVotes(t, m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose}), "/votes", Options{}), 2); got[1].Term != 7 {
		t.Errorf("votes %v", got)
	}
}

// TestOpenOnFullDisk opens logs with a torn tail on a disk without space: they
// are written again in place, durably.
func TestOpenOnFullDisk(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(1)
	l := openLog(t, m, "/log", Options{})
	if err := l.Append(entries(1, 9, 1, 300)); err != nil {
		t.Fatal(err)
	}
	m.SetInjector(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncData {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
	_ = l.Append(entries(9, 12, 1, 300)) // written, and perhaps not durable
	left := m.KillClone()
	left.SetCapacity(1)
	shown, err := contentsOf(openLog(t, left, "/log", Options{}))
	if err != nil || len(shown) < 8 {
		t.Fatalf("on a full disk: %s, %v", indexes(shown), err)
	}
	left = left.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
	checkLog(t, openLog(t, left, "/log", Options{}), shown)
}

// TestNoRoomOnTidwall undoes what tidwall/wal may have done, in its files and in
// its memory, before a full disk ends a write: entries, whole segments, and a
// segment file that it has closed without getting another.
func TestNoRoomOnTidwall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, vfs.OS, dir, Options{SegmentBytes: 2000})
	if err := l.Append(entries(1, 4, 1, 100)); err != nil {
		t.Fatal(err)
	}
	s := l.seq.rec.(*segmented)
	for name, leave := range map[string]func(){
		"entries written whole": func() { _ = s.write([][]byte{l.frameForTest(4), l.frameForTest(5)}) },
		"next segments begun":   func() { _ = s.write([][]byte{l.bigFrameForTest(4), l.bigFrameForTest(5)}) },
		"file lost":             func() { _ = s.wal.Close() },
	} {
		leave()
		if err := l.seq.giveUp("write", syscall.ENOSPC, l.seq.next); !errors.Is(err, ErrNoRoom) || l.seq.undone != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkLog(t, l, entries(1, 4, 1, 100))
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		if len(names) != 1 {
			t.Errorf("%s: left %v", name, names)
		}
	}
	if err := l.Append(entries(4, 40, 1, 100)); err != nil {
		t.Fatal(err)
	}
	checkLog(t, l, entries(1, 40, 1, 100))
	if err := l.TruncateFront(20); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	checkLog(t, openLog(t, vfs.OS, dir, Options{}), entries(20, 40, 1, 100))
}

func (l *Log) frameForTest(index uint64) []byte {
	return appendFrame(nil, frame{index: index, durable: l.seq.durable, kind: kindEntry, payload: encodeEntry(entry(index, 9, 50))})
}

func (l *Log) bigFrameForTest(index uint64) []byte {
	return appendFrame(nil, frame{index: index, durable: l.seq.durable, kind: kindEntry, payload: encodeEntry(entry(index, 9, 2500))})
}
