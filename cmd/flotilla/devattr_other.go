//go:build !linux

package main

import "syscall"

// childAttr keeps a terminal's Ctrl-C from a child, which the parent stops in
// good order. A child outlives a parent that is killed.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
