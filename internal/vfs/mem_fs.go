package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	var f File
	err := m.do(Op{Kind: OpCreate, Path: path.Clean(name)}, func(Fault) error {
		n, err := m.createLocked("create", name)
		if err != nil {
			return err
		}
		n.opens++
		f = &memFile{m: m, n: n, name: name}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (m *Mem) createLocked(op, name string) (*node, error) {
	dir, base, err := m.parentLocked(op, name)
	if err != nil {
		return nil, err
	}
	if dir.dir.now[base] != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: syscall.EEXIST}
	}
	n := m.newNode(false)
	m.changeLocked(edit{entry{dir, base}, n})
	return n, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	var f File
	err := m.do(Op{Kind: OpOpen, Path: path.Clean(name)}, func(Fault) error {
		n, err := m.fileLocked("open", name)
		if err != nil {
			return err
		}
		n.opens++
		f = &memFile{m: m, n: n, name: name}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	return m.do(Op{Kind: OpRemove, Path: path.Clean(name)}, func(Fault) error {
		dir, base, err := m.parentLocked("remove", name)
		if err != nil {
			return err
		}
		switch n := dir.dir.now[base]; {
		case n == nil:
			return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
		case n.dir != nil && len(n.dir.now) > 0:
			return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
		}
		m.changeLocked(edit{entry{dir, base}, nil})
		return nil
	})
}

// RemoveAll implements FS. To a crash it is many removes, the deepest first.
func (m *Mem) RemoveAll(name string) error {
	return m.do(Op{Kind: OpRemoveAll, Path: path.Clean(name)}, func(Fault) error {
		dir, base, err := m.parentLocked("removeall", name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if n := dir.dir.now[base]; n != nil {
			m.emptyLocked(n)
			m.changeLocked(edit{entry{dir, base}, nil})
		}
		return nil
	})
}

func (m *Mem) emptyLocked(n *node) {
	if n.dir == nil {
		return
	}
	for _, base := range sortedNames(n.dir.now) {
		m.emptyLocked(n.dir.now[base])
		m.changeLocked(edit{entry{n, base}, nil})
	}
}

// Rename implements FS.
func (m *Mem) Rename(oldName, newName string) error {
	op := Op{Kind: OpRename, Path: path.Clean(newName), From: path.Clean(oldName)}
	return m.do(op, func(Fault) error {
		oldDir, oldBase, err := m.parentLocked("rename", oldName)
		if err != nil {
			return err
		}
		newDir, newBase, err := m.parentLocked("rename", newName)
		if err != nil {
			return err
		}
		n, over := oldDir.dir.now[oldBase], newDir.dir.now[newBase]
		switch {
		case n == nil:
			return &fs.PathError{Op: "rename", Path: oldName, Err: syscall.ENOENT}
		case over != nil && over.dir != nil:
			return &fs.PathError{Op: "rename", Path: newName, Err: syscall.EEXIST}
		case n == over:
			return nil
		case n.dir != nil && strings.HasPrefix(rooted(newName), rooted(oldName)+"/"):
			return &fs.PathError{Op: "rename", Path: newName, Err: syscall.EINVAL}
		case over != nil && n.dir != nil:
			return &fs.PathError{Op: "rename", Path: newName, Err: syscall.ENOTDIR}
		}
		m.changeLocked(edit{entry{oldDir, oldBase}, nil}, edit{entry{newDir, newBase}, n})
		return nil
	})
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string) error {
	return m.do(Op{Kind: OpMkdirAll, Path: path.Clean(name)}, func(Fault) error {
		at := m.root
		for base := range elements(name) {
			next := at.dir.now[base]
			if next == nil {
				next = m.newNode(true)
				m.changeLocked(edit{entry{at, base}, next})
			}
			if next.dir == nil {
				return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
			}
			at = next
		}
		return nil
	})
}

// ReadDir implements FS.
func (m *Mem) ReadDir(name string) (names []string, err error) {
	err = m.do(Op{Kind: OpReadDir, Path: path.Clean(name)}, func(Fault) error {
		n, err := m.dirLocked("readdir", name)
		if err != nil {
			return err
		}
		names = sortedNames(n.dir.now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return names, nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (info fs.FileInfo, err error) {
	err = m.do(Op{Kind: OpStat, Path: path.Clean(name)}, func(Fault) error {
		n, err := m.findLocked("stat", name)
		if err != nil {
			return err
		}
		mi := memInfo{name: path.Base(name), dir: n.dir != nil}
		if n.data != nil {
			mi.size = n.data.size
		}
		info = mi
		return nil
	})
	if err != nil {
		return nil, err
	}
	return info, nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(name string) error {
	op := Op{Kind: OpSyncDir, Path: path.Clean(name)}
	ft, err := m.begin(&op)
	if err != nil {
		return err
	}
	m.mu.Lock()
	n, err := m.dirLocked("syncdir", name)
	upTo := m.lastDir // what is changed during the delay is not covered
	m.mu.Unlock()
	if err == nil {
		pause(ft.Delay)
		m.mu.Lock()
		if err = ft.Err; m.frozen {
			err = ErrCrashed
		} else if !NoFiles(err) { // else the directory was not even opened

			m.syncNamesLocked(n, upTo, err == nil || ft.Applied)
		}
		m.mu.Unlock()
	}
	m.end(op)
	return err
}

// Lock implements FS. A lock is held in one Mem; a clone of it has none.
func (m *Mem) Lock(name string) (io.Closer, error) {
	var l io.Closer
	err := m.do(Op{Kind: OpLock, Path: path.Clean(name)}, func(Fault) error {
		n, err := m.fileLocked("lock", name)
		if errors.Is(err, fs.ErrNotExist) {
			n, err = m.createLocked("lock", name)
		}
		if err != nil {
			return err
		}
		if n.locked {
			return &fs.PathError{Op: "lock", Path: name, Err: ErrLocked}
		}
		n.locked = true
		l = &memLock{m: m, n: n}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Free implements FS.
func (m *Mem) Free(name string) (bytes int64, err error) {
	u, err := m.Usage(name)
	return u.FreeBytes, err
}

// Usage implements FS. Its total is the capacity.
func (m *Mem) Usage(name string) (u Usage, err error) {
	err = m.do(Op{Kind: OpFree, Path: path.Clean(name)}, func(ft Fault) error {
		if _, err := m.findLocked("free", name); err != nil {
			return err
		}
		u.TotalBytes = m.capacity
		if !ft.Full {
			u.FreeBytes = max(0, m.capacity-m.used)
		}
		return nil
	})
	return u, err
}

type memLock struct {
	m *Mem
	n *node // nil once closed
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.n == nil {
		return fs.ErrClosed
	}
	l.n.locked = false
	l.n = nil
	return nil
}

type memInfo struct {
	name string
	size int64
	dir  bool
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) Sys() any           { return nil }

func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | dirPerm
	}
	return filePerm
}

func sortedNames(names map[string]*node) []string {
	out := make([]string, 0, len(names))
	for base := range names {
		out = append(out, base)
	}
	slices.Sort(out)
	return out
}
