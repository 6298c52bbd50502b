package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// records consumes all of a topic.
func (s *server) records(t *testing.T, topic string) []recordJSON {
	t.Helper()
	var records []recordJSON
	for line := range strings.Lines(s.ok(t, "", "consume", topic, "--until", "end", "-o", "json").stdout) {
		var r recordJSON
		decode(t, line, &r)
		records = append(records, r)
	}
	return records
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	str := func(s string) *string { return &s }
	const bin = "\x00\xff\r\x80"
	tests := []struct {
		name, stdin string
		args        []string
		want        []recordJSON
	}{
		{"lines", "a\n\n b \nlast", nil, []recordJSON{{Value: str("a")}, {Value: str("")}, {Value: str(" b ")}, {Value: str("last")}}},
		{"nothing", "", nil, nil},
		{"binary", bin + "\n", nil, []recordJSON{{Value: str("AP8NgA=="), ValueEncoding: "base64"}}},
		{"keys", "k:v\n:\nplain\n", []string{"-K", ":"}, []recordJSON{
			{Key: str("k"), Value: str("v")}, {Key: str(""), Value: str("")}, {Value: str("plain")}}},
		{"nulls", "k:\n:v\n\n", []string{"-K", ":", "--null"}, []recordJSON{{Key: str("k")}, {Value: str("v")}, {}}},
		{"fixed key", "v\n", []string{"--key", "f"}, []recordJSON{{Key: str("f"), Value: str("v")}}},
		{"headers", "v\n", []string{"-H", "a=1=2,3", "-H", "n", "-H", "a="}, []recordJSON{{Value: str("v"), Headers: []headerJSON{
			{Name: "a", Value: str("1=2,3")}, {Name: "n"}, {Name: "a", Value: str("")}}}}},
		{"delimiter", "a\nb\x00c", []string{"-D", `\0`}, []recordJSON{{Value: str("a\nb")}, {Value: str("c")}}},
		{"whole", "a\nb\n", []string{"--whole-files"}, []recordJSON{{Value: str("a\nb\n")}}},
		{"gzip", "v\n", []string{"--compression", "gzip"}, []recordJSON{{Value: str("v")}}},
		{"snappy", "v\n", []string{"--compression", "snappy"}, []recordJSON{{Value: str("v")}}},
		{"lz4", "v\n", []string{"--compression", "lz4"}, []recordJSON{{Value: str("v")}}},
		{"zstd", "v\n", []string{"-z", "zstd"}, []recordJSON{{Value: str("v")}}},
		{"acks leader", "v\n", []string{"--acks", "leader"}, []recordJSON{{Value: str("v")}}},
		{"not idempotent", "v\n", []string{"--no-idempotence"}, []recordJSON{{Value: str("v")}}},
		{"partition", "v\n", []string{"--partition", "0"}, []recordJSON{{Value: str("v")}}},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			topic := s.topic(t)
			s.ok(t, tt.stdin, append([]string{"produce", topic}, tt.args...)...).want(t, exitOK, fmt.Sprintf("%d record", len(tt.want)))
			got := s.records(t, topic)
			for i := range tt.want {
				tt.want[i].Topic, tt.want[i].Offset = topic, int64(i)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(recordJSON{}, "Timestamp"), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRoundTripFile sends a real file through a server and back, unchanged.
func TestRoundTripFile(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	want, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	want = append(want[:8<<20], "not a newline"...)
	file := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	topic := s.topic(t)
	r := s.ok(t, "", "produce", topic, file, "-z", "zstd", "-q")
	if r.stderr != "" || r.stdout != "" {
		t.Errorf("produce -q printed %q %q", r.stdout, r.stderr)
	}
	got := s.ok(t, "", "consume", topic, "--until", "end", "-q").stdout
	if got != string(want)+"\n" {
		t.Errorf("%d bytes came back of %d, or others", len(got), len(want)+1)
	}
}

func TestProducePlaces(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t, "-p", "3")
	r := s.ok(t, "a\nb\n", "produce", topic, "-p", "2", "-o", "json")
	for i, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		var got place
		decode(t, line, &got)
		if got.Topic != topic || got.Partition != 2 || got.Offset == nil || *got.Offset != int64(i) || got.Timestamp == 0 {
			t.Errorf("record %d is at %s", i, line)
		}
	}
}

func TestProduceTooLarge(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t)
	big := strings.Repeat("x", 1<<20)
	r := s.run(t, "before\n"+big+"\nafter\n", "produce", topic)
	r.want(t, exitFailed, "standard input, line 2", "MESSAGE_TOO_LARGE", "max.message.bytes", "create a topic with a larger",
		"1 of 3 records not appended\n", "2 records, 11 B")
	if got := s.records(t, topic); len(got) != 2 || *got[1].Value != "after" {
		t.Errorf("the topic holds %d records, want before and after", len(got))
	}
	s.ok(t, big, "produce", topic, "--compression", "zstd")

	// A topic that takes only small batches takes many small records.
	small := topic + ".small"
	s.ok(t, "", "topic", "create", small, "--config", "max.message.bytes=1024")
	s.ok(t, strings.Repeat("0123456789\n", 1000), "produce", small)
	many := s.run(t, strings.Repeat(strings.Repeat("x", 2000)+"\n", 12), "produce", small)
	many.want(t, exitFailed, "line 10:", "12 of 12")
	if strings.Contains(many.stderr, "line 11:") {
		t.Error("more than ten failures are named")
	}
}

