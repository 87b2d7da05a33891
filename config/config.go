package config

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/config/decoding"
	"sluice/consul"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/discovery/dns"
	"sluice/proxy"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route"
)

// Config is a complete configuration: all defaults are set, all values are checked.
//
// Package decoding says what the tags of the fields mean. The formats are in format.go.
//
// A field without a default is optional and empty, unless check.go sets it. A change
// takes effect when the file is loaded again, except for the keys in restarts.
type Config struct {
	Log       Log                     `key:"log"`
	AccessLog AccessLog               `key:"access_log"`
	Tracing   Tracing                 `key:"tracing"`
	Admin     Admin                   `key:"admin"`
	Listeners []Listener              `key:"listeners"` // empty: one with the name "web" and the address ":8080"
	Client    Client                  `key:"client"`
	Discovery Discovery               `key:"discovery"`
	Live      Live                    `key:"config"`
	Consul    Consul                  `key:"consul"`
	Catalog   *Catalog                `key:"catalog"`                // nil: only the services in Services
	Dynamic   []Dynamic               `key:"dynamic"`                // more sources of Services and Routes
	Defaults  *Defaults               `key:"defaults"`               // nil: the ones of the keys
	Services  map[string]Service      `key:"services" format:"name"` // by name in sluice
	Actions   map[string]NamedActions `key:"actions" format:"name"`  // that routes use by name
	Routes    []Route                 `key:"routes"`
	Shutdown  Shutdown                `key:"shutdown"`
	Health    Health                  `key:"health"`

	Variables decoding.Variables `key:"-"` // but those of Defaults, Services, Actions and Routes
}

// Log configures the log of sluice on standard error.
type Log struct {
	Level  LogLevel `key:"level" default:"info" oneof:"debug|info|warn|error" format:"log_level"`
	Format string   `key:"format" default:"auto" oneof:"auto|json|console"`
}

// AccessLog configures the log of requests.
type AccessLog struct {
	Path string `key:"path" default:"stdout" format:"access_log"`
	// Format is json, combined, or a template.
	Format LogFormat     `key:"format" default:"json" format:"log_format"`
	Sample Ratio         `key:"sample" default:"1.0" min:"0" max:"1"` // share of requests in the log
	Slow   time.Duration `key:"slow" default:"1s" min:"0s" max:"24h"` // requests that take this long are always in the log; 0: they are not
}

// Tracing configures the export of spans.
type Tracing struct {
	OTLP        Location `key:"otlp" format:"http_url"`                      // of the collector, without /v1/traces; empty: no spans
	Sample      Ratio    `key:"sample" default:"1%" min:"0" max:"1"`         // share of traces that begin here
	ServiceName string   `key:"service_name" default:"sluice" format:"text"` // of the spans' resource
	Headers     []Header `key:"headers" format:"header"`                     // for the collector
}

// Admin is the listener of the admin API.
type Admin struct {
	Address Address   `key:"address" default:"127.0.0.1:8081" format:"listen"`
	Socket  *Socket   `key:"socket"` // only if Address is a unix socket; nil: the defaults
	TLS     *AdminTLS `key:"tls"`    // nil: without TLS
	// TokenFile contains the bearer token that all requests must have, except requests
	// for /healthz and /readyz. It is required if other machines reach Address.
	TokenFile string `key:"token_file"`
	// ReadTokenFile contains a bearer token for requests that only read. It requires
	// TokenFile. Empty: none.
	ReadTokenFile string `key:"read_token_file"`
	// Orders is the file with operators' orders about peers, which so survive a restart. Empty:
	// none.
	Orders string `key:"orders" format:"file"`
	// Shares is the file with given shares of splits, which so survive a restart. Empty: none.
	Shares string `key:"shares" format:"file"`
	// Metrics is which series /metrics has: brief leaves out details, auto does so for many
	// services.
	Metrics string `key:"metrics" default:"auto" oneof:"auto|full|brief"`
}

// AdminTLS configures TLS of the admin API. Its files are in PEM format: the certificate
// with its intermediate certificates, and its key.
type AdminTLS struct {
	Cert string `key:"cert" format:"file" required:"yes"`
	Key  string `key:"key" format:"file" required:"yes"`
}

