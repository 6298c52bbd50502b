package boundtest

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// The child process is this test binary again, told by these variables.
const (
	dirVariable  = "BOUNDTEST_DIR"
	diskVariable = "BOUNDTEST_DISK_BYTES_PER_SECOND"

	// memoryBytes is the node's memory.bytes.
	memoryBytes = 64 << 20
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirVariable); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serve runs a node until standard input ends.
func serve(dir string) error {
	var disk vfs.FS = vfs.OS
	if text := os.Getenv(diskVariable); text != "" {
		rate, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		disk = &slowFS{FS: vfs.OS, bytesPerSecond: rate}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	node.LimitMemory(memoryBytes, 10_000, 1)
	n, err := node.Start(context.Background(), node.Options{
		FS: disk, Dir: dir, NodeID: 1, Version: "test", Listener: l, Admin: admin,
		JournalBytes: 128 << 20, JournalFileBytes: 16 << 20, MemoryBytes: memoryBytes, LagInterval: 100 * time.Millisecond,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	fmt.Println(l.Addr(), admin.Addr())
	go func() {
		if err := <-n.Failed(); err != nil {
			fmt.Fprintln(os.Stderr, "node failed:", err)
			os.Exit(3)
		}
	}()
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return n.Close(ctx)
}

// server is the node's process, and what it took at most.
type server struct {
	addr  string
	admin string
	pid   int

	mu   sync.Mutex
	peak int64 // resident bytes
}

// start starts a node. diskBytesPerSecond 0 is the disk as it is.
func start(t *testing.T, diskBytesPerSecond int64) *server {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), dirVariable+"="+filepath.Join(t.TempDir(), "data"))
	if diskBytesPerSecond > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", diskVariable, diskBytesPerSecond))
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log := new(tail)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := <-ended; err != nil {
			t.Errorf("the node ended with %v; the end of its log:\n%s", err, log)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() { ended <- cmd.Wait() }()
	if err != nil {
		t.Fatalf("the node does not serve: %v\n%s", err, log)
	}
	s := &server{pid: cmd.Process.Pid}
	if _, err := fmt.Sscan(line, &s.addr, &s.admin); err != nil {
		t.Fatalf("the node says %q: %v", line, err)
	}
	return s
}

// look notes the memory that is resident now, and returns the most so far.
func (s *server) look(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatalf("statm %q: %v", b, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peak = max(s.peak, pages*int64(os.Getpagesize()))
	return s.peak
}

// tail keeps the end of a log.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b = append(l.b, b...); len(l.b) > 64<<10 {
		l.b = append([]byte(nil), l.b[len(l.b)-16<<10:]...)
	}
	return len(b), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// slowFS is a disk that takes its time for what is written.
type slowFS struct {
	vfs.FS
	bytesPerSecond int64

	mu   sync.Mutex
	free time.Time // when the disk has done what it was given
}

// take keeps the caller until the disk has taken n bytes more.
func (s *slowFS) take(n int64) {
	s.mu.Lock()
	now := time.Now()
	if s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(time.Duration(n) * time.Second / time.Duration(s.bytesPerSecond))
	until := time.Until(s.free)
	s.mu.Unlock()
	<-time.After(until)
}

func (s *slowFS) Create(name string) (vfs.File, error) { return s.slow(s.FS.Create(name)) }
func (s *slowFS) Open(name string) (vfs.File, error)   { return s.slow(s.FS.Open(name)) }

func (s *slowFS) slow(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &slowFile{f, s}, nil
}

type slowFile struct {
	vfs.File
	disk *slowFS
}

func (f *slowFile) WriteAt(b []byte, off int64) (int, error) {
	f.disk.take(int64(len(b)))
	return f.File.WriteAt(b, off)
}

func (f *slowFile) WriteVecAt(bufs [][]byte, off int64) (int64, error) {
	n := int64(0)
	for _, b := range bufs {
		n += int64(len(b))
	}
	f.disk.take(n)
	return f.File.WriteVecAt(bufs, off)
}

// raise lifts the limit on open files to what the system allows.
func raise(t *testing.T) uint64 {
	t.Helper()
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	return lim.Cur
}
