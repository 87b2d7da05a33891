package consultest

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// process is a child that dies with this one where the system can do that.
type process struct {
	handle *os.Process
	exited chan struct{} // closed when it ended
	err    error         // how; meaningful once exited is closed
}

// startProcess runs a program with its output appended to logFile.
func startProcess(program string, args []string, logFile string) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command(program, args...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = dieWithParent()

	p := &process{exited: make(chan struct{})}
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
		return nil, err
	}
	return p, nil
}

// end sends a signal and waits for the process to end; when that takes too
// long, it is killed.
func (p *process) end(signal func(*os.Process) error) error {
	if err := signal(p.handle); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	patience := time.NewTimer(stopTimeout)
	defer patience.Stop()
	select {
	case <-p.exited:
		return nil
	case <-patience.C:
	}
	if err := p.handle.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.exited
	return nil
}
