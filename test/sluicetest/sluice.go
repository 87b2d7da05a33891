package sluicetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/test/subprocess"
	"sluice/test/verify"
)

// Any is a loopback address with a port that the kernel chooses.
const Any = "127.0.0.1:0"

// startTimeout limits the start of sluice, far above its usual duration on a busy machine.
const startTimeout = 2 * time.Minute

// adminListener is the name of the admin API's listener.
const adminListener = "admin"

// Options configures a process of sluice. Addresses are "host:port", or Any.
type Options struct {
	Program string   // path of the binary
	Listen  string   // address for clients; empty: the configuration has a listener "web"
	Admin   string   // address of the admin API
	Args    []string // further arguments of "sluice run"
	Log     string   // file for its output, in JSON
}

// Sluice is a sluice process and a client of its admin API.
type Sluice struct {
	*subprocess.Process
	log    string // a file
	client *http.Client

	mu sync.Mutex
	at map[string]string // addresses by listener, guarded by mu
}

// Start runs "sluice run" and waits until its admin API answers.
func Start(ctx context.Context, o Options) (*Sluice, error) {
	log, err := os.Create(o.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has a copy
	args := []string{"run", "--admin", o.Admin}
	if o.Listen != "" {
		args = append(args, "--listen", o.Listen)
	}
	process, err := subprocess.Start(subprocess.Options{Program: o.Program, Args: append(args, o.Args...), Output: log})
	if err != nil {
		return nil, err
	}
	s := &Sluice{Process: process, log: o.Log, client: &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}}
	err = s.Await(ctx, startTimeout, "sluice to answer", func(ctx context.Context) (bool, error) {
		if s.address("web") == "" || s.address(adminListener) == "" {
			return false, errors.New("it does not listen yet")
		}
		return true, s.Get(ctx, "/healthz", nil)
	})
	if err != nil {
		return nil, errors.Join(err, s.Kill())
	}
	return s, nil
}

// Address returns the address of a listener, which has the name web without a configuration of
// listeners. It waits until sluice listens; "": it does not.
func (s *Sluice) Address(listener string) string {
	_ = s.Await(context.Background(), startTimeout, "a listener", func(context.Context) (bool, error) {
		return s.address(listener) != "", nil
	})
	return s.address(listener)
}

// address returns the address of a listener from the log; "": it has none yet.
func (s *Sluice) address(listener string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at[listener] == "" {
		log, err := os.ReadFile(s.log)
		if err != nil {
			return ""
		}
		s.at = make(map[string]string)
		for line := range bytes.Lines(log) {
			var entry struct{ Message, Listener, Address string }
			if json.Unmarshal(line, &entry) == nil && entry.Message == "listening" {
				s.at[entry.Listener] = entry.Address
			}
		}
	}
	return s.at[listener]
}

// URL returns the URL for clients.
func (s *Sluice) URL() string { return "http://" + s.Address("web") }

// AdminURL returns the base URL of the admin API.
func (s *Sluice) AdminURL() string { return "http://" + s.Address(adminListener) }

// Peer contains the fields of a peer in /api/peers that examples need.
type Peer struct {
	ID       string   `json:"id"`
	Address  string   `json:"address"`
	Status   string   `json:"status"`
	State    string   `json:"state"`
	Reasons  []string `json:"reasons"`
	Inflight int      `json:"inflight"`
	Requests uint64   `json:"requests"`
	Failures uint64   `json:"failures"`
}

// Peers returns the peers of all services, in the order of the API.
func (s *Sluice) Peers(ctx context.Context) ([]Peer, error) {
	var peers []Peer
	return peers, s.Get(ctx, "/api/peers", &peers)
}

// Watch contains the fields of a watch in /api/services that examples need.
type Watch struct {
	State     string `json:"state"` // pending, fresh, stale
	LastError string `json:"last_error"`
}

// Watch returns the state of the watch of a service.
func (s *Sluice) Watch(ctx context.Context, service string) (Watch, error) {
	var services []struct {
		Service string `json:"service"`
		Watch   *Watch `json:"watch"`
	}
	if err := s.Get(ctx, "/api/services", &services); err != nil {
		return Watch{}, err
	}
	for _, found := range services {
		if found.Service == service && found.Watch != nil {
			return *found.Watch, nil
		}
	}
	return Watch{}, fmt.Errorf("/api/services has no watched service %q", service)
}

// Get decodes a response of the admin API into v, unless v is nil.
func (s *Sluice) Get(ctx context.Context, path string, v any) error {
	answer, err := Ask(ctx, s.client, http.MethodGet, s.AdminURL()+path)
	switch {
	case err != nil:
		return fmt.Errorf("GET %s: %w", path, err)
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("GET %s: %s: %s", path, answer.Status, answer.Text)
	case v == nil:
		return nil
	}
	if err := json.Unmarshal([]byte(answer.Text), v); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// LogTail returns the last lines of the log.
func (s *Sluice) LogTail(lines int) string {
	log, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// IsFree reports whether a server can listen on an address now.
func IsFree(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// Run builds sluice and runs it until the test ends, on free ports, with further arguments of
// "sluice run". If the test fails, it logs the last lines of the log of sluice.
func Run(t testing.TB, args ...string) *Sluice {
	t.Helper()
	dir := t.TempDir()
	verify.NoError(t, Build(t.Context(), dir, "sluice"))
	s := verify.Result(Start(t.Context(), Options{
		Program: filepath.Join(dir, "sluice"), Listen: Any, Admin: Any, Args: args, Log: filepath.Join(dir, "sluice.log"),
	})).Must(t)
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
