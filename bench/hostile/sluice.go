//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/bench/machine"
	"sluice/test/subprocess"
	"sluice/test/testcert"
)

// sluice is a running sluice, with a peer.
type sluice struct {
	address string // "host:port" of its listener, by TCP and UDP
	admin   string // "host:port"
	process *subprocess.Process
	peer    *httptest.Server
}

// longBytes is the length of the answer to "/long".
const longBytes = 1 << 20

// start runs a program of sluice, and waits until it answers. The caller calls stop.
func start(ctx context.Context, program, dir string) (*sluice, error) {
	addresses, err := machine.FreeAddresses(2)
	if err != nil {
		return nil, err
	}
	s := &sluice{address: addresses[0], admin: addresses[1]}
	long := make([]byte, longBytes)
	s.peer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/long":
			_, _ = w.Write(long)
		case "/hang":
			<-r.Context().Done()
		default:
			_, _ = w.Write([]byte("ok"))
		}
	}))
	cert, key := testcert.PEM("localhost")
	path := func(name string) string { return filepath.Join(dir, name) }
	text := fmt.Sprintf(`listeners: [{ name: web, address: %q, http3: true, tls: { certificates: [{ cert: %q, key: %q }] } }]
admin: { address: %q }
access_log: { path: "off" }
services: { star: { peers: [%q] } }
routes: [{ service: star }]
`, s.address, path("cert.pem"), path("key.pem"), addresses[1], strings.TrimPrefix(s.peer.URL, "http://"))
	err = errors.Join(os.WriteFile(path("cert.pem"), cert, 0o600), os.WriteFile(path("key.pem"), key, 0o600), os.WriteFile(path("sluice.yaml"), []byte(text), 0o600))
	output := subprocess.NewTail(8 << 10)
	if err == nil {
		s.process, err = subprocess.Start(subprocess.Options{Program: program, Args: []string{"run", "--config", path("sluice.yaml")}, Env: []string{"GOMAXPROCS=1"}, Output: output})
	}
	if err != nil {
		s.peer.Close()
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; {
		response, err := http.Get("http://" + addresses[1] + "/readyz")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return s, nil
			}
		}
		if sleep(ctx, 20*time.Millisecond) != nil || time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("sluice is not ready: %w\n%s", err, output)
		}
	}
}

func (s *sluice) stop() {
	_ = s.process.Stop()
	s.peer.CloseClientConnections()
	s.peer.Close()
}

// usage returns the resident bytes of sluice, and what it has used of the processors until now.
func (s *sluice) usage() (resident int64, cpu time.Duration, now time.Time, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.PID()))
	if err != nil {
		return 0, 0, now, err
	}
	_, rest, _ := strings.Cut(string(text), "\nVmRSS:")
	if _, err := fmt.Sscanf(rest, "%d kB", &resident); err != nil {
		return 0, 0, now, fmt.Errorf("resident memory: %w", err)
	}
	cpu, err = machine.ProcessClock(s.process.PID())
	return resident << 10, cpu, time.Now(), err
}

// handshakes returns how many handshakes go on.
func (s *sluice) handshakes(ctx context.Context) (n int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nsluice_tls_handshakes_in_progress ")
	_, err = fmt.Sscan(rest, &n)
	return n, err
}

// idleCPU returns which share of a processor the visitor costs.
func (s *sluice) idleCPU(ctx context.Context) (share float64, err error) {
	_, before, begun, err := s.usage()
	if err == nil {
		err = sleep(ctx, 2*time.Second)
	}
	if err != nil {
		return 0, err
	}
	_, after, ended, err := s.usage()
	return float64(after-before) / float64(ended.Sub(begun)), err
}
