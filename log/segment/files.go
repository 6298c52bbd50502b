package segment

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// Files opens the files of many segments and keeps some open: all that are in
// use or hold unsynced writes, and up to a limit of others, the most recently
// used ones. Safe for concurrent use.
type Files struct {
	fs    vfs.FS
	log   *slog.Logger
	limit int
	bufs  sync.Pool // *[]byte of windowBytes
	runs  sync.Pool // *[]byte, empty, for the runs of a write

	mu     sync.Mutex // never held over I/O
	open   map[string]*handle
	idle   *list.List // of *handle without references, oldest first
	closed bool
}

// handle is an open file with a reference count.
type handle struct {
	vfs.File
	files *Files
	name  string

	// Guarded by files.mu.
	refs int
	gone bool          // not in files.open: closed with the last reference
	elem *list.Element // in files.idle, if refs is 0
}

// NewFiles returns a Files that keeps up to idle unused files open. log gets a
// line for each damaged index, which is then rebuilt.
func NewFiles(fsys vfs.FS, idle int, log *slog.Logger) *Files {
	return &Files{
		fs:    fsys,
		log:   log,
		limit: idle,
		open:  make(map[string]*handle),
		idle:  list.New(),
		bufs:  sync.Pool{New: func() any { b := make([]byte, windowBytes); return &b }},
	}
}

// Close closes every unused file. Files in use are closed when released.
func (f *Files) Close() error {
	f.mu.Lock()
	f.closed = true
	victims := f.evictLocked(0)
	f.mu.Unlock()
	return closeAll(victims)
}

// Open returns how many files are open, and how many of them nobody uses.
func (f *Files) Open() (open, unused int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.open), f.idle.Len()
}

// acquire returns the open file of that name with one more reference, opening
// it if needed.
func (f *Files) acquire(name string) (*handle, error) {
	f.mu.Lock()
	h := f.refLocked(name)
	f.mu.Unlock()
	if h != nil {
		return h, nil
	}
	file, err := f.opened(f.fs.Open, name)
	if err != nil {
		return nil, fmt.Errorf("segment: open: %w", err)
	}
	return f.add(name, file)
}

// create returns a new, empty file with one reference. A file of that name is
// replaced: what it held was never part of a segment.
func (f *Files) create(name string) (*handle, error) {
	file, err := f.opened(f.fs.Create, name)
	if errors.Is(err, fs.ErrExist) {
		if err := f.remove(name); err != nil {
			return nil, err
		}
		file, err = f.opened(f.fs.Create, name)
	}
	if err != nil {
		return nil, fmt.Errorf("segment: create: %w", err)
	}
	return f.add(name, file)
}

// opened opens a file. If too many are open, it closes those that nobody uses
// and tries once more.
func (f *Files) opened(open func(string) (vfs.File, error), name string) (vfs.File, error) {
	file, err := open(name)
	if !vfs.NoFiles(err) {
		return file, err
	}
	f.mu.Lock()
	victims := f.evictLocked(0)
	f.mu.Unlock()
	_ = closeAll(victims) // nothing in them is unsynced: see release
	return open(name)
}

// add enters an open file, unless another goroutine was faster.
func (f *Files) add(name string, file vfs.File) (*handle, error) {
	f.mu.Lock()
	h := f.refLocked(name)
	if h == nil {
		h = &handle{File: file, files: f, name: name, refs: 1}
		f.open[name] = h
		file = nil
	}
	f.mu.Unlock()
	if file == nil {
		return h, nil
	}
	return h, file.Close()
}

func (f *Files) refLocked(name string) *handle {
	h := f.open[name]
	if h == nil {
		return nil
	}
	if h.elem != nil {
		f.idle.Remove(h.elem)
		h.elem = nil
	}
	h.refs++
	return h
}

// retain adds a reference to a handle that has one.
func (h *handle) retain() *handle {
	h.files.mu.Lock()
	defer h.files.mu.Unlock()
	h.refs++
	return h
}

// release gives a reference back. An error of close is dropped: a handle with
// unsynced writes is never released last (Segment holds it).
func (h *handle) release() {
	f := h.files
	f.mu.Lock()
	if h.refs--; h.refs < 0 {
		f.mu.Unlock() // a connection of a client's may survive it
		panic("segment: file released twice")
	}
	var victims []*handle
	if h.refs == 0 {
		if h.gone {
			victims = []*handle{h}
		} else {
			h.elem = f.idle.PushBack(h)
			limit := f.limit
			if f.closed {
				limit = 0
			}
			victims = f.evictLocked(limit)
		}
	}
	f.mu.Unlock()
	_ = closeAll(victims)
}

func (f *Files) evictLocked(limit int) (victims []*handle) {
	for f.idle.Len() > limit {
		h := f.idle.Remove(f.idle.Front()).(*handle)
		h.elem, h.gone = nil, true
		delete(f.open, h.name)
		victims = append(victims, h)
	}
	return victims
}

// remove unlinks a file, if it is there, and forgets it.
func (f *Files) remove(name string) error {
	f.forget(name)
	return unlink(f.fs, name)
}

// forget closes a file, as soon as nobody uses it: the name is another's from now
// on.
func (f *Files) forget(name string) {
	f.mu.Lock()
	h := f.open[name]
	var victims []*handle
	if h != nil {
		delete(f.open, name)
		h.gone = true
		if h.elem != nil {
			f.idle.Remove(h.elem)
			h.elem = nil
			victims = []*handle{h}
		}
	}
	f.mu.Unlock()
	_ = closeAll(victims)
}

func unlink(fsys vfs.FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("segment: remove: %w", err)
	}
	return nil
}

// buffer returns a buffer of windowBytes; give it back with f.bufs.Put.
func (f *Files) buffer() *[]byte { return f.bufs.Get().(*[]byte) }

// run returns an empty buffer of that capacity; give it back with f.runs.Put.
func (f *Files) run(n int) *[]byte {
	b, _ := f.runs.Get().(*[]byte)
	if b == nil || cap(*b) < n {
		run := make([]byte, 0, n)
		b = &run
	}
	return b
}

func releaseAll(hs ...*handle) {
	for _, h := range hs {
		if h != nil {
			h.release()
		}
	}
}

func closeAll(hs []*handle) error {
	var errs []error
	for _, h := range hs {
		errs = append(errs, h.File.Close())
	}
	return errors.Join(errs...)
}
