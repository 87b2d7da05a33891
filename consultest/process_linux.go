package consultest

import "syscall"

// dieWithParent makes the kernel kill the child when the thread that started
// it ends. The caller keeps that thread alive (runtime.LockOSThread), so that it
// means: when this process ends, however it ends.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
