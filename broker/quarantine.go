package broker

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/section"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

// A quarantine file keeps what is needed to repeat the panic that put a
// partition into quarantine on this replica (R5), and that it did. It is one
// section list (see internal/section), little-endian, sizes in bytes:
//
//	kind        payload
//	1 what      shard 4, number 4, entry index 8, entry term 8, command 4,
//	            partition index 4, topic id 16, sha-256 of the entry 32, kind 1
//	2 panic     what it said and the stack, text
//	3 entry     the entry
//	4 before    a checkpoint of the partition alone, before the command; may be
//	            missing
//
// Only the first is mandatory. command is the position in the entry, kind that
// command's.
const (
	sectionWhat section.Kind = iota + 1
	sectionPanic
	sectionEntry
	sectionBefore
)

const (
	// QuarantineSuffix ends the names of quarantine files.
	QuarantineSuffix = ".quarantine"

	quarantineVersion = 1
	whatBytes         = 4 + 4 + 8 + 8 + 4 + 4 + 16 + 32 + 1

	// maxPanicBytes bounds the text that is kept and logged.
	maxPanicBytes = 16 << 10
)

// ErrQuarantineDamaged matches a quarantine file whose bytes are not as written.
var ErrQuarantineDamaged = errors.New("damaged")

// errQuarantineFile matches a quarantine file that cannot be read.
var errQuarantineFile = errors.New("broker: quarantine file")

// quarantines keeps the quarantine files of this node's replicas, at most
// partition.MaxQuarantined of a shard.
type quarantines struct {
	fs   vfs.FS
	dir  string
	fail func(error)
	wake chan struct{} // 1-buffered: something pends

	turn chan struct{} // 1-buffered: held while files are written

	mu      sync.Mutex
	pending []quarantineFile
	count   int // since the start
}

type quarantineFile struct {
	shard replication.ShardID
	index uint64 // of the entry
	name  string
	bytes []byte
}

