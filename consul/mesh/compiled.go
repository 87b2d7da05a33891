package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// Limits of a compiled chain. Consul accepts config entries of 512 KiB; a chain may have many.
const (
	maxChainBytes = 8 << 20
	maxChainNodes = 4096 // nodes, and targets
)

// Compiled is a discovery chain, as Consul has compiled it of config entries: a graph of nodes
// that begins at StartNode. It has the fields that sluice carries out or reports, also some that
// api.CompiledDiscoveryChain lacks. It does not change.
//
// https://developer.hashicorp.com/consul/api-docs/discovery-chain, and
// agent/structs/discovery_chain.go in Consul's source.
type Compiled struct {
	ServiceName     string
	Namespace       string `json:",omitempty"`
	Partition       string `json:",omitempty"`
	Datacenter      string
	Default         bool   `json:",omitempty"` // no service-router, -splitter or -resolver applies
	Protocol        string // of service-defaults: "tcp", "http", "http2" or "grpc"
	StartNode       string
	Nodes           map[string]Node
	Targets         map[string]Target
	EnvoyExtensions []EnvoyExtension `json:",omitempty"`
}

// Types of a [Node].
const (
	NodeRouter   = "router"
	NodeSplitter = "splitter"
	NodeResolver = "resolver"
)

// Node is a node of a chain. Its Type says which fields it has.
type Node struct {
	Type         string
	Name         string
	Routes       []CompiledRoute `json:",omitempty"`
	Splits       []CompiledSplit `json:",omitempty"`
	Resolver     *Resolver       `json:",omitempty"`
	LoadBalancer *LoadBalancer   `json:",omitempty"` // of a splitter: that of one of its resolvers
}

// CompiledRoute is a route of a service-router.
type CompiledRoute struct {
	Definition RouteDefinition
	NextNode   string
}

// RouteDefinition is a route as it was written.
type RouteDefinition struct {
	Match       *RouteMatch       `json:",omitempty"`
	Destination *RouteDestination `json:",omitempty"`
}

// RouteMatch is what a request must be; HTTP is nil for all.
type RouteMatch struct{ HTTP *HTTPMatch }

// HTTPMatch has conditions, all of which hold. At most one of the paths is set.
type HTTPMatch struct {
	PathExact       string       `json:",omitempty"`
	PathPrefix      string       `json:",omitempty"`
	PathRegex       string       `json:",omitempty"`
	CaseInsensitive bool         `json:",omitempty"`
	Header          []ValueMatch `json:",omitempty"`
	QueryParam      []ValueMatch `json:",omitempty"`
	Methods         []string     `json:",omitempty"`
}

// ValueMatch is a condition for a header field or a query parameter. One of Present to Regex
// is set.
type ValueMatch struct {
	Name    string
	Present bool   `json:",omitempty"`
	Exact   string `json:",omitempty"`
	Prefix  string `json:",omitempty"`
	Suffix  string `json:",omitempty"`
	Regex   string `json:",omitempty"`
	Invert  bool   `json:",omitempty"`
}

// RouteDestination is what happens to the requests of a route.
type RouteDestination struct {
	PrefixRewrite         string                   `json:",omitempty"`
	RequestTimeout        Duration                 `json:",omitempty"` // negative: none
	IdleTimeout           Duration                 `json:",omitempty"` // likewise
	NumRetries            uint32                   `json:",omitempty"`
	RetryOnConnectFailure bool                     `json:",omitempty"`
	RetryOn               []string                 `json:",omitempty"`
	RetryOnStatusCodes    []uint32                 `json:",omitempty"`
	RequestHeaders        *api.HTTPHeaderModifiers `json:",omitempty"`
	ResponseHeaders       *api.HTTPHeaderModifiers `json:",omitempty"`
}

// CompiledSplit is a part of a service-splitter, with the weight that counts, in percent.
type CompiledSplit struct {
	Definition SplitDefinition
	Weight     float64 `json:",omitempty"`
	NextNode   string
}

