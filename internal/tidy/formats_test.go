package tidy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

const formatsPage = "docs/formats.md"

// TestFormatsOfADirectory makes a data directory and holds docs/formats.md
// against it: the page names every file, and its table gives each format's
// magic and version as the files have them. The reader that says so knows the
// page's boxes and nothing of the code.
func TestFormatsOfADirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	serveTwice(t, dir)
	root := os.DirFS(dir)
	var names []string
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	checkNames(t, names)

	o := newOffline(root)
	for _, name := range names {
		if err := o.file(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(formatsTable(t), o.seen); diff != "" {
		t.Errorf("formats (-%s +files):\n%s", formatsPage, diff)
	}
}

// TestFormatsOfGoldenFiles reads the golden files with the same reader: their
// packages wrote in them what a fresh directory need not hold.
func TestFormatsOfGoldenFiles(t *testing.T) {
	t.Parallel()
	o := newOffline(os.DirFS(root))
	o.opaque = true
	read := map[string]func(name string, b []byte) error{
		"internal/node/testdata/golden/v1/IDENTITY":   func(_ string, b []byte) error { return o.identity(b) },
		"internal/node/testdata/golden/v1/GENERATION": func(_ string, b []byte) error { return o.generation(b) },
		"log/journal/testdata/golden/v1/RING":         func(_ string, b []byte) error { return o.ring(b) },
		"log/journal/testdata/golden/v1/*.journal":    func(_ string, b []byte) error { return o.journal(append(b, make([]byte, 32<<10-len(b))...)) },
		"log/control/testdata/golden/v1/*/*":          o.control,
		"log/segment/testdata/golden/v1/*.seg":        func(_ string, b []byte) error { _, err := o.segment(b); return err },
		"log/segment/testdata/golden/v1/*.index":      o.index,
		"replication/testdata/golden/v1/*": func(name string, b []byte) error {
			body, err := o.checkpoint(name, b)
			if err == nil && !bytes.HasSuffix(body, []byte("\n")) {
				err = fmt.Errorf("body %q", body)
			}
			return err
		},
		"partition/testdata/golden/checkpoint-*.bin":      func(_ string, b []byte) error { return o.sections(b, o.partitionItem) },
		"partition/testdata/golden/entry-*.bin":           func(_ string, b []byte) error { return o.entry(b) },
		"broker/metadata/testdata/golden/snapshot-*.bin":  func(_ string, b []byte) error { return o.sections(b, nil) },
		"consumergroup/testdata/golden/snapshot-*.bin":    func(_ string, b []byte) error { return o.sections(b, groupItem) },
		"broker/metadata/testdata/golden/commands-v1.txt": func(_ string, b []byte) error { return o.commands(b) },
		"log/batch/testdata/golden/*.bin":                 func(_ string, b []byte) error { return o.batches(b) },
	}
	for _, pattern := range slices.Sorted(maps.Keys(read)) {
		names, err := fs.Glob(o.fs, pattern)
		if err != nil || len(names) == 0 {
			t.Errorf("%s: %d files, %v", pattern, len(names), err)
		}
		for _, name := range names {
			b, err := fs.ReadFile(o.fs, name)
			if err == nil {
				err = read[pattern](name, b)
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if diff := cmp.Diff(formatsTable(t), o.seen); diff != "" {
		t.Errorf("formats (-%s +golden files):\n%s", formatsPage, diff)
	}
}

var goldenPath = regexp.MustCompile("[a-z][a-z0-9/]*/testdata/golden[a-zA-Z0-9/._-]*")

// TestGoldenPaths checks that the golden files that the page mentions are
// there, and that it mentions every folder of them.
func TestGoldenPaths(t *testing.T) {
	t.Parallel()
	mentioned := goldenPath.FindAllString(string(read(t, formatsPage)), -1)
	for _, name := range mentioned {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(name))); err != nil {
			t.Errorf("%s mentions %s: %v", formatsPage, name, err)
		}
	}
	files(t, func(name string) {
		covers := func(m string) bool { return within(name, strings.TrimSuffix(m, "/")) }
		if strings.Contains(name, "/testdata/golden/") && !slices.ContainsFunc(mentioned, covers) {
			t.Errorf("%s does not mention %s", formatsPage, name)
		}
	})
}

// tableAfter returns the cells of the first table below a heading of the page,
// without its head.
func tableAfter(t *testing.T, heading string) (rows [][]string) {
	t.Helper()
	_, text, ok := strings.Cut(string(read(t, formatsPage)), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", formatsPage, heading)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "## ") || !strings.HasPrefix(line, "|") && len(rows) > 0 {
			break
		}
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("%s has no table below %q", formatsPage, heading)
	}
	return rows[2:]
}

// checkNames matches the files of a directory with the page's table of names.
// Files that a row calls passing are gone once what they were for is done.
func checkNames(t *testing.T, names []string) {
	t.Helper()
	placeholders := strings.NewReplacer(
		"<8 digits>", "[0-9]{8}", "<20 digits>", "[0-9]{20}", "<32 hex>", "[0-9a-f]{32}", "<n>", "(0|[1-9][0-9]*)", ".", `\.`)
	hits := make(map[string]int)
	for _, row := range tableAfter(t, "## The data directory") {
		passing := strings.HasPrefix(row[1], "passing")
		for _, name := range codes(row[0]) {
			re := regexp.MustCompile("^" + placeholders.Replace(name) + "$")
			found := 0
			for _, file := range names {
				if re.MatchString(file) {
					hits[file]++
					found++
				}
			}
			if passing != (found == 0) {
				t.Errorf("%s lists %s, passing %t, and there are %d", formatsPage, name, passing, found)
			}
		}
	}
	for _, file := range names {
		if hits[file] != 1 {
			t.Errorf("%s names %s %d times, want once", formatsPage, file, hits[file])
		}
	}
}

var code = regexp.MustCompile("`([^`]+)`")

// codes returns what stands in backquotes in s.
func codes(s string) (out []string) {
	for _, m := range code.FindAllStringSubmatch(s, -1) {
		out = append(out, m[1])
	}
	return out
}

// formatsTable returns the page's table of formats.
func formatsTable(t *testing.T) map[string]mark {
	t.Helper()
	table := make(map[string]mark)
	for _, row := range tableAfter(t, "## Formats at a glance") {
		var m mark
		if c := codes(row[2]); len(c) > 0 {
			m.Magic = c[0]
		}
		if _, err := fmt.Sscan(row[3], &m.Version); err != nil {
			t.Fatalf("%s: version of %s: %v", formatsPage, row[0], err)
		}
		table[row[0]] = m
	}
	return table
}

// serveTwice leaves in dir what a node leaves that was started twice, took
// records each time, and was closed: its second checkpoint is a delta.
func serveTwice(t *testing.T, dir string) {
	t.Helper()
	var topic []byte
	serve(t, dir, func(c conn) error {
		answer, err := c.ask(vector(t, "create-topic-request"))
		if err != nil {
			return err
		}
		topic = answer[bytes.Index(vector(t, "create-topic-response"), vectorTopic):][:len(vectorTopic)]
		if _, err = c.ask(vector(t, "init-producer-request")); err != nil { // the first id of all: 0
			return err
		}
		_, err = c.ask(produce(vector(t, "produce-request"), topic, 0))
		return err
	})
	serve(t, dir, func(c conn) error {
		_, err := c.ask(produce(vector(t, "produce-request"), topic, 2))
		return err
	})
}

// serve starts a node, lets a client use it, and closes it.
func serve(t *testing.T, dir string, use func(c conn) error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(t.Context(), node.Options{
		FS: vfs.OS, Dir: dir, NodeID: 1, Version: "tidy", Listener: l,
		Shards: 1, JournalFileBytes: 32 << 10, JournalBytes: 4 * 32 << 10,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(l.Addr().String(), vector(t, "hello-request"))
	if err == nil {
		defer c.Close()
		err = use(c)
	}
	if err != nil {
		t.Error(err)
	}
	if err := n.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// vectorTopic is the topic id in the frames of docs/vectors.
var vectorTopic = []byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4c, 0xde, 0x8f, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd}

// vector returns a frame of docs/vectors.
func vector(t *testing.T, name string) []byte {
	t.Helper()
	var v struct{ Hex string }
	if err := json.Unmarshal(read(t, path.Join("docs/vectors", name+".json")), &v); err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(v.Hex)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// produce gives a produce request another topic, and its batch, with which it
// ends, the producer id 0 and another first sequence number.
func produce(frame, topic []byte, sequence int) []byte {
	frame = bytes.Replace(frame, vectorTopic, topic, 1)
	b := frame[len(frame)-90:]
	be.PutUint64(b[43:], 0)
	be.PutUint32(b[53:], uint32(sequence))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return frame
}

// conn is a connection that speaks in frames of docs/vectors: this package may
// not import the client.
type conn struct{ net.Conn }

// dial connects, with the magic and the frame hello.
func dial(addr string, hello []byte) (conn, error) {
	nc, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return conn{}, err
	}
	c := conn{nc}
	magic := []byte{0xf1, 'F', 'L', 'O'}
	if err = c.SetDeadline(time.Now().Add(time.Minute)); err == nil {
		_, err = c.Write(append(magic, hello...))
	}
	if err == nil {
		_, err = io.ReadFull(c, magic)
	}
	if err == nil {
		_, err = c.answer()
	}
	if err != nil {
		_ = c.Close()
	}
	return c, err
}

// ask sends a frame and returns the one that answers it.
func (c conn) ask(frame []byte) ([]byte, error) {
	if _, err := c.Write(frame); err != nil {
		return nil, err
	}
	return c.answer()
}

func (c conn) answer() ([]byte, error) {
	frame := make([]byte, 4)
	if _, err := io.ReadFull(c, frame); err != nil {
		return nil, err
	}
	frame = append(frame, make([]byte, be.Uint32(frame))...)
	if _, err := io.ReadFull(c, frame[4:]); err != nil {
		return nil, err
	}
	if flags := frame[9]; flags != 1 {
		return nil, fmt.Errorf("answer of kind %d, flags %d: %q", frame[8], flags, frame[16:])
	}
	return frame, nil
}
