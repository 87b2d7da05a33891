//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/bench/machine"
	"sluice/test/subprocess"
)

// served is what was measured of the whole program.
type served struct {
	ready       time.Duration // from the start until it has a set of every service
	readyCPU    time.Duration
	median, p95 time.Duration // from a registration to the first request at the new instance
	connections int           // to Consul
	goroutines  int
	resident    int64 // bytes
}

// program is a sluice that runs, with a route for each service: the host is its
// name.
type program struct {
	process   *subprocess.Process
	started   time.Time
	web       string // URL
	admin     string // URL
	transport *http.Transport
	client    *http.Client
}

// Clients wait for requestPause between two requests. Without, they and sluice
// would take the CPU time that Consul needs. With so many of them, about two
// requests a millisecond, it takes some milliseconds until one of six instances
// gets its first.
const (
	clients      = 4
	requestPause = time.Millisecond
)

// measureServed registers a new instance of one service after the other, while
// clients send that service requests through sluice.
func (b *bench) measureServed(ctx context.Context, dir, consulURL, ca string) (served, error) {
	p, err := startProgram(ctx, dir, consulURL, ca, b.services)
	if err != nil {
		return served{}, err
	}
	defer p.stop()
	if err := p.ready(ctx); err != nil {
		return served{}, err
	}
	ready := time.Since(p.started)
	readyCPU, err := cpuTime(p.process.PID())
	if err != nil {
		return served{}, err
	}
	if err := wait(ctx, 3*time.Second); err != nil { // what follows the first sets
		return served{}, err
	}
	var times []time.Duration
	for turn := range min(b.changes, b.services-1) {
		s := (turn + 1) * 7919 % b.services
		begin := time.Now()
		if err := b.catalog.register(s, b.instances, api.HealthPassing); err != nil {
			return served{}, err
		}
		if err := p.reaches(ctx, serviceName(s), instanceAddress(b.instances)); err != nil {
			return served{}, err
		}
		times = append(times, time.Since(begin))
		if err := b.catalog.deregister(s, b.instances); err != nil {
			return served{}, err
		}
		if err := wait(ctx, b.pause); err != nil {
			return served{}, err
		}
	}
	r, err := p.usage()
	r.ready, r.readyCPU = ready, readyCPU
	slices.Sort(times)
	r.median, r.p95 = times[len(times)/2], times[len(times)*95/100]
	return r, err
}

// startProgram builds sluice and starts it.
func startProgram(ctx context.Context, dir, consulURL, ca string, services int) (*program, error) {
	binary, err := machine.BuildSluice(ctx, dir)
	if err != nil {
		return nil, err
	}
	ports, err := listenAll(2)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, l := range ports {
		addresses = append(addresses, l.Addr().String())
		l.Close()
	}
	var file strings.Builder
	fmt.Fprintf(&file, "log: { level: warn }\naccess_log: { path: \"off\" }\nadmin: { address: %q }\nlisteners:\n  - { name: web, address: %q }\n", addresses[0], addresses[1])
	fmt.Fprintf(&file, "discovery: { allow_local: true }\nconsul: { addresses: [%q], tls: { ca: %q } }\nservices:\n", consulURL, ca)
	for n := range services {
		fmt.Fprintf(&file, "  %s: { consul: {} }\n", serviceName(n))
	}
	file.WriteString("routes:\n")
	for n := range services {
		fmt.Fprintf(&file, "  - { host: %[1]s, service: %[1]s }\n", serviceName(n))
	}
	config := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(config, []byte(file.String()), 0o600); err != nil {
		return nil, err
	}
	p := &program{admin: "http://" + addresses[0], web: "http://" + addresses[1], transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	p.client = &http.Client{Transport: p.transport, Timeout: time.Minute}
	p.started = time.Now()
	p.process, err = subprocess.Start(subprocess.Options{Program: binary, Args: []string{"run", "--config", config}, Output: os.Stderr})
	return p, err
}

func (p *program) stop() {
	_ = p.process.Stop() // it is in the way of nothing
	p.transport.CloseIdleConnections()
}

// ready waits until sluice has a set of every service.
func (p *program) ready(ctx context.Context) error {
	return p.until(ctx, p.admin+"/readyz", "", func(r *http.Response) bool { return r.StatusCode == http.StatusOK }, 50*time.Millisecond)
}

// reaches sends requests for a service until one reaches the instance.
func (p *program) reaches(ctx context.Context, service, instance string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := make(chan error, clients)
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			first <- p.until(ctx, p.web+"/", service, func(r *http.Response) bool { return r.Header.Get(instanceField) == instance }, requestPause)
		})
	}
	err := <-first
	cancel()
	running.Wait()
	return err
}

// until sends requests, one after the other with a pause between them, until
// an answer is the one that is wanted.
func (p *program) until(ctx context.Context, url, host string, wanted func(*http.Response) bool, pause time.Duration) error {
	end := time.Now().Add(setTimeout)
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		request.Host = host
		if response, err := p.client.Do(request); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if wanted(response) {
				return nil
			}
		}
		select {
		case <-p.process.Exited():
			return errors.New("sluice ended")
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s %s: not as wanted within %v", url, host, setTimeout)
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// usage reads the counters of sluice.
func (p *program) usage() (served, error) {
	response, err := p.client.Get(p.admin + "/metrics")
	if err != nil {
		return served{}, err
	}
	defer response.Body.Close()
	values := make(map[string]float64)
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = f
		}
	}
	return served{
		connections: int(values["sluice_consul_connections"]),
		goroutines:  int(values["go_goroutines"]),
		resident:    int64(values["process_resident_memory_bytes"]),
	}, nil
}
