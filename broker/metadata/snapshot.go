package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/flotilla-log/flotilla/internal/section"
)

// A snapshot is one section list (see internal/section). It starts with one
// cluster section; the others follow in the order below, each kind in as many
// sections as its items need. All are mandatory, version 1, with fields encoded
// as in commands:
//
//	kind           item
//	1 cluster      index 8, term 8, next producer id 8, feature level 2,
//	               cluster id
//	2 nodes        id 4, incarnation 8, rack, addresses, updated at 8
//	3 shards       id 4, replicas, updated at 8
//	4 topics       id 16, name, assignment, configs, created at 8,
//	               updated at 8, count 4 of growths: first 4, at 8
//	5 tombstones   id 16, name, partitions 4, deleted at 8
//	6 node levels  id 4, feature level 2, not 0; of nodes that have said one
//	7 added shards id 4, created at 8, preferred node 4, count 4 of founders:
//	               node 4, directory 8; of shards of AddShards
//	8 fenced nodes id 4
const (
	sectionCluster section.Kind = iota + 1
	sectionNodes
	sectionShards
	sectionTopics
	sectionTombstones
	sectionNodeLevels
	sectionAddedShards
	sectionFencedNodes
)

const (
	snapshotVersion = 1

	// sectionBytes is where a writer starts the next section of a kind.
	sectionBytes = 1 << 20
)

// SnapshotError says where a snapshot cannot be read, and why. It matches
// ErrDamaged or ErrUnsupported.
type SnapshotError struct {
	At      int64  // offset in the stream, in bytes, of the section
	Section uint16 // its kind, or zero
	Err     error
}

func (e *SnapshotError) Error() string {
	return fmt.Sprintf("metadata: snapshot section of kind %d at %d: %v", e.Section, e.At, e.Err)
}

// Unwrap returns what was wrong with the section.
func (e *SnapshotError) Unwrap() error { return e.Err }

// WriteSnapshot writes the image. Equal images give equal bytes.
func (im *Image) WriteSnapshot(w io.Writer) error {
	sw := snapshotWriter{w: section.NewWriter(w)}
	sw.item(sectionCluster, im.appendCluster)
	for n := range im.Nodes() {
		sw.item(sectionNodes, n.append)
	}
	for s := range im.Shards() {
		sw.item(sectionShards, s.append)
	}
	for t := range im.topics.values() {
		sw.item(sectionTopics, t.append)
	}
	for t := range im.Tombstones() {
		sw.item(sectionTombstones, t.append)
	}
	for n := range im.Nodes() {
		if n.FeatureLevel > 0 {
			sw.item(sectionNodeLevels, n.appendLevel)
		}
	}
	for s := range im.Shards() {
		if s.CreatedAt > 0 {
			sw.item(sectionAddedShards, s.appendAdded)
		}
	}
	for n := range im.Nodes() {
		if n.Fenced {
			sw.item(sectionFencedNodes, func(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, uint32(n.ID)) })
		}
	}
	return sw.close()
}

// snapshotWriter cuts items into sections. The first error is kept for close.
type snapshotWriter struct {
	w    *section.Writer
	kind section.Kind
	buf  []byte // items of kind that are not written yet
	err  error
}

func (sw *snapshotWriter) item(k section.Kind, encode func([]byte) []byte) {
	if k != sw.kind || len(sw.buf) >= sectionBytes {
		sw.flush()
	}
	sw.kind = k
	sw.buf = encode(sw.buf)
}

func (sw *snapshotWriter) flush() {
	if len(sw.buf) > 0 && sw.err == nil {
		sw.err = sw.w.Write(section.Section{
			Kind: sw.kind, Version: snapshotVersion, Mandatory: true, Payload: sw.buf,
		})
	}
	sw.buf = sw.buf[:0]
}

func (sw *snapshotWriter) close() error {
	sw.flush()
	if sw.err != nil {
		return sw.err
	}
	return sw.w.Close()
}

