package replication

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// A checkpoint file holds one base (all of the state) or one delta (what
// changed since the file before it):
//
//	0       4        6       8       12          16            24      32
//	+-------+--------+-------+-------+-----------+-------------+-------+------
//	| magic | format | flags | shard | cfg bytes | incarnation | index | term
//	+-------+--------+-------+-------+-----------+-------------+-------+------
//	40           48        56         60  64
//	+------------+---------+----------+---+---------------+------+--------+
//	| prev index | cfg idx | prev crc | 0 | configuration | body | crc32c |
//	+------------+---------+----------+---+---------------+------+--------+
//
// Integers are little-endian. flags are incompatible ones: a bit that is not
// known refuses the file. shard and incarnation are the replica's that wrote
// it. prev index and prev crc name the file that a delta builds on, by its last
// four bytes; they are 0 in a base. The configuration is Raft's, as
// raft.EncodeConfiguration writes it. The checksum covers everything before it;
// magic, format and where the checksum lies are the same in every format, so
// that damage is told from a newer format. A file appears under its name only
// when it is whole and synced, so damage is never a torn write.
//
// A checkpoint of another replica's is a base too. While it is installed, a file
// `<index>.installing`, of 20 digits and without content, says that the log may
// not go on where it ends: see rebase.
const (
	checkpointMagic       = 0x4b434c46 // "FLCK"
	checkpointFormat      = 1
	checkpointHeaderBytes = 64
	checkpointSuffix      = ".checkpoint"
)

// maxDeltas is how many deltas may follow a base before they are folded into a
// new one; so are deltas that together outgrow their base.
const maxDeltas = 16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checkpoints keeps one replica's checkpoints in a directory. It is Raft's
// snapshot store: a snapshot is a base and the deltas after it.
//
// List returns only the newest: Raft would fall back to an older one that the
// journal no longer continues (raft.go: restoreSnapshot).
type Checkpoints struct {
	fs    vfs.FS
	dir   string
	shard ShardID
	id    ReplicaID
	fold  func(dst io.Writer, srcs ...io.Reader) error

	keepFreeBytes int64 // what a checkpoint leaves free on the disk

	// installing is the index of the checkpoint of another replica that Raft is
	// restoring, or was when the process ended; 0: none. Raft's goroutines read it
	// only while who has set it waits for them.
	installing uint64
	whole      bool        // the capture that Create is called for next is all of the state; who captures sets it
	fail       func(error) // told of a checkpoint that could not be installed; nil: nobody

	// turn is held over I/O, so it is a channel: waiting for it is a wait that
	// virtual time understands.
	turn   chan struct{}
	chain  []checkpointFile // guarded by turn: a base and its deltas, oldest first; empty: none yet
	newest atomic.Pointer[checkpointFile]
}

type checkpointFile struct {
	shard       ShardID
	incarnation uint64
	index, term uint64
	prev        uint64 // index of the file that this delta builds on, 0: a base
	prevCRC     uint32
	configIndex uint64
	config      raft.Configuration
	crc         uint32 // the file's own
	bodyBytes   int64
}

// name is the file's, in its directory.
func (f *checkpointFile) name() string {
	kind := "base"
	if f.prev != 0 {
		kind = "delta"
	}
	return fmt.Sprintf("%020d-%s%s", f.index, kind, checkpointSuffix)
}

