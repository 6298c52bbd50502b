//go:build !linux

package proctest

import "syscall"

// Tied has no counterpart here: the servers outlive a test that is killed.
func Tied() *syscall.SysProcAttr { return nil }
