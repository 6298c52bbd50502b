package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var update = flag.Bool("update", false, "write the table of docs/kafka.md instead of comparing it")

// startNode starts a node of the defaults, as the binary does, and returns its
// address.
func startNode(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(t.Context(), node.Options{
		FS: vfs.NewMem(1), Dir: "data", NodeID: 1, Version: "test", Listener: l,
		JournalBytes: 256 << 20, JournalFileBytes: 16 << 20, MemoryBytes: 256 << 20,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error("close:", err)
		}
	})
	return l.Addr().String()
}

// recordings are the recorded answers.
func recordings(t *testing.T) map[string][]step {
	t.Helper()
	out := make(map[string][]step)
	for _, sc := range scenarios {
		steps, err := load(os.DirFS("testdata"), sc.name)
		if err != nil {
			t.Fatal(err)
		}
		out[sc.name] = steps
	}
	return out
}

// TestRecorded compares a node with what Kafka answered when it was recorded.
// Fields that differ are as listed, no more and no fewer.
func TestRecorded(t *testing.T) {
	addr, recorded := startNode(t), recordings(t)
	var fields []field
	for _, sc := range scenarios {
		found, _, err := differ(sc, func(sc scenario) ([]step, error) { return recorded[sc.name], nil }, addr)
		if err != nil {
			t.Error(err)
		}
		fields = append(fields, found...)
	}
	unlisted, gone := judge(listed, fields)
	const shown = 200
	for _, f := range unlisted[:min(shown, len(unlisted))] {
		t.Errorf("not listed: %v", f)
	}
	if len(unlisted) > shown {
		t.Errorf("and %d more that are not listed", len(unlisted)-shown)
	}
	for _, d := range gone {
		t.Errorf("listed, but no longer so: %s: %s", d.step, d.path)
	}
}

// TestEveryVersion sees that every version of every request that Kafka serves
// for what is offered has recorded answers.
func TestEveryVersion(t *testing.T) {
	t.Parallel()
	var asked []string
	for _, steps := range recordings(t) {
		for _, s := range steps {
			words := strings.Fields(s.Step)
			asked = append(asked, strings.Join(words[:min(2, len(words))], " "))
		}
	}
	slices.Sort(asked)
	for key := range offered {
		each(key, func(v int16) {
			if want := fmt.Sprintf("%s v%d", key.Name(), v); !slices.Contains(asked, want) {
				t.Errorf("%s was never recorded", want)
			}
		})
	}
}

// TestOffered compares the versions that the scenarios ask for with those that
// the recorded Kafka says it serves.
func TestOffered(t *testing.T) {
	t.Parallel()
	served := make(map[string]versions)
	for _, s := range recordings(t)["apiversions"] {
		if s.Step != "ApiVersions v4 plain" {
			continue
		}
		for _, k := range s.Answer.(map[string]any)["ApiKeys"].([]any) {
			m := k.(map[string]any)
			var key, v versions
			for name, to := range map[string]*int16{"ApiKey": &key.max, "MinVersion": &v.min, "MaxVersion": &v.max} {
				if m[name] != nil {
					if _, err := fmt.Sscan(fmt.Sprint(m[name]), to); err != nil {
						t.Fatal(err)
					}
				}
			}
			served[kmsg.NameForKey(key.max)] = v
		}
	}
	for key, v := range offered {
		if key == kmsg.Produce {
			v.min = 0 // said, so that old clients compress; not served below 3
		}
		if got := served[key.Name()]; got != v {
			t.Errorf("%s is asked in versions %v, and Kafka %s serves %v", key.Name(), v, kafkaVersion, got)
		}
	}
}

// TestNothingElseRecorded sees that each file in testdata is a scenario's.
func TestNothingElseRecorded(t *testing.T) {
	t.Parallel()
	entries, err := fs.ReadDir(os.DirFS("testdata"), ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".jsonl")
		if !slices.ContainsFunc(scenarios, func(sc scenario) bool { return sc.name == name }) {
			t.Errorf("testdata/%s belongs to no scenario", e.Name())
		}
	}
}

// Marks around the table in docs/kafka.md.
const (
	begin = "<!-- differences: begin, written by go test ./internal/kafkadiff -run TestDocs -update -->\n"
	end   = "<!-- differences: end -->\n"
)

// TestDocs compares the table of docs/kafka.md with the list.
func TestDocs(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "kafka.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("docs/kafka.md lacks the marks %q and %q", begin, end)
	}
	want := table(listed)
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("the table of differences in docs/kafka.md is not that of the list; run the command that stands above it")
	}
}
