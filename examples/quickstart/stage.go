package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"sluice/test/consultest"
	"sluice/test/sluicetest"
	"sluice/test/subprocess"
)

// The preferred ports, if they are free.
const (
	consulPort = 8500
	firstApp   = 9001
	listen     = "127.0.0.1:8080"
	admin      = "127.0.0.1:8081"
)

// service is the name of the service in Consul and in sluice.
const service = "star"

// stage contains all processes.
type stage struct {
	dir    string // programs and logs
	consul *consultest.Agent
	real   bool // it is no stand-in
	sluice *sluicetest.Sluice
	apps   []*app
	port   int // of the next app, if it is free
}

// app is a process that registers in Consul.
type app struct {
	*subprocess.Process
	id      string
	address string // "host:port"
}

// newStage starts all processes, and prints its steps. The caller calls clear, also after an error.
func newStage(ctx context.Context, o options, out *printer) (*stage, error) {
	out.line("Consul, three apps that register themselves there, and sluice in front of them.")
	s := &stage{port: firstApp, real: !o.standIn && (o.real || consultest.Present(ctx))}
	var program string
	var err error
	if !s.real {
		out.line("Consul is a stand-in here: install consul for the real one, or build it once with -real (some minutes).")
		if program, err = os.Executable(); err != nil {
			return s, err
		}
	}
	out.line("")
	if s.dir, err = os.MkdirTemp("", "sluice-quickstart-"); err != nil {
		return s, err
	}
	out.line("Building sluice and the app, and starting Consul.")
	built := make(chan error, 1)
	go func() { built <- sluicetest.Build(ctx, s.dir, "sluice", "sluice/examples/goapp") }()
	s.consul, err = consultest.StartAgent(ctx, consultest.Options{
		Program: program, Mode: consultest.Server, Node: "quickstart", HTTPPort: consulPort, UI: true, Progress: out,
	})
	if err = errors.Join(err, <-built); err != nil {
		return s, err
	}
	out.line("Starting three apps and sluice.")
	for range 3 {
		if _, err := s.startApp(); err != nil {
			return s, err
		}
	}
	if err := s.startSluice(ctx); err != nil {
		return s, err
	}
	s.explainPorts(out)
	return s, s.sluice.AwaitUp(ctx, len(s.apps))
}

// startApp starts one more app on the next free port.
func (s *stage) startApp() (*app, error) {
	port := s.nextPort()
	s.port++
	log, err := os.Create(filepath.Join(s.dir, "app-"+port+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has a copy
	p, err := subprocess.Start(subprocess.Options{
		Program: s.program("goapp"),
		Args:    []string{"-name", service, "-port", port, "-consul", s.consul.URL()},
		Output:  log,
	})
	if err != nil {
		return nil, err
	}
	a := &app{Process: p, id: service + "-" + port, address: net.JoinHostPort("127.0.0.1", port)}
	s.apps = append(s.apps, a)
	return a, nil
}

func (s *stage) startSluice(ctx context.Context) error {
	// The long wait shows that sluice gets changes from blocking queries, and not by
	// polling.
	configuration := filepath.Join(s.dir, "sluice.yaml")
	text := fmt.Sprintf("consul: { addresses: [%q], wait: 10m }\nservices: { %s: { consul: {} } }\nroutes: [{ service: %s }]\n", s.consul.URL(), service, service)
	if err := os.WriteFile(configuration, []byte(text), 0o600); err != nil {
		return err
	}
	o := sluicetest.Options{
		Program: s.program("sluice"),
		Args:    []string{"--config", configuration},
		Log:     filepath.Join(s.dir, "sluice.log"),
		Listen:  ifFree(listen),
		Admin:   ifFree(admin),
	}
	var err error
	s.sluice, err = sluicetest.Start(ctx, o)
	return err
}

// ifFree returns address, or one with a free port if it is in use.
func ifFree(address string) string {
	if sluicetest.IsFree(address) {
		return address
	}
	return sluicetest.Any
}

// explainPorts prints which ports differ from the usual ones.
func (s *stage) explainPorts(out *printer) {
	for _, port := range []struct{ who, usual, now string }{
		{"Consul", net.JoinHostPort("127.0.0.1", strconv.Itoa(consulPort)), s.consul.HTTPAddress()},
		{"sluice", "http://" + listen, s.sluice.URL()},
		{"sluice's admin API", "http://" + admin, s.sluice.AdminURL()},
	} {
		if port.usual != port.now {
			out.line("  %s is taken by another program: %s is at %s.", port.usual, port.who, port.now)
		}
	}
}

func (s *stage) program(name string) string { return filepath.Join(s.dir, name) }

// clear ends every process and removes every file.
func (s *stage) clear() error {
	var errs []error
	if s.sluice != nil {
		errs = append(errs, s.sluice.Stop())
	}
	for _, a := range s.apps {
		errs = append(errs, a.Kill())
	}
	if s.consul != nil {
		errs = append(errs, s.consul.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// nextPort returns a free port for one more app.
func (s *stage) nextPort() string {
	for !sluicetest.IsFree(net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))) {
		s.port++
	}
	return strconv.Itoa(s.port)
}
