// Command etcd shows sluice with etcd as the only place that says what is served: it runs a real
// etcd, an app and sluice with sluice.yaml, writes and deletes a key, and requests the same path
// again and again.
//
//	go run ./examples/etcd
//
// The first run builds etcd and etcdctl, which takes some minutes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"sluice/test/etcdtest"
	"sluice/test/sluicetest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
}

const (
	key  = "/test/node"
	path = "/aa/d"
)

// patience limits the wait for each effect, far above its usual time.
const patience = 2 * time.Minute

// tour is what runs.
type tour struct {
	out  io.Writer
	ctl  string // the path of etcdctl
	etcd *etcdtest.Cluster
	*sluicetest.Sluice
}

func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "sluice-etcd-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := &tour{out: out}
	if t.ctl, err = etcdtest.Ctl(ctx, out); err != nil {
		return err
	}
	if t.etcd, err = etcdtest.StartCluster(ctx, etcdtest.Options{Progress: out}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.etcd.Close()) }()

	value, stop, err := app()
	if err != nil {
		return err
	}
	defer stop()

	config := filepath.Join(dir, "sluice.yaml")
	if err := t.writeConfig(config); err != nil {
		return err
	}
	if err := sluicetest.Build(ctx, dir, "sluice"); err != nil {
		return err
	}
	t.Sluice, err = sluicetest.Start(ctx, sluicetest.Options{
		Program: filepath.Join(dir, "sluice"), Listen: sluicetest.Any, Admin: sluicetest.Any,
		Args: []string{"--config", config}, Log: filepath.Join(dir, "sluice.log"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	return t.show(ctx, value)
}

// app serves on port 6699, or on another one if that is taken. value is its value in etcd.
func app() (value string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:6699")
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "the app answers %s", r.URL.Path)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with Close
	}()
	value = fmt.Sprintf(`{"host":"127.0.0.1","port":%d}`, l.Addr().(*net.TCPAddr).Port)
	return value, func() { server.Close(); <-done }, nil
}

// writeConfig writes sluice.yaml with the endpoint of the etcd that runs.
func (t *tour) writeConfig(file string) error {
	text, err := os.ReadFile("sluice.yaml") // in a test
	if err != nil {
		text, err = os.ReadFile(filepath.Join("examples", "etcd", "sluice.yaml"))
	}
	if err != nil {
		return fmt.Errorf("run this in the root of the repository: %w", err)
	}
	return os.WriteFile(file, []byte(strings.Replace(string(text), "http://127.0.0.1:2379", t.etcd.Endpoints()[0], 1)), 0o600)
}

// show writes and deletes the key, and shows what a request gets.
func (t *tour) show(ctx context.Context, value string) error {
	steps := []struct {
		what    string
		command []string
		status  int
	}{
		{"no key", nil, http.StatusNotFound},
		{"the key is put", []string{"put", key, value}, http.StatusOK},
		{"a bad value: the last good one stays", []string{"put", key, "{host:127.0.0.1 port:6699}"}, http.StatusOK},
		{"the key is deleted", []string{"del", key}, http.StatusNotFound},
		{"the key is put with a lease of 2 s", []string{"put", key, value, "--lease"}, http.StatusOK},
		{"the lease has expired", nil, http.StatusNotFound},
	}
	for _, s := range steps {
		if n := len(s.command); n > 0 {
			if s.command[n-1] == "--lease" {
				lease, err := t.etcdctl(ctx, "lease", "grant", "2")
				if err != nil {
					return err
				}
				s.command[n-1] = "--lease=" + strings.Fields(lease)[1]
			}
			if _, err := t.etcdctl(ctx, s.command...); err != nil {
				return err
			}
		}
		begin := time.Now()
		body, err := t.await(ctx, s.status)
		if err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		fmt.Fprintf(t.out, "%-38s GET %s: %d %s (%v)\n", s.what, path, s.status, body, time.Since(begin).Round(100*time.Microsecond))
	}
	return nil
}

// etcdctl runs etcdctl and shows the command.
func (t *tour) etcdctl(ctx context.Context, arguments ...string) (string, error) {
	quoted := make([]string, len(arguments))
	for i, a := range arguments {
		if quoted[i] = a; strings.ContainsAny(a, "{} ") {
			quoted[i] = "'" + a + "'"
		}
	}
	fmt.Fprintln(t.out, "$ etcdctl", strings.Join(quoted, " "))
	command := exec.CommandContext(ctx, t.ctl, append([]string{"--endpoints", t.etcd.Endpoints()[0]}, arguments...)...)
	output, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("etcdctl %s: %w: %s", arguments[0], err, output)
	}
	return string(output), nil
}

// await requests the path until the status is want, and returns the body.
func (t *tour) await(ctx context.Context, want int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for tick := time.Tick(time.Millisecond); ; <-tick {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL()+path, nil)
		if err != nil {
			return "", err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			return "", err
		}
		if response.StatusCode == want {
			line, _, _ := strings.Cut(string(body), "\n")
			return line, nil
		}
	}
}
