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

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/config"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var update = flag.Bool("update", false, "write the tables of docs/kafka.md instead of comparing them")

// startNode starts a node with the settings that withFlotilla gives to the binary, and
// returns its address.
func startNode(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	settings, err := config.Resolve(config.Sources{Flags: nodeSettings})
	if err != nil {
		t.Fatal(err)
	}
	groups := consumergroup.DefaultOptions()
	groups.InitialRebalanceDelay, groups.ConsumerHeartbeatIntervalMin = 0, groups.ConsumerHeartbeatInterval
	n, err := node.Start(t.Context(), node.Options{
		FS: vfs.NewMem(1), Dir: "data", NodeID: 1, Version: "test", Listener: l, Settings: settings.Kafka(),
		JournalBytes: 256 << 20, JournalFileBytes: 16 << 20, MemoryBytes: 256 << 20, Groups: groups,
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
	var steps []played
	var all []*comparison
	for _, sc := range scenarios {
		c, err := differ(sc, func(sc scenario) ([]step, error) { return recorded[sc.name], nil }, addr)
		if err != nil {
			t.Fatal(err)
		}
		fields, steps, all = append(fields, c.fields...), append(steps, c.steps()...), append(all, c)
	}
	wrong := judge(listed, steps, fields)
	const shown = 200
	for _, w := range wrong[:min(shown, len(wrong))] {
		t.Error(w)
	}
	if len(wrong) > shown {
		t.Errorf("and %d more", len(wrong)-shown)
	}
	if len(wrong) == 0 {
		listedHidesNothing(t, all)
	}
}

// listedHidesNothing changes each value of the node's answers that have listed
// differences, one at a time, and sees that it would not have passed.
func listedHidesNothing(t *testing.T, all []*comparison) {
	t.Helper()
	var exact []difference // without braces
	for i := range listed {
		exact = append(exact, listed[i].expand()...)
	}
	changed := 0
	for _, c := range all {
		kafka := make(map[string]any)
		for _, s := range c.kafka {
			kafka[s.Step] = s.Answer
		}
		differs := make(map[string]bool)
		for _, f := range c.fields {
			differs[f.step] = f.path != notBoth
		}
		done := make(map[string]bool)
		for _, s := range c.ours {
			b, err := encode(s.Answer)
			if err != nil {
				t.Fatal(err)
			}
			form := digits.ReplaceAllString(string(b), "")
			if !differs[s.Step] || done[form] {
				continue
			}
			done[form] = true
			here := []played{parts(c.scenario, s.Step)}
			var about []difference
			for i := range exact {
				if exact[i].matches(&here[0]) {
					about = append(about, exact[i])
				}
			}
			theirs, was := leaves(kafka[s.Step]), leaves(s.Answer)
			passes := func(ours map[string]string) bool {
				fields := compareLeaves(theirs, ours)
				for i := range fields {
					fields[i].scenario, fields[i].step = c.scenario, s.Step
				}
				wrong, _ := explain(about, here, fields)
				return len(wrong) == 0
			}
			if !passes(was) {
				t.Fatalf("%s: %s: not as listed by itself", c.scenario, s.Step)
			}
			changes(s.Answer, func(v any) {
				now := leaves(v)
				if len(compareLeaves(was, now)) == 0 {
					return // another text for people
				}
				changed++
				if passes(now) {
					got, _ := encode(v)
					t.Errorf("%s: %s: the list would also explain\n%s\nin place of\n%s", c.scenario, s.Step, got, b)
				}
			})
		}
	}
	t.Logf("%d values changed", changed)
	if changed < 5_000 {
		t.Errorf("only %d values changed", changed)
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

// generated are the tables of docs/kafka.md that are made here, by their names.
var generated = map[string]func(t *testing.T) string{
	"coverage":    func(t *testing.T) string { return coverage(tallies(recordings(t))) },
	"differences": func(*testing.T) string { return table(listed) },
}

// TestDocs compares the tables of docs/kafka.md with what they tell of.
func TestDocs(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "kafka.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	docs := string(b)
	for name, want := range generated {
		begin := "<!-- " + name + ": begin, written by go test ./internal/kafkadiff -run TestDocs -update -->\n"
		end := "<!-- " + name + ": end -->\n"
		before, rest, ok := strings.Cut(docs, begin)
		got, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("docs/kafka.md lacks the marks %q and %q", begin, end)
		}
		switch text := want(t); {
		case *update:
			docs = before + begin + text + end + after
		case got != text:
			t.Errorf("the table of %s in docs/kafka.md is not as it should be; run the command that stands above it", name)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(docs), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
