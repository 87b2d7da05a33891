package config

import "time"

// Config is a complete, checked configuration: every default is filled in.
//
// The tags of the fields below are read by the decoder:
//
//	key      name in the file
//	default  value when the key is absent, written as in the file
//	min max  limits of a number, duration, size or ratio, both included
//	oneof    the allowed words, separated by "|"
//	format   the rule for a text, see format.go
//	restart  "yes": a change takes effect at the next start only
//
// A field without a default is optional and empty, unless check.go fills it.
type Config struct {
	Log       Log                `key:"log"`
	AccessLog AccessLog          `key:"access_log" restart:"yes"`
	Admin     Admin              `key:"admin" restart:"yes"`
	Listeners []Listener         `key:"listeners" restart:"yes"` // empty: one, named "web", on ":8080"
	Client    Client             `key:"client" restart:"yes"`
	Consul    Consul             `key:"consul"`
	Catalog   *Catalog           `key:"catalog"`                // nil: only the services that are named
	Services  map[string]Service `key:"services" format:"name"` // by sluice's own name for the service
	Routes    []Route            `key:"routes"`
	Shutdown  Shutdown           `key:"shutdown"`
	Health    Health             `key:"health" restart:"yes"`
}

// Log says what sluice logs about itself, always on standard error.
type Log struct {
	Level  string `key:"level" default:"info" oneof:"debug|info|warn|error"`
	Format string `key:"format" default:"json" oneof:"json|console"`
}

// AccessLog says where each request is logged.
type AccessLog struct {
	Path   string `key:"path" default:"stdout" format:"access_log"`
	Format string `key:"format" default:"json" oneof:"json|combined"`
	Sample Ratio  `key:"sample" default:"1.0" min:"0" max:"1"` // share of requests that are logged
}

// Admin is the listener of the admin API.
type Admin struct {
	Address string `key:"address" default:"127.0.0.1:8081" format:"listen"`
	// TokenFile holds the bearer token that every request must carry, except
	// those for /healthz and /readyz. It is required when Address is not a
	// loopback address.
	TokenFile string `key:"token_file"`
}

// Listener is an address on which sluice serves HTTP/1.1.
type Listener struct {
	Name    string `key:"name"` // empty: the address
	Address string `key:"address" format:"listen" required:"yes"`
}

// Client is what clients may do, on every listener.
type Client struct {
	Timeouts ClientTimeouts `key:"timeouts"`
	Limits   ClientLimits   `key:"limits"`
	// TrustedProxies are the networks whose X-Forwarded-*, X-Real-IP and
	// Forwarded fields are believed. They are dropped from everybody else's
	// requests.
	TrustedProxies     []string `key:"trusted_proxies" format:"network"`
	Forwarded          bool     `key:"forwarded" default:"false"`             // add the field of RFC 7239, too
	KeepForGoneClients bool     `key:"keep_for_gone_clients" default:"false"` // exchanges whose client has closed its connection
	KeepUnderscores    bool     `key:"keep_underscores" default:"false"`      // in field names; else such fields are dropped
}

// ClientTimeouts bound what a client may take its time with.
type ClientTimeouts struct {
	Head  time.Duration `key:"head" default:"10s" min:"100ms" max:"1h"`   // from the first byte of a head to its end
	Body  time.Duration `key:"body" default:"30s" min:"100ms" max:"24h"`  // each pause within a body
	Write time.Duration `key:"write" default:"60s" min:"100ms" max:"24h"` // each pause in taking the response
	Idle  time.Duration `key:"idle" default:"75s" min:"100ms" max:"24h"`  // between requests
}

// ClientLimits bound what a client may send.
type ClientLimits struct {
	Connections           int  `key:"connections" default:"0" min:"0" max:"10000000"`             // 0: half of the descriptors there are
	ConnectionsPerAddress int  `key:"connections_per_address" default:"0" min:"0" max:"10000000"` // of an IPv4 address or IPv6 /64; 0: half of Connections
	Target                Size `key:"target" default:"8KiB" min:"256B" max:"16KiB"`               // of the request target
	Body                  Size `key:"body" default:"0" min:"0" max:"1024GiB"`                     // of a request's body; 0: no limit
}

