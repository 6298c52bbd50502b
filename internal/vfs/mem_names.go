package vfs

import (
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"syscall"
)

// entry is one name in a directory.
type entry struct {
	dir  *node
	base string
}

// edit gives a name to n; nil takes it away.
type edit struct {
	entry
	n *node
}

// dirOp is one operation on names that is visible and not durable. Its edits
// survive a crash together or not at all.
type dirOp struct {
	seq    uint64
	edits  []edit
	failed bool // a SyncDir that covered it failed
}

// changeLocked makes the edits visible, as one operation.
func (m *Mem) changeLocked(edits ...edit) {
	for _, e := range edits {
		was := e.dir.dir.now[e.base]
		apply(e.dir.dir.now, e)
		if e.n != nil {
			e.n.linked = true
		}
		moved := slices.ContainsFunc(edits, func(o edit) bool { return o.n == was })
		if was != nil && !moved {
			was.linked = false
			m.releaseLocked(was)
		}
	}
	m.lastDir++
	m.pending = append(m.pending, &dirOp{seq: m.lastDir, edits: edits})
}

// syncNamesLocked makes the operations on n up to seq upTo durable, and with
// them whatever they depend on: earlier operations in a directory that a rename
// ties to n. If ok is false it marks them as failed instead.
//
// An operation that failed before stays as it is, unless a later one on the
// same name becomes durable now: then what the name was before does not matter.
func (m *Mem) syncNamesLocked(n *node, upTo uint64, ok bool) {
	dirs := map[*node]bool{n: true}
	names := make(map[entry]bool) // changed by what is committed
	commit := make(map[*dirOp]bool)
	for _, op := range slices.Backward(m.pending) {
		inDirs := func(e edit) bool { return dirs[e.dir] }
		inNames := func(e edit) bool { return names[e.entry] }
		if op.seq > upTo || !slices.ContainsFunc(op.edits, inDirs) ||
			op.failed && !slices.ContainsFunc(op.edits, inNames) {
			continue
		}
		commit[op] = true
		for _, e := range op.edits {
			dirs[e.dir] = true
			names[e.entry] = true
		}
	}
	m.pending = slices.DeleteFunc(m.pending, func(op *dirOp) bool {
		if !commit[op] {
			return false
		}
		op.failed = !ok
		for _, e := range op.edits {
			if ok {
				apply(e.dir.dir.saved, e)
			}
		}
		return ok
	})
}

func apply(names map[string]*node, e edit) {
	if e.n == nil {
		delete(names, e.base)
	} else {
		names[e.base] = e.n
	}
}

// releaseLocked gives back the space of a file that nobody can reach any more.
func (m *Mem) releaseLocked(n *node) {
	if n.data != nil && !n.linked && n.opens == 0 {
		m.used -= n.data.space.release(0)
	}
}

// findLocked returns what name stands for.
func (m *Mem) findLocked(op, name string) (*node, error) {
	at := m.root
	for base := range elements(name) {
		if at.dir == nil {
			return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		if at = at.dir.now[base]; at == nil {
			return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
		}
	}
	return at, nil
}

func (m *Mem) dirLocked(op, name string) (*node, error) {
	n, err := m.findLocked(op, name)
	if err == nil && n.dir == nil {
		err = &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
	}
	return n, err
}

func (m *Mem) fileLocked(op, name string) (*node, error) {
	n, err := m.findLocked(op, name)
	if err == nil && n.dir != nil {
		err = &fs.PathError{Op: op, Path: name, Err: syscall.EISDIR}
	}
	return n, err
}

// parentLocked returns the directory that holds name, and name's last element.
func (m *Mem) parentLocked(op, name string) (dir *node, base string, err error) {
	p := rooted(name)
	if p == "/" {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: syscall.EBUSY}
	}
	if dir, err = m.dirLocked(op, path.Dir(p)); err != nil {
		return nil, "", err
	}
	return dir, path.Base(p), nil
}

// rooted returns name as a clean path from the root, where a Mem also looks up
// relative names.
func rooted(name string) string { return path.Clean("/" + name) }

// elements yields the names on the way from the root to name.
func elements(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for base := range strings.SplitSeq(rooted(name), "/") {
			if base != "" && !yield(base) {
				return
			}
		}
	}
}
