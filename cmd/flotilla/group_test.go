package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// coordinator starts a node that looks after consumer groups, within the test.
func coordinator(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(t.Context(), node.Options{
		FS: vfs.OS, Dir: t.TempDir(), NodeID: 1, Version: "test", Listener: l,
		JournalBytes: 16 << 20, JournalFileBytes: 4 << 20, Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error("close:", err)
		}
	})
	return &server{addr: l.Addr().String()}
}

// prints runs a command that has to succeed and wants what it prints, in which "..."
// stands for anything and blanks are as many as there are.
func (s *server) prints(t *testing.T, want string, args ...string) {
	t.Helper()
	got := s.ok(t, "", args...).stdout
	words := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	rest := words(got)
	for i, part := range strings.Split(words(want), "...") {
		at := strings.Index(rest, strings.TrimSpace(part))
		if at < 0 || i == 0 && at > 0 {
			t.Errorf("flotilla %s prints\n%swant\n%s", strings.Join(args, " "), got, want)
			return
		}
		rest = rest[at+len(strings.TrimSpace(part)):]
	}
}

// TestGroupCommands goes through the life of a group on the command line.
func TestGroupCommands(t *testing.T) {
	t.Parallel()
	s := coordinator(t)
	s.ok(t, "", "topic", "create", "orders", "-p", "2")
	s.ok(t, "a\nb\nc\n", "produce", "orders", "-p", "0")
	s.ok(t, "d\ne\n", "produce", "orders", "-p", "1")
	if got := s.ok(t, "", "group", "list"); !strings.Contains(got.stderr, "no groups yet") || got.stdout != "" {
		t.Errorf("group list prints %q %q", got.stdout, got.stderr)
	}

	// What is printed is committed, and not printed again.
	seen := make(map[string]int)
	for range 2 {
		for line := range strings.Lines(s.ok(t, "", "consume", "orders", "--group", "g", "--count", "2", "-q").stdout) {
			seen[strings.TrimSpace(line)]++
		}
	}
	if len(seen) != 4 {
		t.Errorf("two runs that print two records each have printed %v", seen)
	}
	s.prints(t, "GROUP TYPE STATE g consumer Empty", "group", "list")
	s.prints(t, `{"group":"g","type":"consumer","state":"Empty","protocol_type":"consumer"}`, "group", "list", "-o", "json")
	s.prints(t, "group g type consumer state Empty assignor uniform lag 1 TOPIC PARTITION COMMITTED END LAG MEMBER orders 0 ... 3 ... - orders 1 ... 2 ... -", "group", "describe", "g")
	s.prints(t, `{"group":"g",..."lag":1,"members":[],"partitions":[{"topic":"orders","partition":0,"committed_offset":`, "group", "describe", "g", "-o", "json")

	// A dry run changes nothing.
	s.prints(t, "TOPIC PARTITION COMMITTED NEW END LAG THEN orders 0 ... 0 3 3 orders 1 ... 0 2 2 nothing was changed; give --execute to do it", "group", "seek", "g", "--to", "beginning")
	s.prints(t, "group g ... lag 1", "group", "describe", "g")
	s.prints(t, "... moved 2 partitions", "group", "seek", "g", "--to", "beginning", "--execute")
	s.prints(t, "group g ... lag 5", "group", "describe", "g")
	s.prints(t, "... the group is there already", "group", "seek", "g", "--to", "start", "--execute")
	s.prints(t, "... orders 0 0 2 3 1 ... moved 1 partition", "group", "seek", "g", "--topic", "orders", "-p", "0", "--to", "2", "--execute")
	s.prints(t, "... orders 0 2 3 3 0 orders 1 0 2 2 0 nothing", "group", "seek", "g", "--to", "end")
	s.prints(t, "... orders 0 2 2 3 1 orders 1 0 1 2 1 nothing", "group", "seek", "g", "--to", "-1")
	s.prints(t, "... orders 0 2 0 3 3 orders 1 0 0 2 2 nothing", "group", "seek", "g", "--to", "-1h")
	s.prints(t, "... orders 0 2 3 3 0 orders 1 0 2 2 0 nothing", "group", "seek", "g", "--to", "2100-01-01T00:00:00Z")
	s.prints(t, "... orders 0 - 2 3 1 orders 1 - 0 2 2 moved 2 partitions", "group", "seek", "h", "--to-group", "g", "--execute")
	s.prints(t, `{"topic":"orders","partition":0,"committed_offset":2,"new_offset":2,"end_offset":3,"moved":false}`, "group", "seek", "h", "--to-group", "g", "-o", "json")
	s.run(t, "", "group", "seek", "g", "--to", "9").want(t, exitFailed, "it holds the offsets 0 to 3")
	s.run(t, "", "group", "seek", "new", "--to", "end").want(t, exitFailed, "say which topics with --topic")
	s.run(t, "", "group", "seek", "g", "--to-group", "new").want(t, exitFailed, `group "new" has committed nothing`)

	first := s.ok(t, "", "consume", "orders", "--group", "g", "--count", "3")
	if strings.Count(first.stdout, "\n") != 3 || !strings.Contains(first.stderr, "% Assigned orders [") || !strings.Contains(first.stderr, "% Revoked orders [") {
		t.Errorf("consume prints %q %q", first.stdout, first.stderr)
	}
	s.prints(t, "group g ... lag 0", "group", "describe", "g")

	s.prints(t, "deleted group g deleted group h", "group", "delete", "g", "h")
	s.run(t, "", "group", "delete", "g").want(t, exitFailed, `there is no group "g"`)
	s.prints(t, "there is no group g", "group", "delete", "g", "--if-exists")
	s.run(t, "", "group", "describe", "g").want(t, exitFailed, `there is no group "g"`)
	if got := s.ok(t, "", "__complete", "group", "describe", "").stdout; !strings.HasPrefix(got, ":") {
		t.Errorf("completes %q, and there are no groups", got)
	}
}

