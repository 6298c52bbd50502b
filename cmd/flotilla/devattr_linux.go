package main

import "syscall"

// childAttr keeps a terminal's Ctrl-C from a child, which the parent stops in
// good order, and has the kernel end it with the thread that started it.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
