package main

import (
	"net"
	"strings"
	"testing"
)

// nowhere returns an address that nothing listens on.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestUsage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args string
		code int
		want string // in either output
	}{
		{"", exitOK, "Available Commands"},
		{"--help", exitOK, "Available Commands"},
		{"topic", exitOK, "Available Commands"},
		{"serev", exitUsage, `did you mean "flotilla serve"?`},
		{"topics list", exitUsage, `did you mean "flotilla topic"?`},
		{"topic lst", exitUsage, `did you mean "flotilla topic list"?`},
		{"topic xyz", exitUsage, `see "flotilla topic --help"`},
		{"completion bash", exitOK, "__start_flotilla"},
		{"completion zsh", exitOK, "#compdef flotilla"},
		{"completion fish", exitOK, "complete -c flotilla"},
		{"completion powershell", exitOK, "Register-ArgumentCompleter"},
		{"completion", exitOK, "Available Commands"},
		{"completion xsh", exitUsage, `did you mean "flotilla completion zsh"?`},
		{"completion bash now", exitUsage, `takes no argument "now"`},
		{"config prnt", exitUsage, `did you mean "flotilla config print"?`},
		{"config explain journal.byte", exitUsage, "did you mean journal.bytes?"},
		{"config explain journal.bytes", exitOK, "flotilla_journal_live_bytes"},
		{"config explain", exitOK, "SETTING"},
		{"config check", exitUsage, "takes one file"},
		{"config check nothere.yaml", exitUsage, "no such file"},
		{"serve --config nothere.yaml", exitUsage, "--config: open nothere.yaml"},
		{"topic list extra", exitUsage, `takes no argument "extra"`},
		{"topic list --ouptut json", exitUsage, "did you mean --output?"},
		{"serve --data-dir x", exitUsage, "did you mean --data.dir?"},
		{"serve --zzzzzz", exitUsage, `see "flotilla serve --help"`},
		{"consume t -X", exitUsage, "unknown shorthand flag"},
		{"consume t --count many", exitUsage, "invalid argument"},
		{"consume", exitUsage, "the name of one topic"},
		{"topic delete", exitUsage, "needs the name of a topic"},
		{"topic list --bootstrap a:b:c", exitUsage, "--bootstrap"},
		{"version", exitOK, "flotilla 0.1.0 (commit "},
		{"version -o json", exitOK, `{"version":"0.1.0","commit":"`},
	}
	for _, tt := range tests {
		r := command{args: strings.Fields(tt.args)}.run(t)
		r.want(t, tt.code)
		if !strings.Contains(r.stdout+r.stderr, tt.want) {
			t.Errorf("flotilla %s prints no %q:\n%s%s", tt.args, tt.want, r.stdout, r.stderr)
		}
		if tt.code != exitOK && (r.stdout != "" || strings.Count(r.stderr, "\n") != 1) {
			t.Errorf("flotilla %s: an error is one line on standard error, not\n%s%s", tt.args, r.stdout, r.stderr)
		}
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	addr := nowhere(t)
	for _, args := range []string{"topic list", "topic create t", "topic delete t", "produce t", "consume t"} {
		r := command{args: append(strings.Fields(args), "--bootstrap", addr)}.run(t)
		r.want(t, exitFailed, "no server at "+addr+`: start one with "flotilla serve"`)
	}
	// One address that answers is enough.
	both := "--bootstrap=" + addr + "," + shared.server(t).addr
	command{args: []string{"topic", "list", both}}.run(t).want(t, exitOK)
}

// TestSilentServer connects to something that never answers.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := command{args: []string{"topic", "list", "--timeout", "500ms", "--bootstrap", l.Addr().String()}}.run(t)
	r.want(t, exitFailed, "no answer within 500ms (--timeout)")
}

func TestWithPort(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"host": "host:9092", "host:1": "host:1", "10.0.0.1": "10.0.0.1:9092", "::1": "[::1]:9092", "[::1]": "[::1]:9092",
		"[::1]:7": "[::1]:7", "": "",
	} {
		if got := withPort(in); got != want {
			t.Errorf("withPort(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	addr := shared.server(t).addr
	dir := t.TempDir()
	tests := []struct {
		env, args string
		code      int
		want      string
	}{
		{"FLOTILLA_BOOTSTRAP=" + addr, "topic list", exitOK, ""},
		{"FLOTILLA_BOOTSTRAP=" + nowhere(t), "topic list --bootstrap " + addr, exitOK, ""},
		{"FLOTILLA_BOOSTRAP=" + addr, "topic list", exitUsage, "did you mean FLOTILLA_BOOTSTRAP?"},
		{"FLOTILLA_DATADIR=x", "serve", exitUsage, "did you mean FLOTILLA_DATA_DIR?"},
		{"FLOTILLA_QQQQQQQQ=x", "serve", exitUsage, "there are FLOTILLA_ADMIN_LISTEN, "},
		{"FLOTILLA_TIMEOUT=soon", "topic list", exitUsage, "FLOTILLA_TIMEOUT=soon"},
		{"FLOTILLA_JOURNAL_BYTES=1MiB", "serve --data.dir " + dir, exitUsage, "FLOTILLA_JOURNAL_BYTES 1MiB is less"},
		{"FLOTILLA_JOURNAL_BYTES=many", "serve --data.dir " + dir, exitUsage, `FLOTILLA_JOURNAL_BYTES: "many" is not a size`},
		{"FLOTILLA_JOURNAL_BYTES=many", "serve --journal.bytes 1MiB --data.dir " + dir, exitUsage, "--journal.bytes 1MiB is less"},
		{"FLOTILLA_CONFIG=nothere.yaml", "serve", exitUsage, "FLOTILLA_CONFIG: open nothere.yaml"},
		{"FLOTILLA_CONFIG=nothere.yaml", "topic list --bootstrap " + addr, exitOK, ""}, // it is the node's
		{"FLOTILLA_BOOTSTRAP=x", "serve --log.level loud", exitUsage, "--log.level"},   // for the others: not refused
		{"FLOTILLA_DATA_DIR=x", "topic list --bootstrap " + addr, exitOK, ""},
		{"FLOTILLA_FORMAT=x", "consume t", exitUsage, "unknown environment variable"}, // no setting
		{"FLOTILLA_SERVICE_HOST=10.0.0.1", "topic list --bootstrap " + addr, exitOK, ""},
		{"FLOTILLA_PORT=tcp://10.0.0.1:9092", "topic list --bootstrap " + addr, exitOK, ""},
		{"FLOTILLA_0_PORT_9092_TCP_ADDR=10.0.0.1", "topic list --bootstrap " + addr, exitOK, ""},
	}
	for _, tt := range tests {
		r := command{args: strings.Fields(tt.args), env: []string{tt.env}}.run(t)
		r.want(t, tt.code, tt.want)
		if t.Failed() {
			t.Fatalf("%s flotilla %s", tt.env, tt.args)
		}
	}
}
func TestByteSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]byteSize{
		"1": 1, "1KiB": 1 << 10, "64MiB": 64 << 20, "2 GiB": 2 << 30, "1025": 1025,
		"": -1, "0": -1, "-1": -1, "1MB": -1, "KiB": -1, "9223372036854775807GiB": -1,
	} {
		var got byteSize
		err := got.Set(in)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("Set(%q) = %d, %v; want %d", in, got, err, want)
		}
		if err == nil {
			var again byteSize
			if err := again.Set(got.String()); err != nil || again != got {
				t.Errorf("Set(%q) = %d, %v; want %d", got.String(), again, err, got)
			}
		}
	}
}
