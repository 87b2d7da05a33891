package subprocess

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

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
