package doctor

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/section"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/log/segment"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

// ErrDamaged reports that a file was dumped, and that parts of it are damaged:
// the dump has a line for each.
var ErrDamaged = errors.New("doctor: damaged")

// ErrNotThat reports a file that is not of the kind that was asked for.
var ErrNotThat = errors.New("doctor: not such a file")

// Field is one value of a Line.
type Field struct {
	Name  string
	Value any // a string, a number, a bool, or a slice of these
}

// Line is one thing in a dump. Its first field is named "kind".
type Line []Field

// String returns the line as people read it.
func (l Line) String() string {
	var b strings.Builder
	for i, f := range l {
		switch v := f.Value.(type) {
		case string:
			if i == 0 {
				b.WriteString(v)
				continue
			}
			if strings.ContainsAny(v, " \t\n\"") || v == "" {
				v = fmt.Sprintf("%q", v)
			}
			fmt.Fprintf(&b, " %s=%s", f.Name, v)
		default:
			fmt.Fprintf(&b, " %s=%v", f.Name, v)
		}
	}
	return b.String()
}

// MarshalJSON implements json.Marshaler: an object with the fields in order.
func (l Line) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range l {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(f.Value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// DumpKinds are what Dump knows.
func DumpKinds() []string {
	return []string{"segment", "index", "journal", "control", "votes", "checkpoint", "identity"}
}

// DumpOptions say what of a file is shown.
type DumpOptions struct {
	From    int64 // the first offset of a segment, LSN of a journal, or record of a control log
	Limit   int   // lines but those of damage; 0: all
	Records bool  // also what records and entries hold
}

// errEnough ends a dump at its limit.
var errEnough = errors.New("doctor: enough")

// dump is one Dump under way.
type dump struct {
	fs      vfs.FS
	opt     DumpOptions
	emit    func(Line) error
	lines   int
	damaged bool
}

// Dump shows what a file of a data directory holds, or a folder of a log, and
// changes nothing. The node may be stopped, or the file a copy. Where it is
// damaged there is a line of kind damage, and the dump goes on where it can.
//
// Errors: ErrDamaged at the end, ErrNotThat, emit's, or the file system's.
func Dump(fsys vfs.FS, kind, name string, opt DumpOptions, emit func(Line) error) error {
	d := &dump{fs: fsys, opt: opt, emit: emit}
	kinds := map[string]func(string) error{
		"segment": d.segment, "index": d.index, "journal": d.journal, "control": d.control, "votes": d.control,
		"checkpoint": d.checkpoint, "identity": d.identity,
	}
	show := kinds[kind]
	if show == nil {
		return fmt.Errorf("%w: %q; give one of %s", ErrNotThat, kind, strings.Join(DumpKinds(), ", "))
	}
	if err := show(path.Clean(name)); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if d.damaged {
		return fmt.Errorf("%w: %s", ErrDamaged, name)
	}
	return nil
}

func (d *dump) line(kind string, fields ...Field) error {
	if d.opt.Limit > 0 && d.lines >= d.opt.Limit {
		return errEnough
	}
	d.lines++
	return d.emit(append(Line{{"kind", kind}}, fields...))
}

func (d *dump) damage(file string, offset int64, what string) error {
	d.damaged = true
	return d.emit(Line{{"kind", "damage"}, {"file", path.Base(file)}, {"byte", offset}, {"what", what}})
}

// text shows bytes as a string if they are one, and else in hex.
func text(b []byte) any {
	switch {
	case b == nil:
		return nil
	case utf8.Valid(b):
		return string(b)
	}
	return "0x" + hex.EncodeToString(b)
}

func (d *dump) segment(name string) error {
	head, err := segment.ReadHeader(d.fs, name)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotThat, err)
	}
	if err := d.line("segment", Field{"topic_id", hex.EncodeToString(head.TopicID[:])}, Field{"partition", head.Partition}, Field{"base_offset", head.Base},
		Field{"cleaned_through", head.CleanedThrough}, Field{"tombstone_horizon", head.TombstoneHorizon}); err != nil {
		return err
	}
	opt := segment.InspectOptions{
		Dir: path.Dir(name), File: path.Base(name), Base: head.Base, TopicID: head.TopicID, Partition: head.Partition, End: math.MaxInt64,
	}
	var it batch.Iterator
	in, err := segment.Inspect(d.fs, opt, func(pos int64, b []byte) error {
		h, err := batch.ParseHeader(b)
		if err != nil || h.LastOffset() < d.opt.From {
			return err
		}
		if err := d.line("batch", Field{"byte", pos}, Field{"bytes", h.Size()}, Field{"offset", h.BaseOffset}, Field{"last_offset", h.LastOffset()},
			Field{"epoch", h.LeaderEpoch}, Field{"records", h.Records}, Field{"codec", h.Attributes.Codec().String()}, Field{"max_timestamp", h.MaxTimestamp},
			Field{"producer_id", h.Producer.ID}, Field{"producer_epoch", h.Producer.Epoch}, Field{"sequence", h.Sequence}); err != nil || !d.opt.Records {
			return err
		}
		if err := it.Reset(b, maxBatchBytes); err != nil {
			return d.damage(name, pos, err.Error())
		}
		for r, ok := it.Next(); ok; r, ok = it.Next() {
			if r.Offset < d.opt.From {
				continue
			}
			if err := d.line("record", Field{"offset", r.Offset}, Field{"timestamp", r.Timestamp}, Field{"key", text(r.Key)}, Field{"value", text(r.Value)}); err != nil {
				return err
			}
		}
		if err := it.Err(); err != nil {
			return d.damage(name, pos, err.Error())
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, bad := range in.Bad {
		if err := d.damage(name, bad.Pos, fmt.Sprintf("from offset %d: %v", bad.From, bad.Err)); err != nil {
			return err
		}
	}
	return nil
}

// maxBatchBytes bounds what a batch unfolds to.
const maxBatchBytes = 256 << 20

func (d *dump) index(name string) error {
	err := segment.ReadIndex(d.fs, name, func(b segment.IndexBlock) error {
		kind := "block"
		if b.Footer {
			kind = "footer"
		}
		if err := d.line(kind, Field{"byte", b.Pos}, Field{"bytes", b.Bytes}, Field{"start", b.Start}, Field{"end", b.End}, Field{"end_offset", b.EndOffset},
			Field{"max_timestamp", b.MaxTimestamp}, Field{"prefix_sum", fmt.Sprintf("%08x", b.PrefixSum)}, Field{"entries", len(b.Entries)}); err != nil || !d.opt.Records {
			return err
		}
		for _, e := range b.Entries {
			if err := d.line("entry", Field{"offset", b.HeaderBase + e.RelativeOffset}, Field{"position", e.Position}, Field{"max_timestamp_before", e.MaxTimestampBefore}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil || errors.Is(err, errEnough) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.damage(name, -1, err.Error())
}

// folder splits a name into the folder of a log and the one file of it that is
// asked for, "": all.
func (d *dump) folder(name string) (dir, only string, err error) {
	info, err := d.fs.Stat(name)
	if err != nil {
		return "", "", fmt.Errorf("doctor: %w", err)
	}
	if info.IsDir() {
		return name, "", nil
	}
	return path.Dir(name), name, nil
}

func (d *dump) journal(name string) error {
	dir, only, err := d.folder(name)
	if err != nil {
		return err
	}
	in, err := journal.Inspect(d.fs, dir, journal.InspectOptions{Uncounted: true}, func(f *journal.Found) error {
		if only != "" && f.File != only || f.LSN < uint64(max(0, d.opt.From)) {
			return nil
		}
		fields := []Field{{"file", path.Base(f.File)}, {"byte", f.Offset}, {"bytes", f.Bytes}, {"lsn", f.LSN}, {"synced", f.Synced}, {"order", f.Order}}
		if f.Kind != "mark" {
			fields = append(fields, Field{"shard", uint32(f.Shard)}, Field{"incarnation", fmt.Sprintf("%016x", f.Incarnation)}, Field{"index", f.Record.Index})
		}
		if f.Kind == "entry" {
			fields = append(fields, Field{"term", f.Record.Term}, Field{"type", f.Record.Type}, Field{"appended_at", f.Record.AppendedAt}, Field{"data_bytes", len(f.Record.Data)})
		}
		if err := d.line(f.Kind, fields...); err != nil {
			return err
		}
		if f.Kind == "entry" && f.Record.Type == raftCommand && d.opt.Records {
			return d.commands(f)
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer in.Close()
	for _, x := range in.Damage {
		if only != "" && x.File != only {
			continue
		}
		what := x.Err.Error()
		if x.Torn {
			what = "torn: " + what
		}
		if err := d.damage(x.File, x.Offset, what); err != nil {
			return err
		}
	}
	return nil
}

// commands shows what an entry of a data shard holds.
func (d *dump) commands(f *journal.Found) error {
	dec, err := partition.Decode(f.Record.Data)
	if err != nil {
		return d.damage(f.File, f.Offset, err.Error())
	}
	for dec.Next() {
		c := dec.Command()
		fields := []Field{{"name", c.Kind.String()}, {"number", uint32(c.Number)}, {"payload_bytes", len(c.Payload)}}
		if at, ok := c.Decided(); ok {
			fields = append(fields, Field{"decided_term", at.Term}, Field{"decision", at.Seq})
		}
		if c.Kind == partition.KindProduce {
			if h, err := batch.ParseHeader(c.Payload); err == nil {
				fields = append(fields, Field{"records", h.Records}, Field{"producer_id", h.Producer.ID}, Field{"sequence", h.Sequence})
			}
		}
		if err := d.line("command", fields...); err != nil {
			return err
		}
	}
	return nil
}

func (d *dump) control(name string) error {
	dir, only, err := d.folder(name)
	if err != nil {
		return err
	}
	in, err := control.Inspect(d.fs, dir, func(f *control.Found) error {
		if only != "" && f.File != only || f.Index < uint64(max(0, d.opt.From)) {
			return nil
		}
		fields := []Field{{"file", path.Base(f.File)}, {"byte", f.Offset}, {"bytes", f.Bytes}, {"record", f.Index}, {"durable", f.Durable}}
		switch f.Kind {
		case "vote":
			fields = append(fields, Field{"shard", f.Shard}, Field{"incarnation", fmt.Sprintf("%016x", f.Vote.Incarnation)}, Field{"term", f.Vote.Term},
				Field{"vote_term", f.Vote.VoteTerm}, Field{"candidate", string(f.Vote.Candidate)})
		case "delete":
			fields = append(fields, Field{"shard", f.Shard})
		case "entry":
			fields = append(fields, Field{"term", f.Entry.Term}, Field{"type", f.Entry.Type}, Field{"appended_at", f.Entry.AppendedAt}, Field{"data_bytes", len(f.Entry.Data)})
			if f.Entry.Type == raftCommand {
				if _, c, err := metadata.Decode(f.Entry.Data); err == nil {
					fields = append(fields, Field{"command", strings.TrimPrefix(fmt.Sprintf("%T", c), "metadata.")})
					if d.opt.Records {
						fields = append(fields, Field{"fields", strings.Trim(fmt.Sprintf("%+v", c), "{}")})
					}
				}
			}
		}
		return d.line(f.Kind, fields...)
	})
	if err != nil {
		return err
	}
	for _, x := range in.Damage {
		if only != "" && x.File != only {
			continue
		}
		what := fmt.Sprintf("record %d: %v", x.Index, x.Err)
		if x.Torn {
			what = "torn: " + what
		}
		if err := d.damage(x.File, x.Offset, what); err != nil {
			return err
		}
	}
	return nil
}

func (d *dump) checkpoint(name string) error {
	info, body, err := replication.InspectCheckpoint(d.fs, name)
	if err != nil {
		return err
	}
	if info.Err != nil {
		return d.damage(name, 0, info.Err.Error())
	}
	kind := "base"
	if info.Prev != 0 {
		kind = "delta"
	}
	if err := d.line(kind, Field{"shard", uint32(info.Shard)}, Field{"incarnation", fmt.Sprintf("%016x", info.Incarnation)}, Field{"index", info.Index},
		Field{"term", info.Term}, Field{"prev", info.Prev}, Field{"voters", info.Voters}, Field{"body_bytes", info.BodyBytes}); err != nil {
		return err
	}
	sections := section.NewReader(bytes.NewReader(body))
	for {
		at := sections.At()
		s, err := sections.Next()
		if err != nil {
			if at = sections.At(); at < int64(len(body)) {
				return d.damage(name, at, err.Error())
			}
			break
		}
		if err := d.line("section", Field{"byte", at}, Field{"section", uint16(s.Kind)}, Field{"version", s.Version}, Field{"mandatory", s.Mandatory}, Field{"bytes", len(s.Payload)}); err != nil {
			return err
		}
	}
	switch {
	case !d.opt.Records || info.Prev != 0:
		return nil // a delta means nothing without what it builds on
	case info.Shard == replication.MetadataShard:
		return d.metadata(name, body)
	}
	return d.partitions(name, body)
}

func (d *dump) metadata(name string, body []byte) error {
	st, err := metadata.Restore(bytes.NewReader(body))
	if err != nil {
		return d.damage(name, -1, err.Error())
	}
	im := st.Image()
	if err := d.line("cluster", Field{"cluster_id", im.ClusterID()}, Field{"index", im.Index()}, Field{"term", im.Term()}, Field{"next_producer_id", im.NextProducerID()}); err != nil {
		return err
	}
	for n := range im.Nodes() {
		if err := d.line("node", Field{"id", int32(n.ID)}, Field{"incarnation", fmt.Sprintf("%016x", n.Incarnation)}, Field{"addresses", fmt.Sprint(n.Addresses)}); err != nil {
			return err
		}
	}
	for t := range im.Topics() {
		if err := d.line("topic", Field{"name", t.Name}, Field{"topic_id", hex.EncodeToString(t.ID[:])}, Field{"partitions", len(t.Assignment)}, Field{"shards", fmt.Sprint(t.Assignment)}); err != nil {
			return err
		}
	}
	for t := range im.Tombstones() {
		if err := d.line("tombstone", Field{"name", t.Name}, Field{"topic_id", hex.EncodeToString(t.ID[:])}, Field{"deleted_at", t.DeletedAt}); err != nil {
			return err
		}
	}
	return nil
}

func (d *dump) partitions(name string, body []byte) error {
	st, err := partition.Restore(bytes.NewReader(body))
	if err != nil {
		return d.damage(name, -1, err.Error())
	}
	for v := range st.Partitions() {
		if err := d.line("partition", Field{"number", uint32(v.Number)}, Field{"topic_id", hex.EncodeToString(v.TopicID[:])}, Field{"partition", v.Index},
			Field{"log_start", v.LogStart}, Field{"end", v.End}, Field{"base_epoch", v.BaseEpoch}, Field{"producers", v.Producers}, Field{"epochs", fmt.Sprint(st.Epochs(v.Number))}); err != nil {
			return err
		}
		if err := d.folded(st, v); err != nil {
			return err
		}
	}
	return nil
}

// folded shows what an internal partition's records say, as far as a checkpoint
// tells without knowing what they mean: how many there are.
func (d *dump) folded(st *partition.State, v partition.View) error {
	folded := st.Folded(v.Number)
	if folded == nil {
		return nil
	}
	records, bytes := 0, 0
	for r := range folded.All {
		records++
		bytes += len(r.Key) + len(r.Value)
	}
	return d.line("folded", Field{"number", uint32(v.Number)}, Field{"decided_term", v.DecidedTerm}, Field{"decision", v.DecisionSeq}, Field{"records", records}, Field{"bytes", bytes})
}

// identity shows IDENTITY or a GENERATION.
func (d *dump) identity(name string) error {
	if path.Base(name) == node.GenerationName {
		g, err := node.ReadGeneration(d.fs, path.Dir(name))
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err != nil {
			return d.damage(name, 0, err.Error())
		}
		return d.line("generation", Field{"incarnation", fmt.Sprintf("%016x", g.Incarnation)}, Field{"generation", g.Generation})
	}
	if path.Base(name) != node.IdentityName {
		name = path.Join(name, node.IdentityName)
	}
	id, err := node.ReadIdentity(d.fs, path.Dir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		return d.damage(name, 0, err.Error())
	}
	return d.line("identity", Field{"cluster_id", id.ClusterID}, Field{"node_id", id.NodeID}, Field{"shards", id.Shards},
		Field{"incarnation", fmt.Sprintf("%016x", id.Incarnation)}, Field{"started", id.Started}, Field{"generation", id.Generation}, Field{"next_generation", id.Next}, Field{"feature_level", id.FeatureLevel})
}