// Restore reads a snapshot, to the end of r. It returns a *SnapshotError that
// matches ErrDamaged or ErrUnsupported, or what r returned. A section that is
// unknown and not mandatory is skipped. Memory is bounded by a multiple of the
// bytes that r has.
func Restore(r io.Reader) (*State, error) {
	rs := &restorer{r: section.NewReader(r), im: newImage()}
	for {
		at := rs.r.At()
		sec, err := rs.r.Next()
		if err == io.EOF {
			break
		}
		if errors.Is(err, section.ErrDamaged) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		} else if err != nil {
			return nil, fmt.Errorf("metadata: read snapshot: %w", err)
		} else {
			err = rs.section(sec)
		}
		if err != nil {
			return nil, &SnapshotError{At: at, Section: uint16(sec.Kind), Err: err}
		}
	}
	if more, err := rs.r.More(); err != nil || more || rs.last == 0 {
		return nil, errors.Join(err, &SnapshotError{At: rs.r.At(), Err: fmt.Errorf("%w: empty, or bytes after its end", ErrDamaged)})
	}
	return &State{im: rs.im}, nil
}

type restorer struct {
	r    *section.Reader
	im   Image
	last section.Kind
}

func (rs *restorer) section(sec section.Section) error {
	if known := sec.Kind <= sectionFencedNodes && sec.Version == snapshotVersion; !known {
		if sec.Mandatory {
			return fmt.Errorf("%w: version %d", ErrUnsupported, sec.Version)
		}
		return nil
	}
	if first := rs.last == 0; first != (sec.Kind == sectionCluster) || sec.Kind < rs.last {
		return fmt.Errorf("%w: after kind %d", ErrDamaged, rs.last)
	}
	rs.last = sec.Kind
	in := &reader{b: sec.Payload}
	for len(in.b) > 0 {
		rs.item(sec.Kind, in)
	}
	return in.err
}

func (rs *restorer) item(k section.Kind, in *reader) {
	im := &rs.im
	switch k {
	case sectionCluster:
		im.index, im.term, im.nextProducerID = in.uint64(), in.uint64(), int64(in.uint64())
		im.featureLevel, im.clusterID = in.level(), in.string()
		if im.nextProducerID < 0 || len(in.b) > 0 {
			in.damaged("next producer id %d, %d bytes left", im.nextProducerID, len(in.b))
		}
	case sectionNodes:
		n := in.node()
		if _, ok := im.nodes.get(n.ID); ok || n.ID < 0 || n.Incarnation == 0 {
			in.damaged("node %d of incarnation %d", n.ID, n.Incarnation)
			return
		}
		im.nodes = im.nodes.put(n.ID, n)
	case sectionShards:
		s := &Shard{ID: in.shard(), Replicas: in.nodes(), UpdatedAt: in.uint64()}
		if im.Shard(s.ID) != nil {
			in.damaged("shard %d twice", s.ID)
			return
		}
		im.shards = im.shards.put(s.ID, s)
	case sectionTopics:
		rs.topic(in)
	case sectionTombstones:
		t := &Tombstone{ID: in.topicID(), Name: in.string(), Partitions: int32(in.uint32()), DeletedAt: in.uint64()}
		if im.Tombstone(t.ID) != nil || im.TopicByID(t.ID) != nil {
			in.damaged("topic id %v twice", t.ID)
			return
		}
		im.tombstones = im.tombstones.put(t.ID, t)
	case sectionNodeLevels:
		id, level := NodeID(in.uint32()), in.uint16()
		n := im.Node(id)
		if n == nil || n.FeatureLevel > 0 || level == 0 {
			in.damaged("feature level %d of node %d", level, id)
			return
		}
		n.FeatureLevel = level // nobody has seen the node yet
	case sectionFencedNodes:
		id := NodeID(in.uint32())
		n := im.Node(id)
		if n == nil || n.Fenced {
			in.damaged("fenced node %d, which is not there, or twice", id)
			return
		}
		n.Fenced = true
	case sectionAddedShards:
		s := im.Shard(in.shard())
		if s == nil || s.CreatedAt > 0 {
			in.damaged("an added shard that is not there, or twice")
			return
		}
		s.CreatedAt, s.preferred = in.uint64(), NodeID(in.uint32())
		s.Founders = list(in, 12, func() Founder { return Founder{NodeID(in.uint32()), in.uint64()} })
		if s.CreatedAt == 0 || len(s.Founders) == 0 {
			in.damaged("shard %d, created at %d with %d founders", s.ID, s.CreatedAt, len(s.Founders))
		}
	}
}

