package clienttest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"
)

// root is the module's folder, as seen from this package's.
const root = "../.."

// buildDir holds what is made of the server and the examples: these are built from a
// copy, and again when a file of theirs has changed.
var buildDir = filepath.Join(root, "bin", "clients")

// serverBinary builds the server once for all tests.
var serverBinary = sync.OnceValues(func() (string, error) {
	if name := os.Getenv("CLIENTS_BINARY"); name != "" {
		return filepath.Abs(name)
	}
	name, err := filepath.Abs(filepath.Join(buildDir, "flotilla"))
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", name, "github.com/flotilla-log/flotilla/cmd/flotilla").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return name, nil
})

var servesAt = regexp.MustCompile(`clients\s+(\S+)`)

// startServer starts a server for the length of a test, and returns its address.
// It must stop without a fault.
func startServer(t *testing.T) string {
	t.Helper()
	if addr := os.Getenv("CLIENTS_ADDR"); addr != "" {
		return addr
	}
	binary, err := serverBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "serve", "--data.dir", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--admin.listen", "off")
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	gone := make(chan error, 1)
	go func() {
		defer close(ready)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if m := servesAt.FindStringSubmatch(lines.Text()); m != nil {
				ready <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		for range ready {
		}
		gone <- cmd.Wait()
		if err := <-gone; err != nil {
			t.Errorf("the server ended: %v", err)
		}
		_ = log.Close()
		if t.Failed() {
			if text, err := os.ReadFile(log.Name()); err == nil {
				t.Logf("the server's log:\n%s", text)
			}
		}
	})
	select {
	case addr, ok := <-ready:
		if !ok {
			t.Fatal("the server ended before it served")
		}
		return addr
	case <-time.After(time.Minute):
		t.Fatal("the server does not serve")
		return ""
	}
}
