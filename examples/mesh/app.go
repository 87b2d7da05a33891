package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/subprocess"
)

// app is an instance of a service.
type app struct {
	service, version string
	native           bool // it ends the TLS of the mesh itself; else it has a sidecar

	server  *http.Server
	served  chan error
	sidecar *subprocess.Process
	member  *member
}

func (a *app) id() string { return a.service + "-" + a.version }

// start serves the app on a free port, registers it, and starts its sidecar.
func (a *app) start(ctx context.Context, consul *consultest.Agent) error {
	listener, err := consultest.Listen()
	if err != nil {
		return err
	}
	a.served = make(chan error, 1)
	a.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "Hello from %s\n", a.id())
	})}
	if a.native {
		if a.member, err = join(ctx, consul.Client(), a.service); err != nil {
			return errors.Join(err, listener.Close())
		}
		a.server.TLSConfig = a.member.tls()
	}
	go func() {
		if a.native {
			a.served <- a.server.ServeTLS(listener, "", "")
		} else {
			a.served <- a.server.Serve(listener)
		}
	}()
	registration := &api.AgentServiceRegistration{
		ID: a.id(), Name: a.service, Meta: map[string]string{"version": a.version},
		Address: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, Connect: &api.AgentServiceConnect{Native: a.native},
	}
	if a.native {
		return consul.Client().Agent().ServiceRegister(registration)
	}
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
	if err := consul.Client().Agent().ServiceRegister(registration); err != nil {
		return err
	}
	binary, err := consultest.Binary(ctx, nil)
	if err != nil {
		return err
	}
	a.sidecar, err = subprocess.Start(subprocess.Options{
		Program: binary, Args: []string{"connect", "proxy", "-sidecar-for", a.id()}, Env: []string{"CONSUL_HTTP_ADDR=" + consul.HTTPAddress()},
	})
	return err
}

// stop ends what start began.
func (a *app) stop() (err error) {
	if a.sidecar != nil {
		err = a.sidecar.Stop()
	}
	if a.member != nil {
		a.member.leave()
	}
	if a.server == nil {
		return err
	}
	err = errors.Join(err, a.server.Close())
	if served := <-a.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
