package node

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/replication"
)

const goldenDir = "testdata/golden/directory-v1"

// manifest is what a golden directory holds, as a client sees it, and the hashes
// that its shards' states had at the entries that asked for them.
type manifest struct {
	Topics []manifestTopic
	Hashes map[string]string // by "shard/index"
}

type manifestTopic struct {
	Name       string
	ID         string
	Partitions []manifestPartition
}

type manifestPartition struct {
	LogStart, End int64
	Values        []string // shortened, from LogStart on, with their offsets
}

// goldenOptions are of the node that makes a golden directory: shard 1 stays at
// apply version 1, as if another replica of it knew no more.
func goldenOptions(fsys vfs.FS) Options {
	return Options{
		FS: fsys, Dir: "data", NodeID: 1, ClusterID: "golden", Version: "test", Listener: newQuietListener(), Shards: 2,
		JournalBytes: 4 * 32 << 10, JournalFileBytes: 32 << 10, ProducerExpiry: time.Hour, HashInterval: 1000 * time.Hour,
		Now: time.Now, Rand: &lockedRand{r: rand.NewChaCha8([32]byte{7})}, Log: slog.New(slog.DiscardHandler),
		replicaVersions: func(shard replication.ShardID) []uint16 { return []uint16{uint16(shard)} },
	}
}

// lockedRand is randomness for the whole node.
type lockedRand struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedRand) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(b)
}

// makeGolden makes a directory in which there is something of everything: sealed
// segments, a journal that was used again, a base and deltas, idempotent
// producers, known and expired, a deleted topic, one that was made again under its
// name, and entries above the newest checkpoints. Apart from topic ids, what it
// holds depends on nothing; the order in which the shards come to write to the
// journal, and to draw random numbers, does.
func makeGolden(t *testing.T) *vfs.Mem {
	t.Helper()
	fsys := vfs.NewMem(1)
	n, err := Start(t.Context(), goldenOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	create := func(name string, partitions int32, configs map[string]string) broker.Topic {
		topic, err := n.broker.CreateTopic(t.Context(), broker.TopicSpec{Name: name, Partitions: partitions, Configs: configs})
		if err != nil {
			t.Fatal(err)
		}
		return topic
	}
	remove := func(topic broker.Topic) {
		if err := n.broker.DeleteTopic(t.Context(), topic.ID); err != nil {
			t.Fatal(err)
		}
	}
	takeProducerIDs(t, n) // those below 1000
	orders := create("orders", 4, nil)
	sealed := create("sealed", 1, map[string]string{"segment.bytes": "1048576"}) // the least
	passing := create("passing", 2, nil)
	create("many", 40, nil) // makes the bases large, so that deltas are not folded at once
	for p := range int32(4) {
		produceOne(t, n, orders, p, batch.Producer{ID: 100 + int64(p), Epoch: 1}, fmt.Sprintf("order %d", p))
	}
	for i := range 190 {
		produceOne(t, n, sealed, 0, batch.NoProducer, fmt.Sprint(i, strings.Repeat("s", 5700)))
		if i%4 == 0 {
			produceOne(t, n, passing, int32(i/4%2), batch.NoProducer, strings.Repeat("p", 5000))
		}
	}
	n.broker.Checkpoint()
	remove(passing)
	remove(create("short-lived", 1, nil))
	create("short-lived", 3, nil)
	time.Sleep(2 * time.Hour) // producers of shard 2 expire, those of shard 1 cannot
	for p := range int32(4) {
		produceOne(t, n, orders, p, batch.Producer{ID: 200, Epoch: 0}, "after two hours")
	}
	n.broker.Checkpoint()
	for seq := range int32(3) {
		produceOne(t, n, orders, 1, batch.Producer{ID: 300, Sequence: seq}, fmt.Sprintf("above the checkpoint %d", seq))
		produceOne(t, n, orders, 2, batch.Producer{ID: 300, Sequence: seq}, fmt.Sprintf("above the checkpoint %d", seq))
	}
	for shard := range uint32(2) {
		if err := n.broker.AskStateHash(t.Context(), shard+1); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
	clone := fsys.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep})
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	return clone
}

