package proctest

import "syscall"

// Tied makes a process die with the thread that started it, so that none is left over
// when a test is killed.
func Tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
