//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
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

// waitServing returns once every address answers a request, or with an error
// once the process has ended or half a minute has passed. It is not enough that
// something listens: nginx opens what it can, and ends some seconds later if it
// did not get all of it.
func (p *process) waitServing(ctx context.Context, addresses ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(addresses) > 0 {
		c, err := oneRequest(ctx, loopback, addresses[0], "/small")
		if err == nil {
			c.Close()
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

// freeAddresses returns n loopback addresses on ports that nobody has. They lie
// below the range that the kernel gives to outgoing connections, of which there
// are thousands here.
func freeAddresses(n int) ([]string, error) {
	const lowest, tries = 12_000, 1000
	beyond := 32_768
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if _, err := fmt.Sscan(string(text), &beyond); err != nil {
			return nil, fmt.Errorf("range of outgoing ports: %w", err)
		}
	}
	beyond = max(beyond, lowest+1000)
	var addresses []string
	for try := 0; len(addresses) < n; try++ {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(beyond-lowest)))
		l, err := net.Listen("tcp", address)
		if err != nil {
			if try == tries {
				return nil, fmt.Errorf("find a free port: %w", err)
			}
			continue
		}
		defer l.Close() // all at the end, so that no port comes twice
		addresses = append(addresses, address)
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
