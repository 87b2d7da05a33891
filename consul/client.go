package consul

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"sluice/certificates"
	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

const (
	// defaultMaxWatches is well below limits.http_max_conns_per_client of a stock
	// agent: 200 connections from one client address. Above, it answers 429.
	defaultMaxWatches = 128

	dialTimeout = 5 * time.Second
)

// Options configure a client. Empty fields have the values of the environment variables
// of Consul's own tools (CONSUL_HTTP_ADDR, CONSUL_HTTP_SSL, CONSUL_HTTP_SSL_VERIFY,
// CONSUL_HTTP_AUTH, CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE, CONSUL_CACERT,
// CONSUL_CAPATH, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME,
// CONSUL_NAMESPACE, CONSUL_PARTITION), else their defaults.
type Options struct {
	// Addresses are the addresses of agents of one data centre, in order of preference:
	// "http://host:port", "https://host:port", "host:port" or "unix:///path". The first
	// healthy agent is used. Default "127.0.0.1:8500".
	Addresses []string

	Token     string // ACL token
	TokenFile string // a file with the token, which may change at any time; overrides Token

	Namespace string // Consul Enterprise
	Partition string // Consul Enterprise

	TLS TLSOptions

	// MaxWatches is the maximum number of connections to an agent. Default 128.
	MaxWatches int

	// ProbeInterval is the interval of probes of a healthy agent, which a server answers.
	// Without other agents a longer one only delays that a hang is noticed. Default 1.25 s.
	ProbeInterval time.Duration

	Log    zerolog.Logger
	Events *events.Feed // gets what happens to the agents; may be nil

	// Random returns numbers from 0 to 1, exclusive, that spread queries in time. It
	// must be safe for concurrent use. Default: math/rand/v2.
	Random func() float64

	// Dial opens connections, such as to a Consul in memory. nil: over the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// ReturnAfter is how long a preferred agent is healthy before it is used again. Default 10 s.
	ReturnAfter time.Duration
}

// TLSOptions are the certificates for an https address. Each connection reads the files.
// Empty fields have the values of the environment variables.
type TLSOptions struct {
	certificates.ClientTLS
	CAPath string `key:"ca_path"` // directory of files of trusted certificates, if CA is empty
}

// Client queries Consul. It is safe for concurrent use.
type Client struct {
	gate         *gate
	agents       *agents
	token        *token
	meter        *meter
	certificates *certificates.Client
	lockTTL      time.Duration

	mu      sync.Mutex // guards the fields below
	running int        // calls of KeepProbing that are not done
	stop    func()     // ends the probes, and waits for that
}

// New returns a client. It reads the token file and the certificates. It does not connect yet.
func New(o Options) (*Client, error) { return newClient(o, false) }

// newClient is New. If tokened, the clients of the agents' API have the present token, which a
// query of Client has anyway.
func newClient(o Options, tokened bool) (*Client, error) {
	config, addresses, token, err := o.settings()
	if err != nil {
		return nil, err
	}
	if tokened {
		config.Token = token.current()
	}
	maxWatches := cmp.Or(o.MaxWatches, defaultMaxWatches)
	if maxWatches < 0 {
		return nil, fmt.Errorf("consul: %d watches at a time: want at least 1", o.MaxWatches)
	}
	files, err := newCertificates(config.TLSConfig, o.Log)
	if err != nil {
		return nil, err
	}
	meter := &meter{gate: newGate(forQueries(maxWatches)), connections: maxWatches}
	all := make([]*agent, len(addresses))
	for n, address := range addresses {
		if all[n], err = newAgent(*config, address, o.Dial, files, meter); err != nil {
			return nil, err
		}
	}
	meter.gate.use(&all[0].multiplexed)
	agents := &agents{
		all: all, token: token, log: o.Log, events: o.Events, random: o.Random, current: all[0], alarm: wake.NewOne(),
		probeInterval: cmp.Or(o.ProbeInterval, defaultProbeInterval), returnMin: cmp.Or(o.ReturnAfter, returnMin),
	}
	if o.Random == nil {
		agents.random = rand.Float64
	}
	return &Client{
		gate:    meter.gate,
		agents:  agents,
		token:   token,
		meter:   meter,
		lockTTL: lockTTL,

		certificates: files,
	}, nil
}

