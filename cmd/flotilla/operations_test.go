package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

const operationsDoc = "../../docs/operations.md"

// TestOperations runs the commands of docs/operations.md in their order, in a
// directory of their own, compares what they print, and wants all to succeed.
func TestOperations(t *testing.T) {
	t.Parallel()
	all := examples(t, operationsDoc)
	if len(all) < 20 {
		t.Fatalf("docs/operations.md has %d commands", len(all))
	}
	dir := t.TempDir()
	data := filepath.Join(dir, "flotilla-data")
	s := &server{}
	t.Cleanup(func() {
		if s.cmd != nil && s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill()
			s.wait()
		}
	})
	end := func(how syscall.Signal, want int) {
		t.Helper()
		if err := s.cmd.Process.Signal(how); err != nil {
			t.Fatal(err)
		}
		if code := s.wait(); code != want {
			t.Fatalf("serve ended with %d, want %d\n%s", code, want, s.log)
		}
	}
	curl := regexp.MustCompile(`curl -s 127\.0\.0\.1:9292(/\w+)`)
	for _, e := range all {
		var got string
		switch e.command {
		case "flotilla serve &":
			var err error
			if s, err = startServer(data, "--admin.listen", "127.0.0.1:0"); err != nil {
				t.Fatal(err)
			}
		case "kill %1":
			end(syscall.SIGTERM, exitOK)
		case "kill -9 %1":
			end(syscall.SIGKILL, -1)
		default:
			line := e.command
			if m := curl.FindStringSubmatch(line); m != nil {
				body := filepath.Join(t.TempDir(), "body")
				if err := os.WriteFile(body, getAdmin(t, s, m[1]), 0o600); err != nil {
					t.Fatal(err)
				}
				line = strings.Replace(line, m[0], "cat "+body, 1)
			}
			var ok bool
			got, ok = strings.CutSuffix(shell(t, line+"; echo status=$?", &server{addr: s.addr, dir: "flotilla-data"}, dir), "status=0\n")
			if !ok {
				t.Errorf("%s fails\n%s", e.command, got)
			}
		}
		pattern := strings.ReplaceAll(regexp.QuoteMeta(e.want), `\.\.\.`, `.*`)
		if !regexp.MustCompile(`(?s)^` + pattern + `$`).MatchString(got) {
			t.Errorf("%s\nprints\n%sand docs/operations.md says\n%s", e.command, got, e.want)
		}
	}
}

// getAdmin returns what a node answers at its admin listener.
func getAdmin(t *testing.T, s *server, path string) []byte {
	t.Helper()
	m := regexp.MustCompile(`metrics  (http://\S+)/metrics`).FindStringSubmatch(s.greeting)
	if m == nil {
		t.Fatal(s.greeting)
	}
	resp, err := http.Get(m[1] + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}
