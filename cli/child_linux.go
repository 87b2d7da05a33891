package cli

import "syscall"

// childAttributes: startChild keeps the thread alive that the kernel takes for the parent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
}