// Consul is the registry's client side: the agent to ask and how. What is
// left empty is as Consul's own tools have it.
type Consul struct {
	Addresses  []string  `key:"addresses" format:"consul" restart:"yes"` // empty: http://127.0.0.1:8500
	Token      Secret    `key:"token" restart:"yes"`
	TokenFile  string    `key:"token_file" restart:"yes"`
	TLS        ConsulTLS `key:"tls" restart:"yes"`
	Datacenter string    `key:"datacenter"`
	Namespace  string    `key:"namespace" restart:"yes"` // Consul Enterprise
	Partition  string    `key:"partition" restart:"yes"` // Consul Enterprise
	// Consistency is that of services that name none.
	Consistency string        `key:"consistency" default:"default" oneof:"default|stale|consistent"`
	Wait        time.Duration `key:"wait" default:"1m" min:"1s" max:"10m"`
	MaxWatches  int           `key:"max_watches" default:"128" min:"1" max:"10000" restart:"yes"` // blocking queries at a time
	// Probation is how long, at most, instances are used that Consul has lost, until
	// they first fail. 0: not at all.
	Probation time.Duration `key:"probation" default:"10m" min:"0s" max:"24h"`
	// Snapshot is the file that keeps the last known good sets for a start while
	// Consul is away. Empty: none.
	Snapshot       string        `key:"snapshot" format:"file" restart:"yes"`
	SnapshotMaxAge time.Duration `key:"snapshot_max_age" default:"24h" min:"0s" max:"8760h" restart:"yes"` // 0: no limit
	Debounce       Debounce      `key:"debounce"`
	// AllowLocal lets instances of every machine have loopback, link-local and
	// unspecified addresses, not only those of this one.
	AllowLocal bool `key:"allow_local" default:"false"`
	// Register is how sluice registers itself. Nil: it does not.
	Register *ConsulRegister `key:"register"`
}

// ConsulTLS are the certificates for an https address of Consul.
type ConsulTLS struct {
	CA         string `key:"ca"`      // file of trusted certificates
	CAPath     string `key:"ca_path"` // directory of such files
	Cert       string `key:"cert"`
	Key        string `key:"key"`
	ServerName string `key:"server_name"`
	SkipVerify bool   `key:"skip_verify" default:"false"`
}

// Debounce batches additions and updates of instances. The first set, the
// first change after calm and every removal act at once.
type Debounce struct {
	Quiet   time.Duration `key:"quiet" default:"100ms" min:"0s" max:"1m"`
	MaxWait time.Duration `key:"max_wait" default:"1s" min:"0s" max:"5m"`
}

// Service is a set of peers and how requests reach them. Exactly one source,
// Consul or Peers, is set.
type Service struct {
	Consul      *ConsulService `key:"consul"`
	Peers       []string       `key:"peers" format:"peer"`
	Balance     Balance        `key:"balance"`
	Timeouts    Timeouts       `key:"timeouts"`
	Keepalive   Keepalive      `key:"keepalive"`
	Retry       Retry          `key:"retry"`
	Limits      Limits         `key:"limits"`
	WaitForPeer time.Duration  `key:"wait_for_peer" default:"0s" min:"0s" max:"1m"` // how long a request waits for a first peer
	Drain       Drain          `key:"drain"`
	Health      ServiceHealth  `key:"health"`
}

// ConsulService selects instances in Consul: those of a service, or the result
// of a prepared query.
type ConsulService struct {
	Service       string        `key:"service"` // empty: the name under services, unless there is a PreparedQuery
	PreparedQuery string        `key:"prepared_query"`
	Poll          time.Duration `key:"poll" default:"5s" min:"1s" max:"1h"` // of a prepared query that has no TTL

	Tags        []string `key:"tags"`   // an instance must carry all of them
	Filter      string   `key:"filter"` // Consul's own filter language
	PassingOnly bool     `key:"passing_only" default:"false"`

	Datacenters []string `key:"datacenters"` // in order of preference; empty: consul.datacenter
	MinHealthy  int      `key:"min_healthy" default:"1" min:"1" max:"100000"`
	Namespace   string   `key:"namespace"` // empty: consul.namespace; Consul Enterprise
	Partition   string   `key:"partition"` // empty: consul.partition; Consul Enterprise
	Peer        string   `key:"peer"`      // a cluster that exports the service

	Consistency string `key:"consistency" oneof:"default|stale|consistent"` // empty: consul.consistency; never empty once loaded
	Cached      bool   `key:"cached" default:"false"`

	Probation *time.Duration `key:"probation" min:"0s" max:"24h"` // nil: consul.probation; never nil once loaded
}

