package main

import (
	"net"
	"testing"
	"time"
)

// TestDevKilled: nodes do not outlive who started them, also if that is killed.
func TestDevKilled(t *testing.T) {
	t.Parallel()
	d := startDev(t, 1, ownPorts(t, 3))
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(commandLimit); ; {
		nc, err := net.Dial("tcp", d.bootstrap)
		if err != nil {
			return // nobody listens there any more
		}
		_ = nc.Close()
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("the node, pid %d, lives on", d.pids[0])
		}
	}
}
