//go:build linux

package main

import (
	"context"
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

// profile runs two more rounds on p, and writes its profile into profileDir:
// PROXY-WORKLOAD.perf.data with its text report, and a summary of its system calls with the
// number of each per request.
func (b *bench) profile(ctx context.Context, w workload, p *running) error {
	if err := os.MkdirAll(b.profileDir, 0o755); err != nil {
		return err
	}
	base := filepath.Join(b.profileDir, p.name+"-"+w.name)
	if err := b.perf(ctx, w, p, base); err != nil {
		return fmt.Errorf("profile %s: %w", p.name, err)
	}
	if err := b.strace(ctx, w, p, base+".strace.txt"); err != nil {
		return fmt.Errorf("count system calls of %s: %w", p.name, err)
	}
	fmt.Fprintf(b.progress, "%-10s profiled %s: %s.*\n", w.name, p.name, base)
	return nil
}

// perf samples on the CPU's clock: virtual machines often have no hardware
// counters. Go binaries keep frame pointers, so that stacks are whole.
func (b *bench) perf(ctx context.Context, w workload, p *running, base string) error {
	data := base + ".perf.data"
	pids, err := descendants(p.process.PID())
	if err != nil {
		return err
	}
	record := exec.CommandContext(ctx, "taskset", "-c", b.loadCPUs, "perf", "record", "-q",
		"-e", "cpu-clock", "-F", "1999", "-g", "-o", data, "-p", joinInts(pids))
	if err := b.during(ctx, w, p, record, nil); err != nil {
		return err
	}
	for suffix, args := range map[string][]string{
		".flat.txt":  {"--no-children", "-g", "none", "--percent-limit", "0.3"},
		".tree.txt":  {"--children", "-g", "caller,0.5,callee,function,percent", "--percent-limit", "1"},
		".files.txt": {"--no-children", "-g", "none", "--sort", "dso"},
	} {
		args = append([]string{"report", "--stdio", "-i", data}, args...)
		out, err := exec.CommandContext(ctx, "perf", args...).Output()
		if err != nil {
			return fmt.Errorf("perf report: %w", err)
		}
		if err := os.WriteFile(base+".perf"+suffix, out, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// strace counts the system calls of a round. The round is slower for it, so
// calls that depend on how much happens at once can differ a little.
func (b *bench) strace(ctx context.Context, w workload, p *running, path string) error {
	pids, err := descendants(p.process.PID())
	if err != nil {
		return err
	}
	summary := path + ".tmp"
	args := []string{"-c", b.loadCPUs, "strace", "-f", "-qq", "-c", "-U", "calls,errors,name", "-S", "calls", "-o", summary}
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	var load loadResult
	if err := b.during(ctx, w, p, exec.CommandContext(ctx, "taskset", args...), &load); err != nil {
		return err
	}
	defer os.Remove(summary)
	raw, err := os.ReadFile(summary)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%d requests\n\nper request  calls     errors    name\n", load.Requests)
	for _, c := range machine.ParseCalls(string(raw)) {
		text += fmt.Sprintf("%11.3f  %-8d  %-8d  %s\n", float64(c.Calls)/float64(load.Requests), c.Calls, c.Errors, c.Name)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// during attaches tool to p, runs a round, and ends tool as Ctrl-C would.
func (b *bench) during(ctx context.Context, w workload, p *running, tool *exec.Cmd, load *loadResult) error {
	defer p.begin(ctx)()
	output := subprocess.NewTail(8 << 10)
	tool.Stdout, tool.Stderr = output, output
	tool.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := tool.Start(); err != nil {
		return err
	}
	attach := time.NewTimer(300 * time.Millisecond) // the tools do not report when they have attached
	defer attach.Stop()
	select {
	case <-attach.C:
	case <-ctx.Done():
	}
	r, err := b.load.run(ctx, w, p.settings.Listen, w.roundTime(b.time))
	_ = tool.Process.Signal(os.Interrupt)
	toolErr := tool.Wait()
	if err != nil {
		return err
	}
	if load != nil {
		*load = r
	}
	// Both tools may exit with the signal that ended them.
	if status, ok := tool.ProcessState.Sys().(syscall.WaitStatus); ok && (status.Signaled() || status.ExitStatus() == 130) {
		return nil
	}
	if toolErr != nil {
		return fmt.Errorf("%s: %w\n%s", tool.Args[3], toolErr, output)
	}
	return nil
}

func joinInts(numbers []int) string {
	var texts []string
	for _, n := range numbers {
		texts = append(texts, strconv.Itoa(n))
	}
	return strings.Join(texts, ",")
}
