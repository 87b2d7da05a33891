package consul

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"
)

const (
	// defaultMaxWatches keeps the queries in flight well under the 200
	// connections that a stock agent accepts from one client address
	// (limits.http_max_conns_per_client); beyond, it answers 429.
	defaultMaxWatches = 128

	dialTimeout = 5 * time.Second
)

// ClientOptions says how to reach Consul. What is left empty comes from the
// environment variables of Consul's own tools (CONSUL_HTTP_ADDR, CONSUL_HTTP_SSL,
// CONSUL_HTTP_SSL_VERIFY, CONSUL_HTTP_AUTH, CONSUL_HTTP_TOKEN,
// CONSUL_HTTP_TOKEN_FILE, CONSUL_CACERT, CONSUL_CAPATH, CONSUL_CLIENT_CERT,
// CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME, CONSUL_NAMESPACE, CONSUL_PARTITION),
// else from their defaults.
type ClientOptions struct {
	// Addresses are those of agents of one data centre: "http://host:port",
	// "https://host:port", "host:port" or "unix:///path". The first one is asked
	// as long as it is good, then the next. Default "127.0.0.1:8500".
	Addresses []string

	Token     string // ACL token
	TokenFile string // a file with it, which may change at any time; wins over Token

	Namespace string // Consul Enterprise
	Partition string // Consul Enterprise

	TLS TLSOptions

	// MaxWatches is how many connections the client may open to an agent. If
	// there are more services, they share some; see the package comment. Default
	// 128.
	MaxWatches int

	Log zerolog.Logger

	// Random returns numbers from 0 to 1, exclusive, that spread queries in time; it
	// must be safe for concurrent use. Default: those of package math/rand/v2.
	Random func() float64

	dial dialFunc      // for tests; nil: the network
	calm time.Duration // for tests; 0: calmMin
}

// TLSOptions are the certificates for an https address. Their files are read
// again for each connection, so they may be replaced at any time.
type TLSOptions struct {
	CAFile             string // trusted certificates, PEM
	CAPath             string // a directory of such files
	CertFile           string // client certificate, PEM
	KeyFile            string // its key
	ServerName         string // expected name of the server; default the address
	InsecureSkipVerify bool   // accept any certificate
}

// Client asks Consul. It is safe for concurrent use.
type Client struct {
	agents    *agents
	token     *token
	gate      *gate
	meter     *meter
	overviews overviews
	shared    chan struct{} // one element per query of a watch on an overview
	log       zerolog.Logger

	mu      sync.Mutex // guards the fields below
	running int        // sources that run
	stop    func()     // ends what begin started, and waits for it
}

// NewClient makes a client. It reads the token file and the certificates, and
// does not connect yet.
func NewClient(o ClientOptions) (*Client, error) {
	config, addresses, token, err := o.settings()
	if err != nil {
		return nil, err
	}
	maxWatches := cmp.Or(o.MaxWatches, defaultMaxWatches)
	if maxWatches < 0 {
		return nil, fmt.Errorf("consul: %d watches at a time: want at least 1", o.MaxWatches)
	}
	certificates, err := newCertificates(config.TLSConfig, o.Log)
	if err != nil {
		return nil, err
	}
	meter := newMeter(newGate(forQueries(maxWatches)), maxWatches)
	all := make([]*agent, len(addresses))
	for n, address := range addresses {
		if all[n], err = newAgent(*config, address, o.dial, certificates, meter); err != nil {
			return nil, err
		}
	}
	agents := newAgents(all, token, o.Log)
	agents.calmMin = cmp.Or(o.calm, agents.calmMin)
	if o.Random != nil {
		agents.random = o.Random
	}
	return &Client{
		agents: agents,
		token:  token,
		gate:   meter.gate,
		meter:  meter,
		shared: make(chan struct{}, overviewReserve),
		log:    o.Log,
	}, nil
}

// settings returns what o says, or else the environment. Config has neither an
// address nor a token: each query names the token.
func (o ClientOptions) settings() (*api.Config, []string, *token, error) {
	config := api.DefaultConfig()
	addresses := o.Addresses
	if len(addresses) == 0 {
		addresses = []string{defaultAddress(config)}
	}
	config.Namespace = cmp.Or(o.Namespace, config.Namespace)
	config.Partition = cmp.Or(o.Partition, config.Partition)
	config.TLSConfig = o.TLS.over(config.TLSConfig)

	file := cmp.Or(o.TokenFile, config.TokenFile)
	if o.Token != "" {
		file = o.TokenFile // the environment's is for another token
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

// Stats returns what the client has cost Consul so far.
func (c *Client) Stats() Stats {
	s := c.meter.stats()
	s.Riding = c.overviews.riders()
	return s
}

// Close closes idle connections. Sources of the client should have returned.
func (c *Client) Close() {
	for _, a := range c.agents.all {
		a.close()
	}
}

// begin counts a source that runs, until it calls done. While there are any,
// the agents are watched.
func (c *Client) begin() (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running++
	if c.running == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		var watching sync.WaitGroup
		watching.Go(func() { c.agents.watch(ctx) })
		c.stop = func() {
			cancel()
			watching.Wait()
		}
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running--; c.running == 0 {
			c.stop()
		}
	}
}

// defaultAddress is config's, but without a look-up of the name localhost,
// which may be ::1, where a stock agent does not listen.
func defaultAddress(config *api.Config) string {
	if config.Address == "localhost:8500" {
		return "127.0.0.1:8500"
	}
	return config.Address
}

// over fills the fields that are empty from the environment's.
func (o TLSOptions) over(env api.TLSConfig) api.TLSConfig {
	env.CAFile = cmp.Or(o.CAFile, env.CAFile)
	env.CAPath = cmp.Or(o.CAPath, env.CAPath)
	env.CertFile = cmp.Or(o.CertFile, env.CertFile)
	env.KeyFile = cmp.Or(o.KeyFile, env.KeyFile)
	env.Address = cmp.Or(o.ServerName, env.Address)
	env.InsecureSkipVerify = o.InsecureSkipVerify || env.InsecureSkipVerify
	return env
}
