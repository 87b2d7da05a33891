package doctor

import (
	"cmp"
	"time"

	"sluice/config"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
)

// Facts are the input of Diagnose.
type Facts struct {
	Time      time.Time
	Agent     Agent
	Token     Token
	Remote    bool            // the catalog is not of the agent's data centre
	Blind     string          // error of reading the catalog: nothing below is set; "": none
	Nodes     map[string]Node // by name
	Instances []Instance      // without Consul's own service

	Unlisted   []string             // names of services whose instances Consul cannot list
	Keep       string               // node whose registrations stay; "": the live ones
	Only       []string             // names of the examined services; empty: all
	Filtered   []string             // paths whose answers ACLs filtered
	NodeAgents map[string]NodeAgent // by node, of the nodes with duplicates
	// NodeAddresses are the addresses of all nodes of the catalog, if there are
	// duplicates; nil: they could not be read.
	NodeAddresses map[string]bool

	Peers []Peer // of a running sluice; nil: none answers

	// Config is the configuration as operators wrote it; nil: there is none. Only its part
	// about routes of tags is read.
	Config *config.Config
	// ReceiveBuffer is how many bytes of UDP packets this machine's kernel keeps for a socket;
	// 0: no listener of Config needs it, or it is not known.
	ReceiveBuffer int

	Own  string // service name of sluice's own registration; needs no route
	Uses []Use  // its services, and the ones named in Only

	Mesh *Mesh // nil: the configuration reaches nothing through it

	// Silent has the errors of connection attempts by address; nil: none was tried.
	Silent map[string]string

	tags tagged // of Diagnose
}

// Agent is the queried agent.
type Agent struct {
	URL        string `json:"url"`
	Node       string `json:"node,omitempty"` // "": unknown, see Refused
	Datacenter string `json:"datacenter,omitempty"`
	Version    string `json:"version,omitempty"`
	Server     bool   `json:"server"`
	Leader     string `json:"leader"`          // address; "": unknown
	Token      string `json:"token,omitempty"` // its description, "anonymous", or its accessor
	Refused    string `json:"-"`               // error of /v1/agent/self
}

// Token is the ACL token in use.
type Token struct {
	ACLs        bool // Consul has ACLs enabled
	DefaultDeny bool // the default policy is deny
	Anonymous   bool // no token is sent
}

// Liveness is the state of a node's agent.
type Liveness uint8

const (
	// NodeAlive: the agent answers.
	NodeAlive Liveness = iota
	// NodeDead: the check serfHealth fails.
	NodeDead
	// NodeWithoutAgent: an external node.
	NodeWithoutAgent
)

// Node is a node of the catalog.
type Node struct {
	Name     string
	Address  string
	Liveness Liveness
	Watched  bool   // an external node with a node check
	Detail   string // output of serfHealth, or of that check
}

// Instance is an instance of the catalog, usable or not.
type Instance struct {
	discovery.Instance
	Unusable string // why it cannot get traffic with any status; "": it can

	// Contact is the address to which sluice connects, if the configuration names a tagged one;
	// LacksTag is its tag if there is none with it, so that Contact is the registered one.
	Contact  string
	LacksTag string

	Checks int // of the service, without maintenance mode
	// CheckKinds are the names and types of these checks, sorted.
	CheckKinds []string
	Critical   string // output of the critical ones; "": none
	// Untouched: the critical checks have not changed since their registration.
	Untouched bool
	Sidecar   bool   // a proxy or gateway of the mesh
	Proxied   string // the service of a sidecar; "": it is none
	ProxiedID string // the id of its instance on the same node; "": it may be any
	Created   uint64 // Raft index of its registration
	Modified  uint64 // Raft index of the last change of its registration
}

func (i Instance) address() string {
	if i.Address == "" {
		return ""
	}
	return i.HostPort()
}

// contact returns the address to which sluice connects.
func (i Instance) contact() string { return cmp.Or(i.Contact, i.address()) }

// NodeAgent is the answer of a node's agent.
type NodeAgent struct {
	URL      string
	Problem  string                  // why there is no answer; "": there is
	Lacks    string                  // the missing ACL policy, if that is the problem
	Services map[string]Registration // by id
}

// Registration is a service registration of an agent.
type Registration struct {
	Service string
	Address string // "host:port"
}

// has reports whether the agent has registered i.
func (o NodeAgent) has(i Instance) bool {
	return o.Services[i.ID] == Registration{i.Service, i.address()}
}

// Peer is an instance in a running sluice.
type Peer struct {
	Node, ID, Address string // "host:port"
	Refused           string // why sluice opens no connection to it; "": it does
	Critical          bool   // out of service because of Consul's checks
	Other             string // who answers sluice's checks in its place; "": nobody else
	Since             time.Time
}

// Use is a service of the configuration, or given by name.
type Use struct {
	Name   string // in the configuration; "": given by name
	Source consulsource.ServiceOptions
	Routed bool // a route leads to it

	Mesh     bool   // sluice reaches it through the service mesh
	HTTP2    bool   // sluice speaks HTTP/2 to it
	Listener string // for TCP, which leads to it; "": none

	Service  string // Consul's name; "" for a prepared query
	Selected string // further conditions; "": none

	Listed  int    // selected instances
	Serving int    // selected instances in service
	Hidden  bool   // ACLs filtered the answer
	Refused string // error of the query
	// Forbidden: a permission is missing.
	Forbidden bool
	Instances []Instance // selected ones
}