func newQuarantines(fsys vfs.FS, dir string, fail func(error)) *quarantines {
	return &quarantines{
		fs: fsys, dir: dir, fail: fail,
		wake: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
}

func quarantineName(shard replication.ShardID, n partition.Number) string {
	return fmt.Sprintf("%d-%d%s", shard, n, QuarantineSuffix)
}

func (q *quarantines) path(shard replication.ShardID, n partition.Number) string {
	return path.Join(q.dir, quarantineName(shard, n))
}

// add has a file written soon, and before the next checkpoint of the shard. It
// does not wait for the disk: Apply calls it.
func (q *quarantines) add(shard replication.ShardID, what *partition.Quarantine, entry []byte) {
	f := quarantineFile{shard, what.EntryIndex, quarantineName(shard, what.Number), encodeQuarantine(shard, what, entry)}
	q.mu.Lock()
	q.pending = append(q.pending, f)
	q.count++
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *quarantines) run(stop <-chan struct{}) {
	for {
		select {
		case <-q.wake:
			if err := q.write(); err != nil && !replication.Temporary(err) {
				q.fail(err) // with a full disk, the next checkpoint tries again
			}
		case <-stop:
			return
		}
	}
}

// write writes what pends. It is durable when write returns nil.
func (q *quarantines) write() error {
	q.turn <- struct{}{}
	defer func() { <-q.turn }()
	q.mu.Lock()
	pending := q.pending
	q.mu.Unlock()
	if len(pending) == 0 {
		return nil
	}
	if err := vfs.MkdirAllSync(q.fs, q.dir); err != nil {
		return fmt.Errorf("%w: %w", errQuarantineFile, err)
	}
	for _, f := range pending {
		if err := vfs.WriteFile(q.fs, path.Join(q.dir, f.name), f.bytes); err != nil {
			return fmt.Errorf("%w: %w", errQuarantineFile, err)
		}
	}
	q.mu.Lock()
	q.pending = q.pending[len(pending):]
	q.mu.Unlock()
	return nil
}

// check reads the files of a shard, and returns why one cannot be.
func (q *quarantines) check(shard replication.ShardID) error {
	return q.each(shard, func(string, *partition.Quarantine) error { return nil })
}

// replay puts into quarantine what the files of a shard say, and removes those
// whose partition's deletion is checkpointed.
func (q *quarantines) replay(shard replication.ShardID, state *partition.State) error {
	return q.each(shard, func(file string, what *partition.Quarantine) error {
		if state.ReplayQuarantine(what.Number, what.EntryIndex) {
			return nil
		}
		if err := q.fs.Remove(file); err != nil {
			return fmt.Errorf("%w: %w", errQuarantineFile, err)
		}
		return nil
	})
}

// end removes the files of a shard that say of an entry up to an index that it
// panicked, and forgets those that are not written yet: this replica has the state of
// another one behind that index. It is not synced: a file that comes back puts its
// partition into quarantine again, and it is healed again.
func (q *quarantines) end(shard replication.ShardID, index uint64) error {
	q.turn <- struct{}{}
	defer func() { <-q.turn }()
	q.mu.Lock()
	q.pending = slices.DeleteFunc(slices.Clone(q.pending), func(f quarantineFile) bool { return f.shard == shard && f.index <= index })
	q.mu.Unlock()
	return q.each(shard, func(file string, what *partition.Quarantine) error {
		if what.EntryIndex > index {
			return nil
		}
		if err := q.fs.Remove(file); err != nil {
			return fmt.Errorf("%w: %w", errQuarantineFile, err)
		}
		return nil
	})
}

// each reads the files of a shard.
func (q *quarantines) each(shard replication.ShardID, do func(file string, what *partition.Quarantine) error) error {
	names, err := q.fs.ReadDir(q.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errQuarantineFile, err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, fmt.Sprintf("%d-", shard)) || !strings.HasSuffix(name, QuarantineSuffix) {
			continue
		}
		full := path.Join(q.dir, name)
		_, what, err := ReadQuarantine(q.fs, full)
		if err != nil {
			return err
		}
		if err := do(full, what); err != nil {
			return err
		}
	}
	return nil
}

// ReadQuarantine reads a quarantine file, and returns the shard and what it says
// of a partition of it, without the texts. An error, of the file system or of
// what the file holds, names the file; a node does not start with it.
func ReadQuarantine(fsys vfs.FS, file string) (replication.ShardID, *partition.Quarantine, error) {
	b, err := vfs.ReadFile(fsys, file)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errQuarantineFile, err)
	}
	shard, what, err := decodeQuarantine(b)
	if err == nil && quarantineName(shard, what.Number) != path.Base(file) {
		err = fmt.Errorf("%w: it is %s", ErrQuarantineDamaged, quarantineName(shard, what.Number))
	} else if errors.Is(err, section.ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrQuarantineDamaged, err)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("%w %s: %w", errQuarantineFile, file, err)
	}
	return shard, what, nil
}

func encodeQuarantine(shard replication.ShardID, q *partition.Quarantine, entry []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(shard))
	b = le.AppendUint32(b, uint32(q.Number))
	b = le.AppendUint64(b, q.EntryIndex)
	b = le.AppendUint64(b, q.EntryTerm)
	b = le.AppendUint32(b, uint32(q.Command))
	b = le.AppendUint32(b, uint32(q.Index))
	b = append(b, q.TopicID[:]...)
	sum := sha256.Sum256(entry)
	b = append(b, sum[:]...)
	b = append(b, byte(q.Kind))
	var buf bytes.Buffer
	w := section.NewWriter(&buf)
	sections := []section.Section{
		{Kind: sectionWhat, Mandatory: true, Payload: b},
		{Kind: sectionPanic, Payload: panicText(q)},
		{Kind: sectionEntry, Payload: entry},
	}
	if q.Before != nil && len(q.Before) <= section.MaxPayloadBytes {
		sections = append(sections, section.Section{Kind: sectionBefore, Payload: q.Before})
	}
	var errs []error
	for _, s := range sections {
		s.Version = quarantineVersion
		errs = append(errs, w.Write(s))
	}
	if err := errors.Join(append(errs, w.Close())...); err != nil {
		panic("broker: quarantine: " + err.Error()) // an entry is a quarter of a journal file at most
	}
	return buf.Bytes()
}

