//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"sluice/test/testcert"
)

// loadResult is what the clients saw during one run.
type loadResult struct {
	Requests int64         `json:"requests"`
	Bytes    int64         `json:"bytes"`
	Took     time.Duration `json:"took_ns"`
	// Connections that could not be made, read or written.
	Failed   int64 `json:"failed"`
	Status   int64 `json:"status"`   // answers outside 2xx and 3xx
	Timeouts int64 `json:"timeouts"` // answers later than ten seconds
	// Of one of those that failed, where it is known.
	Reason string `json:"reason,omitempty"`
	// This and the further ones are 0 if h2load was the client.
	P50  time.Duration `json:"p50_ns"`
	P99  time.Duration `json:"p99_ns"`
	P999 time.Duration `json:"p999_ns"`
	Max  time.Duration `json:"max_ns"`
}

func (r loadResult) perSecond() float64 { return float64(r.Requests) / r.Took.Seconds() }

// setLatencies sorts the times of requests, of which there must be one.
func (r *loadResult) setLatencies(times []time.Duration) {
	slices.Sort(times)
	at := func(share float64) time.Duration { return times[int(share*float64(len(times)-1))] }
	r.P50, r.P99, r.P999, r.Max = at(0.5), at(0.99), at(0.999), at(1)
}

func (r loadResult) errors() int64 { return r.Failed + r.Status + r.Timeouts }

// load puts load on proxies from the CPUs of a list.
type load struct {
	dir  string // of this run
	cpus string
}

// loadFiles are written to the directory of a run.
var loadFiles = map[string]string{
	"wrk.lua":      "conf/wrk.lua",
	"openssl.cnf":  "conf/openssl.cnf",
	"grpc-request": "", // an empty message
}

// newLoad writes what the load generators read into dir.
func newLoad(dir, cpus string) (*load, error) {
	for name, source := range loadFiles {
		content := make([]byte, grpcPrefixBytes)
		if source != "" {
			var err error
			if content, err = conf.ReadFile(source); err != nil {
				return nil, err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return nil, err
		}
	}
	return &load{dir: dir, cpus: cpus}, nil
}

// command returns a command that runs on the load's CPUs. With TLS it offers one cipher and
// one key exchange, so that all proxies do the same work.
func (l *load) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", l.cpus}, args...)...)
	cmd.Env = append(os.Environ(), "OPENSSL_CONF="+filepath.Join(l.dir, "openssl.cnf"))
	return cmd
}

// run puts the load of w on address for d.
func (l *load) run(ctx context.Context, w workload, address string, d time.Duration) (loadResult, error) {
	switch w.load {
	case loadH2:
		return l.runH2(ctx, w, address, d)
	case loadDials:
		return runDials(ctx, w, address, d)
	case loadH3, loadH3Dials:
		return runH3(ctx, w, address, d)
	default:
		return l.runWrk(ctx, w, address, d)
	}
}

// url returns the URL of w at address.
func (w workload) url(address string) string {
	if w.tls {
		return "https://" + address + w.path
	}
	return "http://" + address + w.path
}

// errNothing: no request was answered.
var errNothing = errors.New("no request was answered")

// warmUp puts load on address for a second, so that connection pools fill and
// the heap settles. On a machine with much other work it takes several tries
// until there is an answer.
func (l *load) warmUp(ctx context.Context, w workload, address string) error {
	const tries = 5
	for try := 1; ; try++ {
		_, err := l.run(ctx, w, address, time.Second)
		if try == tries || !errors.Is(err, errNothing) {
			return err
		}
	}
}

// writeCertificate writes a certificate for the proxies.
func writeCertificate(s settings) error {
	cert, key := testcert.PEM("localhost")
	for path, content := range map[string][]byte{s.Certificate(): cert, s.Key(): key, s.Bundle(): append(cert, key...)} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
