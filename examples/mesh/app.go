package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/meshtest"
	"sluice/test/subprocess"
)

// app is an instance of a service.
type app struct {
	service, version string
	native           bool // it ends the TLS of the mesh itself; else it has a sidecar
}

func (a *app) id() string { return a.service + "-" + a.version }

// startApp serves an app on a free port, registers it, and starts its sidecar.
func (s *tour) startApp(ctx context.Context, a app) error {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "Hello from %s\n", a.id())
	}))
	s.End(func() error { server.Close(); return nil })
	registration := &api.AgentServiceRegistration{
		ID: a.id(), Name: a.service, Meta: map[string]string{"version": a.version},
		Address: "127.0.0.1", Port: server.Listener.Addr().(*net.TCPAddr).Port, Connect: &api.AgentServiceConnect{Native: a.native},
	}
	if a.native {
		m, err := join(ctx, s.Consul.Client(), a.service)
		if err != nil {
			return err
		}
		s.End(m.leave)
		server.Listener = tls.NewListener(server.Listener, m.tls())
		server.Start()
		return s.Consul.Client().Agent().ServiceRegister(registration)
	}
	server.Start()
	// Consul chooses the port of a sidecar, and checks once in 10 s whether it listens.
	address, err := consultest.Listen()
	if err != nil {
		return err
	}
	port := address.Addr().(*net.TCPAddr).Port
	address.Close()
	registration.Connect.SidecarService = &api.AgentServiceRegistration{
		Address: "127.0.0.1", Port: port,
		Proxy:  &api.AgentServiceConnectProxyConfig{Config: map[string]any{"bind_address": "127.0.0.1"}},
		Checks: api.AgentServiceChecks{{Name: "listens", TCP: fmt.Sprint("127.0.0.1:", port), Interval: "1s"}},
	}
	if err := s.Consul.Client().Agent().ServiceRegister(registration); err != nil {
		return err
	}
	sidecar, err := meshtest.StartProxy(ctx, fmt.Sprint("127.0.0.1:", port), subprocess.Options{
		Args: []string{"-sidecar-for", a.id()}, Env: []string{"CONSUL_HTTP_ADDR=" + s.Consul.HTTPAddress()},
	})
	if err == nil {
		s.End(sidecar.Stop)
	}
	return err
}