func (rs *restorer) topic(in *reader) {
	im := &rs.im
	t := in.topic()
	if in.err != nil {
		return
	}
	for _, id := range t.Assignment {
		if im.Shard(id) == nil {
			in.damaged("topic %s on shard %d, which does not exist", t.Name, id)
			return
		}
	}
	if _, ok := im.folded.get(t.Name); ok || im.TopicByID(t.ID) != nil || CheckTopicName(t.Name) != nil || len(t.Assignment) == 0 {
		in.damaged("topic %q of id %v", t.Name, t.ID)
		return
	}
	im.topics = im.topics.put(t.ID, t)
	im.byName = im.byName.put(t.Name, t)
	im.folded = im.folded.put(t.Name, t.Name)
	im.shards = placed(im.shards, t.Assignment, 1)
}

func (im *Image) appendCluster(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(le.AppendUint64(b, im.index), im.term)
	b = le.AppendUint64(b, uint64(im.nextProducerID))
	return appendString(le.AppendUint16(b, im.featureLevel), im.clusterID)
}

func (n *Node) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(n.ID))
	b = binary.LittleEndian.AppendUint64(b, n.Incarnation)
	b = appendAddresses(appendString(b, n.Rack), n.Addresses)
	return binary.LittleEndian.AppendUint64(b, n.UpdatedAt)
}

func (r *reader) node() *Node {
	return &Node{
		ID: NodeID(r.uint32()), Incarnation: r.uint64(), Rack: r.string(),
		Addresses: list(r, 6, r.address), UpdatedAt: r.uint64(),
	}
}

func (n *Node) appendLevel(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(n.ID))
	return binary.LittleEndian.AppendUint16(b, n.FeatureLevel)
}

func (s *Shard) append(b []byte) []byte {
	b = appendNodes(binary.LittleEndian.AppendUint32(b, uint32(s.ID)), s.Replicas)
	return binary.LittleEndian.AppendUint64(b, s.UpdatedAt)
}

func (s *Shard) appendAdded(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(le.AppendUint32(b, uint32(s.ID)), s.CreatedAt)
	b = le.AppendUint32(le.AppendUint32(b, uint32(s.preferred)), uint32(len(s.Founders)))
	for _, f := range s.Founders {
		b = le.AppendUint64(le.AppendUint32(b, uint32(f.Node)), f.Directory)
	}
	return b
}

func (t *Topic) append(b []byte) []byte {
	le := binary.LittleEndian
	b = appendString(append(b, t.ID[:]...), t.Name)
	b = appendConfigs(appendShards(b, t.Assignment), t.Configs)
	b = le.AppendUint64(le.AppendUint64(b, t.CreatedAt), t.UpdatedAt)
	b = le.AppendUint32(b, uint32(len(t.Grown)))
	for _, g := range t.Grown {
		b = le.AppendUint64(le.AppendUint32(b, uint32(g.First)), g.At)
	}
	return b
}

func (r *reader) topic() *Topic {
	return &Topic{
		ID: r.topicID(), Name: r.string(), Assignment: list(r, 4, r.shard), Configs: r.configs(),
		CreatedAt: r.uint64(), UpdatedAt: r.uint64(),
		Grown: list(r, 12, func() Growth { return Growth{int32(r.uint32()), r.uint64()} }),
	}
}

func (t *Tombstone) append(b []byte) []byte {
	b = appendString(append(b, t.ID[:]...), t.Name)
	b = binary.LittleEndian.AppendUint32(b, uint32(t.Partitions))
	return binary.LittleEndian.AppendUint64(b, t.DeletedAt)
}
