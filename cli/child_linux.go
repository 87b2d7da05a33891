package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// hideProcess keeps the app, which has the same user, from reading the environment and the memory
// of this process: from now on only root may, and finds no environment. os.Getenv has a copy. What
// this process starts is as readable as ever.
func hideProcess() error {
	wiped := wipeEnvironment()
	return errors.Join(wiped, os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)))
}

// wipeEnvironment clears what /proc/self/environ shows.
func wipeEnvironment() error {
	stat, err := os.ReadFile("/proc/self/stat")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // without /proc nobody sees it
	}
	if err != nil {
		return err
	}
	// Numbers follow the name, which may have brackets. See proc_pid_stat(5).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const state, envStart, envEnd = 3, 50, 51
	if len(fields) <= envEnd-state {
		return errors.New("/proc/self/stat does not say where the environment is")
	}
	start, err1 := strconv.ParseInt(fields[envStart-state], 10, 64)
	end, err2 := strconv.ParseInt(fields[envEnd-state], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("/proc/self/stat: %w", err)
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	_, err = memory.WriteAt(make([]byte, max(0, end-start)), start)
	return err
}

// childAttributes: startChild keeps the thread alive that the kernel takes for the parent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
}

// reapAdopted removes the ended processes that this one has adopted: the first
// process of a container gets all whose parents have ended.
func (c *child) reapAdopted() {
	lists, _ := filepath.Glob("/proc/self/task/*/children") // the pattern is right
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended, or the kernel does not tell
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid != c.command.Process.Pid {
				_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // it may run
			}
		}
	}
}
