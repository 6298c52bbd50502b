package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/config"
)

func writeFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "flotilla.yaml")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestConfigPrint gives settings in all ways, and reads back what is printed.
func TestConfigPrint(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "journal:\n  bytes: 2GiB\nflush.age: 3s\nnode.id: 4\n")
	print := func(env []string, args ...string) string {
		t.Helper()
		r := command{args: append([]string{"config", "print"}, args...), env: env}.run(t)
		r.want(t, exitOK)
		return r.stdout
	}
	env := []string{"FLOTILLA_NODE_ID=5", "FLOTILLA_FLUSH_AGE=2s"}
	got := print(env, "--config", file, "--node.id", "6", "--changed", "-o", "json")
	want := `{"key":"node.id","value":"6","origin":"--node.id"}
{"key":"admin.listen","value":"off","origin":"FLOTILLA_ADMIN_LISTEN"}
{"key":"journal.bytes","value":"2GiB","origin":"` + file + `:2"}
{"key":"flush.age","value":"2s","origin":"FLOTILLA_FLUSH_AGE"}
`
	if got != want {
		t.Errorf("printed\n%swant\n%s", got, want)
	}
	yaml := print(env, "--config", file)
	if n := strings.Count(yaml, "\n"); n != len(config.Settings) {
		t.Errorf("%d lines for %d settings", n, len(config.Settings))
	}
	var again, first []string
	for line := range strings.Lines(print(nil, "--config", writeFile(t, yaml), "-o", "json")) {
		var v struct{ Key, Value, Origin string }
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		again = append(again, v.Key+"="+v.Value)
	}
	for line := range strings.Lines(print(env, "--config", file, "-o", "json")) {
		var v struct{ Key, Value string }
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		first = append(first, v.Key+"="+v.Value)
	}
	if !slices.Equal(first, again) {
		t.Errorf("values\n%v\nand after printing and loading\n%v", first, again)
	}
}

// TestConfigFileErrors: all that is wrong with a file is said, a line each, by
// the check and by serve, which touches nothing.
func TestConfigFileErrors(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "journal:\n  byts: 1GiB\nnode.id: x\n")
	dir := t.TempDir()
	for _, args := range [][]string{{"config", "check", file}, {"serve", "--config", file, "--data.dir", dir}, {"config", "print", "--config", file}} {
		r := command{args: args}.run(t)
		want := fmt.Sprintf("flotilla: %s:2: unknown setting journal.byts; did you mean journal.bytes?\nflotilla: %s:3: node.id: \"x\" is not a whole number\n", file, file)
		if r.code != exitUsage || r.stderr != want || r.stdout != "" {
			t.Errorf("%v: status %d\n%s%swant\n%s", args, r.code, r.stdout, r.stderr, want)
		}
	}
	if left, err := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("serve touched the directory: %v, %v", left, err)
	}
	good := writeFile(t, "journal.bytes: 1GiB\nnode.id: 3\n")
	r := command{args: []string{"config", "check", good}}.run(t)
	r.want(t, exitOK)
	if !strings.Contains(r.stdout, "2 settings, nothing wrong") {
		t.Error(r.stdout)
	}
}

// TestServeWithFile starts a node from a file, and asks its admin listener.
func TestServeWithFile(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "node.id: 9\nadmin.listen: 127.0.0.1:0\npartitions.max: 3\n")
	s := newServer(t, "--config", file, "--admin.listen", "127.0.0.1:0") // the tests' environment says off
	m := regexp.MustCompile(`metrics  (http://\S+)/metrics`).FindStringSubmatch(s.greeting)
	if m == nil || !strings.Contains(s.greeting, "node 9\n") {
		t.Fatal(s.greeting)
	}
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get(m[1] + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, body := get("/readyz"); code != 200 {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if _, body := get("/metrics"); !strings.Contains(body, "\nflotilla_partitions_limit 3\n") {
		t.Error("the file's partitions.max does not hold")
	}
	r := command{args: []string{"topic", "create", "t", "-p", "4", "--bootstrap", s.addr}}.run(t)
	r.want(t, exitFailed, "partitions.max")

	// Profiles are opened by a signal.
	if code, _ := get("/debug/pprof/"); code != 403 {
		t.Errorf("profiles before they are asked for: %d", code)
	}
	if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(commandLimit); ; <-tick.C {
		if code, _ := get("/debug/pprof/"); code == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("SIGUSR1 opened no profiles")
		}
	}
}

// TestAdminRefuses: a port that is taken is an error that says what to do.
func TestAdminRefuses(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	for _, tt := range []struct {
		admin string
		code  int
		want  string
	}{
		{taken.Addr().String(), exitFailed, "address already in use; choose another address with --admin.listen, or none with --admin.listen off"},
		{"9292", exitUsage, "--admin.listen \"9292\": give HOST:PORT, such as 127.0.0.1:9292, or off"},
	} {
		r := command{args: []string{"serve", "--listen", "127.0.0.1:0", "--data.dir", dir, "--admin.listen", tt.admin}}.run(t)
		r.want(t, tt.code, tt.want)
	}
	if left, err := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("serve touched the directory: %v, %v", left, err)
	}
}