// Listener is an address on which sluice serves clients.
type Listener struct {
	Name     string  `key:"name"` // empty: the address
	Address  Address `key:"address" format:"listen" required:"yes"`
	Socket   *Socket `key:"socket"` // only if Address is a unix socket; nil: the defaults
	Protocol string  `key:"protocol" default:"http" oneof:"http|tcp"`
	// Service is where the connections go with ProtocolTCP, which has no routes.
	Service string `key:"service"`
	// SNI is where connections with a server name of TLS go with ProtocolTCP.
	SNI []ServerName `key:"sni"`
	// HTTP2 says that clients may use HTTP/2.
	HTTP2 bool `key:"http2" default:"true"`
	// HTTP3 says that clients may use HTTP/3 too, at the UDP socket of the same address.
	HTTP3 bool `key:"http3" default:"false"`
	// HTTP3Port is the port that clients are told; 0: that of Address.
	HTTP3Port int `key:"http3_port" default:"0" min:"0" max:"65535"`
	// TLS is nil if there is none.
	TLS *ListenerTLS `key:"tls"`
	// ProxyProtocol is nil if no connection begins with a PROXY header.
	ProxyProtocol *ProxyProtocol `key:"proxy_protocol"`
	// RedirectHTTPS, if not nil, redirects all requests to HTTPS.
	RedirectHTTPS *RedirectHTTPS `key:"redirect_https"`
	// Streams are the routes of connections that tags ask for at this listener. [Merge] sets
	// them.
	Streams []Route `key:"-"`
}

// Client limits the clients of all listeners.
type Client struct {
	Timeouts proxy.Timeouts `key:"timeouts"`
	// Limits with 0 connections mean half of the file descriptors of the process, and half of
	// those for an address.
	Limits      proxy.Limits            `key:"limits"`
	Connections socket.ConnectionLimits `key:"connections"`
	// ErrorPages are the default pages of sluice's own answers, also to requests without a route.
	ErrorPages []ErrorPage `key:"error_pages"`
	// TrustedProxies are the networks whose X-Forwarded-*, X-Real-IP, Forwarded and
	// X-Request-Id fields sluice uses. It removes these fields from all other requests.
	TrustedProxies []Network `key:"trusted_proxies" format:"proxy"`
	proxy.Switches

	errorPages route.ErrorPages `key:"-"` // see BuiltErrorPages
}

// Live configures the handling of configurations.
type Live struct {
	// History is the file with the applied configurations, or a directory for it. Empty:
	// they are kept in memory, and a rollback is not possible.
	History string `key:"history"`
}

// Discovery configures the handling of instances from all registries.
type Discovery struct {
	Debounce discovery.Debounce `key:"debounce"`
	// AllowLocal accepts loopback and unspecified addresses from registries and documents, also
	// the ones that are not known to be registered on this machine.
	AllowLocal bool `key:"allow_local" default:"false"`
	// Snapshot is the file with the last known good sets, for a start without a
	// registry. Empty: none.
	Snapshot       string        `key:"snapshot" format:"file"`
	SnapshotMaxAge time.Duration `key:"snapshot_max_age" default:"24h" min:"0s" max:"8760h"` // 0: no limit
}

// Consul configures the client of Consul. The defaults of empty fields are the defaults of
// Consul's own tools.
type Consul struct {
	Addresses  []Location        `key:"addresses" format:"consul"` // empty: http://127.0.0.1:8500
	Token      Secret            `key:"token"`
	TokenFile  string            `key:"token_file"`
	TLS        consul.TLSOptions `key:"tls"`
	Datacenter string            `key:"datacenter"`
	Namespace  string            `key:"namespace"` // Consul Enterprise
	Partition  string            `key:"partition"` // Consul Enterprise
	// Consistency is the default of ConsulService.Consistency.
	Consistency consulsource.Consistency `key:"consistency" default:"default" oneof:"default|stale|consistent"`
	Wait        time.Duration            `key:"wait" default:"1m" min:"1s" max:"10m"`
	MaxWatches  int                      `key:"max_watches" default:"128" min:"1" max:"10000"` // simultaneous blocking queries
	// Probation is how long an instance that Consul has lost stays in use, if it
	// does not fail. 0: it is removed at once.
	Probation time.Duration `key:"probation" default:"10m" min:"0s" max:"24h"`
	// CertificatesDir is a directory for copies of the certificates in Consul's KV store,
	// for a start without Consul. Empty: none.
	CertificatesDir string `key:"certificates_dir"`
	// Shares is the prefix of the keys in Consul's KV store by which replicas share what their
	// judges and operators decide, without a slash at its end. Empty: each is on its own.
	Shares string `key:"shares" format:"kv_prefix"`
	// Orders is the prefix of the keys in Consul's KV store by which replicas share operators'
	// orders about peers. Empty: see OrdersPrefix.
	Orders string `key:"orders" format:"kv_prefix"`
	// Register configures the registration of sluice. nil: sluice is not registered.
	Register *ConsulRegister `key:"register"`
	// Connect configures how sluice takes part in Consul's service mesh, for services with
	// ConsulService.Connect.
	Connect ConsulConnect `key:"connect"`
}

