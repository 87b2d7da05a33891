package cli

import (
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"sluice/observe/panics"
)

// Exit statuses for a program that cannot be started, as shells have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// child is a program that runs in a session of its own: it does not get Ctrl-C, which
// this process passes on when it is time, but may read from the terminal. On Linux it gets
// SIGTERM when this process dies.
type child struct {
	command *exec.Cmd
	exited  chan struct{} // closed when the program has ended
	status  int           // set before exited is closed: the exit status, or 128 and the signal
}

// startChild starts a program with the streams of this one.
func startChild(command, environment []string, in io.Reader, out, errors io.Writer) (*child, error) {
	c := &child{command: exec.Command(command[0], command[1:]...), exited: make(chan struct{})}
	c.command.Env = environment
	c.command.Stdin, c.command.Stdout, c.command.Stderr = in, out, errors
	c.command.SysProcAttr = childAttributes()
	c.command.WaitDelay = time.Second // for streams that are no files
	started := make(chan error)
	go func() {
		defer panics.Contain(panics.Task, nil)
		// For the kernel, the parent of a child is the thread that started it. Go
		// does not end a thread while a goroutine is locked to it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.command.Start()
		started <- err
		if err == nil {
			_ = c.command.Wait() // the state says more
			c.status = exitStatus(c.command.ProcessState.Sys().(syscall.WaitStatus))
			close(c.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// startFailure returns the exit status for an error of startChild.
func startFailure(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitNotFound
	}
	return exitNotExecutable
}

func exitStatus(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// signal sends a signal to the program, not to the processes that it has started: a
// supervisor of workers tells them itself.
func (c *child) signal(s syscall.Signal) { _ = c.command.Process.Signal(s) } // it may have ended

// kill kills the program and all of its process group.
func (c *child) kill() { _ = syscall.Kill(-c.command.Process.Pid, syscall.SIGKILL) }

// endGroup ends what the program has left behind in its process group, such as the application
// that a shell had started: with SIGTERM, and with SIGKILL after patience. Call it after
// the program has ended.
func (c *child) endGroup(patience time.Duration) {
	group := c.command.Process.Pid
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for s := syscall.SIGTERM; ; {
		for { // as the first process of a container, this one adopts them
			if pid, err := syscall.Wait4(-group, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
		if syscall.Kill(-group, s) != nil {
			return // nobody is left
		}
		if s == syscall.SIGKILL {
			return
		}
		s = 0 // only asks
		select {
		case <-tick.C:
		case <-limit:
			s = syscall.SIGKILL
		}
	}
}
