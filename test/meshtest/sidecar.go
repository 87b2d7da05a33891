package meshtest

import (
	"cmp"
	"context"
	"net"
	"strconv"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// Service is an instance that a test registers.
type Service struct {
	Name string
	ID   string // default: Name
	Port int    // of the application, on 127.0.0.1
	Tags []string
	Meta map[string]string
}

func (s Service) id() string { return cmp.Or(s.ID, s.Name) }

// Sidecar is a service with a built-in proxy, "consul connect proxy", as its sidecar. Methods that
// start and stop it must not be called concurrently.
type Sidecar struct {
	Service
	Address string // of the proxy

	mesh    *Mesh
	process *subprocess.Process // nil if it does not run
	log     *subprocess.Output
}

// Sidecar registers a service with a sidecar (connect.sidecar_service), runs the built-in proxy
// until t ends, and waits until it accepts connections. Consul's check of it passes after up to a
// second: see AwaitPassing. The built-in proxy forwards connections as they are, and authorizes
// each of them (L4). https://developer.hashicorp.com/consul/docs/connect/proxies/built-in
func (m *Mesh) Sidecar(t testing.TB, s Service) *Sidecar {
	t.Helper()
	port := freePort(t)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	sidecar := &api.AgentServiceRegistration{
		Port: port, Address: "127.0.0.1",
		Proxy: &api.AgentServiceConnectProxyConfig{Config: map[string]any{"bind_address": "127.0.0.1"}},
		// As Consul's default checks, with a shorter interval.
		Checks: api.AgentServiceChecks{
			{Name: "Connect Sidecar Listening", TCP: address, Interval: "1s"},
			{Name: "Connect Sidecar Aliasing " + s.id(), AliasService: s.id()},
		},
	}
	m.register(t, s, &api.AgentServiceConnect{SidecarService: sidecar})
	p := &Sidecar{Service: s, Address: address, mesh: m, log: new(subprocess.Output)}
	t.Cleanup(func() {
		verify.Succeeds(t, p.Stop())
		if t.Failed() {
			t.Logf("log of the sidecar of %s:\n%s", s.id(), p.log)
		}
	})
	p.Launch(t)
	return p
}

// register registers an instance until t ends.
func (m *Mesh) register(t testing.TB, s Service, connect *api.AgentServiceConnect) {
	t.Helper()
	verify.NoError(t, m.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: s.id(), Name: s.Name, Address: "127.0.0.1", Port: s.Port, Tags: s.Tags, Meta: s.Meta, Connect: connect,
	}))
	t.Cleanup(func() { _ = m.Client().Agent().ServiceDeregister(s.id()) }) // the agent may be down
}

// Launch starts the proxy, and waits until it accepts connections.
func (p *Sidecar) Launch(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), consultest.Patience)
	defer cancel()
	process, err := StartProxy(ctx, p.Address, subprocess.Options{
		Args: []string{"-sidecar-for", p.id(), "-log-level", "info"}, Output: p.log,
		Env: []string{"CONSUL_HTTP_ADDR=" + p.mesh.HTTPAddress(), "CONSUL_HTTP_TOKEN=" + p.mesh.Token()},
	})
	verify.Require(t, err == nil, "the sidecar of %s: %v\n%s", p.id(), err, p.log)
	p.process = process
}

// Stop ends the proxy, if it runs. Its connections end.
func (p *Sidecar) Stop() error {
	process := p.process
	if process == nil {
		return nil
	}
	p.process = nil
	return process.Stop()
}

// Restart is Stop and Launch.
func (p *Sidecar) Restart(t testing.TB) {
	t.Helper()
	verify.NoError(t, p.Stop())
	p.Launch(t)
}

// Process returns the running proxy, or nil.
func (p *Sidecar) Process() *subprocess.Process { return p.process }
