package subprocess

import (
	"cmp"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes makes the kernel send the signal death to the child when the thread that started it
// ends. Start keeps that thread alive until this process ends. In a separate process group the
// child does not get the signal of Ctrl-C.
func attributes(death syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: cmp.Or(death, syscall.SIGKILL), Setpgid: true}
}

// awaitStopped waits until all threads of a child have stopped after SIGSTOP, or the child
// has ended. It does not reap the child.
func awaitStopped(pid int) error {
	for {
		// WNOWAIT does not consume the state: a child may be paused twice.
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return fmt.Errorf("wait until process %d has stopped: %w", pid, err)
		default:
			return nil
		}
	}
}