func TestProduceRefused(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t)
	dir := t.TempDir()
	tests := []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "needs the name of a topic"},
		{[]string{"none"}, exitFailed, `create it with "flotilla topic create none"`},
		{[]string{topic, "-p", "7"}, exitFailed, "has no partition 7, only 0 to 0"},
		{[]string{topic, "-p", "-2"}, exitUsage, "--partition -2"},
		{[]string{topic, "--compression", "rar"}, exitUsage, "none, gzip, snappy, lz4 or zstd"},
		{[]string{topic, "--acks", "some"}, exitUsage, "all, leader or none"},
		{[]string{topic, "-H", "=v"}, exitUsage, "NAME=VALUE"},
		{[]string{topic, "-D", ""}, exitUsage, "--delimiter"},
		{[]string{topic, "-D", `\x`}, exitUsage, "--delimiter"},
		{[]string{topic, "-K", `\400`}, exitUsage, "--key-delimiter"},
		{[]string{topic, filepath.Join(dir, "none")}, exitFailed, "no such file or directory; nothing was sent"},
		{[]string{topic, dir}, exitFailed, "is a directory"},
		{[]string{topic, "--timeout", "0s"}, exitUsage, "--timeout"},
	}
	for _, tt := range tests {
		s.run(t, "v\n", append([]string{"produce"}, tt.args...)...).want(t, tt.code, tt.want)
	}
	if got := s.records(t, topic); len(got) != 0 {
		t.Errorf("%d records were sent", len(got))
	}
}

func TestConsumeRange(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t)
	s.ok(t, "0\n1\n2\n3\n4\n", "produce", topic)
	tests := []struct {
		args string
		want string
		code int
		says string
	}{
		{"--until end", "01234", exitOK, "% Reached end of topic " + topic + " [0] at offset 5: exiting"},
		{"--from 2 --until end", "234", exitOK, ""},
		{"--from beginning --until 2", "01", exitOK, "at offset 2: exiting"},
		{"--from -2 --until end", "34", exitOK, ""},
		{"--from -9 --until end", "01234", exitOK, ""},
		{"--from 5 --until end", "", exitOK, "at offset 5: exiting"},
		{"--from end --until end", "", exitOK, ""},
		{"--from 3 --until 2", "", exitOK, ""},
		{"--count 3", "012", exitOK, ""},
		{"--count 2 --from 3 --partition 0", "34", exitOK, ""},
		{"--until end --count 99", "01234", exitOK, ""},
		{"--from 6", "", exitFailed, "it holds the offsets 0 to 5"},
		{"--from here", "", exitUsage, "--from \"here\""},
		{"--until -1", "", exitUsage, "--until"},
		{"--count -1", "", exitUsage, "--count"},
		{"--partition 1", "", exitFailed, "has no partition 1"},
		{"--format %q", "", exitUsage, "%q is not known"},
		{"--output xml", "", exitUsage, "text or json"},
		{"--output json --format %s", "", exitUsage, "exclude each other"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			r := s.run(t, "", append([]string{"consume", topic}, strings.Fields(tt.args)...)...)
			r.want(t, tt.code, tt.says)
			if got := strings.ReplaceAll(r.stdout, "\n", ""); got != tt.want {
				t.Errorf("consume %s prints %q, want %q", tt.args, got, tt.want)
			}
		})
	}
	s.run(t, "", "consume", "none").want(t, exitFailed, "flotilla topic create none")
}

