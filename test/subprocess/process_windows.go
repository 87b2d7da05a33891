package subprocess

import (
	"errors"
	"os"
	"syscall"
)

// attributes: a child outlives a parent that is killed.
func attributes(syscall.Signal) *syscall.SysProcAttr { return nil }

func pause(*os.Process) error       { return errors.ErrUnsupported }
func resume(*os.Process) error      { return errors.ErrUnsupported }
func terminate(p *os.Process) error { return p.Kill() }
