package node

import (
	"bytes"
	"crypto/rand"
	"regexp"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestIdentityIsReadUnderTheLock starts two processes on an empty
// directory: the slower one must not write a second identity over the first.
func TestIdentityIsReadUnderTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		var locks atomic.Int32
		fsys.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpLock && locks.Add(1) == 1 {
				return vfs.Fault{Delay: 5 * time.Second}
			}
			return vfs.Fault{}
		})
		want := identity{NodeID: 1, Shards: 4}
		var slow identity
		done := make(chan error)
		go func() {
			var err error
			slow, _, _, err = openDir(fsys, "d", want, rand.Reader)
			done <- err
		}()
		time.Sleep(time.Second)
		quick, _, lock, err := openDir(fsys, "d", want, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		_ = lock.Close() // it has served and stopped
		if err := <-done; err == nil && slow.ClusterID != quick.ClusterID {
			t.Errorf("cluster %s became %s", quick.ClusterID, slow.ClusterID)
		}
	})
}

// TestNewClusterID: the ids look like Kafka's, and never like a flag.
func TestNewClusterID(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{21}$`)
	for first := range 256 {
		var random [clusterIDBytes]byte
		random[0], random[1], random[15] = byte(first), 0xff, 0xff
		if id := newClusterID(random); !form.MatchString(id) {
			t.Errorf("from a first byte %#x: %s, want 22 characters of base64 for URLs", first, id)
		}
	}
	id, err := makeIdentity(vfs.NewMem(1), ".", identity{}, bytes.NewReader(make([]byte, 64)))
	if err != nil || !form.MatchString(id.ClusterID) {
		t.Errorf("a fresh directory's: %q, %v", id.ClusterID, err)
	}
}