// takeProducerIDs has a block of producer ids given out.
func takeProducerIDs(t *testing.T, n *Node) {
	t.Helper()
	if _, err := n.broker.InitProducer(t.Context(), broker.Producer{ID: -1}); err != nil {
		t.Fatal(err)
	}
}

// describe reads everything that a node serves.
func describe(t *testing.T, n *Node) manifest {
	t.Helper()
	m := manifest{Hashes: make(map[string]string)}
	for topic := range n.broker.Topics("") {
		mt := manifestTopic{Name: topic.Name, ID: fmt.Sprint(topic.ID)}
		for i := range topic.Partitions {
			s := n.broker.DescribePartition(topic.ID, int32(i))
			mp := manifestPartition{LogStart: s.LogStart, End: s.HighWatermark}
			for mp.LogStart+int64(len(mp.Values)) < mp.End {
				at := mp.LogStart + int64(len(mp.Values))
				mp.Values = append(mp.Values, valuesAt(t, n, topic.ID, int32(i), at)...)
			}
			mt.Partitions = append(mt.Partitions, mp)
		}
		m.Topics = append(m.Topics, mt)
	}
	for _, h := range n.broker.StateHashes() {
		m.Hashes[fmt.Sprintf("%d/%d", h.Shard, h.Index)] = fmt.Sprintf("%x", h.Hash[:])
	}
	return m
}

// valuesAt returns the records of one fetch.
func valuesAt(t *testing.T, n *Node, topic broker.TopicID, index int32, offset int64) (values []string) {
	t.Helper()
	got := make(chan []broker.FetchResult, 1)
	n.broker.Fetch(broker.FetchRequest{MaxBytes: 1 << 20, Parts: []broker.FetchPart{
		{Topic: topic, Index: index, Offset: offset, MaxBytes: 1 << 20, Epoch: -1},
	}}, func(r []broker.FetchResult) { got <- r })
	r := (<-got)[0]
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	defer r.Release()
	var raw []byte
	for _, c := range r.Chunks {
		var err error
		if raw, err = c.AppendTo(raw); err != nil {
			t.Fatal(err)
		}
	}
	for len(raw) > 0 {
		one, rest, err := batch.Split(raw)
		if err == nil {
			err = batch.CheckCRC(one)
		}
		var it batch.Iterator
		if err = errors.Join(err, it.Reset(one, 0)); err != nil {
			t.Fatal(err)
		}
		for rec, ok := it.Next(); ok; rec, ok = it.Next() {
			values = append(values, fmt.Sprintf("%d: %s=%.24s (%d bytes) at %d", rec.Offset, rec.Key, rec.Value, len(rec.Value), rec.Timestamp))
		}
		raw = rest
	}
	if len(values) == 0 {
		t.Fatalf("nothing at offset %d", offset)
	}
	return values
}

// loadGolden copies the committed directory, or another, to a disk of its own.
func loadGolden(t *testing.T, files map[string][]byte) *vfs.Mem {
	t.Helper()
	fsys := vfs.NewMem(2)
	for name, b := range files {
		if err := errors.Join(vfs.MkdirAllSync(fsys, path.Dir(name)), vfs.WriteFile(fsys, name, b)); err != nil {
			t.Fatal(err)
		}
	}
	return fsys
}

