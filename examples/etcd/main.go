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
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"sluice/test/etcdtest"
	"sluice/test/sluicetest"
	"sluice/test/stage"
)

func main() { stage.Run("etcd", show) }

const (
	key  = "/test/node"
	path = "/aa/d"
)

//go:embed sluice.yaml
var configuration string

// tour is what runs.
type tour struct {
	*stage.Stage
	ctl  string // the path of etcdctl
	etcd *etcdtest.Cluster
}

// show writes and deletes the key, and shows what a request gets.
func show(ctx context.Context, on *stage.Stage) error {
	t := &tour{Stage: on}
	value, err := t.start(ctx)
	if err != nil {
		return err
	}
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
		t.Line("%-38s GET %s: %d %s (%v)", s.what, path, s.status, body, time.Since(begin).Round(100*time.Microsecond))
	}
	return nil
}

// start starts etcd, the app and sluice, and returns the value of the key.
func (t *tour) start(ctx context.Context) (value string, err error) {
	if t.ctl, err = etcdtest.Ctl(ctx, t.Out); err != nil {
		return "", err
	}
	if t.etcd, err = etcdtest.StartCluster(ctx, etcdtest.Options{Progress: t.Out}); err != nil {
		return "", err
	}
	t.End(t.etcd.Close)
	value, stop, err := app()
	if err != nil {
		return "", err
	}
	t.End(stop)
	here := strings.NewReplacer("http://127.0.0.1:2379", t.etcd.Endpoints()[0], "127.0.0.1:8080", sluicetest.Any)
	return value, t.Serve(ctx, here.Replace(configuration))
}

// app serves on port 6699, or on another one if that is taken. value is its value in etcd.
func app() (value string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:6699")
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return "", nil, err
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "the app answers %s", r.URL.Path)
	})}}
	server.Start()
	value = fmt.Sprintf(`{"host":"127.0.0.1","port":%d}`, l.Addr().(*net.TCPAddr).Port)
	return value, func() error { server.Close(); return nil }, nil
}

// etcdctl runs etcdctl.
func (t *tour) etcdctl(ctx context.Context, arguments ...string) (string, error) {
	return t.Command(ctx, t.ctl, []string{"--endpoints", t.etcd.Endpoints()[0]}, arguments...)
}

// await requests the path until the status is want, and returns the body.
func (t *tour) await(ctx context.Context, want int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, sluicetest.Patience)
	defer cancel()
	for tick := time.Tick(time.Millisecond); ; <-tick {
		answer, err := sluicetest.Ask(ctx, http.DefaultClient, http.MethodGet, t.URL()+path)
		if err != nil {
			return "", err
		}
		if answer.StatusCode == want {
			line, _, _ := strings.Cut(answer.Text, "\n")
			return line, nil
		}
	}
}
