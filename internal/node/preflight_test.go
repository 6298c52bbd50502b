package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// quietListener is a listener to which nobody connects.
type quietListener struct {
	closed chan struct{}
	once   sync.Once
}

func newQuietListener() *quietListener { return &quietListener{closed: make(chan struct{})} }

func (l *quietListener) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l *quietListener) Close() error              { l.once.Do(func() { close(l.closed) }); return nil }
func (l *quietListener) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9092} }

func startOn(t *testing.T, fsys vfs.FS, log *slog.Logger) (*Node, error) {
	t.Helper()
	return Start(t.Context(), Options{
		FS: fsys, Dir: "data", NodeID: 1, Version: "test", Listener: newQuietListener(), Shards: 2,
		JournalBytes: 8 * 32 << 10, JournalFileBytes: 32 << 10,
		Now: time.Now, Rand: &lockedRand{r: rand.NewChaCha8([32]byte{1})}, Log: log,
	})
}

// produceOne appends a record.
func produceOne(t *testing.T, n *Node, topic broker.Topic, index int32, p batch.Producer, value string) {
	t.Helper()
	var b batch.Builder
	b.Reset()
	b.SetProducer(p, false)
	if err := b.Append(946_684_800_000, []byte("key"), []byte(value), nil); err != nil {
		t.Fatal(err)
	}
	one, err := b.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []broker.ProduceResult, 1)
	n.broker.Produce([]broker.ProducePart{{Topic: topic.ID, Index: index, Batch: one}}, time.Minute, func(r []broker.ProduceResult) { got <- r })
	if r := <-got; r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
}

// filesOf returns the content of every file below the data directory.
func filesOf(t *testing.T, fsys vfs.FS) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	var walk func(dir string)
	walk = func(dir string) {
		names, err := fsys.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			full := path.Join(dir, name)
			info, err := fsys.Stat(full)
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				walk(full)
				continue
			}
			if files[full], err = vfs.ReadFile(fsys, full); err != nil {
				t.Fatal(err)
			}
		}
	}
	walk("data")
	return files
}

func sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// TestNewerRefused gives one file of each kind a newer version, and its checksum:
// the start is refused with a text that names file, versions and remedy, and not
// one operation that changes anything was done.
func TestNewerRefused(t *testing.T) {
	le := binary.LittleEndian
	tests := []struct {
		name  string
		file  func(name string) bool
		patch func(b []byte) []byte
		want  []string
	}{
		{"identity", func(n string) bool { return n == "data/IDENTITY" }, func(b []byte) []byte {
			body := bytes.Replace(bytes.SplitAfter(b, []byte("}"))[0], []byte(`"format":1`), []byte(`"format":2`), 1)
			return fmt.Appendf(body, "\n%08x\n", sum(body))
		}, []string{"format 2, this version reads up to 1"}},
		{"feature level", func(n string) bool { return n == "data/IDENTITY" }, func(b []byte) []byte {
			body := bytes.Replace(bytes.SplitAfter(b, []byte("}"))[0], fmt.Appendf(nil, `"feature_level":%d`, metadata.MaxFeatureLevel), []byte(`"feature_level":99`), 1)
			return fmt.Appendf(body, "\n%08x\n", sum(body))
		}, []string{fmt.Sprintf("feature level 99, this version knows up to %d", metadata.MaxFeatureLevel)}},
		{"journal", func(n string) bool { return n == "data/journal/00000001.journal" }, func(b []byte) []byte {
			le.PutUint32(b[4096+8:], 2)
			le.PutUint32(b[8192-4:], sum(b[4096:8192-4]))
			return b
		}, []string{"version 2", "reads version 1"}},
		{"votes", func(n string) bool { return strings.HasPrefix(n, "data/votes/") }, patchControl, []string{"record version 2, this build reads 1"}},
		{"metadata", func(n string) bool { return strings.HasPrefix(n, "data/metadata/") }, patchControl, []string{"record version 2, this build reads 1"}},
		{"checkpoint", func(n string) bool { return strings.HasPrefix(n, "data/shards/") }, func(b []byte) []byte {
			le.PutUint16(b[4:], 2)
			le.PutUint32(b[len(b)-4:], sum(b[:len(b)-4]))
			return b
		}, []string{"format 2", "reads format 1"}},
		{"segment", func(n string) bool { return strings.HasSuffix(n, ".seg") }, func(b []byte) []byte {
			le.PutUint16(b[8:], 2)
			le.PutUint32(b[124:], sum(b[:124]))
			return b
		}, []string{"format 2", "reads format 1"}},
		{"index", func(n string) bool { return strings.HasSuffix(n, ".index") }, func(b []byte) []byte {
			le.PutUint16(b[8:], 2)
			le.PutUint32(b[28:], sum(b[:28]))
			return b
		}, []string{"format 2", "reads format 1"}},
	}
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		origin := vfs.NewMem(1)
		n, err := startOn(t, origin, log)
		if err != nil {
			t.Fatal(err)
		}
		topic, err := n.broker.CreateTopic(t.Context(), broker.TopicSpec{Name: "t", Partitions: 4})
		if err != nil {
			t.Fatal(err)
		}
		for p := range int32(4) {
			produceOne(t, n, topic, p, batch.NoProducer, "value")
		}
		n.broker.Checkpoint()
		produceOne(t, n, topic, 0, batch.NoProducer, "only in the journal") // recovery has something to write
		synctest.Wait()
		clone := origin.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep})
		if err := n.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for _, tt := range tests {
			fsys := clone.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep})
			files := filesOf(t, fsys)
			names := slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(n string) bool {
				return !tt.file(n) || path.Base(n) == generationName || path.Base(n) == "RING"
			})
			if len(names) == 0 {
				t.Errorf("%s: no such file", tt.name)
				continue
			}
			file := names[len(names)-1]
			if err := vfs.WriteFile(fsys, file, tt.patch(bytes.Clone(files[file]))); err != nil {
				t.Fatal(err)
			}
			before := filesOf(t, fsys)
			var mu sync.Mutex
			var changes []string
			fsys.SetInjector(func(op vfs.Op) vfs.Fault {
				switch op.Kind {
				case vfs.OpOpen, vfs.OpReadAt, vfs.OpReadDir, vfs.OpStat, vfs.OpFree, vfs.OpLock:
				default:
					mu.Lock()
					changes = append(changes, fmt.Sprint(op.Kind, " ", op.Path))
					mu.Unlock()
				}
				return vfs.Fault{}
			})
			n, err := startOn(t, fsys, log)
			fsys.SetInjector(nil)
			if err == nil {
				t.Errorf("%s: it started", tt.name)
				_ = n.Close(t.Context())
				time.Sleep(time.Minute)
				continue
			}
			for _, want := range append(tt.want, file, "start the newer version") {
				if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: error = %v, want ErrNewer and %q", tt.name, err, want)
				}
			}
			if len(changes) > 0 {
				t.Errorf("%s: changed before it was refused: %q", tt.name, changes)
			}
			if after := filesOf(t, fsys); !maps.EqualFunc(before, after, bytes.Equal) {
				t.Errorf("%s: the files differ", tt.name)
			}
			// The newer version finds what it wrote; with the old file back, this
			// one starts.
			if err := vfs.WriteFile(fsys, file, files[file]); err != nil {
				t.Fatal(err)
			}
			if n, err = startOn(t, fsys, log); err != nil {
				t.Errorf("%s: with the file as it was: %v", tt.name, err)
				continue
			}
			if err := n.Close(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
		}
	})
}

// The check of partitions is bounded, and spread over all of them.
func TestEachInIsBounded(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	for i := range 25 {
		if err := fsys.MkdirAll(fmt.Sprintf("d/%02d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for limit, want := range map[int]int{10: 10, 25: 25, 1000: 25, 1: 1} {
		seen := make(map[string]bool)
		err := eachIn(fsys, "d", limit, func(_ vfs.FS, name string) error { seen[name] = true; return nil })
		if err != nil || len(seen) != want || limit == 10 && !seen["d/22"] {
			t.Errorf("limit %d: %v, %v", limit, seen, err)
		}
	}
}

// patchControl gives the last record of a control log another version.
func patchControl(b []byte) []byte {
	at, last := 0, 0
	for at < len(b) {
		size, w := binary.Uvarint(b[at:])
		if w <= 0 || size == 0 {
			break
		}
		last = at + w
		at += w + int(size)
	}
	f := b[last:at]
	f[26] = 2
	binary.LittleEndian.PutUint32(f, sum(f[4:]))
	return b
}
