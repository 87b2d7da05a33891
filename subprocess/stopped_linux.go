package subprocess

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// awaitStopped waits until every thread of a child has stopped, after SIGSTOP:
// they do so one by one. A child that has ended is not waited for; what it has
// to say about its end stays with whoever waits for that.
func awaitStopped(pid int) error {
	for {
		// WNOWAIT leaves the news there: a child may be paused twice.
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
