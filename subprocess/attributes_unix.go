//go:build unix && !linux

package subprocess

import "syscall"

// attributes gives the child a process group of its own, which keeps Ctrl-C
// away. It outlives a parent that is killed: only Linux can prevent that.
func attributes(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