// OrdersPrefix returns the prefix of the keys by which replicas share orders about peers: with
// Register each fleet has its own. Empty: each replica is on its own.
func (c *Consul) OrdersPrefix() string {
	switch {
	case c.Orders == "off":
		return ""
	case c.Orders == "" && c.Register != nil:
		return "sluice-orders/" + c.Register.Service
	}
	return c.Orders
}

// IsLogLevel reports whether s is a value of Log.Level.
func IsLogLevel(s string) bool {
	field, _ := reflect.TypeFor[Log]().FieldByName("Level")
	return slices.Contains(strings.Split(field.Tag.Get("oneof"), "|"), s)
}

// Service configures a set of peers and the requests to them. It has one source: Consul,
// Etcd, DNS, ConsulKV, File or Peers.
type Service struct {
	Consul   *ConsulService `key:"consul"`
	Etcd     *EtcdService   `key:"etcd"`
	DNS      *dns.Options   `key:"dns"`
	ConsulKV *KVService     `key:"consul_kv"`
	// File has the instances, as discovery.ParseValues reads it.
	File  string `key:"file" format:"file"`
	Peers []Peer `key:"peers" format:"peer"`
	ServiceSettings
	// Groups divide the instances; see Group.
	Groups map[string]Group `key:"groups" format:"name"`
	Split  Split            `key:"split" format:"split"` // of routes with neither group nor split
	Judge  *Judge           `key:"judge"`                // of Split; nil: none

	// ByDocument says that a document of a registry defines the service, and not the file.
	ByDocument bool `key:"-"`
	// Chain is the service's discovery chain; empty: requests go to the service's own peers.
	Chain []Branch `key:"-"`
}

// ServiceSettings are the keys of a service that do not say which instances it has.
type ServiceSettings struct {
	Balance   Balance            `key:"balance"`
	Timeouts  route.Timeouts     `key:"timeouts"`
	Keepalive upstream.Keepalive `key:"keepalive"`
	Upstream  Upstream           `key:"upstream"`
	Retry     Retry              `key:"retry"`
	Limits    Limits             `key:"limits"`
	// WaitForPeer is how long a request waits if there is no peer.
	WaitForPeer time.Duration `key:"wait_for_peer" default:"0s" min:"0s" max:"1m"`
	Drain       Drain         `key:"drain"`
	// ProxyProtocol is the version of the PROXY header that a peer gets at the start of
	// each connection of a listener for TCP. Empty: none.
	ProxyProtocol string        `key:"proxy_protocol" oneof:"v1|v2"`
	Health        ServiceHealth `key:"health"`

	Variables decoding.Variables `key:"-"` // those of all keys of the service
}

// NamesAddresses reports whether the operator names the addresses of the instances, in the file or
// in one that it names.
func (s *Service) NamesAddresses() bool { return !s.ByDocument && (s.File != "" || len(s.Peers) > 0) }

// ConsulService selects instances in Consul: the instances of a service, or the ones that a
// prepared query returns.
type ConsulService struct {
	consulsource.ServiceOptions                // Consistency and, with one data centre, Datacenters are not empty after loading
	Leader                      *Leader        `key:"leader"`                       // nil: all instances are used
	Probation                   *time.Duration `key:"probation" min:"0s" max:"24h"` // nil: consul.probation; not nil after loading
}

// Upstream is how sluice speaks with the peers.
type Upstream struct {
	Protocol string                  `key:"protocol" default:"http1" oneof:"h2|h2c|http1"`
	TLS      *certificates.ClientTLS `key:"tls"` // nil: without TLS
}

// Values of [Upstream.Protocol].
const (
	ProtocolH2  = "h2"  // HTTP/2 over TLS, by ALPN
	ProtocolH2C = "h2c" // HTTP/2 without TLS, by prior knowledge
)

// UsesHTTP2 reports whether the peers are asked by HTTP/2.
func (u *Upstream) UsesHTTP2() bool { return u.Protocol == ProtocolH2 || u.Protocol == ProtocolH2C }

// Retry limits retries, each of which uses another peer.
type Retry struct {
	route.Retry
	balancer.RetryBudget
}

// Limits limit the load of a service's pool, and what its peers answer.
type Limits struct {
	balancer.Limits
	upstream.ResponseLimits
}

// Drain configures the removal of a peer.
type Drain struct {
	Timeout time.Duration `key:"timeout" default:"30s" min:"1ms" max:"24h"` // for requests in flight
}

// Shutdown configures the steps after SIGTERM.
type Shutdown struct {
	Delay time.Duration `key:"delay" default:"0s" min:"0s" max:"10m"`  // not ready, but accepting connections
	Idle  time.Duration `key:"idle" default:"1s" min:"0s" max:"10m"`   // then idle connections may send one more request
	Grace time.Duration `key:"grace" default:"30s" min:"0s" max:"24h"` // for requests in flight, after Delay
}
