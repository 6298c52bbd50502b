package killtest

import "syscall"

// tied makes a server die with the thread that started it, so that none is left
// over when the test is killed.
func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
