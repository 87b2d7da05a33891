package subprocess

import "syscall"

// attributes: a child outlives a parent that is killed.
func attributes(syscall.Signal) *syscall.SysProcAttr { return nil }