// limited returns a context that ends with the test, and does not let it hang.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	t.Cleanup(cancel)
	return ctx
}

// produceSlowly starts a produce that has sent one line and waits for more.
func produceSlowly(t *testing.T, s *server, stderr io.Writer, args ...string) (*exec.Cmd, io.Writer) {
	t.Helper()
	cmd := exec.CommandContext(limited(t), program, append([]string{"produce", "-o", "json"}, args...)...)
	cmd.Env, cmd.Stderr = environment("FLOTILLA_BOOTSTRAP="+s.addr), stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = io.WriteString(in, "first\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("produce printed %q, %v", line, err)
	}
	return cmd, in
}

func TestProduceInterrupted(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t)
	var stderr strings.Builder
	cmd, _ := produceSlowly(t, s, &stderr, topic)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(stderr.String(), "interrupted; what had been read was appended") {
		t.Errorf("produce ended with %v\n%s", cmd.ProcessState, stderr.String())
	}
	if got := s.records(t, topic); len(got) != 1 {
		t.Errorf("%d records are there, want 1", len(got))
	}
}

// TestProduceStops deletes the topic under a producer, which then reads no
// further, though its input goes on.
func TestProduceStops(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t)
	var stderr strings.Builder
	cmd, in := produceSlowly(t, s, &stderr, topic, "--timeout", "250ms")
	s.ok(t, "", "topic", "delete", topic)
	if _, err := io.WriteString(in, "second\n"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for _, want := range []string{"% not appended: standard input, line 2: ", "1 of 2 records not appended", "what follows was not read"} {
		if !strings.Contains(stderr.String(), want) || cmd.ProcessState.ExitCode() != exitFailed {
			t.Errorf("produce ended with %v, no %q in\n%s", cmd.ProcessState, want, stderr.String())
		}
	}
}

// follow starts a consume that does not end by itself.
func follow(t *testing.T, s *server, stderr io.Writer, args ...string) (*exec.Cmd, io.ReadCloser) {
	t.Helper()
	cmd := exec.CommandContext(limited(t), program, append([]string{"consume"}, args...)...)
	cmd.Env, cmd.Stderr = environment("FLOTILLA_BOOTSTRAP="+s.addr), stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// TestFollow wants each record at once, from a consumer that goes on, and an
// end without complaint by Ctrl-C.
func TestFollow(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t)
	cmd, out := follow(t, s, nil, topic, "--quiet")
	lines := bufio.NewScanner(out)
	for i := range 3 {
		s.ok(t, fmt.Sprintf("%d\n", i), "produce", topic)
		if !lines.Scan() || lines.Text() != fmt.Sprint(i) {
			t.Fatalf("record %d came as %q", i, lines.Text())
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("consume ended with %v", err)
	}
}

// TestFollowClosedPipe closes the reading end, as head does.
func TestFollowClosedPipe(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	topic := s.topic(t)
	s.ok(t, "first\n", "produce", topic)
	var stderr strings.Builder
	cmd, out := follow(t, s, &stderr, topic, "--quiet")
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "first\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	out.Close()
	s.ok(t, "second\n", "produce", topic)
	if err := cmd.Wait(); err != nil || stderr.String() != "" {
		t.Errorf("consume ended with %v, %q", err, stderr.String())
	}
}

// TestFollowRestart stops the server under a consumer, which goes on with the
// next one at the same address.
func TestFollowRestart(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.ok(t, "", "topic", "create", "t")
	s.ok(t, "before\n", "produce", "t")
	cmd, out := follow(t, s, nil, "t", "--count", "2")
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "before" {
		t.Fatalf("read %q", lines.Text())
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(); code != exitOK {
		t.Fatalf("serve ended with %d\n%s", code, s.log)
	}
	next, err := startServer(s.dir, "--listen", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = next.cmd.Process.Signal(syscall.SIGTERM)
		next.wait()
	})
	next.ok(t, "after\n", "produce", "t")
	if !lines.Scan() || lines.Text() != "after" {
		t.Fatalf("read %q", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("consume ended with %v", err)
	}
}
