package sluicetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/subprocess"
)

// Build compiles packages of this module, such as "sluice" or
// "sluice/examples/goapp", into dir.
func Build(ctx context.Context, dir string, packages ...string) error {
	args := append([]string{"build", "-o", dir + string(os.PathSeparator)}, packages...)
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", strings.Join(packages, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// Options says how to run sluice. Addresses are "host:port"; a port must not
// be 0, because nobody would learn which one it became.
type Options struct {
	Program string   // the path of sluice's binary
	Listen  string   // where clients connect
	Admin   string   // where the admin API is
	Args    []string // further arguments of "sluice run"
	Log     string   // file for what it prints
}

// Sluice is a sluice process and a client of its admin API.
type Sluice struct {
	*subprocess.Process
	options Options
	client  *http.Client
}

// Start runs "sluice run" and waits until its admin API answers.
func Start(ctx context.Context, o Options) (*Sluice, error) {
	log, err := os.Create(o.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	process, err := subprocess.Start(subprocess.Options{
		Program: o.Program,
		Args:    append([]string{"run", "--listen", o.Listen, "--admin", o.Admin}, o.Args...),
		Output:  log,
	})
	if err != nil {
		return nil, err
	}
	s := &Sluice{Process: process, options: o, client: &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}}
	if err := s.waitAlive(ctx); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.LogTail(20))
	}
	return s, nil
}

// waitAlive waits for the first answer of the admin API. Without one nothing
// runs afterwards.
func (s *Sluice) waitAlive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		err := s.get(ctx, "/healthz", nil)
		if err == nil {
			return nil
		}
		select {
		case <-s.Exited():
			return fmt.Errorf("sluice ended by itself: %v", s.Err())
		case <-ctx.Done():
			_ = s.Kill()
			return fmt.Errorf("sluice does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// URL returns where clients reach sluice.
func (s *Sluice) URL() string { return "http://" + s.options.Listen }

// AdminURL returns the base URL of the admin API.
func (s *Sluice) AdminURL() string { return "http://" + s.options.Admin }

// Peer holds the fields of a peer in /api/peers that examples need.
type Peer struct {
	ID       string   `json:"id"`
	Address  string   `json:"address"`
	Status   string   `json:"status"`
	State    string   `json:"state"`
	Reasons  []string `json:"reasons"`
	Requests uint64   `json:"requests"`
	Failures uint64   `json:"failures"`
}

// Peers returns the peers of all services, in the order of the API.
func (s *Sluice) Peers(ctx context.Context) ([]Peer, error) {
	var peers []Peer
	return peers, s.get(ctx, "/api/peers", &peers)
}

// Watch holds the fields of a service's watch in /api/services that examples
// need.
type Watch struct {
	State     string `json:"state"` // pending, fresh, stale
	LastError string `json:"last_error"`
}

// Watch returns how the discovery of a service fares.
func (s *Sluice) Watch(ctx context.Context, service string) (Watch, error) {
	var services []struct {
		Service string `json:"service"`
		Watch   *Watch `json:"watch"`
	}
	if err := s.get(ctx, "/api/services", &services); err != nil {
		return Watch{}, err
	}
	for _, found := range services {
		if found.Service == service && found.Watch != nil {
			return *found.Watch, nil
		}
	}
	return Watch{}, fmt.Errorf("/api/services has no watched service %q", service)
}

// get decodes what the admin API answers into v, unless v is nil.
func (s *Sluice) get(ctx context.Context, path string, v any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.AdminURL()+path, nil)
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, response.Status, bytes.TrimSpace(body))
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// LogTail returns the last lines of what sluice printed.
func (s *Sluice) LogTail(lines int) string {
	log, err := os.ReadFile(s.options.Log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// FreeAddress returns preferred if nothing listens there, else a loopback
// address with a port that was free a moment ago.
func FreeAddress(preferred string) (string, error) {
	l, err := net.Listen("tcp", preferred)
	if err != nil {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "", fmt.Errorf("find a free port: %w", err)
		}
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Run builds sluice and runs it for the length of a test, on free ports, with
// further arguments of "sluice run". When the test fails, the end of sluice's
// log is added to the test's.
func Run(t testing.TB, args ...string) *Sluice {
	t.Helper()
	dir := t.TempDir()
	if err := Build(t.Context(), dir, "sluice"); err != nil {
		t.Fatal(err)
	}
	o := Options{Program: filepath.Join(dir, "sluice"), Args: args, Log: filepath.Join(dir, "sluice.log")}
	for _, address := range []*string{&o.Listen, &o.Admin} {
		free, err := FreeAddress("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*address = free
	}
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of sluice's log:\n%s", s.LogTail(60))
		}
		if err := s.Stop(); err != nil {
			t.Errorf("stop sluice: %v", err)
		} else if err := s.Err(); err != nil {
			t.Errorf("sluice ended with %v", err)
		}
	})
	return s
}
