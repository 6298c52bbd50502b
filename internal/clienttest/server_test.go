package clienttest

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/flotilla-log/flotilla/internal/proctest"
)

// root is the module's folder, as seen from this package's.
const root = "../.."

// buildDir holds what is made of the server and the examples: these are built from a
// copy, and again when a file of theirs has changed.
var buildDir = filepath.Join(root, "bin", "clients")

// serverBinary builds the server once for all tests.
var serverBinary = sync.OnceValues(func() (string, error) {
	return proctest.Build("CLIENTS_BINARY", filepath.Join(buildDir, "flotilla"))
})

// startServer starts a server for the length of a test, and returns its address.
// It must stop without a fault.
func startServer(t *testing.T) string {
	t.Helper()
	if addr := os.Getenv("CLIENTS_ADDR"); addr != "" {
		return addr
	}
	return newServer(t).Addr
}

// startCluster starts three nodes for the length of a test, and returns their addresses.
func startCluster(t *testing.T) []string {
	t.Helper()
	s := prepareServer(t)
	s.run(func(binary string) (*proctest.Process, error) { return proctest.StartNodes(binary, s.dir, 3) })
	return s.Addrs()
}

// server is a server's process, or that of several nodes' parent, and its data.
type server struct {
	*proctest.Process // nil: it has not started

	t   *testing.T
	dir string
}

// newServer starts a server for the length of a test.
func newServer(t *testing.T) *server {
	t.Helper()
	s := prepareServer(t)
	s.serve("127.0.0.1:0")
	return s
}

// prepareServer returns a server that ends with the test.
func prepareServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir()}
	t.Cleanup(func() {
		if s.Process == nil {
			return
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", proctest.Tail(proctest.Log(s.dir)))
		}
	})
	return s
}

// serve starts a node that listens on addr, and returns when it serves.
func (s *server) serve(addr string) {
	s.t.Helper()
	s.run(func(binary string) (*proctest.Process, error) {
		return proctest.Start(binary, proctest.Log(s.dir), proctest.ServesAt,
			"serve", "--data.dir", filepath.Join(s.dir, "data"), "--listen", addr, "--admin.listen", "off")
	})
}

// run has start start the process of a binary.
func (s *server) run(start func(binary string) (*proctest.Process, error)) {
	s.t.Helper()
	binary, err := serverBinary()
	if err != nil {
		s.t.Fatal(err)
	}
	if s.Process, err = start(binary); err != nil {
		s.t.Fatal(err)
	}
}

// restart ends the process with kill -9, and starts another one with its data and
// its address.
func (s *server) restart() {
	s.t.Helper()
	s.Kill()
	s.serve(s.Addr)
}