// OpenCheckpoints opens the checkpoints of replica id of a shard in dir, and
// creates the directory if needed. fold writes a base that equals a base and its deltas; nil says that
// each checkpoint is a base.
//
// A file that was never finished is removed. A damaged one, or another
// replica's, is an error matching ErrCorrupt that names it, and one of a newer format ErrUnsupported; both
// leave the directory as it is.
func OpenCheckpoints(fsys vfs.FS, dir string, shard ShardID, id ReplicaID, fold func(dst io.Writer, srcs ...io.Reader) error) (*Checkpoints, error) {
	if err := vfs.MkdirAllSync(fsys, dir); err != nil {
		return nil, fmt.Errorf("replication: checkpoints: %w", err)
	}
	// The name of the newest may be in memory only, left by a process that was
	// killed before it synced the directory: the log is compacted up to what is
	// found here, and a power cut must not take it back (R8).
	if err := fsys.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("replication: checkpoints: %w", err)
	}
	c := &Checkpoints{fs: fsys, dir: dir, shard: shard, id: id, fold: fold, turn: make(chan struct{}, 1)}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("replication: checkpoints: %w", err)
	}
	files := make(map[uint64]checkpointFile)
	var newest checkpointFile
	for _, name := range names {
		if index, ok := parseInstallMark(name); ok {
			c.installing = max(c.installing, index)
		}
		if !strings.HasSuffix(name, checkpointSuffix) {
			continue
		}
		f, _, err := c.read(name)
		if err != nil {
			return nil, err
		}
		// A base replaces the delta of its index (see compact).
		if old, ok := files[f.index]; !ok || old.prev != 0 {
			files[f.index] = f
		}
		if f.index >= newest.index {
			newest = files[f.index]
		}
	}
	for f := newest; f.index != 0; {
		c.chain = append(c.chain, f)
		if f.prev == 0 {
			break
		}
		prev, ok := files[f.prev]
		if !ok || prev.crc != f.prevCRC {
			return nil, fmt.Errorf("%w: %s builds on the checkpoint at index %d with checksum %08x, which is missing",
				ErrCorrupt, path.Join(dir, f.name()), f.prev, f.prevCRC)
		}
		f = prev
	}
	slices.Reverse(c.chain)
	c.setNewest()
	return c, c.removeOthers()
}

// read reads and checks one file.
func (c *Checkpoints) read(name string) (checkpointFile, []byte, error) {
	full := path.Join(c.dir, name)
	b, err := vfs.ReadFile(c.fs, full)
	if err != nil {
		return checkpointFile{}, nil, fmt.Errorf("replication: checkpoint: %w", err)
	}
	f, body, err := decodeCheckpoint(b)
	if err == nil && (f.shard != c.shard || f.incarnation != c.id.Incarnation || f.name() != name) {
		err = fmt.Errorf("%w: it is %s of shard %d, incarnation %016x, not of shard %d, incarnation %016x",
			ErrCorrupt, f.name(), f.shard, f.incarnation, c.shard, c.id.Incarnation)
	}
	if err != nil {
		return checkpointFile{}, nil, fmt.Errorf("%w (file %s)", err, full)
	}
	return f, body, nil
}

func decodeCheckpoint(b []byte) (checkpointFile, []byte, error) {
	corrupt := func(format string, args ...any) (checkpointFile, []byte, error) {
		return checkpointFile{}, nil, fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	le := binary.LittleEndian
	if len(b) < checkpointHeaderBytes+4 {
		return corrupt("%d bytes are less than a header", len(b))
	}
	if m := le.Uint32(b); m != checkpointMagic {
		return corrupt("magic %08x, want %08x", m, uint32(checkpointMagic))
	}
	end := len(b) - 4
	crc := le.Uint32(b[end:])
	if got := crc32.Checksum(b[:end], castagnoli); got != crc {
		return corrupt("crc32c %08x, want %08x, over %d bytes", got, crc, end)
	}
	if v, flags := le.Uint16(b[4:]), le.Uint16(b[6:]); v != checkpointFormat || flags != 0 {
		return checkpointFile{}, nil, fmt.Errorf("%w: format %d, flags %#x; this version reads format %d",
			ErrUnsupported, v, flags, checkpointFormat)
	}
	f := checkpointFile{
		shard: ShardID(le.Uint32(b[8:])), incarnation: le.Uint64(b[16:]),
		index: le.Uint64(b[24:]), term: le.Uint64(b[32:]), prev: le.Uint64(b[40:]), configIndex: le.Uint64(b[48:]),
		prevCRC: le.Uint32(b[56:]), crc: crc,
	}
	n := int(le.Uint32(b[12:]))
	if n > end-checkpointHeaderBytes || le.Uint32(b[60:]) != 0 {
		return corrupt("configuration of %d bytes in a file of %d, reserved %x", n, len(b), b[60:64])
	}
	cfg, err := decodeConfiguration(b[checkpointHeaderBytes : checkpointHeaderBytes+n])
	if err != nil {
		return corrupt("%v", err)
	}
	f.config = cfg
	body := b[checkpointHeaderBytes+n : end]
	f.bodyBytes = int64(len(body))
	return f, body, nil
}

// decodeConfiguration decodes what raft.EncodeConfiguration wrote, whose own
// decoder panics on anything else.
func decodeConfiguration(b []byte) (c raft.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("replication: configuration: %v", p)
		}
	}()
	return raft.DecodeConfiguration(b), nil
}

