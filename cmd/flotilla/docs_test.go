package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const cliDoc = "../../docs/cli.md"

// example is a command of docs/cli.md and what it prints.
type example struct {
	command string
	want    string
}

// examples returns the commands of a page's blocks marked console.
func examples(t *testing.T, page string) []example {
	t.Helper()
	var all []example
	inside := false
	for line := range strings.Lines(read(t, page)) {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case line == "```console\n" || line == "```\n":
			inside = line == "```console\n"
		case inside && isCommand:
			all = append(all, example{command: strings.TrimSpace(command)})
		case inside:
			all[len(all)-1].want += line
		}
	}
	return all
}

// TestDocs runs the examples of docs/cli.md in their order, and compares what
// they print.
func TestDocs(t *testing.T) {
	t.Parallel()
	all := examples(t, cliDoc)
	if len(all) < 20 {
		t.Fatalf("docs/cli.md has %d examples", len(all))
	}
	var s *server
	dir := t.TempDir()
	for _, e := range all {
		var got string
		if e.command == "flotilla serve" {
			s = newServer(t, "--admin.listen", "127.0.0.1:0")
			got = strings.ReplaceAll(s.greeting, " --bootstrap "+s.addr, "")
			got = strings.ReplaceAll(got, s.addr, defaultBootstrap)
			got = regexp.MustCompile(`http://127\.0\.0\.1:\d+/`).ReplaceAllString(got, "http://127.0.0.1:9292/")
		} else if e.command == "kill %1" {
			if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if code := s.wait(); code != exitOK {
				t.Fatalf("serve ended with %d\n%s", code, s.log)
			}
		} else {
			got = shell(t, e.command, s, dir)
		}
		pattern := strings.ReplaceAll(regexp.QuoteMeta(e.want), `\.\.\.`, `.*`)
		// The columns of a table are as wide as what differs in them.
		pattern = regexp.MustCompile(` {2,}`).ReplaceAllString(pattern, ` +`)
		if !regexp.MustCompile(`^` + pattern + `$`).MatchString(got) {
			t.Errorf("%s\nprints\n%sand docs/cli.md says\n%s", e.command, got, e.want)
		}
	}
	// Every command is in it.
	conn := new(connection)
	for _, c := range slices.Concat(rootCommand().Commands(), topicCommand(conn).Commands(), groupCommand(conn).Commands(), featuresCommand(conn).Commands(), clusterCommand(conn).Commands()) {
		if !regexp.MustCompile(`(?m)^## .*\b` + c.Name() + `\b`).MatchString(read(t, cliDoc)) {
			t.Errorf("docs/cli.md has no section about %s", c.Name())
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// shell runs a command line in a directory and returns what it prints, in order.
func shell(t *testing.T, line string, s *server, dir string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = dir
	cmd.Env = environment("PATH=" + filepath.Dir(program) + string(os.PathListSeparator) + os.Getenv("PATH"))
	if s != nil {
		cmd.Env = append(cmd.Env, "FLOTILLA_BOOTSTRAP="+s.addr, "FLOTILLA_DATA_DIR="+s.dir)
	}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s: %v, %v", line, err, ctx.Err())
	}
	return string(out)
}
