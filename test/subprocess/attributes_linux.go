package subprocess

import (
	"cmp"
	"syscall"
)

// attributes makes the kernel send the signal death to the child when the thread that started it
// ends. Start keeps that thread alive until this process ends. In a separate process group the
// child does not get the signal of Ctrl-C.
func attributes(death syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: cmp.Or(death, syscall.SIGKILL), Setpgid: true}
}
