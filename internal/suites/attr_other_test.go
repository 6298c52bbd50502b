//go:build clients && !linux

package suites

import "syscall"

// tied has no counterpart here: the servers outlive a test that is killed.
func tied() *syscall.SysProcAttr { return nil }
