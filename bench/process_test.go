//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sluice/bench/machine"
	"sluice/test/verify"
)

// burn uses CPU for at least d, as this process's own clock counts it.
func burn(t *testing.T, d time.Duration) {
	t.Helper()
	start, err := machine.ProcessClock(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for {
		now, err := machine.ProcessClock(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now-start >= d {
			return
		}
	}
}

func TestCPUTimeOfAProcess(t *testing.T) {
	before, err := readCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	burn(t, 50*time.Millisecond)
	after, err := readCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	used := after.sub(before)
	if used.total < 50*time.Millisecond {
		t.Errorf("used %v, want at least 50ms", used.total)
	}
	if share := used.userShare(); share < 0 || share > 1 {
		t.Errorf("user share %v is not between 0 and 1", share)
	}
}

func TestDescendantsAreCounted(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 600 & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids := []int{cmd.Process.Pid}
	defer func() {
		for _, pid := range pids {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		}
		_ = cmd.Wait()
	}()
	// The child is a second shell until it has executed sleep, and its memory is another's
	// from then on.
	deadline := time.Now().Add(2 * time.Minute)
	for len(pids) < 2 || !executes(pids[1], "sleep") {
		if time.Now().After(deadline) {
			t.Fatalf("descendants = %v, want the shell and its child", pids)
		}
		found, err := descendants(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		pids = found
	}
	child, err := readResident(pids[1])
	if err != nil {
		t.Fatal(err)
	}
	both, err := readResident(pids[0])
	if err != nil {
		t.Fatal(err)
	}
	if child <= 0 || both <= child {
		t.Errorf("child %d bytes, both %d: the sum must be more", child, both)
	}
}

// executes reports whether the process runs the program name.
func executes(pid int, name string) bool {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.TrimSpace(string(comm)) == name
}

func TestProcessThatDiesEarlyShowsItsOutput(t *testing.T) {
	if _, err := exec.LookPath("taskset"); err != nil {
		t.Skip("taskset is not installed")
	}
	p, err := startProcess("failing", "0", t.TempDir(), "sh", "-c", "echo no such option; exit 1")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	address, err := machine.FreeAddresses(1)
	if err != nil {
		t.Fatal(err)
	}
	err = p.waitServing(t.Context(), probeHTTP1, address[0])
	if err == nil || !strings.Contains(err.Error(), "no such option") {
		t.Errorf("error %v lacks the output of the process", err)
	}
}

// The installed version of each proxy accepts its configuration.
func TestConfigurationsAreAccepted(t *testing.T) {
	s := settings{
		Dir: t.TempDir(), Root: os.Geteuid() == 0, Listen: "127.0.0.1:18080", Admin: "127.0.0.1:18081",
		Peers: []string{"127.0.0.1:19001", "127.0.0.1:19002"}, Threads: 1, LogSink: "127.0.0.1:19514", SmallBody: "x",
	}
	if err := writeCertificate(s); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, tool, template string
		check                func(path string) []string
	}{
		{"nginx", "nginx", "nginx.conf", func(path string) []string { return []string{"-t", "-q", "-p", s.Dir, "-e", "stderr", "-c", path} }},
		{"origin", "nginx", "origin.conf", func(path string) []string { return []string{"-t", "-q", "-p", s.Dir, "-e", "stderr", "-c", path} }},
		{"haproxy", "haproxy", "haproxy.cfg", func(path string) []string { return []string{"-c", "-q", "-f", path} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if machine.Require(map[string]string{c.tool: c.tool}) != nil {
				t.Skipf("%s is not installed", c.tool)
			}
			for _, set := range []func(*settings){
				func(*settings) {},
				func(s *settings) { s.TLS, s.HTTP2 = true, true },
				func(s *settings) { s.HTTP2, s.GRPC = true, true },
			} {
				s := s
				s.Name = c.name
				set(&s)
				path, err := s.render(c.template)
				if err != nil {
					t.Fatal(err)
				}
				if out, err := exec.Command(machine.Program(c.tool), c.check(path)...).CombinedOutput(); err != nil {
					t.Errorf("%+v: %v\n%s", s, err, out)
				}
			}
		})
	}
}

// Caddy accepts its configuration, where it has been built already.
func TestCaddyfileIsAccepted(t *testing.T) {
	if !caddy.Built(t.Context()) {
		t.Skip("Caddy has not been built")
	}
	path := verify.Result(caddy.Binary(t.Context(), nil)).Must(t)
	s := settings{Name: "caddy", Dir: t.TempDir(), Listen: "127.0.0.1:18080", Admin: "127.0.0.1:18081", Peers: []string{"127.0.0.1:19001", "127.0.0.1:19002"}}
	verify.NoError(t, writeCertificate(s))
	file := verify.Result(s.render(caddyFile)).Must(t)
	out, err := exec.Command(path, "validate", "--adapter", "caddyfile", "--config", file).CombinedOutput()
	verify.That(t, err == nil, "%v\n%s", err, out)
}

// The reference proxy and the origin for bodies work.
func TestFasthttpProxyAndOrigin(t *testing.T) {
	origin := newOrigin()
	originListener := listen(t)
	go func() { _ = origin.Serve(originListener) }()
	t.Cleanup(func() { _ = origin.Shutdown() })
	proxy := newProxy([]string{originListener.Addr().String()})
	proxyListener := listen(t)
	go func() { _ = proxy.Serve(proxyListener) }()
	t.Cleanup(func() { _ = proxy.Shutdown() })

	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	for _, size := range []int{0, kB, MB} {
		body := strings.NewReader(strings.Repeat("x", size))
		response, err := client.Post(fmt.Sprintf("http://%s/small", proxyListener.Addr()), "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || len(answer) != smallBytes {
			t.Errorf("POST of %d bytes: %s with %d bytes, %v", size, response.Status, len(answer), err)
		}
		if body.Len() != 0 {
			t.Errorf("POST of %d bytes: %d of them were not read", size, body.Len())
		}
	}
	if conns, err := openIdle(t.Context(), 100, proxyListener.Addr().String(), workload{path: "/small"}); err != nil || len(conns) != 100 {
		t.Errorf("opened %d idle connections, want 100: %v", len(conns), err)
	} else {
		for _, c := range conns {
			c.Close()
		}
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
