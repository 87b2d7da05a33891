package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/certificates"
)

// agent is one Consul agent of a client.
type agent struct {
	url         string // with its scheme
	api         *api.Client
	connections *connections
	meter       *meter
	multiplexed atomic.Bool // it answers over HTTP/2: queries share connections
	// answeredByLeader counts the queries that a server with a leader has answered through it.
	answeredByLeader atomic.Uint64

	// Probes have a connection of their own.

	probeAPI         *api.Client
	probeConnections *connections
	idle             idleConnection

	// The mu of agents guards the fields below.

	condition       condition
	since           time.Time               // start of condition
	logged          condition               // the last condition in the log
	unhealthySince  time.Time               // since when never two good probes in a row; zero: none
	lastOutage      time.Time               // last probe of an outage, or the good one that ends it
	leaderlessSince time.Time               // since when no answer has had a leader; zero: none
	canceled        bool                    // the queries in flight were canceled in this condition
	penalizedUntil  time.Time               // until then it ranks as degraded: queries have failed
	answered        time.Time               // its last answer to the queries of a loop; zero: never
	life            context.Context         // of all queries
	end             context.CancelCauseFunc // ends life
	views           context.Context         // of the queries that a view may answer; ends with life
	endViews        context.CancelCauseFunc // ends views
}

// condition is the result of the last probe of an agent. A better one is greater.
type condition uint8

const (
	// unreachable: no answer, or one that cannot be Consul's.
	unreachable condition = iota
	// degraded: it answers an error, or without a leader.
	degraded
	// healthy: it answers with a leader.
	healthy
)

func (c condition) String() string {
	return [...]string{"unreachable", "degraded", "healthy"}[c]
}

var errLeaderless = errors.New("it knows no leader")

// newAgent returns the agent at an address, with the other settings of config.
func newAgent(config api.Config, address string, dial dialFunc, c *certificates.Client, m *meter) (*agent, error) {
	config.Address = address
	a := &agent{url: displayURL(&config), meter: m, condition: healthy, logged: healthy, since: time.Now()}
	var err error
	if a.api, a.connections, err = a.newAPI(config, dial, c, m.connections); err != nil {
		return nil, fmt.Errorf("consul %s: %w", a.url, err)
	}
	if a.probeAPI, a.probeConnections, err = a.newAPI(config, dial, c, 1); err != nil {
		return nil, fmt.Errorf("consul %s: %w", a.url, err)
	}
	a.renewContextsLocked()
	return a, nil
}

// newAPI returns a client of Consul's API, and its connections.
func (a *agent) newAPI(config api.Config, dial dialFunc, c *certificates.Client, most int) (*api.Client, *connections, error) {
	dial, err := dialer(config.Address, dial)
	if err != nil {
		return nil, nil, err
	}
	shared := strings.HasPrefix(displayURL(&config), "https://")
	proxied := c.Config() // dialTLS is not used for connections through a proxy
	limit := 0            // probes do not wait; they need two while one hangs
	if most > 1 {
		limit = forQueries(most)
	}
	connections := newConnections(func(dial dialFunc) *http.Transport {
		return newTransport(dial, dialTLS(dial, c), proxied.Clone(), most, limit)
	}, dial, a.meter, shared, limit)
	config.HttpClient = &http.Client{Transport: meteredTransport{connections, &a.multiplexed}, CheckRedirect: refuseRedirect}
	if strings.HasPrefix(config.Address, "unix://") {
		config.Address = "localhost" // the transport dials the socket
	}
	client, err := api.NewClient(&config)
	return client, connections, err
}

// refuseRedirect implements http.Client.CheckRedirect: the token is for the agent only.
func refuseRedirect(to *http.Request, _ []*http.Request) error {
	return fmt.Errorf("the answer is a redirect to %q, which is not followed", OneLine(to.URL.Redacted()))
}

// probe queries the address of the leader, which needs no permission and little work. Unlike a
// blocking query it shows that the agent hangs, or that a connection is half-open.
func (a *agent) probe(ctx context.Context, timeout time.Duration) (condition, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	ctx = a.idle.trace(ctx)
	answered := a.answeredByLeader.Load()
	a.meter.probes.Add(1)
	leader, err := a.probeAPI.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	switch {
	case err == nil && leader != "":
		return healthy, nil
	case err == nil:
		return degraded, errLeaderless
	case StatusCode(err) > 0:
		if StatusCode(err) == http.StatusTooManyRequests {
			a.connections.closeIdle() // so that the agent accepts one for the next probe
		}
		return degraded, Shorten(err)
	}
	// The next probe opens a new connection.
	a.probeConnections.renew()
	switch {
	case ctx.Err() == nil:
		return unreachable, err
	case a.answeredByLeader.Load() > answered: // it is busy, as when many replicas start
		return healthy, nil
	}
	return unreachable, context.Cause(ctx)
}

// leaveShared lets later queries use other connections, if they are shared, after a query that
// blocks was canceled. The agent continues it, and counts it against the streams of its connection:
// another one that net/http sends there would wait for the end of it, for up to a minute.
func (a *agent) leaveShared() {
	if a.multiplexed.Load() && a.connections.inUse() {
		a.connections.renew()
	}
}

// renewContextsLocked creates the contexts of later queries.
func (a *agent) renewContextsLocked() {
	a.life, a.end = context.WithCancelCause(context.Background())
	a.views, a.endViews = context.WithCancelCause(a.life)
}

// cancelQueriesLocked cancels the queries in flight whose answers are doubtful: if all, every
// query, with its connection; else those that a view may answer. The agent answers or fails a query
// that waits for a server, and would continue it after a cancellation.
func (a *agent) cancelQueriesLocked(all bool, cause error) {
	if all {
		a.end(cause)
		a.renewContextsLocked()
		a.connections.renew()
		return
	}
	a.endViews(cause)
	a.views, a.endViews = context.WithCancelCause(a.life)
}

// failureLocked returns why the queries in flight will get no answer, or nil. The
// queries themselves do not show it: an unreachable agent sends nothing, and a view
// does not report that there is no leader.
func (a *agent) failureLocked(now time.Time) error {
	switch {
	case a.condition == unreachable && now.Sub(a.since) >= cancelAfter:
		return fmt.Errorf("consul %s: the agent has not answered for %v", a.url, cancelAfter)
	case a.condition == degraded && !a.leaderlessSince.IsZero() && now.Sub(a.leaderlessSince) >= cancelAfter:
		return fmt.Errorf("consul %s: %w", a.url, errNoLeader)
	}
	return nil
}

// rankLocked returns the condition that decides the choice of an agent.
func (a *agent) rankLocked(now time.Time) condition {
	if a.condition == healthy && now.Before(a.penalizedUntil) {
		return degraded
	}
	return a.condition
}

// displayURL returns the address with its scheme.
func displayURL(config *api.Config) string {
	switch {
	case strings.HasPrefix(config.Address, "http://") && config.Scheme == "https":
		return "https://" + strings.TrimPrefix(config.Address, "http://")
	case strings.Contains(config.Address, "://"):
		return config.Address
	}
	return config.Scheme + "://" + config.Address
}
