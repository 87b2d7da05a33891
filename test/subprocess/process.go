package subprocess

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Patience is how long Stop waits after SIGTERM before it kills the process.
const Patience = 30 * time.Second

// Options configures a program.
type Options struct {
	Program string    // a path, or a name on PATH
	Args    []string  // without the name of the program
	Dir     string    // working directory; this process's if empty
	Env     []string  // added to the environment of this process
	Output  io.Writer // standard output and error, discarded if nil

	// DeathSignal is the signal that the process gets when this one dies, on Linux;
	// SIGKILL if it is 0. A program with child processes needs SIGTERM, so that it can
	// end them.
	DeathSignal syscall.Signal
}

// Process is a running program. On Linux it ends with this process. It does not get the signal of
// Ctrl-C: the caller stops it. Its methods may be called concurrently.
type Process struct {
	handle *os.Process
	exited chan struct{} // closed when the process has ended
	err    error         // set before exited is closed
}

// Start runs a program.
func Start(o Options) (*Process, error) {
	command := exec.Command(o.Program, o.Args...)
	command.Dir = o.Dir
	command.Env = append(os.Environ(), o.Env...)
	command.Stdout, command.Stderr = o.Output, o.Output
	command.SysProcAttr = attributes(o.DeathSignal)

	p := &Process{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// For the kernel, the parent of a child is the thread that started it. Go
		// does not end a thread while a goroutine is locked to it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		p.handle = command.Process
		started <- err
		if err == nil {
			p.err = command.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Program, err)
	}
	return p, nil
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.handle.Pid }

// Exited returns a channel that is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err returns the result of the process: nil for status 0. Call it after Exited.
func (p *Process) Err() error { return p.err }

// Stop sends SIGTERM, waits until the process has ended, and kills it after Patience.
func (p *Process) Stop() error {
	if err := terminate(p.handle); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	patience := time.NewTimer(Patience)
	defer patience.Stop()
	select {
	case <-p.exited:
		return nil
	case <-patience.C:
		return p.Kill()
	}
}

// Kill sends SIGKILL, and waits until the process has ended.
func (p *Process) Kill() error {
	if err := p.handle.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.exited
	return nil
}

// Pause suspends the process (SIGSTOP). On Linux it returns when all threads have stopped. Only on
// Unix.
func (p *Process) Pause() error { return pause(p.handle) }

// PauseChild suspends a child of this process, as Pause does.
func PauseChild(pid int) error {
	child, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return pause(child)
}

// Resume continues a paused process (SIGCONT). Only on Unix.
func (p *Process) Resume() error { return resume(p.handle) }
