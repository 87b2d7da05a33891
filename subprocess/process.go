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

// Patience is how long Stop waits between asking and killing.
const Patience = 30 * time.Second

// Options says what to run.
type Options struct {
	Program string    // a path, or a name on PATH
	Args    []string  // without the program's name
	Dir     string    // where it runs; this process's directory if empty
	Env     []string  // added to this process's environment
	Output  io.Writer // standard output and error, discarded if nil

	// DeathSignal is what the process gets when this one dies, on Linux; SIGKILL
	// if it is 0. A program with children of its own needs SIGTERM, so that it
	// can take them along.
	DeathSignal syscall.Signal
}

// Process is a running program. On Linux it dies with this process, however
// this one ends. Ctrl-C at the terminal does not reach it: it is for whoever
// started it to stop it. Safe for concurrent use.
type Process struct {
	handle *os.Process
	exited chan struct{} // closed when it ended
	err    error         // how; meaningful once exited is closed
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
		// The kernel's parent of a child is the thread that started it. Go may
		// end a thread early, but not while a goroutine is locked to it.
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

// PID returns the process's id.
func (p *Process) PID() int { return p.handle.Pid }

// Exited returns a channel that is closed once the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err returns how the process ended: nil for status 0. Call it after Exited.
func (p *Process) Err() error { return p.err }

// Stop asks the process to end (SIGTERM), waits for it, and kills it if that
// takes longer than Patience.
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

// Kill ends the process at once (SIGKILL) and waits for it.
func (p *Process) Kill() error {
	if err := p.handle.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.exited
	return nil
}

// Pause stops the process where it is (SIGSTOP); on Linux it returns when all of
// it has stopped. Only on Unix.
func (p *Process) Pause() error { return pause(p.handle) }

// Resume lets a paused process go on (SIGCONT). Only on Unix.
func (p *Process) Resume() error { return resume(p.handle) }
