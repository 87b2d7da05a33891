//go:build linux

package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"sluice/bench/machine"
	"sluice/test/subprocess"
	"sluice/test/testcert"
)

//go:embed conf/sluice.yaml
var configText string

var configTemplate = template.Must(template.New("sluice.yaml").Parse(configText))

// settings fill conf/sluice.yaml.
type settings struct {
	feature
	Dir, Listen, Admin, Certificate, Key string
	TLS, TCP, HTTP2                      bool
	Peers                                []string
}

// sluice is a running sluice, with the peers that it forwards to.
type sluice struct {
	settings
	process *subprocess.Process
	output  *subprocess.Tail
	origins []net.Listener
}

// start runs a program of sluice for w with a feature, and waits until it answers. The caller calls
// stop.
func start(ctx context.Context, program, dir string, w work, f feature) (*sluice, error) {
	addresses, err := machine.FreeAddresses(2)
	if err != nil {
		return nil, err
	}
	s := &sluice{output: subprocess.NewTail(8 << 10)}
	s.settings = settings{
		feature: f, Dir: dir, Listen: addresses[0], Admin: addresses[1], TLS: w.tls, TCP: w.tcp, HTTP2: w.grpc,
		Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
	}
	for range max(1, f.peers) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			s.closeOrigins()
			return nil, err
		}
		go serve(l, w)
		s.origins, s.Peers = append(s.origins, l), append(s.Peers, l.Addr().String())
	}
	if f.refuse {
		_ = s.origins[len(s.origins)-1].Close()
	}
	path, err := s.write()
	if err == nil {
		s.process, err = subprocess.Start(subprocess.Options{Program: program, Args: []string{"run", "--config", path}, Env: []string{"GOMAXPROCS=1"}, Output: s.output})
	}
	if err != nil {
		s.closeOrigins()
		return nil, err
	}
	if err := s.awaitServing(ctx, w); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w\n%s", err, s.output)
	}
	return s, nil
}

// serve answers requests of w until the listener is closed.
func serve(l net.Listener, w work) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if w.grpc {
			go serveGRPC(conn, w.answerBytes())
		} else {
			go serveHTTP1(conn, w.answerBytes())
		}
	}
}

// write writes the configuration and what it names.
func (s *sluice) write() (path string, err error) {
	cert, key := testcert.PEM("localhost")
	var text bytes.Buffer
	err = configTemplate.Execute(&text, s.settings)
	path = filepath.Join(s.Dir, "sluice.yaml")
	return path, errors.Join(err, os.WriteFile(s.Certificate, cert, 0o600), os.WriteFile(s.Key, key, 0o600), os.WriteFile(path, text.Bytes(), 0o600))
}

// awaitServing waits until sluice answers a request of w.
func (s *sluice) awaitServing(ctx context.Context, w work) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := w.dial(s.Listen)
		if err == nil {
			err = c.exchange()
			_ = c.Close()
		}
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.process.Exited():
			return errors.New("sluice ended before it answered")
		case <-ctx.Done():
			return fmt.Errorf("sluice does not answer: %w", err)
		}
	}
}

func (s *sluice) stop() {
	if err := s.process.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/cost: stop sluice:", err)
	}
	s.closeOrigins()
}

func (s *sluice) closeOrigins() {
	for _, l := range s.origins {
		_ = l.Close()
	}
}

// memory is of Go's runtime.MemStats.
type memory struct{ objects, bytes, live uint64 }

// profile reads a profile of the admin API.
func (s *sluice) profile(query string) (string, error) {
	response, err := http.Get("http://" + s.Admin + "/debug/pprof/" + query)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", query, response.Status, text)
	}
	return string(text), err
}

// memory reads what sluice has allocated since its start, and after a collection what lives on the
// heap. Stacks are not in it: a span of stacks stays while one of its goroutines lives, so their
// size depends on which goroutines have ended, and not on how many live.
func (s *sluice) memory() (m memory, err error) {
	text, err := s.profile("heap?debug=1&gc=1")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# "), " = ")
		value, _, _ = strings.Cut(value, " ")
		for key, field := range map[string]*uint64{"Mallocs": &m.objects, "TotalAlloc": &m.bytes, "HeapAlloc": &m.live} {
			if name == key {
				if *field, err = strconv.ParseUint(value, 10, 64); err != nil {
					return m, fmt.Errorf("heap profile: %s: %w", name, err)
				}
			}
		}
	}
	if m.objects == 0 || m.bytes == 0 || m.live == 0 {
		return m, errors.New("the heap profile lacks figures of memory")
	}
	return m, nil
}

// goroutines returns their number.
func (s *sluice) goroutines() (n int, err error) {
	text, err := s.profile("goroutine?debug=1")
	if err == nil {
		_, err = fmt.Sscanf(text, "goroutine profile: total %d", &n)
	}
	return n, err
}
