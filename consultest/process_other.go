//go:build !linux

package consultest

import "syscall"

// dieWithParent is for Linux only: elsewhere an agent outlives a test binary
// that is killed.
func dieWithParent() *syscall.SysProcAttr { return nil }