// encodeCheckpoint returns the file's bytes, and notes their checksum in f.
func encodeCheckpoint(f *checkpointFile, body []byte) []byte {
	le := binary.LittleEndian
	cfg := raft.EncodeConfiguration(f.config)
	b := make([]byte, 0, checkpointHeaderBytes+len(cfg)+len(body)+4)
	b = le.AppendUint32(b, checkpointMagic)
	b = le.AppendUint16(b, checkpointFormat)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, uint32(f.shard))
	b = le.AppendUint32(b, uint32(len(cfg)))
	b = le.AppendUint64(b, f.incarnation)
	b = le.AppendUint64(b, f.index)
	b = le.AppendUint64(b, f.term)
	b = le.AppendUint64(b, f.prev)
	b = le.AppendUint64(b, f.configIndex)
	b = le.AppendUint32(b, f.prevCRC)
	b = le.AppendUint32(b, 0)
	b = append(b, cfg...)
	b = append(b, body...)
	f.crc = crc32.Checksum(b, castagnoli)
	return le.AppendUint32(b, f.crc)
}

// removeOthers unlinks every file that is not in the chain.
func (c *Checkpoints) removeOthers() error {
	names, err := c.fs.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("replication: checkpoints: %w", err)
	}
	for _, name := range names {
		if slices.ContainsFunc(c.chain, func(f checkpointFile) bool { return f.name() == name }) {
			continue
		}
		if index, ok := parseInstallMark(name); ok && index == c.installing {
			continue
		}
		if err := c.fs.Remove(path.Join(c.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replication: checkpoints: %w", err)
		}
	}
	return nil
}

func (c *Checkpoints) lock()   { c.turn <- struct{}{} }
func (c *Checkpoints) unlock() { <-c.turn }

// setNewest publishes the end of the chain.
func (c *Checkpoints) setNewest() {
	if len(c.chain) > 0 {
		f := c.chain[len(c.chain)-1]
		c.newest.Store(&f)
	}
}

// Newest returns the index and term of the newest durable checkpoint, or zeros.
func (c *Checkpoints) Newest() (index, term uint64) {
	if f := c.newest.Load(); f != nil {
		return f.index, f.term
	}
	return 0, 0
}

// configuration returns the newest checkpoint's and its index, or none.
func (c *Checkpoints) configuration() (raft.Configuration, uint64) {
	if f := c.newest.Load(); f != nil {
		return f.config, f.configIndex
	}
	return raft.Configuration{}, 0
}

// Create implements raft.SnapshotStore: it starts the checkpoint at index,
// which must be above the newest one's.
func (c *Checkpoints) Create(_ raft.SnapshotVersion, index, term uint64, cfg raft.Configuration, cfgIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	f := checkpointFile{
		shard: c.shard, incarnation: c.id.Incarnation,
		index: index, term: term, configIndex: cfgIndex, config: cfg,
	}
	if newest := c.newest.Load(); newest != nil {
		if index <= newest.index {
			return nil, fmt.Errorf("replication: checkpoint at index %d, and there is one at %d", index, newest.index)
		}
		if c.fold != nil && index != c.installing && !c.whole {
			f.prev, f.prevCRC = newest.index, newest.crc
		}
	}
	return &checkpointSink{c: c, f: f, id: checkpointID(f)}, nil
}

func checkpointID(f checkpointFile) string { return fmt.Sprintf("%d-%d", f.term, f.index) }

// List implements raft.SnapshotStore with the newest checkpoint alone.
func (c *Checkpoints) List() ([]*raft.SnapshotMeta, error) {
	c.lock()
	defer c.unlock()
	if len(c.chain) == 0 {
		return nil, nil
	}
	return []*raft.SnapshotMeta{c.metaLocked()}, nil
}

func (c *Checkpoints) metaLocked() *raft.SnapshotMeta {
	f := c.chain[len(c.chain)-1]
	size := int64(0)
	for _, f := range c.chain {
		size += f.bodyBytes
	}
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: checkpointID(f), Index: f.index, Term: f.term,
		Configuration: f.config, ConfigurationIndex: f.configIndex, Size: size,
	}
}

