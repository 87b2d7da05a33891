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
	start := verify.Result(machine.ProcessClock(os.Getpid())).Must(t)
	for {
		now := verify.Result(machine.ProcessClock(os.Getpid())).Must(t)
		if now-start >= d {
			return
		}
	}
}

func TestCPUTimeOfAProcess(t *testing.T) {
	before := verify.Result(readCPU(os.Getpid())).Must(t)
	burn(t, 50*time.Millisecond)
	after := verify.Result(readCPU(os.Getpid())).Must(t)
	used := after.sub(before)
	verify.That(t, used.total >= 50*time.Millisecond, "used %v, want at least 50ms", used.total)
	share := used.userShare()
	verify.That(t, share >= 0 && share <= 1, "user share %v is not between 0 and 1", share)
}

func TestDescendantsAreCounted(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 600 & wait")
	verify.NoError(t, cmd.Start())
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
		verify.Require(t, !time.Now().After(deadline), "descendants = %v, want the shell and its child", pids)
		found := verify.Result(descendants(cmd.Process.Pid)).Must(t)
		pids = found
	}
	child := verify.Result(readResident(pids[1])).Must(t)
	both := verify.Result(readResident(pids[0])).Must(t)
	verify.That(t, child > 0 && both > child, "child %d bytes, both %d: the sum must be more", child, both)
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
	p := verify.Result(startProcess("failing", "0", t.TempDir(), "sh", "-c", "echo no such option; exit 1")).Must(t)
	defer p.stop()
	address := verify.Result(machine.FreeAddresses(1)).Must(t)
	err := p.waitServing(t.Context(), probeHTTP1, address[0])
	verify.That(t, err != nil && strings.Contains(err.Error(), "no such option"), "error %v lacks the output of the process", err)
}

// The installed version of each proxy accepts its configuration.
func TestConfigurationsAreAccepted(t *testing.T) {
	s := settings{
		Dir: t.TempDir(), Root: os.Geteuid() == 0, Listen: "127.0.0.1:18080", Admin: "127.0.0.1:18081",
		Peers: []string{"127.0.0.1:19001", "127.0.0.1:19002"}, Threads: 1, LogSink: "127.0.0.1:19514", SmallBody: "x",
	}
	verify.NoError(t, writeCertificate(s))
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
				path := verify.Result(s.render(c.template)).Must(t)
				out, err := exec.Command(machine.Program(c.tool), c.check(path)...).CombinedOutput()
				verify.That(t, err == nil, "%+v: %v\n%s", s, err, out)
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
		response := verify.Result(client.Post(fmt.Sprintf("http://%s/small", proxyListener.Addr()), "text/plain", body)).Must(t)
		answer, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || len(answer) != smallBytes {
			t.Errorf("POST of %d bytes: %s with %d bytes, %v", size, response.Status, len(answer), err)
		}
		verify.That(t, body.Len() == 0, "POST of %d bytes: %d of them were not read", size, body.Len())
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
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	return l
}