// TestCompletionOfTopics: a shell gets the names of topics from the server, and
// nothing, soon, without one.
func TestCompletionOfTopics(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.ok(t, "", "topic", "create", "orders")
	s.ok(t, "", "topic", "create", "other")
	complete := func(addr string, args ...string) string {
		t.Helper()
		r := command{args: append([]string{"__complete"}, args...), env: []string{"FLOTILLA_BOOTSTRAP=" + addr}}.run(t)
		r.want(t, exitOK)
		return r.stdout
	}
	for _, tt := range []struct{ got, want string }{
		{complete(s.addr, "consume", "o"), "orders\nother\n:4\n"},
		{complete(s.addr, "produce", "or"), "orders\n:4\n"},
		{complete(s.addr, "topic", "describe", ""), "orders\nother\n:4\n"},
		{complete(s.addr, "topic", "delete", "orders", ""), "other\n:4\n"},
		{complete(s.addr, "topic", "describe", "orders", ""), ":4\n"},
		{complete(s.addr, "produce", "orders", ""), ":0\n"}, // files
		{complete(nowhere(t), "consume", ""), ":4\n"},
		{complete(s.addr, "serve", "--log.format", ""), "text\njson\n:4\n"},
		{complete(s.addr, "config", "explain", ""), strings.Join(config.Keys(), "\n") + "\n:4\n"},
	} {
		if tt.got != tt.want {
			t.Errorf("completed\n%swant\n%s", tt.got, tt.want)
		}
	}
}

// TestExitStatuses: every status is in --help, and in docs/cli.md, with the same
// words.
func TestExitStatuses(t *testing.T) {
	t.Parallel()
	doc := strings.ReplaceAll(read(t, cliDoc), "`", "")
	help := command{args: []string{"--help"}}.run(t).stdout
	for _, status := range []int{exitOK, exitFailed, exitUsage, exitStopped} {
		line := regexp.MustCompile(fmt.Sprintf(`(?m)^  %d  (.+)$`, status)).FindStringSubmatch(help)
		if line == nil {
			t.Errorf("--help does not say what status %d is", status)
			continue
		}
		if !strings.Contains(doc, fmt.Sprintf("| %d | %s |", status, line[1])) {
			t.Errorf("docs/cli.md does not say %q of status %d", line[1], status)
		}
	}
}

// TestFilesMax: a node that may open few files serves far more segments than
// that, and closes what nobody reads any more.
func TestFilesMax(t *testing.T) {
	t.Parallel()
	const partitions = 150
	s := newServer(t, "--flush.age", "1ms")
	s.ok(t, "", "topic", "create", "wide", "--partitions", fmt.Sprint(partitions))
	var lines strings.Builder
	for i := range 20 * partitions { // by key, so that each has some
		fmt.Fprintf(&lines, "%d:v\n", i)
	}
	s.ok(t, lines.String(), "produce", "wide", "--key-delimiter", ":")
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(); code != exitOK {
		t.Fatalf("serve ended with %d\n%s", code, s.log)
	}
	s, err := startServer(s.dir, "--files.max", "256", "--admin.listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		if code := s.wait(); code != exitOK {
			t.Errorf("serve ended with %d\n%s", code, s.log)
		}
	}()
	for range 2 {
		if got := strings.Count(s.ok(t, "", "consume", "wide", "--from", "beginning", "--until", "end").stdout, "\n"); got != 20*partitions {
			t.Fatalf("%d records, want %d", got, 20*partitions)
		}
	}
	url := regexp.MustCompile(`metrics  (http://\S+)/metrics`).FindStringSubmatch(s.greeting)[1]
	series := func(name string) (v int) {
		resp, err := http.Get(url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(string(body[bytes.Index(body, []byte("\n"+name+" "))+len(name)+2:]), "%d", &v); err != nil {
			t.Fatalf("%s: %v in\n%s", name, err, body)
		}
		return v
	}
	if got := series("flotilla_segments"); got < partitions {
		t.Errorf("%d segments, want one for each of %d partitions at least", got, partitions)
	}
	if got, most := series(`flotilla_segment_files_open{state="unused"}`), idleFiles(256, 128); got > most || got == 0 {
		t.Errorf("%d files are open that nobody uses, want 1 to %d", got, most)
	}
}

func TestIdleFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		files, connections int64
		want               int
	}{{1024, 512, 96}, {256, 128, 16}, {1 << 20, 10_000, 1 << 16}, {200_000, 10_000, 47_468}} {
		if got := idleFiles(tt.files, tt.connections); got != tt.want {
			t.Errorf("idleFiles(%d, %d) = %d, want %d", tt.files, tt.connections, got, tt.want)
		}
	}
}
