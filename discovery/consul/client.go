package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
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
	// Addresses are those of agents: "http://host:port", "https://host:port",
	// "host:port" or "unix:///path". The first one is used. Default
	// "127.0.0.1:8500".
	Addresses []string

	Token     string // ACL token
	TokenFile string // a file with it, read once; wins over Token

	Namespace string // Consul Enterprise
	Partition string // Consul Enterprise

	TLS TLSOptions

	// MaxWatches is how many blocking queries may be in flight at a time.
	// Services beyond it take turns. Default 128.
	MaxWatches int

	Log zerolog.Logger

	dial func(ctx context.Context, network, address string) (net.Conn, error) // for tests; nil: the network
}

// TLSOptions are the certificates for an https address.
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
	agent     *agent
	transport *http.Transport
	slots     chan struct{} // one element per blocking query in flight
	watches   atomic.Int64  // sources that run
	log       zerolog.Logger
}

// agent is one Consul agent.
type agent struct {
	url       string
	api       *api.Client
	anonymous bool // requests carry no token
}

// NewClient makes a client. It reads the token file and the certificates, and
// does not connect yet.
func NewClient(o ClientOptions) (*Client, error) {
	config := api.DefaultConfig()
	config.Address = defaultAddress(config)
	if len(o.Addresses) > 0 {
		config.Address = o.Addresses[0]
	}
	config.Token = cmp.Or(o.Token, config.Token)
	config.TokenFile = cmp.Or(o.TokenFile, config.TokenFile)
	config.Namespace = cmp.Or(o.Namespace, config.Namespace)
	config.Partition = cmp.Or(o.Partition, config.Partition)
	config.TLSConfig = o.TLS.over(config.TLSConfig)

	maxWatches := cmp.Or(o.MaxWatches, defaultMaxWatches)
	if maxWatches < 0 {
		return nil, fmt.Errorf("consul: %d watches at a time: want at least 1", o.MaxWatches)
	}
	transport, err := newTransport(config, o.dial, maxWatches)
	if err != nil {
		return nil, err
	}
	config.HttpClient = &http.Client{Transport: headerTransport{transport}}
	a := &agent{url: displayURL(config)}
	if strings.HasPrefix(config.Address, "unix://") {
		config.Address = "localhost" // the transport dials the socket
	}
	if a.api, err = api.NewClient(config); err != nil {
		return nil, fmt.Errorf("consul %s: %w", a.url, err)
	}
	// NewClient reads the token file into the config that it was given.
	a.anonymous = config.Token == ""
	return &Client{
		agent:     a,
		transport: transport,
		slots:     make(chan struct{}, maxWatches),
		log:       o.Log,
	}, nil
}

// URL returns the address of the agent in use.
func (c *Client) URL() string { return c.agent.url }

// Close closes idle connections. Sources of the client should have returned.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// defaultAddress is config's, but without a look-up of the name localhost,
// which may be ::1, where a stock agent does not listen.
func defaultAddress(config *api.Config) string {
	if config.Address == "localhost:8500" {
		return "127.0.0.1:8500"
	}
	return config.Address
}

func displayURL(config *api.Config) string {
	switch {
	case strings.HasPrefix(config.Address, "http://") && config.Scheme == "https":
		return "https://" + strings.TrimPrefix(config.Address, "http://")
	case strings.Contains(config.Address, "://"):
		return config.Address
	}
	return config.Scheme + "://" + config.Address
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

// newTransport makes a transport that keeps a connection per watch, notices a
// peer that is gone without a word, and multiplexes over HTTP/2 where TLS lets it.
func newTransport(config *api.Config, dial func(context.Context, string, string) (net.Conn, error), maxWatches int) (*http.Transport, error) {
	tlsConfig, err := api.SetupTLSConfig(&config.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("consul: TLS: %w", err)
	}
	if dial == nil {
		dial = (&net.Dialer{
			Timeout: dialTimeout,
			// A host that vanished is noticed after 15 s + 3 × 5 s.
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		}).DialContext
	}
	if path, ok := strings.CutPrefix(config.Address, "unix://"); ok {
		if path == "" {
			return nil, errors.New("consul: unix://: want the path of a socket")
		}
		network := dial
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return network(ctx, "unix", path) }
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dial,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: maxWatches,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}, nil
}

// headerTransport hands the header of each answer to the caller, who asks for
// it with withHeader: hashicorp/consul/api drops errors in headers.
type headerTransport struct{ http.RoundTripper }

type headerKey struct{}

// withHeader returns a context whose request stores its answer's header in h.
func withHeader(ctx context.Context, h *http.Header) context.Context {
	return context.WithValue(ctx, headerKey{}, h)
}

func (t headerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(r)
	if h, ok := r.Context().Value(headerKey{}).(*http.Header); ok && err == nil {
		*h = response.Header
	}
	return response, err
}
