//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/subprocess"
)

// process is a child that runs until it is stopped. Its output is kept for the
// error message if it dies early.
type process struct {
	*subprocess.Process
	name   string
	output *tailBuffer
}

// startProcess starts command on the given CPUs (a list as taskset takes it) in
// dir. taskset replaces itself with the command, so the id is the command's.
func startProcess(name, cpus, dir string, command ...string) (*process, error) {
	p := &process{name: name, output: &tailBuffer{limit: 8 << 10}}
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

// waitListening returns once address accepts a connection, or with an error
// once the process has ended or ten seconds have passed.
func (p *process) waitListening(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var dialer net.Dialer
	for {
		c, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.Exited():
			return fmt.Errorf("%s ended before it listened on %s:\n%s", p.name, address, p.output)
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen on %s: %w\n%s", p.name, address, ctx.Err(), p.output)
		case <-tick.C:
		}
	}
}

// stop ends the process and waits for it.
func (p *process) stop() {
	if err := p.Stop(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: stop %s: %v\n", p.name, err)
	}
}

// tailBuffer keeps the last limit bytes written to it. Safe for concurrent use.
type tailBuffer struct {
	mu    sync.Mutex // guards buf
	buf   []byte
	limit int
}

func (t *tailBuffer) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - t.limit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}

// freeAddresses returns n loopback addresses on ports that were free a moment
// ago.
func freeAddresses(n int) ([]string, error) {
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // all at the end, so that no port comes twice
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// requireTools says which Debian packages are missing, if any.
func requireTools(tools map[string]string) error {
	var missing, packages []string
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if _, err := os.Stat("/usr/sbin/" + tool); err == nil {
			continue // installed, but sbin is not on this user's PATH
		}
		missing = append(missing, tool)
		packages = append(packages, pkg)
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("not installed: %s; on Debian or Ubuntu: sudo apt-get update && sudo apt-get install %s",
		strings.Join(missing, ", "), strings.Join(packages, " "))
}
