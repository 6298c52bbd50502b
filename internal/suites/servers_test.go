//go:build clients

package suites

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/flotilla-log/flotilla/internal/proctest"
)

// buildDir holds what is made of the server and the suites, and is kept.
var buildDir = filepath.Join("..", "..", "bin", "suites")

// build makes the server once for all tests.
var build = sync.OnceValues(func() (string, error) {
	return proctest.Build("SUITES_BINARY", filepath.Join(buildDir, "flotilla"))
})

// startFleet starts nodes for the length of a test, each a process with a fresh directory
// below "flotilla dev", and returns their addresses, the first node's first. more are
// settings beside those of flotilla dev. At the end of the test they have to stop in good
// order, and must not have logged an error.
func startFleet(t *testing.T, nodes int, more ...string) (bootstrap []string) {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log := proctest.Log(dir)
	f, err := proctest.StartNodes(binary, dir, nodes, more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.Stop(), proctest.Complaint(log)); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of the nodes' log:\n%s", proctest.Tail(log))
		}
	})
	return f.Addrs()
}
