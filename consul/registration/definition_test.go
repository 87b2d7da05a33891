package registration

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/config/units"
	"sluice/test/verify"
)

func TestDefinitionDependsOnTheAgent(t *testing.T) {
	const local, socket, remote = "http://127.0.0.1:8500", "unix:///run/consul.sock", "https://consul.example.com:8501"
	outbound := func(string) string { return "10.0.0.7" }
	for _, c := range []struct {
		name            string
		listener, admin string
		tls             bool
		settings        Settings
		agent           string
		// "HOST:PORT", type and target of the check, the meta of the admin API
		id, address, check, target, meta string
		port                             int
	}{
		{
			name: "everything on this machine", listener: "[::]:8080", admin: "127.0.0.1:8081", agent: local,
			id: "sluice-web1-8080", port: 8080, check: "http", target: "http://127.0.0.1:8081/readyz", meta: "127.0.0.1:8081",
		},
		{
			name: "socket", listener: "[::]:8080", admin: "127.0.0.1:8081", agent: socket,
			id: "sluice-web1-8080", port: 8080, check: "http", target: "http://127.0.0.1:8081/readyz", meta: "127.0.0.1:8081",
		},
		{
			name: "agent elsewhere", listener: "0.0.0.0:80", admin: "127.0.0.1:8081", agent: remote,
			id: "sluice-web1-80", address: "10.0.0.7", port: 80, check: "ttl", target: "30s", meta: "127.0.0.1:8081",
		},
		{
			name: "agent elsewhere, admin API on every address", listener: "[::]:80", admin: "[::]:8081", agent: remote,
			id: "sluice-web1-80", address: "10.0.0.7", port: 80, check: "http", target: "http://10.0.0.7:8081/readyz", meta: ":8081",
		},
		{
			name: "admin API on every address", listener: "[::]:80", admin: "[::]:8081", agent: local,
			id: "sluice-web1-80", port: 80, check: "http", target: "http://127.0.0.1:8081/readyz", meta: ":8081",
		},
		{
			name: "IPv6", listener: "[fd00::1]:80", admin: "[fd00::1]:8081", agent: remote,
			id: "sluice-web1-80", address: "fd00::1", port: 80, check: "http", target: "http://[fd00::1]:8081/readyz", meta: "[fd00::1]:8081",
		},
		{
			name: "all of it set", listener: "[::]:80", admin: "127.0.0.1:8081", agent: remote,
			settings: Settings{ID: "edge-1", Address: "edge.example.com", Port: 443, Check: Check{Type: CheckTCP, Address: "10.0.0.9:443"}},
			id:       "edge-1", address: "edge.example.com", port: 443, check: "tcp", target: "10.0.0.9:443", meta: "127.0.0.1:8081",
		},
		{
			name: "URL", listener: "[::]:80", admin: "127.0.0.1:8081", agent: remote,
			settings: Settings{Check: Check{Type: CheckAuto, URL: units.NewLocation("http://10.1.1.1:18081/readyz")}},
			id:       "sluice-web1-80", address: "10.0.0.7", port: 80, check: "http", target: "http://10.1.1.1:18081/readyz", meta: "127.0.0.1:8081",
		},
		{
			name: "TLS", listener: "[::]:80", admin: "[::]:8081", tls: true, agent: remote,
			settings: Settings{Check: Check{TLS: true}},
			id:       "sluice-web1-80", address: "10.0.0.7", port: 80, check: "http", target: "https://10.0.0.7:8081/readyz", meta: "https://:8081",
		},
		{
			name: "TLS and a URL", listener: "[::]:80", admin: "127.0.0.1:8081", tls: true, agent: local,
			settings: Settings{Check: Check{TLS: true, URL: units.NewLocation("http://10.1.1.1:18081/readyz")}},
			id:       "sluice-web1-80", port: 80, check: "http", target: "http://10.1.1.1:18081/readyz", meta: "https://127.0.0.1:8081",
		},
		{
			name: "unix socket", listener: "[::]:80", admin: "unix:/run/admin.sock", agent: local,
			id: "sluice-web1-80", port: 80, check: "ttl", target: "30s", meta: "unix:/run/admin.sock",
		},
		{
			name: "TCP at the agent's machine", listener: "[::]:80", admin: "127.0.0.1:8081", agent: local,
			settings: Settings{Check: Check{Type: CheckTCP}},
			id:       "sluice-web1-80", port: 80, check: "tcp", target: "127.0.0.1:80", meta: "127.0.0.1:8081",
		},
		{
			name: "no check", listener: "127.0.0.1:80", admin: "127.0.0.1:8081", agent: local,
			settings: Settings{Check: Check{Type: CheckNone}},
			id:       "sluice-web1-80", address: "127.0.0.1", port: 80, check: "none", meta: "127.0.0.1:8081",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			self := Replica{Host: "web1", Admin: c.admin, TLS: c.tls}.Self()
			c.settings.Listener = c.listener
			c.settings.Check.Path = "/readyz"
			c.settings.Name, c.settings.Check.Interval, c.settings.DeregisterAfter = "sluice", 10*time.Second, time.Hour
			r := define(c.settings, self, c.agent, outbound)
			target := ""
			if r.Check != nil {
				target = r.Check.HTTP + r.Check.TCP + r.Check.TTL
				verify.Equal(t, r.Check.TLSSkipVerify, strings.HasPrefix(target, "https:"), "check %+v", r.Check)
				verify.That(t, r.Check.DeregisterCriticalServiceAfter == "1h0m0s" && r.Check.Status == "passing", "check %+v", r.Check)
			}
			verify.That(t, r.ID == c.id && r.Address == c.address && r.Port == c.port, "got id %q, address %q, port %d", r.ID, r.Address, r.Port)
			verify.That(t, string(r.check) == c.check && target == c.target, "got check %s %q", r.check, target)
			verify.That(t, r.Meta[MetaAdmin] == c.meta && r.Meta[metaAgent] == c.agent, "got meta %v", r.Meta)
		})
	}
}

