package subprocess

import (
	"cmp"
	"syscall"
)

// attributes makes the kernel send death to the child when the thread that
// started it ends. Start keeps that thread alive, so that it means: when this
// process ends, however it ends. A process group of its own keeps Ctrl-C away.
func attributes(death syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: cmp.Or(death, syscall.SIGKILL), Setpgid: true}
}
