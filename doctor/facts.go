package doctor

import (
	"time"

	"sluice/discovery"
	"sluice/discovery/consul"
)

// Facts is what was seen at one moment. Diagnose reads nothing else.
type Facts struct {
	Time      time.Time
	Agent     Agent
	Token     Token
	Remote    bool            // the catalog is that of another data centre than the agent's
	Blind     string          // why there is nothing below; "": the catalog could be read
	Nodes     map[string]Node // by name
	Instances []Instance      // without Consul's own service

	Only     []string         // names of the services that were looked at; empty: all
	Filtered []string         // paths whose answers were filtered by ACLs
	Owners   map[string]Owner // by node, of the nodes with duplicates
	// NodeAddresses are the addresses of all nodes of the catalog, if there are
	// duplicates.
	NodeAddresses map[string]bool

	Peers      []Peer // of a running sluice
	PeersKnown bool   // one has answered

	Configured bool   // there is a configuration
	Own        string // what sluice registers as; no route has to lead there
	Uses       []Use  // its services, and those that were asked for by name
	MaxWatches int    // connections that sluice may open to an agent; 0: not known

	// Silent has the addresses that did not answer from here, and why. It is nil
	// if none was tried.
	Silent map[string]string
}

// Agent is the agent that was asked.
type Agent struct {
	URL        string
	Node       string // "" : it did not say, for Refused
	Datacenter string
	Version    string
	Server     bool
	Leader     string // address; "": it knows none
	// LastContact is how long ago the server that answers a query in the mode
	// "stale" heard from the leader.
	LastContact time.Duration
	// MaxConnections is limits.http_max_conns_per_client; 0: none, or not known.
	MaxConnections int
	// Refused is why it did not say who it is.
	Refused string
}

// Token is the ACL token that was used.
type Token struct {
	ACLs        bool // Consul has ACLs enabled
	DefaultDeny bool // what no rule allows is denied
	Anonymous   bool // none was sent
	Name        string
	Expires     time.Time // zero: never, or not known
}

// Liveness is what Consul knows of a node.
type Liveness uint8

const (
	// NodeAlive: its agent answers the others.
	NodeAlive Liveness = iota
	// NodeDead: its agent does not, which the check serfHealth shows.
	NodeDead
	// NodeWithoutAgent: nobody but the catalog knows it.
	NodeWithoutAgent
)

// Node is a node of the catalog.
type Node struct {
	Name     string
	Address  string
	Liveness Liveness
	Watched  bool   // without an agent, but with a check of the node by somebody else
	Detail   string // output of serfHealth, or of that check
}

// Instance is an instance of the catalog, also one that cannot be used.
type Instance struct {
	discovery.Instance
	Unusable string // why it cannot get traffic whatever its status; "": it can

	Checks int // of the service itself, without maintenance mode
	// CheckKinds are the names and types of these checks, sorted.
	CheckKinds []string
	Critical   string // the words of those that are critical; "": none is
	// Untouched says that the critical checks have not changed since they were
	// registered.
	Untouched bool
	Sidecar   bool   // a proxy or gateway of the mesh
	Created   uint64 // Raft index of its registration
	Modified  uint64 // Raft index of the last change of its registration
}

func (i Instance) key() instanceKey { return instanceKey{i.Node, i.ID} }

// address returns "host:port", or "" without a host.
func (i Instance) address() string {
	if i.Address == "" {
		return ""
	}
	return i.HostPort()
}

// instanceKey identifies a registration: ids are unique per agent.
type instanceKey struct{ node, id string }

// Owner is the agent of a node, asked directly.
type Owner struct {
	URL      string
	Problem  string                  // why it could not be asked; "": it answered
	Lacks    string                  // what the token would need for that, in HCL; "": it is not that
	Services map[string]Registration // what it has registered itself, by id
}

// Registration is what an id stands for at an agent.
type Registration struct {
	Service string
	Address string // "host:port"
}

// has reports whether the agent itself has registered i, and not something else
// under its id.
func (o Owner) has(i Instance) bool {
	return o.Services[i.ID] == Registration{i.Service, i.address()}
}

// Peer is an instance as a running sluice sees it.
type Peer struct {
	Node, ID, Address string // "host:port"
	Refused           string // why no connection may be opened to it; "": one may
	Critical          bool   // out of service because of Consul's checks
	Since             time.Time
}

// Use is a service that somebody wants from Consul: sluice's configuration, or
// who asks for it by name.
type Use struct {
	Name   string // sluice's; "": it was asked for by name
	Source consul.ServiceOptions
	Routed bool // requests are sent to it

	Service  string // Consul's name; "" for a prepared query
	Selected string // further conditions, in words; "": none

	Listed  int    // instances that fit
	Serving int    // of them, those that get traffic
	Hidden  bool   // ACLs filtered the answer
	Refused string // why there is no answer; "": there is one
	// Forbidden says that it was refused for lack of a permission.
	Forbidden bool
}