// TestGroupSeek: a group is made where it is told to begin, once it is meant.
func TestGroupSeek(t *testing.T) {
	t.Parallel()
	s := coordinator(t)
	s.ok(t, "", "topic", "create", "orders", "-p", "2")
	s.ok(t, "a\nb\n", "produce", "orders", "-p", "0")
	seek := []string{"group", "seek", "new", "--topic", "orders", "--partition", "0", "--to", "1"}
	s.prints(t, "TOPIC PARTITION COMMITTED NEW END LAG THEN orders 0 - 1 2 1 nothing was changed; give --execute to do it", seek...)
	s.run(t, "", "group", "describe", "new").want(t, exitFailed, `there is no group "new"`)
	s.prints(t, "... orders 0 - 1 2 1 moved 1 partition", append(seek, "--execute")...)
	s.prints(t, "... MEMBER orders 0 1 2 1 -", "group", "describe", "new")
}

// TestGroupUsage: what a command line says about groups that cannot be.
func TestGroupUsage(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	for args, want := range map[string]string{
		"group":                              "",
		"group lst":                          `did you mean "flotilla group list"?`,
		"group describe":                     "the name of one group",
		"group describe a b":                 "the name of one group",
		"group delete":                       "needs the name of a group",
		"group seek g":                       "give one of --to and --to-group",
		"group seek g --to end --to-group h": "give one of --to and --to-group",
		"group seek g --to soon":             "--to \"soon\": give beginning",
		"group seek g --to end -p 1":         "--partition needs exactly one --topic",
		"consume t --group g --until end":    "--group excludes",
		"consume t --group g -p 1":           "--group excludes",
		"consume t --group g --from 7":       "a group begins at the beginning or the end",
		"consume t --group=":                 "--group is empty",
	} {
		code := exitUsage
		if want == "" {
			code = exitOK
		}
		s.run(t, "", strings.Fields(args)...).want(t, code, want)
	}
}

// TestGroupWithMembers: a group is moved and deleted without members only.
func TestGroupWithMembers(t *testing.T) {
	t.Parallel()
	s := coordinator(t)
	s.ok(t, "", "topic", "create", "orders")
	s.ok(t, "a\n", "produce", "orders")
	s.ok(t, "", "consume", "orders", "--group", "g", "--count", "1", "-q")
	interrupt := s.consuming(t, "orders", "--group", "g")
	s.run(t, "", "group", "seek", "g", "--to", "beginning", "--execute").want(t, exitFailed, "has 1 member,", "nothing was changed")
	s.run(t, "", "group", "seek", "g", "--to", "beginning").want(t, exitOK, "stop them before")
	s.run(t, "", "group", "delete", "g").want(t, exitFailed, `group "g" has members`)
	s.prints(t, "group g type consumer state Stable assignor uniform lag 0 MEMBER ... 127.0.0.1 1 TOPIC ... orders 0 1 1 0 ...", "group", "describe", "g")
	interrupt()
	s.prints(t, "... state Empty", "group", "describe", "g")
}

// consuming starts consume, and returns when it has a partition, and what ends it as
// Ctrl-C does.
func (s *server) consuming(t *testing.T, args ...string) (interrupt func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, append([]string{"consume", "--bootstrap", s.addr}, args...)...)
	cmd.Env = environment()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "% Assigned") {
	}
	return func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		for lines.Scan() {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("consume after Ctrl-C: %v", err)
		}
	}
}