func TestIDsAreValidInURLs(t *testing.T) {
	r := define(Settings{Name: "sluice", Listener: ":1"}, Replica{Host: "a/b ä`", Admin: ":2"}.Self(), "http://127.0.0.1:8500", nil)
	verify.Equal(t, r.ID, "sluice-a-b----1", "r.ID")
	verify.Equal(t, r.Meta[MetaReplica], "a/b ä'/:2", "the replica, which goes into a filter, between backticks")
}

func TestOutbound(t *testing.T) {
	for url, want := range map[string]string{
		"http://127.0.0.1:8500":   "127.0.0.1",
		"https://127.0.0.1":       "127.0.0.1",
		"unix:///run/consul.sock": "",
		"http://%zz":              "",
	} {
		verify.Equal(t, Outbound(url), want, "%s", url)
	}
}

func TestChecksOfAnApplication(t *testing.T) {
	const local, remote = "http://127.0.0.1:8500", "https://consul.example.com:8501"
	for _, c := range []struct {
		check   Check
		address string
		agent   string
		target  string // of the check
	}{
		{Check{Type: CheckHTTP, Path: "/health?full=1"}, "", local, "http://127.0.0.1:5000/health?full=1"},
		{Check{Type: CheckHTTP, Path: "/", TLS: true}, "10.0.0.9", local, "https://10.0.0.9:5000/"},
		{Check{Type: CheckHTTP, Path: "/"}, "", remote, "http://10.0.0.7:5000/"},
		{Check{Type: CheckGRPC}, "", local, "127.0.0.1:5000"},
		{Check{Type: CheckGRPC, Service: "a.B", TLS: true}, "fd00::1", remote, "[fd00::1]:5000/a.B"},
	} {
		listener := net.JoinHostPort(c.address, "5000")
		r := define(Settings{Name: "star", Listener: listener, Weight: 7, Check: c.check}, Self{Host: "web1", Checked: listener}, c.agent,
			func(string) string { return "10.0.0.7" })
		verify.Equal(t, r.Check.HTTP+r.Check.GRPC, c.target, "%+v, %q, %s: target", c.check, c.address, c.agent)
		verify.Equal(t, r.Check.GRPCUseTLS, c.check.TLS && c.check.Type == CheckGRPC, "%+v: TLS of gRPC", c.check)
		verify.Equal(t, r.Check.TLSSkipVerify, c.check.TLS, "%+v: no verification", c.check)
		same := &api.AgentService{Service: "star", Address: r.Address, Port: 5000, Meta: r.Meta, Weights: api.AgentWeights{Passing: 7, Warning: 1}}
		verify.Equal(t, r.difference(same), "", "different")
		same.Weights.Passing = 1
		verify.Equal(t, r.difference(same), "weight", "different with another weight")
	}
}
