package replication

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

func newBody(b []byte) io.Reader { return bytes.NewReader(b) }

// installed makes the rest of the replica what an installed checkpoint says. It
// runs on the goroutine that applies entries, while Raft's main one waits.
func (r *Replica[R]) installed() error {
	index, term := r.checkpoints.Newest()
	if err := r.rebase(index, term, true); err != nil {
		return err
	}
	r.setApplied(index, term)
	r.peers.configure(r.checkpoints.configuration())
	if r.journal != nil {
		r.journal.Commit(index)
	}
	return nil
}

// rebase makes the log go on where a checkpoint ends that was installed. A log
// that has the checkpoint's last entry is right as it is. Otherwise nothing at or
// below it may be read any more: what is there was never committed, or is another
// log's. A stub takes the place of the last entry: GetLog answers its term, and
// nothing is asked of what was in it, since the entry before is gone.
//
// The entries behind it stay if Raft runs, whose own idea of the log's end stays
// too: it would ask for them, and for ever (trap 19). They are not committed
// either, and Raft drops them when the leader's come. At a start they go: Raft has
// not looked yet.
//
// A crash on the way leaves the mark of beginInstall, and the next start does it
// again.
func (r *Replica[R]) rebase(index, term uint64, running bool) error {
	log := r.store.log
	var l raft.Log
	err := log.read(index, &l, false)
	if err == nil && l.Term == term {
		return nil
	}
	if err != nil && err != raft.ErrLogNotFound {
		return err
	}
	kept := []*raft.Log{{Index: index, Term: term, Type: raft.LogNoop}}
	for i := index + 1; running && err == nil && i <= log.last(); i++ {
		suffix := new(raft.Log)
		if err := log.read(i, suffix, true); err != nil {
			return err
		}
		kept = append(kept, suffix)
	}
	if log.last() != 0 {
		if err := r.store.patiently(func() error { return log.truncateFrom(1) }); err != nil {
			return err
		}
	}
	return r.store.patiently(func() error { return log.append(kept) })
}

// resumeInstall ends an install that a crash cut short, before Raft reads the log.
func (r *Replica[R]) resumeInstall() error {
	if r.checkpoints.installing == 0 {
		return nil
	}
	if index, term := r.checkpoints.Newest(); index >= r.checkpoints.installing {
		if err := r.rebase(index, term, false); err != nil {
			return fmt.Errorf("replication: install of the checkpoint at index %d: %w", index, err)
		}
	}
	if err := r.checkpoints.endInstall(); err != nil && !Temporary(err) {
		return err
	}
	return nil
}

// resuming reports whether the newest checkpoint was being installed when the
// replica ended: its log may still be the one before.
func (c *Checkpoints) resuming() bool {
	index, _ := c.Newest()
	return c.installing != 0 && index == c.installing
}

// installMarkSuffix ends the name of the file that is there while a checkpoint is
// installed.
const installMarkSuffix = ".installing"

func installMark(index uint64) string { return fmt.Sprintf("%020d%s", index, installMarkSuffix) }

func parseInstallMark(name string) (index uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, installMarkSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	index, err := strconv.ParseUint(digits, 10, 64)
	return index, err == nil && index != 0
}

// beginInstall says, durably, that the checkpoint at index is about to be
// installed. An error leaves nothing changed that matters.
func (c *Checkpoints) beginInstall(index uint64) error {
	if err := vfs.WriteFile(c.fs, path.Join(c.dir, installMark(index)), nil); err != nil {
		return fmt.Errorf("replication: checkpoint: %w", err)
	}
	c.installing = index
	return nil
}

// has reports whether the checkpoint at an index, or a file that may be one, has its
// name on the disk.
func (c *Checkpoints) has(index uint64) (bool, error) {
	_, err := c.fs.Stat(path.Join(c.dir, (&checkpointFile{index: index}).name()))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// endInstall takes the mark of beginInstall away, durably: the log goes on where
// the newest checkpoint ends, or that is still the one before.
func (c *Checkpoints) endInstall() error {
	if c.installing == 0 {
		return nil
	}
	err := c.fs.Remove(path.Join(c.dir, installMark(c.installing)))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	c.installing = 0
	if err == nil {
		err = c.fs.SyncDir(c.dir)
	}
	if err != nil {
		return fmt.Errorf("replication: checkpoint: %w", err)
	}
	return nil
}
