//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice/bench/machine"
	"sluice/test/subprocess"
)

// again is the end of the name of a call's failures: mostly EAGAIN.
const again = "-failed"

// countCalls counts the system calls of a process while do runs: by name those that succeed, and by
// name and [again] those that fail. It waits until strace has all threads.
func countCalls(ctx context.Context, pid int, dir string, do func() error) (map[string]float64, error) {
	summary := filepath.Join(dir, "strace")
	output := subprocess.NewTail(8 << 10)
	tool := exec.CommandContext(ctx, "strace", "-f", "-qq", "-c", "-U", "calls,errors,name", "-o", summary, "-p", strconv.Itoa(pid))
	tool.Stdout, tool.Stderr = output, output
	tool.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this program
	if err := tool.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = tool.Wait() // strace exits with the signal that ends it
		close(ended)
	}()
	err := awaitTraced(ctx, pid, ended)
	if err == nil {
		err = do()
	}
	_ = tool.Process.Signal(os.Interrupt)
	<-ended
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, output)
	}
	text, err := os.ReadFile(summary)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, output)
	}
	counts := map[string]float64{}
	for _, c := range machine.ParseCalls(string(text)) {
		if c.Calls > c.Errors {
			counts[c.Name] = float64(c.Calls - c.Errors)
		}
		if c.Errors > 0 {
			counts[c.Name+again] = float64(c.Errors)
		}
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("strace counted nothing:\n%s\n%s", text, output)
	}
	return counts, nil
}

// awaitTraced returns when all threads of a process are traced.
func awaitTraced(ctx context.Context, pid int, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !isTraced(pid) {
		select {
		case <-tick.C:
		case <-ended:
			return errors.New("strace cannot trace sluice")
		case <-ctx.Done():
			return fmt.Errorf("strace does not trace sluice: %w", ctx.Err())
		}
	}
	return nil
}

func isTraced(pid int) bool {
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid)) // the pattern is well-formed
	for _, path := range paths {
		if text, err := os.ReadFile(path); err != nil || strings.Contains(string(text), "\nTracerPid:\t0\n") {
			return false
		}
	}
	return len(paths) > 0
}
