package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// TestSettings holds the table to its own rules.
func TestSettings(t *testing.T) {
	t.Parallel()
	variables := make(map[string]string)
	for i := range Settings {
		s := &Settings[i]
		if before, twice := variables[s.Variable()]; twice {
			t.Errorf("%s and %s have the same variable", before, s.Key)
		}
		variables[s.Variable()] = s.Key
		if s.Key != strings.ToLower(s.Key) || s.Doc == "" || strings.HasSuffix(s.Doc, ".") || s.Section == "" {
			t.Errorf("%s: doc %q, section %q", s.Key, s.Doc, s.Section)
		}
		if s.Section == sectionLimits && (s.Metric == "" || s.Error == "") {
			t.Errorf("%s is a limit without metric or error", s.Key)
		}
		if s.computed != nil && (s.Default != "" || s.DefaultText == "") {
			t.Errorf("%s: a computed default needs words, and no value", s.Key)
		}
		if s.computed == nil {
			text, _, err := s.Parse(s.Default)
			if err != nil || text != s.Default {
				t.Errorf("%s: the default %q is read as %q, %v", s.Key, s.Default, text, err)
			}
		}
		if s.Kind != Text && s.Kind != Bool && s.Kind != Choice && s.Min >= s.Max {
			t.Errorf("%s: from %d to %d", s.Key, s.Min, s.Max)
		}
	}
}

// TestPrecedence gives one setting in every way.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	src := Sources{
		Flags:   map[string]string{"node.id": "3"},
		Environ: []string{"FLOTILLA_NODE_ID=2", "FLOTILLA_FLUSH_AGE=2s", "NODE_ID=9"},
		File:    ParseFile("f.yaml", []byte("node: {id: 1}\nflush.age: 1s\nlog:\n  level: warn\n")),
	}
	v, err := Resolve(src)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string][2]string{
		"node.id":    {"3", "--node.id"},
		"flush.age":  {"2s", "FLOTILLA_FLUSH_AGE"},
		"log.level":  {"warn", "f.yaml:4"},
		"log.format": {"text", "default"},
	} {
		if got := v.Of(key); got.Text != want[0] || got.From() != want[1] {
			t.Errorf("%s is %q from %s, want %q", key, got.Text, got.From(), want)
		}
	}
	if v.Int("node.id") != 3 || v.Duration("flush.age") != 2*time.Second || v.Bytes("journal.bytes") != 1<<30 || v.Bool("admin.pprof") {
		t.Errorf("values %v", v.All())
	}
}

