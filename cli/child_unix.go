//go:build unix && !linux

package cli

import "syscall"

// childAttributes: the program outlives this one if that is killed. Only Linux can prevent it.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// reapAdopted does nothing: containers are Linux.
func (c *child) reapAdopted() {}

// hideProcess does nothing: these systems have no /proc that shows an environment.
func hideProcess() error { return nil }