// openGolden opens a copy with today's code, and says what it holds. Its shards
// are raised to today's apply version, it takes records, and is opened again.
func openGolden(t *testing.T, files map[string][]byte) (m manifest) {
	t.Helper()
	fsys := loadGolden(t, files)
	opt := goldenOptions(fsys)
	opt.replicaVersions = nil
	n, err := Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	m = describe(t, n)
	takeProducerIDs(t, n) // nobody did when the directory was made
	for topic := range n.broker.Topics("") {
		produceOne(t, n, topic, 0, batch.Producer{ID: 300, Sequence: 3}, "of today")
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	opt.Listener, opt.Rand = newQuietListener(), &lockedRand{r: rand.NewChaCha8([32]byte{8})}
	if n, err = Start(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	again := describe(t, n)
	for i := range again.Topics {
		p := &again.Topics[i].Partitions[0]
		if last := p.Values[len(p.Values)-1]; !strings.Contains(last, "of today") {
			t.Errorf("topic %s ends with %s", again.Topics[i].Name, last)
		}
		p.Values, p.End = p.Values[:len(p.Values)-1:len(p.Values)-1], p.End-1
		if len(p.Values) == 0 {
			p.Values = nil
		}
	}
	if d := cmp.Diff(m.Topics, again.Topics); d != "" {
		t.Errorf("opened again (-first +again):\n%s", d)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	return m
}

// TestGoldenDirectory opens the directory that a node of format 1 left, and
// compares every record, offset and state hash with its manifest. A difference
// means that old directories are read differently. -update makes both anew.
func TestGoldenDirectory(t *testing.T) {
	manifestFile := filepath.Join(goldenDir, "MANIFEST.json")
	synctest.Test(t, func(t *testing.T) {
		if *update {
			files := filesOf(t, makeGolden(t))
			checkGolden(t, files)
			if err := os.RemoveAll(goldenDir); err != nil {
				t.Fatal(err)
			}
			text, err := json.MarshalIndent(openGolden(t, files), "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			files["MANIFEST.json"] = append(text, '\n')
			writeGolden(t, goldenDir, files)
		}
		files := readGolden(t, goldenDir)
		text, err := os.ReadFile(manifestFile)
		var want manifest
		if err := errors.Join(err, json.Unmarshal(text, &want)); err != nil {
			t.Fatal(err)
		}
		checkGolden(t, files)
		if d := cmp.Diff(want, openGolden(t, files)); d != "" {
			t.Errorf("the golden directory (-manifest +read):\n%s", d)
		}
	})
}

// writeGolden writes a golden directory, with all files but its .json ones
// compressed.
func writeGolden(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if !strings.HasSuffix(name, ".json") {
			name, b = name+".gz", compress(t, b)
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// readGolden reads the data of a golden directory.
func readGolden(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	err := fs.WalkDir(os.DirFS(dir), "data", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[strings.TrimSuffix(name, ".gz")], err = decompress(filepath.Join(dir, name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// compress makes the smallest gzip file of b.
func compress(t *testing.T, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func decompress(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// TestGoldenGenerator makes a directory anew: it holds what the committed one
// does, so that the generator is known to make what is committed.
func TestGoldenGenerator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := filesOf(t, makeGolden(t))
		checkGolden(t, files)
		got := openGolden(t, files)
		text, err := os.ReadFile(filepath.Join(goldenDir, "MANIFEST.json"))
		var want manifest
		if err := errors.Join(err, json.Unmarshal(text, &want)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want.Topics, got.Topics, cmpopts.IgnoreFields(manifestTopic{}, "ID")); d != "" {
			t.Errorf("a new directory (-manifest +made):\n%s", d)
		}
	})
}

// checkGolden wants something of everything in a golden directory.
func checkGolden(t *testing.T, files map[string][]byte) {
	t.Helper()
	count := func(pattern string) (n int) {
		for name := range files {
			if ok, _ := path.Match(pattern, name); ok {
				n++
			}
		}
		return n
	}
	reused := 0
	for name, b := range files {
		// A file's sequence is above its slot once it is used again.
		if strings.HasSuffix(name, ".journal") && b[40] > 4 {
			reused++
		}
	}
	for what, ok := range map[string]bool{
		"a journal that was used again": reused > 0,
		"deltas of both shards":         count("data/shards/[12]/*-delta.checkpoint") >= 2,
		"a base of each shard":          count("data/shards/*/*-base.checkpoint") == 3,
		"sealed segments":               count("data/partitions/*/*.seg") > count("data/partitions/*/"+fmt.Sprintf("%020d", 0)+".seg"),
		"an index of each segment":      count("data/partitions/*/*.seg") == count("data/partitions/*/*.index"),
		"votes, metadata and identity":  count("data/votes/*") > 0 && count("data/metadata/*") > 0 && bytes.Contains(files["data/IDENTITY"], []byte(`"feature_level":`)),
	} {
		if !ok {
			t.Errorf("the golden directory does not hold %s", what)
		}
	}
}
