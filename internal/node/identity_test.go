package node

import (
	"crypto/rand"
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
