package consultest

import (
	"cmp"
	"encoding/json"
	"io"
	"maps"
	"net"
	"strconv"
)

// Mode is what an agent is.
type Mode uint8

const (
	// Dev: one server with all its data in memory, ready in about a second. It
	// forgets everything when it stops.
	Dev Mode = iota
	// Server: a server with its data on disk. Alone it elects itself; for a
	// cluster, set Config's bootstrap_expect and Join.
	Server
	// Client: an agent without a server's data, which needs Join. What is
	// registered with it is on disk.
	Client
)

// Options configures an agent. The zero value is a dev agent.
type Options struct {
	Mode       Mode
	Node       string // default "node-" and its HTTP port
	Datacenter string // default "dc1"
	HTTPPort   int    // of the HTTP API if it is free, else and for 0 any
	UI         bool   // serve the web interface at /ui/
	WAN        bool   // take part in the gossip between data centres

	// Join has the addresses of agents to join (Agent.SerfAddress).
	Join []string
	// ACLs makes the agent deny what no token allows. A single server is set up as
	// an operator does: PUT /v1/acl/bootstrap makes the token that Agent.Client has
	// (Token, or else a random one), and the agent gets one of its own. A client
	// agent needs AgentToken.
	ACLs bool
	// AgentToken is the secret of the token that a client agent has for itself: see
	// Agent.NewAgentToken of the server.
	AgentToken string
	// Token is sent with the requests of Agent.Client, and with those that wait
	// for the agent to be ready. It does not switch ACLs on: ACLs or Config do.
	Token string
	// Config is merged over the agent's configuration by its top-level keys, with
	// Consul's names (https://developer.hashicorp.com/consul/docs/agent/config).
	// The key ports is ignored.
	Config map[string]any
	// TLS serves the HTTP API with TLS too, at Agent.HTTPSAddress.
	TLS *TLS
	// NoWait returns as soon as the agent has its ports: the first servers of a
	// cluster have no leader yet. Call Agent.WaitReady later.
	NoWait bool
	// Progress gets the lines of a build of Consul, if there has to be one.
	Progress io.Writer
}

// TLS are the files, in PEM, of an agent's API over TLS.
type TLS struct {
	CA, Cert, Key string
	// VerifyIncoming takes only clients with a certificate of CA.
	VerifyIncoming bool
}

// config returns the agent's configuration as JSON.
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
