//go:build unix && !linux

package subprocess

import "syscall"

// attributes puts the child into a separate process group, so it does not get the signal of Ctrl-C.
// It outlives a parent that is killed: only Linux can prevent that.
func attributes(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// awaitStopped does not wait: threads may run for a short time.
func awaitStopped(int) error { return nil }
