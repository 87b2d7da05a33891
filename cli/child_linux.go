package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

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
