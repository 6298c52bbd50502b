//go:build clients

package suites

import "syscall"

// tied makes the servers die with the thread that started them, so that none is
// left over when the test is killed.
func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
