//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"sluice/test/subprocess"
)

// process is a child process that runs until it is stopped. Its output is stored for the
// error if it ends early.
type process struct {
	*subprocess.Process
	name   string
	output *subprocess.Tail
}

// startProcess starts command on the given CPUs (a list as taskset takes it) in
// dir. taskset replaces itself with the command, so the id is the command's.
func startProcess(name, cpus, dir string, command ...string) (*process, error) {
	p := &process{name: name, output: subprocess.NewTail(8 << 10)}
	var err error
	p.Process, err = subprocess.Start(subprocess.Options{
		Program:     "taskset",
		Args:        append([]string{"-c", cpus}, command...),
		Dir:         dir,
		Output:      p.output,
		DeathSignal: syscall.SIGTERM, // nginx then ends its workers
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// waitServing waits until each address answers. It returns an error if the process
// ends, or after half a minute. A listening socket is not sufficient: nginx opens the
// available ports, and ends some seconds later if others are in use.
func (p *process) waitServing(ctx context.Context, answers probe, addresses ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(addresses) > 0 {
		err := answers(ctx, addresses[0])
		if err == nil {
			addresses = addresses[1:]
			continue
		}
		select {
		case <-p.Exited():
			return fmt.Errorf("%s ended before it served %s:\n%s", p.name, addresses[0], p.output)
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve %s: %w\n%s", p.name, addresses[0], err, p.output)
		case <-tick.C:
		}
	}
	return nil
}

// stop ends the process and waits for it.
func (p *process) stop() {
	if err := p.Stop(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: stop %s: %v\n", p.name, err)
	}
}
