package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// agent is one Consul agent that a client may ask.
type agent struct {
	url       string // for people
	api       *api.Client
	transport *http.Transport

	// Probes have a connection of their own.

	probeAPI       *api.Client
	probeTransport *http.Transport
	kept           keptConnection

	// The mu of agents guards the fields below.

	condition  condition
	since      time.Time // when condition began
	notGood    time.Time // since when not two probes in a row have shown good; zero: they have
	trouble    time.Time // when one last did that for the length of an outage
	leaderless time.Time // since when no probe has shown a leader, although it answered; zero: one did
	brokenOff  bool      // what waited for it was broken off in this silence
	complaints time.Time // until when queries that failed speak against it
	life       context.Context
	end        context.CancelCauseFunc // ends life: whatever waits for the agent is broken off
}

// condition is what the last probe of an agent showed. Values grow from worst
// to best.
type condition uint8

const (
	// silent: no answer, or none that can be Consul's.
	silent condition = iota
	// troubled: it answers, and knows no leader or does not say.
	troubled
	// good: it answers and knows a leader.
	good
)

func (c condition) String() string {
	return [...]string{"silent", "in trouble", "good"}[c]
}

// newAgent makes the agent at an address. Config has everything else; it is
// not changed.
func newAgent(config api.Config, address string, dial dialFunc, c *certificates, m *meter) (*agent, error) {
	config.Address = address
	a := &agent{url: displayURL(&config), condition: good, since: time.Now()} // until shown otherwise
	var err error
	if a.api, a.transport, err = newAPI(config, dial, c, m, m.connections); err != nil {
		return nil, fmt.Errorf("consul %s: %w", a.url, err)
	}
	if a.probeAPI, a.probeTransport, err = newAPI(config, dial, c, m, 1); err != nil {
		return nil, fmt.Errorf("consul %s: %w", a.url, err)
	}
	a.life, a.end = context.WithCancelCause(context.Background())
	return a, nil
}

// newAPI makes a client of Consul's API and the transport under it.
func newAPI(config api.Config, dial dialFunc, c *certificates, m *meter, connections int) (*api.Client, *http.Transport, error) {
	transport, err := newTransport(config.Address, dial, c, m, connections)
	if err != nil {
		return nil, nil, err
	}
	config.HttpClient = &http.Client{Transport: meteredTransport{transport, m}}
	if strings.HasPrefix(config.Address, "unix://") {
		config.Address = "localhost" // the transport dials the socket
	}
	client, err := api.NewClient(&config)
	return client, transport, err
}

// close ends what is in flight and closes the connections.
func (a *agent) close() {
	a.end(errClosed)
	a.transport.CloseIdleConnections()
	a.probeTransport.CloseIdleConnections()
}

// probe asks for the address of the leader, which takes no permission and
// hardly any work: an agent that hangs, or whose connections are half-open, does
// not answer, while a blocking query is silent anyway.
func (a *agent) probe(ctx context.Context, timeout time.Duration) (condition, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	ctx = a.kept.trace(ctx)
	leader, err := a.probeAPI.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	var status api.StatusError
	switch {
	case err == nil && leader != "":
		return good, nil
	case err == nil:
		return troubled, errors.New("it knows no leader")
	case errors.As(err, &status):
		return troubled, &statusError{status.Code, fmt.Sprintf("%d %s (%s)", status.Code, http.StatusText(status.Code), OneLine(status.Body))}
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	// The next probe is not to depend on an old connection.
	a.probeTransport.CloseIdleConnections()
	return silent, err
}

// dialFunc opens a connection, as net.Dialer.DialContext.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// newTransport makes a transport to an address that keeps a connection per watch, notices a
// host that is gone without a word, and multiplexes over HTTP/2 where TLS lets it.
func newTransport(address string, dial dialFunc, c *certificates, m *meter, connections int) (*http.Transport, error) {
	if dial == nil {
		dial = (&net.Dialer{
			Timeout: dialTimeout,
			// A host that vanished is noticed after 15 s + 3 × 5 s.
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		}).DialContext
	}
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		if path == "" {
			return nil, errors.New("want the path of a socket")
		}
		network := dial
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return network(ctx, "unix", path) }
	}
	most := 0
	if connections > 1 {
		// net/http may dial more than it has requests for, and with HTTP/2 one for
		// each request that comes before the first connection is there.
		most = forQueries(connections)
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         m.dial(dial),
		DialTLSContext:      c.dialTLS(m.dial(dial)),
		TLSClientConfig:     c.current().Clone(), // through a proxy, where DialTLSContext is not used; the transport changes it
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: connections,
		MaxConnsPerHost:     most,
		DisableCompression:  true, // agents are near: to compress costs them more than to send
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}, nil
}

// forQueries returns how many of a client's connections are not for probes.
// Those take two while one of them hangs.
func forQueries(connections int) int { return max(1, connections-2) }

// displayURL is the address with its scheme.
func displayURL(config *api.Config) string {
	switch {
	case strings.HasPrefix(config.Address, "http://") && config.Scheme == "https":
		return "https://" + strings.TrimPrefix(config.Address, "http://")
	case strings.Contains(config.Address, "://"):
		return config.Address
	}
	return config.Scheme + "://" + config.Address
}
