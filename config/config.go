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
	Consul    Consul             `key:"consul"`
	Services  map[string]Service `key:"services" format:"name"` // by sluice's own name for the service
	Routes    []Route            `key:"routes"`
	Shutdown  Shutdown           `key:"shutdown"`
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

// Consul is the registry's client side: the agents to ask and how.
type Consul struct {
	Addresses  []string      `key:"addresses" format:"consul" restart:"yes"` // empty: http://127.0.0.1:8500
	Token      Secret        `key:"token" restart:"yes"`
	TokenFile  string        `key:"token_file" restart:"yes"` // read again when it changes
	Datacenter string        `key:"datacenter"`               // empty: the agent's own
	Wait       time.Duration `key:"wait" default:"5m" min:"1s" max:"10m"`
	Debounce   Debounce      `key:"debounce"`
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
	Retry       Retry          `key:"retry"`
	WaitForPeer time.Duration  `key:"wait_for_peer" default:"0s" min:"0s" max:"1m"` // how long a request waits for a first peer
	Drain       Drain          `key:"drain"`
}

// ConsulService selects instances in Consul.
type ConsulService struct {
	Service     string   `key:"service"` // empty: the name under services
	Tags        []string `key:"tags"`    // an instance must carry all of them
	Filter      string   `key:"filter"`  // Consul's own filter language
	PassingOnly bool     `key:"passing_only" default:"false"`
	Datacenter  string   `key:"datacenter"` // empty: consul.datacenter
}

// Balance says how a peer is picked for a request.
type Balance struct {
	Policy string `key:"policy" default:"ewma" oneof:"ewma|least_conn|random|round_robin"`
}

// Timeouts bound the steps of one attempt.
type Timeouts struct {
	Connect        time.Duration `key:"connect" default:"1s" min:"1ms" max:"10m"`
	ResponseHeader time.Duration `key:"response_header" default:"30s" min:"1ms" max:"24h"` // from the end of the request
	Idle           time.Duration `key:"idle" default:"60s" min:"1ms" max:"24h"`            // between two reads or writes of a body
}

// Retry bounds what is tried again on another peer.
type Retry struct {
	Attempts int `key:"attempts" default:"2" min:"1" max:"5"` // in all, the first one included
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
	Grace time.Duration `key:"grace" default:"30s" min:"0s" max:"24h"` // for requests in flight, after Delay
}
