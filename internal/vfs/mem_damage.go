package vfs

import (
	"bytes"
	"io/fs"
	"path"
	"syscall"
)

// maxDamageBytes bounds what Corrupt hands out at once.
const maxDamageBytes = 1 << 20

// Lose takes a file or directory away, durably, as a repair of the file system
// or an operator would. Open Files of it stay usable. It is no operation: no
// fault, hook or Freeze applies.
func (m *Mem) Lose(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("lose", name)
	if err != nil {
		return err
	}
	n := dir.dir.now[base]
	if n == nil {
		return &fs.PathError{Op: "lose", Path: name, Err: syscall.ENOENT}
	}
	m.emptyLocked(n)
	m.changeLocked(edit{entry{dir, base}, nil})
	m.syncNamesLocked(dir, m.lastDir, true)
	return nil
}

// Corrupt calls change with the bytes of a file from off on, at most 1 MiB, and
// puts what it made of them in their place, durably: damage as a disk does it,
// behind everybody's back. Sectors that it leaves alone stay as durable as they
// were. It is no operation: no fault, hook or Freeze applies.
func (m *Mem) Corrupt(name string, off int64, change func([]byte)) error {
	m.mu.Lock()
	n, err := m.fileLocked("corrupt", name)
	if err == nil && (off < 0 || off >= n.data.size) {
		err = &fs.PathError{Op: "corrupt", Path: path.Clean(name), Err: syscall.EINVAL}
	}
	if err != nil {
		m.mu.Unlock()
		return err
	}
	was := make([]byte, min(maxDamageBytes, n.data.size-off))
	n.data.readAt(was, off)
	m.mu.Unlock()

	now := bytes.Clone(was)
	change(now)

	m.mu.Lock()
	defer m.mu.Unlock()
	for at := int64(0); at < int64(len(now)); {
		end := min(int64(len(now)), (off+at)/sectorBytes*sectorBytes+sectorBytes-off)
		if !bytes.Equal(was[at:end], now[at:end]) {
			n.data.damage(now[at:end], off+at)
		}
		at = end
	}
	return nil
}

// damage writes p, which lies in one sector, to the durable state as well.
func (c *content) damage(p []byte, off int64) {
	i, at := off/pageBytes, int(off%pageBytes)
	c.writePage(i, at, p)
	pg := c.pages[i]
	if pg == nil {
		return // zeros where there were zeros
	}
	pg.old = mix(pg.old, pg.cur, sectorsIn(at, at+len(p)))
}