// Open implements raft.SnapshotStore: the base and its deltas, one after the
// other.
func (c *Checkpoints) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	c.lock()
	defer c.unlock()
	if len(c.chain) == 0 || checkpointID(c.chain[len(c.chain)-1]) != id {
		return nil, nil, fmt.Errorf("replication: no checkpoint %s", id)
	}
	bodies, err := c.bodiesLocked()
	if err != nil {
		return nil, nil, err
	}
	return c.metaLocked(), io.NopCloser(io.MultiReader(bodies...)), nil
}

func (c *Checkpoints) bodiesLocked() ([]io.Reader, error) {
	var bodies []io.Reader
	for _, f := range c.chain {
		_, body, err := c.read(f.name())
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, bytes.NewReader(body))
	}
	return bodies, nil
}

// commit makes a finished checkpoint durable and the newest.
func (c *Checkpoints) commit(f checkpointFile, body []byte) error {
	f.bodyBytes = int64(len(body))
	if err := c.write(&f, body); err != nil {
		return err
	}
	c.lock()
	defer c.unlock()
	if f.prev == 0 {
		c.chain = c.chain[:0]
	}
	c.chain = append(c.chain, f)
	c.setNewest()
	if err := c.compactLocked(); err != nil && !Temporary(err) {
		return err
	}
	return nil // the next one tries again to fold
}

// Temporary reports the error of a checkpoint that may be tried again: the disk
// had no space for it, or the process too many files open.
func Temporary(err error) bool { return vfs.NoSpace(err) || vfs.NoFiles(err) }

func (c *Checkpoints) write(f *checkpointFile, body []byte) error {
	b := encodeCheckpoint(f, body)
	free, err := c.fs.Free(c.dir)
	if err == nil && free < int64(len(b))+c.keepFreeBytes {
		err = fmt.Errorf("%w: %d bytes free, %s takes %d and leaves %d", syscall.ENOSPC, free, path.Join(c.dir, f.name()), len(b), c.keepFreeBytes)
	}
	if err == nil {
		err = vfs.WriteFile(c.fs, path.Join(c.dir, f.name()), b)
	}
	if err != nil {
		return fmt.Errorf("replication: checkpoint: %w", err)
	}
	return nil
}

// compactLocked folds a long chain into a base at the same index, and unlinks
// what the chain no longer needs.
func (c *Checkpoints) compactLocked() error {
	deltas := int64(0)
	for _, f := range c.chain[1:] {
		deltas += f.bodyBytes
	}
	if len(c.chain) > maxDeltas || deltas > c.chain[0].bodyBytes {
		bodies, err := c.bodiesLocked()
		if err != nil {
			return err
		}
		var base bytes.Buffer
		if err := c.fold(&base, bodies...); err != nil {
			return fmt.Errorf("replication: checkpoint: fold: %w", err)
		}
		f := c.chain[len(c.chain)-1]
		f.prev, f.prevCRC, f.bodyBytes = 0, 0, int64(base.Len())
		if err := c.write(&f, base.Bytes()); err != nil {
			return err
		}
		c.chain = append(c.chain[:0], f)
		c.setNewest()
	}
	return c.removeOthers()
}

// checkpointSink collects one checkpoint. It holds logical state only, so it
// is collected in memory and written at once.
type checkpointSink struct {
	c    *Checkpoints
	f    checkpointFile
	id   string
	body bytes.Buffer
	done bool
}

// Write implements raft.SnapshotSink.
func (s *checkpointSink) Write(b []byte) (int, error) { return s.body.Write(b) }

// ID implements raft.SnapshotSink.
func (s *checkpointSink) ID() string { return s.id }

// Close implements raft.SnapshotSink: the checkpoint is durable when it
// returns nil.
func (s *checkpointSink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	err := s.c.commit(s.f, s.body.Bytes())
	if err != nil && !Temporary(err) && s.f.index == s.c.installing && s.c.fail != nil {
		s.c.fail(err) // Raft only tells the leader
	}
	return err
}

// Cancel implements raft.SnapshotSink.
func (s *checkpointSink) Cancel() error {
	s.done = true
	return nil
}
