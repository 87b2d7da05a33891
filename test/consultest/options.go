package consultest

import (
	"cmp"
	"encoding/json"
	"io"
	"maps"
	"net"
	"strconv"
)

// Mode is the kind of an agent.
type Mode uint8

const (
	// Dev: one server with its data in memory, ready in about a second. It loses its
	// data when it stops.
	Dev Mode = iota
	// Server: a server with its data on disk. A single server elects itself. For a
	// cluster, set bootstrap_expect in Config, and Join.
	Server
	// Client: an agent that is not a server, and needs Join. Its registrations are on
	// disk.
	Client
)

// Options configures an agent. The zero value is a dev agent.
type Options struct {
	// Program behaves like consul, at least for "agent -config-file FILE"; default: see [Binary].
	Program    string
	Mode       Mode
	Node       string // default "node-" and its HTTP port
	Datacenter string // default "dc1"
	HTTPPort   int    // of the HTTP API, if it is free; 0: any
	UI         bool   // serve the web interface at /ui/
	WAN        bool   // join the gossip between data centres

	// Join contains the addresses of agents to join (Agent.SerfAddress).
	Join []string
	// ACLs sets the default policy deny. A single server is bootstrapped:
	// PUT /v1/acl/bootstrap creates the token of Agent.Client (Token, or a random
	// one), and the agent gets a token. A client agent needs AgentToken.
	ACLs bool
	// AgentToken is the secret of the token of a client agent: see
	// Agent.NewAgentToken of the server.
	AgentToken string
	// Token is the token of Agent.Client, and of the requests that wait until the
	// agent is ready. It does not enable ACLs: ACLs or Config do.
	Token string
	// Config replaces top-level keys of the configuration of the agent, with the
	// names of Consul (https://developer.hashicorp.com/consul/docs/agent/config).
	// The key ports is ignored.
	Config map[string]any
	// TLS also serves the HTTP API over TLS, at Agent.HTTPSAddress.
	TLS *TLS
	// NoWait returns when the agent listens on its ports, because the first servers
	// of a cluster have no leader yet. Call Agent.WaitReady later.
	NoWait bool
	// Progress gets the lines of a build of Consul, if one is needed.
	Progress io.Writer
}

// TLS contains the PEM files for the API over TLS.
type TLS struct {
	CA, Cert, Key string
	// VerifyIncoming accepts only clients with a certificate of CA.
	VerifyIncoming bool
}

func (o Options) config(p ports, dataDir string) ([]byte, error) {
	if !o.WAN {
		p.SerfWAN = -1
	}
	if o.Mode == Client {
		p.SerfWAN = -1
	}
	config := map[string]any{
		"node_name":            cmp.Or(o.Node, "node-"+strconv.Itoa(p.HTTP)),
		"datacenter":           o.datacenter(),
		"bind_addr":            "127.0.0.1",
		"client_addr":          "127.0.0.1",
		"log_level":            "warn",
		"disable_update_check": true,
		"ui_config":            map[string]any{"enabled": o.UI},
	}
	switch o.Mode {
	case Server:
		config["server"] = true
		config["data_dir"] = dataDir
		if o.Join == nil {
			config["bootstrap_expect"] = 1
		}
	case Client:
		config["data_dir"] = dataDir
	}
	if o.Mode != Client {
		config["performance"] = map[string]any{"raft_multiplier": 1}
	}
	if o.Join != nil {
		config["retry_join"] = o.Join
		config["retry_interval"] = "1s"
	}
	if o.TLS != nil {
		config["tls"] = map[string]any{"https": map[string]any{
			"ca_file": o.TLS.CA, "cert_file": o.TLS.Cert, "key_file": o.TLS.Key, "verify_incoming": o.TLS.VerifyIncoming,
		}}
	} else {
		p.HTTPS = -1
	}
	if o.ACLs {
		acl := map[string]any{"enabled": true, "default_policy": "deny"}
		if o.Mode == Client {
			acl["tokens"] = map[string]any{"agent": o.AgentToken}
		}
		config["acl"] = acl
	}
	maps.Copy(config, o.Config)
	config["ports"] = p
	return json.MarshalIndent(config, "", "  ")
}

func (o Options) datacenter() string { return cmp.Or(o.Datacenter, "dc1") }

func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
