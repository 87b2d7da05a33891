package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// agent is one Consul agent that a client may ask.
type agent struct {
	url         string // for people
	api         *api.Client
	connections *connections
	meter       *meter

	// Probes have a connection of their own.

	probeAPI         *api.Client
	probeConnections *connections
	kept             keptConnection

	// The mu of agents guards the fields below.

	condition  condition
	since      time.Time // when condition began
	told       condition // as the log says
	notGood    time.Time // since when not two probes in a row have shown good; zero: they have
	trouble    time.Time // when one last did that for the length of an outage
	leaderless time.Time // since when no probe has shown a leader, although it answered; zero: one did
	brokenOff  bool      // what waited for it was broken off in this silence
	complaints time.Time // until when queries that failed speak against it
	life       context.Context
	end        context.CancelCauseFunc // ends life: whatever waits for the agent is broken off
	views      context.Context         // ends with life
	endViews   context.CancelCauseFunc // ends views: what waits for a view is broken off
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
	a := &agent{url: displayURL(&config), meter: m, condition: good, told: good, since: time.Now()} // until shown otherwise
	var err error
	if a.api, a.connections, err = newAPI(config, dial, c, m, m.connections); err != nil {
		return nil, fmt.Errorf("consul %s: %w", a.url, err)
	}
	if a.probeAPI, a.probeConnections, err = newAPI(config, dial, c, m, 1); err != nil {
		return nil, fmt.Errorf("consul %s: %w", a.url, err)
	}
	a.live()
	return a, nil
}

// newAPI makes a client of Consul's API and the connections under it.
func newAPI(config api.Config, dial dialFunc, c *certificates, m *meter, most int) (*api.Client, *connections, error) {
	dial, err := dialer(config.Address, dial)
	if err != nil {
		return nil, nil, err
	}
	shared := strings.HasPrefix(displayURL(&config), "https://")
	proxied := c.current() // dialTLS is not used for connections through a proxy
	connections := newConnections(func(dial dialFunc) *http.Transport {
		return newTransport(dial, c.dialTLS(dial), proxied.Clone(), most)
	}, m.dial(dial), shared)
	config.HttpClient = &http.Client{Transport: meteredTransport{connections, m}}
	if strings.HasPrefix(config.Address, "unix://") {
		config.Address = "localhost" // the transport dials the socket
	}
	client, err := api.NewClient(&config)
	return client, connections, err
}

// close ends what is in flight and closes the connections.
func (a *agent) close() {
	a.end(errClosed)
	a.connections.renew()
	a.probeConnections.renew()
}

// probe asks for the address of the leader, which takes no permission and
// hardly any work: an agent that hangs, or whose connections are half-open, does
// not answer, while a blocking query is silent anyway.
func (a *agent) probe(ctx context.Context, timeout time.Duration) (condition, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	ctx = a.kept.trace(ctx)
	a.meter.probes.Add(1)
	leader, err := a.probeAPI.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	var status api.StatusError
	switch {
	case err == nil && leader != "":
		return good, nil
	case err == nil:
		return troubled, errors.New("it knows no leader")
	case errors.As(err, &status):
		return troubled, &statusError{status.Code, false, fmt.Sprintf("%d %s (%s)", status.Code, http.StatusText(status.Code), OneLine(status.Body))}
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	// The next probe is not to depend on an old connection.
	a.probeConnections.renew()
	return silent, err
}

// live begins another life. It needs mu.
func (a *agent) live() {
	a.life, a.end = context.WithCancelCause(context.Background())
	a.views, a.endViews = context.WithCancelCause(a.life)
}

// breakOff ends the queries in flight whose answer is in doubt: all of them, with
// their connections, if a may have been silent, else those that wait for a view. A
// query that waits for a server is known to a, which answers it or fails it; and
// to break it off ends it only here. It needs mu.
func (a *agent) breakOff(silent bool, cause error) {
	if silent {
		a.endLife(cause)
		a.connections.renew()
		return
	}
	a.endViews(cause)
	a.views, a.endViews = context.WithCancelCause(a.life)
}

// endLife ends the queries in flight; later ones are not concerned. It needs mu.
func (a *agent) endLife(cause error) {
	a.end(cause)
	a.live()
}

// useless returns why a query that waits for a waits in vain: nothing tells it
// that a is silent, nor one that streams that there is no leader. It needs mu.
func (a *agent) useless(now time.Time) error {
	switch {
	case a.condition == silent && now.Sub(a.since) >= silenceLimit:
		return fmt.Errorf("consul %s: the agent has been silent for %v", a.url, silenceLimit)
	case a.condition == troubled && !a.leaderless.IsZero() && now.Sub(a.leaderless) >= silenceLimit:
		return fmt.Errorf("consul %s: %w", a.url, errNoLeader)
	}
	return nil
}

// worth is a's condition as far as it can be relied on. It needs mu.
func (a *agent) worth(now time.Time) condition {
	if a.condition == good && now.Before(a.complaints) {
		return troubled
	}
	return a.condition
}

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