// SplitDefinition is a split as it was written, merged with those of the splitters that lead to it.
type SplitDefinition struct {
	RequestHeaders  *api.HTTPHeaderModifiers `json:",omitempty"`
	ResponseHeaders *api.HTTPHeaderModifiers `json:",omitempty"`
}

// Resolver says which instances get requests: Target's, else those of Failover's targets in order.
type Resolver struct {
	Default        bool     `json:",omitempty"` // there is no service-resolver
	ConnectTimeout Duration `json:",omitempty"`
	RequestTimeout Duration `json:",omitempty"`
	Target         string
	Failover       *Failover `json:",omitempty"`
}

// Failover are the targets that stand in.
type Failover struct {
	Targets []string
	// Policy is how Consul Enterprise orders them.
	Policy *api.ServiceResolverFailoverPolicy `json:",omitempty"`
}

// LoadBalancer is the policy of a resolver.
type LoadBalancer struct {
	Policy             string                  `json:",omitempty"`
	RingHashConfig     *api.RingHashConfig     `json:",omitempty"`
	LeastRequestConfig *api.LeastRequestConfig `json:",omitempty"`
	HashPolicies       []HashPolicy            `json:",omitempty"`
}

// HashPolicy is a part of a request that is hashed.
type HashPolicy struct {
	Field        string    `json:",omitempty"` // "header", "cookie", "query_parameter"; "": IP
	FieldValue   string    `json:",omitempty"` // its name
	CookieConfig *struct{} `json:",omitempty"` // it makes Envoy set the cookie
	SourceIP     bool      `json:",omitempty"`
	Terminal     bool      `json:",omitempty"` // a request that has it ignores later policies
}

// Target is a set of instances.
type Target struct {
	Service       string
	ServiceSubset string `json:",omitempty"`
	Namespace     string `json:",omitempty"`
	Partition     string `json:",omitempty"`
	Datacenter    string `json:",omitempty"`
	Peer          string `json:",omitempty"`
	MeshGateway   api.MeshGatewayConfig
	Subset        api.ServiceResolverSubset // the instances that a filter selects
	External      bool                      `json:",omitempty"` // behind a terminating gateway
	SNI           string                    `json:",omitempty"`
	// PrioritizeByLocality is how Consul Enterprise prefers near instances.
	PrioritizeByLocality *api.ServiceResolverPrioritizeByLocality `json:",omitempty"`
}

// EnvoyExtension is an extension of Envoy that an operator asks for.
type EnvoyExtension struct {
	Name string
}

// Duration is a duration as Consul writes it: "5s", or a number of nanoseconds.
type Duration time.Duration

// UnmarshalJSON reads a text or a number.
func (d *Duration) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		*d = Duration(n)
		return nil
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("a duration: %w", err)
	}
	if s == "" {
		*d = 0
		return nil
	}
	parsed, err := time.ParseDuration(s)
	*d = Duration(parsed)
	return err
}

// MarshalJSON writes a text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// decodeChain reads an answer of Consul about a service's chain. It ignores unknown fields.
func decodeChain(body []byte, service string) (*Compiled, error) {
	if len(body) > maxChainBytes {
		return nil, fmt.Errorf("the discovery chain has %d bytes: want at most %d", len(body), maxChainBytes)
	}
	var answer struct{ Chain *Compiled }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("the discovery chain cannot be read: %w", err)
	}
	c := answer.Chain
	switch {
	case c == nil || c.StartNode == "":
		return nil, errors.New("the answer has no discovery chain")
	case !strings.EqualFold(c.ServiceName, service):
		return nil, fmt.Errorf("the answer has the discovery chain of %.200q: want service %q", c.ServiceName, service)
	case len(c.Nodes) > maxChainNodes || len(c.Targets) > maxChainNodes:
		return nil, fmt.Errorf("the discovery chain has %d nodes and %d targets: want at most %d of each", len(c.Nodes), len(c.Targets), maxChainNodes)
	}
	return c, nil
}
