package main

import (
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestServePrintsWhereItListens(t *testing.T) {
	t.Parallel()
	s := newServer(t, "--advertise", "localhost:1", "--cluster.id", "c", "--node.id", "7")
	for _, want := range []string{
		"serves cluster c, node 7", "  clients  localhost:1 (native protocol and Kafka's, listening on 127.0.0.1:", "  data     " + s.dir,
		"flotilla topic create hello --partitions 3 --bootstrap localhost:1\n",
	} {
		if !strings.Contains(s.greeting, want) {
			t.Errorf("no %q in\n%s", want, s.greeting)
		}
	}
}

// TestServeRefuses starts nodes that must not start, and must say why.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	running := shared.server(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	old := newServer(t)
	if err := old.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	old.wait()
	file := func(name, content string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	newer := `{"format":99}`
	sum := crc32.Checksum([]byte(newer), crc32.MakeTable(crc32.Castagnoli))

	tests := []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--data.dir", running.dir}, exitFailed, "in use"},
		{[]string{"--data.dir", old.dir, "--node.id", "2"}, exitFailed, "belongs to node 1, not 2"},
		{[]string{"--data.dir", old.dir, "--cluster.id", "other"}, exitFailed, "belongs to cluster"},
		{[]string{"--data.dir", file("photo.jpg", "")}, exitFailed, "holds photo.jpg and no IDENTITY file"},
		{[]string{"--data.dir", file("IDENTITY", fmt.Sprintf("%s\n%08x\n", newer, sum))}, exitFailed, "newer format: format 99"},
		{[]string{"--data.dir", file("IDENTITY", "{}\n")}, exitStopped, "damaged identity"},
		{[]string{"--data.dir", filepath.Join(file("f", ""), "f")}, exitUsage, "is not a directory"},
		{[]string{"--listen", taken.Addr().String()}, exitFailed, "address already in use; choose another address with --listen"},
		{[]string{"--listen", "nowhere"}, exitUsage, "HOST:PORT"},
		{[]string{"--listen", ":0"}, exitUsage, "--advertise"},
		{[]string{"--listen", "[::]:0"}, exitUsage, "--advertise"},
		{[]string{"--advertise", "host"}, exitUsage, "--advertise"},
		{[]string{"--advertise", ":9092"}, exitUsage, "--advertise"},
		{[]string{"--advertise", "h:0"}, exitUsage, "--advertise"},
		{[]string{"--node.id", "-1"}, exitUsage, "--node.id"},
		{[]string{"--journal.bytes", "1MiB"}, exitUsage, "4 files"},
		{[]string{"--journal.bytes", "much"}, exitUsage, "is not a size"},
		{[]string{"--journal.file.bytes", "5000"}, exitUsage, "a multiple of 4KiB"},
		{[]string{"--flush.age", "0s"}, exitUsage, "--flush.age"},
		{[]string{"--log.level", "loud"}, exitUsage, "debug, info, warn or error"},
		{[]string{"--log.format", "xml"}, exitUsage, "text or json"},
		{[]string{"--bootstrap", "x"}, exitUsage, "takes no --bootstrap"},
		{[]string{"now"}, exitUsage, `takes no argument "now"`},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		args := append([]string{"serve", "--listen", "127.0.0.1:0", "--data.dir", dir}, tt.args...)
		r := command{args: args}.run(t)
		r.want(t, tt.code, tt.want)
		if t.Failed() {
			t.Fatalf("serve %q", tt.args)
		}
		if left, err := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("serve %q touched the directory: %v, %v", tt.args, left, err)
		}
	}
}

// TestServeDrains stops a node under a producer: whatever it acknowledged is
// there after the restart, and whatever it did not, the producer names.
func TestServeDrains(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.ok(t, "", "topic", "create", "t")
	cmd := exec.CommandContext(limited(t), program, "produce", "t", "-o", "json", "--timeout", "1s")
	cmd.Env = environment("FLOTILLA_BOOTSTRAP=" + s.addr)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var places strings.Builder
	stopped := make(chan struct{})
	cmd.Stdout = &stopAfter{w: &places, bytes: 2000, reached: stopped}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := 0; ; i++ {
			if _, err := fmt.Fprintln(stdin, i); err != nil {
				return // the producer has ended
			}
		}
	}()
	<-stopped
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(); code != exitOK || !strings.Contains(s.log.String(), "stopping") {
		t.Fatalf("serve ended with %d\n%s", code, s.log)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("produce ended well without a server")
	}
	next, err := startServer(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = next.cmd.Process.Signal(syscall.SIGTERM)
		next.wait()
	}()
	acked := strings.Count(places.String(), "\n")
	got := strings.Split(strings.TrimSpace(next.ok(t, "", "consume", "t", "--until", "end", "-q").stdout), "\n")
	if len(got) < acked || acked == 0 {
		t.Errorf("%d records were acknowledged, %d are there", acked, len(got))
	}
	for i, v := range got {
		if v != fmt.Sprint(i) {
			t.Fatalf("record %d is %q", i, v)
		}
	}
}

// stopAfter closes reached once so many bytes were written.
type stopAfter struct {
	w       *strings.Builder
	bytes   int
	reached chan struct{}
}

func (s *stopAfter) Write(b []byte) (int, error) {
	before := s.w.Len()
	n, err := s.w.Write(b)
	if before < s.bytes && s.w.Len() >= s.bytes {
		close(s.reached)
	}
	return n, err
}
