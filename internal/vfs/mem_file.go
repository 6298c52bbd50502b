package vfs

import (
	"io"
	"io/fs"
	"path"
	"syscall"
)

// memFile is an open file of a Mem.
type memFile struct {
	m      *Mem
	n      *node
	name   string
	closed bool // guarded by m.mu
}

func (f *memFile) Name() string { return f.name }

func (f *memFile) op(kind OpKind, off, n int64) Op {
	return Op{Kind: kind, Path: path.Clean(f.name), Off: off, N: n}
}

func (f *memFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// readyLocked returns why the file cannot be used, if so.
func (f *memFile) readyLocked(op string) error {
	switch {
	case f.closed:
		return f.fail(op, fs.ErrClosed)
	case f.m.frozen:
		return ErrCrashed
	}
	return nil
}

func (f *memFile) do(op Op, apply func(ft Fault) error) error {
	return f.m.do(op, func(ft Fault) error {
		if err := f.readyLocked(op.Kind.String()); err != nil {
			return err
		}
		return apply(ft)
	})
}

// Close works after Freeze too.
func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return f.fail("close", fs.ErrClosed)
	}
	f.closed = true
	f.n.opens--
	f.m.releaseLocked(f.n)
	return nil
}

func (f *memFile) Size() (size int64, err error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.readyLocked("size"); err != nil {
		return 0, err
	}
	return f.n.data.size, nil
}

func (f *memFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, f.fail("read", syscall.EINVAL)
	}
	err = f.do(f.op(OpReadAt, off, int64(len(p))), func(Fault) error {
		n = f.n.data.readAt(p, off)
		f.m.stats.ReadBytes += int64(n)
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.WriteVecAt([][]byte{p}, off)
	return int(n), err
}

// WriteVecAt writes at the start of the operation, and then takes its time: the
// bytes of a write that takes long may all, some or none survive a crash.
func (f *memFile) WriteVecAt(bufs [][]byte, off int64) (n int64, err error) {
	var total int64
	for _, b := range bufs {
		total += int64(len(b))
	}
	if off < 0 || off > maxFileBytes-total {
		return 0, f.fail("write", syscall.EINVAL)
	}
	op := f.op(OpWriteAt, off, total)
	ft, err := f.m.begin(&op)
	if err != nil {
		return 0, err
	}
	if ft.Err == nil && ft.Short > 0 {
		ft.Err = io.ErrShortWrite
	}
	limit := total
	if ft.Err != nil && !ft.Applied {
		limit = min(total, max(0, ft.Short))
	}
	f.m.mu.Lock()
	if err = f.readyLocked("write"); err == nil {
		n, err = f.writeLocked(bufs, off, limit, ft.Full)
	}
	f.m.mu.Unlock()
	pause(ft.Delay)
	if err == nil {
		err = ft.Err
	}
	if ft.Delay > 0 && f.m.isFrozen() {
		err = ErrCrashed
	}
	f.m.end(op)
	return n, err
}

func (m *Mem) isFrozen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.frozen
}

// writeLocked writes the first limit bytes of bufs, or as many as there is
// space for.
func (f *memFile) writeLocked(bufs [][]byte, off, limit int64, full bool) (n int64, err error) {
	if got := f.takeLocked(off, limit, full); got < limit {
		limit, err = got, f.fail("write", syscall.ENOSPC)
	}
	for _, b := range bufs {
		b = b[:min(int64(len(b)), limit-n)]
		f.n.data.writeAt(b, off+n)
		n += int64(len(b))
	}
	f.m.stats.WrittenBytes += n
	return n, err
}

// takeLocked takes space for [off, off+n) and returns how many bytes from off
// on have it.
func (f *memFile) takeLocked(off, n int64, full bool) int64 {
	c := f.n.data
	for i := off / pageBytes; i*pageBytes < off+n; i++ {
		if c.space.has(i) {
			continue
		}
		if full || f.m.used+pageBytes > f.m.capacity {
			return max(0, i*pageBytes-off)
		}
		c.space.add(i)
		f.m.used += pageBytes
	}
	return n
}

func (f *memFile) Truncate(size int64) error {
	if size < 0 || size > maxFileBytes {
		return f.fail("truncate", syscall.EINVAL)
	}
	return f.do(f.op(OpTruncate, 0, size), func(Fault) error {
		f.n.data.truncate(size)
		f.m.used -= f.n.data.space.release((size + pageBytes - 1) / pageBytes)
		return nil
	})
}

func (f *memFile) Preallocate(size int64) error {
	if size > maxFileBytes {
		return f.fail("preallocate", syscall.EFBIG)
	}
	return f.do(f.op(OpPreallocate, 0, size), func(ft Fault) error {
		if f.takeLocked(0, size, ft.Full) < size {
			return f.fail("preallocate", syscall.ENOSPC)
		}
		c := f.n.data
		c.resize(max(c.size, size), 0)
		return nil
	})
}

func (f *memFile) Sync() error { return f.sync(OpSync) }

func (f *memFile) SyncData() error { return f.sync(OpSyncData) }

func (f *memFile) WriteBack(off, n int64) {
	// A hint has no effect here: an unsynced sector may survive in any case.
	_ = f.do(f.op(OpWriteBack, off, n), func(Fault) error { return nil })
}

// sync covers what was written before it began. The syncs of one file run one
// after the other, as each must not return before the pages that an earlier one
// has under way are durable.
func (f *memFile) sync(kind OpKind) error {
	op := f.op(kind, 0, 0)
	ft, err := f.m.begin(&op)
	if err != nil {
		return err
	}
	err = f.syncWith(kind, ft)
	f.m.end(op)
	return err
}

func (f *memFile) syncWith(kind OpKind, ft Fault) error {
	c := f.n.data
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	for c.syncing != nil {
		running := c.syncing
		f.m.mu.Unlock()
		<-running
		f.m.mu.Lock()
	}
	if err := f.readyLocked(kind.String()); err != nil {
		return err
	}
	fl := c.beginSync()
	if ft.Delay > 0 {
		ended := make(chan struct{})
		c.syncing = ended
		f.m.mu.Unlock()
		pause(ft.Delay)
		f.m.mu.Lock()
		c.syncing = nil
		close(ended)
		if f.m.frozen {
			c.abandonSync(fl)
			return ErrCrashed
		}
	}
	c.endSync(fl, ft.Err == nil || ft.Applied)
	return ft.Err
}
