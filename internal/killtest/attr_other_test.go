//go:build !linux

package killtest

import "syscall"

// tied has no counterpart here: a server outlives a test that is killed.
func tied() *syscall.SysProcAttr { return nil }