// TestFileProblems gives files that are wrong: every problem is named, with its
// line and what to do.
func TestFileProblems(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, file string
		want       []string
	}{
		{"unknown", "journal:\n  byts: 1GiB\n", []string{"f:2: unknown setting journal.byts; did you mean journal.bytes?"}},
		{"unknown mapping", "jornal:\n  bytes: 1GiB\n", []string{"f:1: unknown setting jornal;"}},
		{"all at once", "node.id: x\nlog.level: loud\nmemory.bytes: 1KiB\nfoo: 1\n", []string{
			`f:4: unknown setting foo`, `f:1: node.id: "x" is not a whole number`, `f:3: memory.bytes: 1KiB is out of range; give 4MiB to 16TiB`,
			`f:2: log.level: "loud": give debug, info, warn or error`,
		}},
		{"twice", "journal.bytes: 1GiB\njournal:\n  bytes: 2GiB\n", []string{"f:3: journal.bytes is given in line 1 already"}},
		{"list", "node.id: [1, 2]\n", []string{"f:1: node.id: give one value, not a list"}},
		{"mapping at a setting", "node.id: {x: 1}\n", []string{"f:1: unknown setting node.id.x"}},
		{"no value", "node.id:\n", []string{"f:1: node.id has no value"}},
		{"alias", "log.level: &a info\nlog.format: *a\n", []string{"f:1: log.level: anchors", "f:2: log.format: anchors"}},
		{"merge", "<<: {node.id: 1}\n", []string{"f:1: unknown setting <<"}},
		{"not a mapping", "- node.id\n", []string{"f:1: give settings as KEY: VALUE"}},
		{"text", "hello\n", []string{"f:1: give settings as KEY: VALUE"}},
		{"no YAML", "a: b: c\n\t- x", []string{"f: "}},
		{"two documents", "node.id: 1\n---\nnode.id: 2\n", []string{"f: more than one YAML document"}},
		{"too large", strings.Repeat("#", MaxFileBytes+1), []string{"f: larger than 1MiB"}},
		{"a key that is no text", "? [a]\n: b\n", []string{"f:1: a key is text"}},
		{"together", "journal.bytes: 1MiB\n", []string{"f:1: journal.bytes 1MiB is less than 4 files of journal.file.bytes 64MiB"}},
	}
	for _, tt := range tests {
		_, err := Resolve(Sources{File: ParseFile("f", []byte(tt.file))})
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrInvalid) || len(e.Problems) != len(tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
			continue
		}
		for i, want := range tt.want {
			if !strings.HasPrefix(e.Problems[i], want) {
				t.Errorf("%s: problem %q, want %q", tt.name, e.Problems[i], want)
			}
		}
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "~\n"} {
		if _, err := Resolve(Sources{File: ParseFile("f", []byte(empty))}); err != nil {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

// TestTogether gives values that are good alone and not together.
func TestTogether(t *testing.T) {
	t.Parallel()
	tests := []struct {
		flags map[string]string
		open  int64
		want  string
	}{
		{map[string]string{"journal.bytes": "1MiB"}, 0, "--journal.bytes 1MiB is less than 4 files"},
		{map[string]string{"files.max": "2000"}, 1000, "raise its limit (ulimit"},
		{map[string]string{"connections.max": "900"}, 1000, "--connections.max 900 does not fit into files.max 1000"},
		{map[string]string{"connections.max.per.ip": "20000"}, 0, "--connections.max.per.ip 20000 is more than connections.max"},
		{map[string]string{"topics.partitions.max": "7", "partitions.max": "6"}, 0, "--topics.partitions.max 7 is more than"},
		{map[string]string{"request.bytes.max": "17MiB", "batch.bytes.max": "1GiB", "journal.file.bytes": "128MiB"}, 0, "--request.bytes.max 17MiB is less than --batch.bytes.max 32MiB and 64KiB"},
		{map[string]string{"data.dir": ""}, 0, "--data.dir: give a directory"},
		{map[string]string{"listen": "nowhere"}, 0, "HOST:PORT"},
		{map[string]string{"listen": ":0"}, 0, "--advertise"},
		{map[string]string{"listen": "h:1,x=:0"}, 0, "say with --advertise x=HOST:PORT"},
		{map[string]string{"advertise": "h:0"}, 0, "--advertise: advertise"},
		{map[string]string{"admin.listen": "on"}, 0, "--admin.listen"},
	}
	for _, tt := range tests {
		_, err := Resolve(Sources{Flags: tt.flags, Machine: Machine{OpenFiles: tt.open}})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.flags, err, tt.want)
		}
	}
}

// TestComputed computes defaults for machines of all sizes.
func TestComputed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		m                    Machine
		memory, conns, files int64
	}{
		{Machine{}, 1 << 30, 512, 1024},
		{Machine{MemoryBytes: 64 << 30, OpenFiles: 1 << 30}, 2 << 30, 10_000, 1 << 20},
		{Machine{MemoryBytes: 2<<30 + 5, OpenFiles: 4096}, 512 << 20, 2048, 4096},
		{Machine{MemoryBytes: 1 << 20, OpenFiles: 300}, 64 << 20, 150, 300},
	}
	for _, tt := range tests {
		v, err := Resolve(Sources{Machine: tt.m})
		if err != nil {
			t.Errorf("%+v: %v", tt.m, err)
			continue
		}
		if m, c, f := v.Bytes("memory.bytes"), v.Int("connections.max"), v.Int("files.max"); m != tt.memory || c != tt.conns || f != tt.files {
			t.Errorf("%+v: memory %d, connections %d, files %d; want %+v", tt.m, m, c, f, tt)
		}
	}
}