// Timeouts bound the steps of one attempt.
type Timeouts struct {
	Connect        time.Duration `key:"connect" default:"1s" min:"1ms" max:"10m"`
	ResponseHeader time.Duration `key:"response_header" default:"30s" min:"1ms" max:"24h"` // from the end of the request
	Idle           time.Duration `key:"idle" default:"60s" min:"1ms" max:"24h"`            // between two reads or writes of a body
	Tunnel         time.Duration `key:"tunnel" default:"1h" min:"1s" max:"720h"`           // without a byte either way, after an upgrade
}

// Keepalive says which unused connections to a peer are kept.
type Keepalive struct {
	// Idle should be below the time after which the peers close unused
	// connections themselves. A peer that tells that time is believed.
	Idle time.Duration `key:"idle" default:"4s" min:"100ms" max:"1h"`
	Max  int           `key:"max" default:"512" min:"1" max:"100000"`
}

// Retry bounds what is tried again on another peer.
type Retry struct {
	Attempts      int           `key:"attempts" default:"2" min:"1" max:"5"`              // in all, the first one included
	PerTryTimeout time.Duration `key:"per_try_timeout" default:"0s" min:"0s" max:"1h"`    // for the response's head, of each attempt; 0: none
	Body          Size          `key:"body" default:"64KiB" min:"0" max:"16MiB"`          // of a request, kept to be sent again
	Budget        Ratio         `key:"budget" default:"20%" min:"0" max:"10"`             // retries of all requests, as a share of them
	MinPerSecond  int           `key:"min_per_second" default:"10" min:"0" max:"1000000"` // retries besides
	Hedge         Hedge         `key:"hedge"`
}

// Hedge says when a second peer is asked as well for what only reads. Without
// either key it never is; After goes before Percentile.
type Hedge struct {
	After      time.Duration `key:"after" default:"0s" min:"0s" max:"1h"`
	Percentile Ratio         `key:"percentile" default:"0" min:"0" max:"1"` // of the latencies of the last ten seconds or more
}

// Limits bound what a service's pool takes on. 0 means no limit.
type Limits struct {
	Requests        int `key:"requests" default:"0" min:"0" max:"10000000"`          // attempts in flight
	RequestsPerPeer int `key:"requests_per_peer" default:"0" min:"0" max:"10000000"` // the same, on one peer
	Pending         int `key:"pending" default:"1024" min:"0" max:"10000000"`        // requests that wait for a peer
	Retries         int `key:"retries" default:"0" min:"0" max:"10000000"`           // attempts in flight beyond the first
}

// Drain is what a peer that leaves still gets.
type Drain struct {
	Timeout time.Duration `key:"timeout" default:"30s" min:"1ms" max:"24h"`
}

// Route sends the requests for a host and a path to a service. The most
// specific one wins, whatever its place in the list.
type Route struct {
	Host    string `key:"host"`             // as in route.Route; empty: any
	Path    string `key:"path" default:"/"` // as in route.Route
	Service string `key:"service" required:"yes"`
}

// Shutdown is what happens between SIGTERM and the end of the process.
type Shutdown struct {
	Delay time.Duration `key:"delay" default:"0s" min:"0s" max:"10m"`  // not ready, still accepting
	Idle  time.Duration `key:"idle" default:"1s" min:"0s" max:"10m"`   // then: idle connections may send one more request
	Grace time.Duration `key:"grace" default:"30s" min:"0s" max:"24h"` // for requests in flight, after Delay
}
