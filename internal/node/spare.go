package node

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"path"
	"sync"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// SpareName is a file of zeros that takes space on the disk only to give it up:
// when the disk is full to the last byte it is removed, and what must not wait,
// votes and metadata such as the deletion of a topic, goes where it was. It is
// made again when the disk has room.
const SpareName = "SPARE"

// spareBytes is the size of that file: ten thousand deletions of topics, and
// more starts.
const spareBytes = 1 << 20

// keepFree is what segments and checkpoints leave free on the disk, so that they
// do not take what the spare file gave up.
func keepFree(reserve int64) int64 { return min(spareBytes, reserve/2) }

// defaultReserve is the default of Options.DiskReserveBytes.
func defaultReserve(opt *Options) (int64, error) {
	u, err := opt.FS.Usage(opt.Dir)
	owed := opt.MemoryBytes/2 + cmp.Or(opt.JournalFileBytes, 64<<20)
	return max(1, min(owed, u.TotalBytes/20)), err
}

// spare is the spare file. Its methods are safe for concurrent use.
type spare struct {
	fs   vfs.FS
	name string
	log  *slog.Logger

	mu   sync.Mutex
	here bool // guarded by mu
	busy bool // guarded by mu: somebody makes or removes it
}

// openSpare finds the spare file, or makes it if the disk has room for it.
func openSpare(fsys vfs.FS, dir string, log *slog.Logger) *spare {
	s := &spare{fs: fsys, name: path.Join(dir, SpareName), log: log}
	if info, err := fsys.Stat(s.name); err == nil && info.Size() == spareBytes {
		s.here = true
		return s
	}
	if free, err := fsys.Free(dir); err == nil && free >= 4*spareBytes {
		s.make()
	}
	return s
}

// turn begins to make or remove the file, if it is here or not, and nobody else
// does.
func (s *spare) turn(here bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy || s.here != here {
		return false
	}
	s.busy = true
	return true
}

func (s *spare) done(here bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy, s.here = false, here
}

// release gives the space up, and reports whether there was any.
func (s *spare) release() bool {
	if !s.turn(true) {
		return false
	}
	err := s.fs.Remove(s.name)
	s.done(false)
	if err != nil {
		s.log.Warn("the spare file could not be removed", "file", s.name, "err", err)
		return false
	}
	s.log.Warn("the disk is full: the spare file gave its space to votes and metadata", "file", s.name, "bytes", spareBytes)
	return true
}

// look makes the file again if the disk has room for it.
func (s *spare) look(d broker.DiskState) {
	if !d.Low && d.FreeBytes-d.ReserveBytes >= spareBytes {
		s.make()
	}
}

// make makes the file if it is not there. Nothing depends on it, so it need not
// be durable, and an error only means that it is tried again.
func (s *spare) make() {
	if !s.turn(false) {
		return
	}
	err := s.write()
	s.done(err == nil)
	if err != nil {
		s.log.Warn("the spare file could not be made", "file", s.name, "err", err)
	}
}

func (s *spare) write() error {
	if err := s.fs.Remove(s.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.fs.Create(s.name)
	if err != nil {
		return err
	}
	if err = errors.Join(f.Preallocate(spareBytes), f.Close()); err != nil {
		return errors.Join(err, s.fs.Remove(s.name))
	}
	return nil
}