// TestPrintedIsLoadable prints values that YAML could take for something else,
// and reads them back.
func TestPrintedIsLoadable(t *testing.T) {
	t.Parallel()
	for _, odd := range []string{"off", "", "true", "1", "~", "a: b", "#x", "'", `"`, "- a", "x # y", " lead", "\u2028", "0x10", "null", strings.Repeat("long ", 100)} {
		v, err := Resolve(Sources{Flags: map[string]string{"cluster.id": odd, "admin.listen": "off", "drain.timeout": "0s"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, changed := range []bool{false, true} {
			printed := v.YAML(changed)
			again, err := Resolve(Sources{File: ParseFile("printed", []byte(printed))})
			if err != nil {
				t.Fatalf("%q: %v\n%s", odd, err, printed)
			}
			for i, val := range v.All() {
				if got := again.All()[i]; got.Text != val.Text || got.Number != val.Number {
					t.Errorf("%s was %q and is %q after\n%s", val.Setting.Key, val.Text, got.Text, printed)
				}
			}
		}
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"1m": "1m", "60s": "1m", "1h0m0s": "1h", "90s": "1m30s", "10h": "10h", "0": "0s", "100ms": "100ms", "1h0m5s": "1h0m5s"} {
		s := Setting{Kind: Duration, Max: 1 << 62}
		if got, _, err := s.Parse(in); err != nil || got != want {
			t.Errorf("duration %s is written %s, %v; want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]int64{"1": 1, "3KiB": 3 << 10, "2 MiB": 2 << 20, "1TiB": 1 << 40, "0": 0, "-1": -1, "1GB": -1, "9999999TiB": -1, "": -1} {
		if got, err := ParseSize(in); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("size %q is %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	info := &fstest.MapFile{Data: []byte("MemTotal:       8000 kB\nMemFree: 1 kB\n")}
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	tests := []struct {
		name string
		fs   fstest.MapFS
		want int64
	}{
		{"nothing", fstest.MapFS{}, 0},
		{"physical", fstest.MapFS{"proc/meminfo": info}, 8000 << 10},
		{"version 2, the parent's limit", fstest.MapFS{
			"proc/meminfo": info, "proc/self/cgroup": file("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": file("max\n"), "sys/fs/cgroup/a/memory.max": file("4096000\n"),
		}, 4096000},
		{"version 2, in a container that sees the host's path", fstest.MapFS{
			"proc/meminfo": info, "proc/self/cgroup": file("0::/../../docker/x\n"), "sys/fs/cgroup/memory.max": file("5000000\n"),
		}, 5000000},
		{"version 1", fstest.MapFS{
			"proc/meminfo": info, "proc/self/cgroup": file("4:cpu,cpuacct:/x\n7:memory:/x\n"),
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": file("1000000\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n"),
		}, 1000000},
		{"no limit", fstest.MapFS{
			"proc/meminfo": info, "proc/self/cgroup": file("7:memory:/\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n"),
		}, 8000 << 10},
		{"no limit, and nothing else known", fstest.MapFS{
			"proc/self/cgroup": file("7:memory:/\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n"),
		}, 0},
		{"rubbish", fstest.MapFS{"proc/meminfo": file("MemTotal: many kB\n"), "proc/self/cgroup": file("x\n\n:::\n")}, 0},
	}
	for _, tt := range tests {
		if got := Memory(tt.fs); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"journal.byte": "journal.bytes", "journal-bytes": "journal.bytes", "JOURNAL_BYTES": "journal.bytes", "jounral.bytes": "journal.bytes",
		"connection.max": "connections.max", "zzzzzz": "",
	} {
		if got := Nearest(name, Keys()); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// FuzzFile checks that no file panics, and that one without problems gives
// values that print as a file which gives the same ones.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{"", "journal: {bytes: 1GiB}", "a: &a [*a]", "? {}\n: x", "node.id: 1\nnode: {id: 2}", "%YAML 1.1\n---\n- x", "cluster.id: !!binary aGk="} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		v, err := Resolve(Sources{File: ParseFile("f", content)})
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := Resolve(Sources{File: ParseFile("g", []byte(v.YAML(false)))})
		if err != nil {
			t.Fatalf("%v\n%s", err, v.YAML(false))
		}
		if !slices.EqualFunc(v.All(), again.All(), func(a, b Value) bool { return a.Text == b.Text }) {
			t.Fatalf("%s\n%s", v.YAML(false), again.YAML(false))
		}
	})
}