// settings returns the settings of o, or else of the environment. config has neither an
// address nor a token, which each query has.
func (o Options) settings() (*api.Config, []string, *token, error) {
	config := api.DefaultConfig()
	addresses := o.Addresses
	if len(addresses) == 0 {
		addresses = []string{defaultAddress(config)}
	}
	config.Namespace = cmp.Or(o.Namespace, config.Namespace)
	config.Partition = cmp.Or(o.Partition, config.Partition)
	config.TLSConfig = o.TLS.withDefaults(config.TLSConfig)

	file := cmp.Or(o.TokenFile, config.TokenFile)
	if o.Token != "" {
		file = o.TokenFile // the file of the environment has another token
	}
	token, err := newToken(file, cmp.Or(o.Token, config.Token))
	if err != nil {
		return nil, nil, nil, err
	}
	config.Token, config.TokenFile = "", ""
	return config, addresses, token, nil
}

// URL returns the address of the agent in use.
func (c *Client) URL() string { return c.agents.inUse().url }

// URLs returns the addresses of all agents, in order of preference.
func (c *Client) URLs() []string {
	urls := make([]string, len(c.agents.all))
	for n, a := range c.agents.all {
		urls[n] = a.url
	}
	return urls
}

// Certificates returns the certificates of the connections to https addresses.
func (c *Client) Certificates() *certificates.Follower { return c.certificates.Follower }

// Close closes idle connections. All queries should have returned.
func (c *Client) Close() {
	for _, a := range c.agents.all {
		a.end(errClosed)
		a.connections.close()
		a.probeConnections.close()
	}
}

// KeepProbing probes the agents, and so keeps the choice of the agent up to date, until
// the caller calls done. Loop.Run calls it.
func (c *Client) KeepProbing() (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running++
	if c.running == 1 {
		c.stop = panics.Start(context.Background(), panics.Watch, c.agents.watch)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running--; c.running == 0 {
			c.stop()
		}
	}
}

// Changed returns a channel that is closed when a query, or the check of a registration, should be
// repeated at once: another agent is used, an agent has recovered, or the token has changed.
func (c *Client) Changed() <-chan struct{} { return c.agents.changed.Wait() }

// Healthy reports whether the agent in use is healthy according to its probes.
func (c *Client) Healthy() bool {
	c.agents.mu.Lock()
	defer c.agents.mu.Unlock()
	return c.agents.current.condition == healthy
}

// Jitter returns a random time below d, to spread queries.
func (c *Client) Jitter(d time.Duration) time.Duration { return c.agents.randomBelow(d) }

// KV returns Consul's KV store.
func (c *Client) KV() KV { return KV{c} }

// NewLoop returns a loop.
func (c *Client) NewLoop(o LoopOptions) *Loop {
	return &Loop{client: c, options: o, limiter: rate.NewLimiter(QueryRate, QueryBurst), answered: time.Now()}
}

// Release calls end, which must end all loops of the client, closes all connections,
// and returns when the agents have closed them too, or after 3 s. Until then an agent
// counts a connection against its limit for the client's address. abandoned is the
// number of connections that the agents have not closed.
func (c *Client) Release(end func()) (abandoned int) {
	var all []*connections
	for _, a := range c.agents.all {
		all = append(all, a.connections, a.probeConnections)
	}
	for _, s := range all {
		s.mu.Lock()
		s.abandoned = 0
		s.mu.Unlock()
	}
	end()
	for _, s := range all {
		s.renew()
	}
	deadline := time.Now().Add(closeTimeout)
	for _, s := range all {
		abandoned += s.awaitClosed(deadline)
	}
	return max(abandoned, c.gate.stillContinued())
}

// defaultAddress returns the default address of config. It replaces the name localhost,
// which may be ::1, where a stock agent does not listen.
func defaultAddress(config *api.Config) string {
	if config.Address == "localhost:8500" {
		return "127.0.0.1:8500"
	}
	return config.Address
}

// withDefaults returns o with env in place of its empty fields.
func (o TLSOptions) withDefaults(env api.TLSConfig) api.TLSConfig {
	env.CAFile = cmp.Or(o.CA, env.CAFile)
	env.CAPath = cmp.Or(o.CAPath, env.CAPath)
	env.CertFile = cmp.Or(o.Cert, env.CertFile)
	env.KeyFile = cmp.Or(o.Key, env.KeyFile)
	env.Address = cmp.Or(o.ServerName, env.Address)
	env.InsecureSkipVerify = o.SkipVerify || env.InsecureSkipVerify
	return env
}