func panicText(q *partition.Quarantine) []byte {
	text := []byte(q.Panic + "\n" + string(q.Stack))
	return text[:min(len(text), maxPanicBytes)]
}

// decodeQuarantine returns what a file says, without the texts.
func decodeQuarantine(b []byte) (replication.ShardID, *partition.Quarantine, error) {
	r := section.NewReader(bytes.NewReader(b))
	var shard replication.ShardID
	var q *partition.Quarantine
	for {
		s, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, nil, err
		}
		known := s.Kind >= sectionWhat && s.Kind <= sectionBefore && s.Version == quarantineVersion
		if !known && s.Mandatory {
			return 0, nil, fmt.Errorf("section of kind %d, version %d is not known; a newer version has written it: start that one", s.Kind, s.Version)
		}
		if s.Kind != sectionWhat || !known {
			continue
		}
		p := s.Payload
		if len(p) != whatBytes {
			return 0, nil, fmt.Errorf("%w: %d bytes, want %d", section.ErrDamaged, len(p), whatBytes)
		}
		le := binary.LittleEndian
		shard = replication.ShardID(le.Uint32(p))
		q = &partition.Quarantine{
			Number: partition.Number(le.Uint32(p[4:])), EntryIndex: le.Uint64(p[8:]), EntryTerm: le.Uint64(p[16:]),
			Command: int(le.Uint32(p[24:])), Index: int32(le.Uint32(p[28:])), TopicID: partition.TopicID(p[32:48]),
			Kind: partition.Kind(p[80]),
		}
	}
	if q == nil {
		return 0, nil, fmt.Errorf("%w: it does not say what it is about", section.ErrDamaged)
	}
	return shard, q, nil
}

// quarantine takes a partition of this replica out of service.
func (m *machine) quarantine(q *partition.Quarantine, entry []byte) {
	m.log.Error("handling a command panicked; its partition is in quarantine on this replica, the others go on",
		"shard", m.shard.id, "index", q.EntryIndex, "term", q.EntryTerm, "command", q.Command, "kind", q.Kind.String(),
		"topic_id", q.TopicID.String(), "partition", q.Index, "number", q.Number,
		"entry_bytes", len(entry), "entry_sha256", partition.Hash(sha256.Sum256(entry)).String(),
		"kept_in", m.quarantines.path(m.shard.id, q.Number), "panic", string(panicText(q)))
	m.quarantines.add(m.shard.id, q, entry)
	if _, ok := m.state.Partition(q.Number); ok { // else a later command deleted it
		m.publish(q.Number)
	}
}

// quarantineError says why a partition is not served, and what to do.
func (b *Broker) quarantineError(p *placed, index uint64) *errcode.Error {
	topic := p.key.topic.String()
	if t := b.image().TopicByID(metadata.TopicID(p.key.topic)); t != nil {
		topic = t.Name
	}
	others := ""
	if b.opt.Cluster != nil {
		others = " what another replica has takes its place by itself, unless that panicked on all of them;"
	}
	return errcode.Errorf(errcode.KafkaStorageError,
		"partition %d of topic %s is in quarantine on node %d: handling entry %d of shard %d panicked;%s see %s: with a version that does not, remove that file and start again, or delete the topic",
		p.key.index, topic, b.opt.NodeID, index, p.shard.id, others, b.quarantines.path(p.shard.id, p.number))
}

// Quarantined counts the partitions that were put into quarantine since the
// start (R5). Those that an earlier run did are not among them.
func (b *Broker) Quarantined() int {
	b.quarantines.mu.Lock()
	defer b.quarantines.mu.Unlock()
	return b.quarantines.count
}
