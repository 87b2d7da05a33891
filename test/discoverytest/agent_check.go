package discoverytest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/observe/wake"
)

// Consul's defaults and bounds of checks.
const (
	checkTimeout    = 10 * time.Second
	shortestRemoval = time.Minute // DeregisterCriticalServiceAfter
	longestOutput   = 4 << 10     // bytes
)

// agentCheck is a check of a service. The agent's mutex guards it.
type agentCheck struct {
	api.HealthCheck
	interval    time.Duration
	probe       func(context.Context) (status, output string) // nil: others report the status
	ttl         time.Duration                                 // 0: it has a probe
	removeAfter time.Duration                                 // with a critical check; 0: never

	cancel  context.CancelFunc // ends probes; nil: there are none
	expiry  *time.Timer        // of a TTL; nil: it has a probe
	removal *time.Timer        // of the service; nil: the status is not critical
	ended   bool
}

// end ends the check: its status does not change any more.
func (c *agentCheck) end() {
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
	for _, timer := range []*time.Timer{c.expiry, c.removal} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// newChecks completes the id of a registration, and returns its checks with Consul's ids.
func newChecks(d *api.AgentServiceRegistration) (checks []*agentCheck, err error) {
	d.ID = cmp.Or(d.ID, d.Name)
	definitions := d.Checks
	if d.Check != nil {
		definitions = append(api.AgentServiceChecks{d.Check}, definitions...)
	}
	for n, definition := range definitions {
		id := "service:" + d.ID
		if len(definitions) > 1 {
			id = fmt.Sprint(id, ":", n+1)
		}
		c, err := newCheck(definition)
		if err != nil {
			return nil, err
		}
		c.CheckID = cmp.Or(definition.CheckID, id)
		c.Name = cmp.Or(definition.Name, "Service '"+d.Name+"' check")
		c.Notes, c.Status = definition.Notes, cmp.Or(definition.Status, api.HealthCritical)
		c.ServiceID, c.ServiceName, c.ServiceTags = d.ID, d.Name, d.Tags
		checks = append(checks, c)
	}
	return checks, nil
}

// newCheck returns a check by HTTP, TCP or TTL.
func newCheck(d *api.AgentServiceCheck) (c *agentCheck, err error) {
	c = new(agentCheck)
	duration := func(key, text string, otherwise time.Duration) time.Duration {
		if text == "" {
			return otherwise
		}
		parsed, failure := time.ParseDuration(text)
		if failure != nil || parsed <= 0 {
			err = errors.Join(err, fmt.Errorf("invalid %s %q", key, text))
		}
		return parsed
	}
	timeout := duration("Timeout", d.Timeout, checkTimeout)
	if c.removeAfter = duration("DeregisterCriticalServiceAfter", d.DeregisterCriticalServiceAfter, 0); c.removeAfter > 0 {
		c.removeAfter = max(c.removeAfter, shortestRemoval)
	}
	switch {
	case d.TTL != "":
		c.Type, c.ttl = "ttl", duration("TTL", d.TTL, 0)
		return c, err
	case d.HTTP != "":
		c.Type, c.probe = "http", probeHTTP(d, timeout)
	case d.TCP != "":
		c.Type, c.probe = "tcp", probeTCP(d.TCP, timeout)
	default:
		return nil, errors.New("the stand-in for Consul has checks by HTTP, TCP and TTL only")
	}
	if c.interval = duration("Interval", d.Interval, 0); c.interval == 0 {
		err = errors.Join(err, errors.New("the key Interval must be > 0"))
	}
	return c, err
}

func probeHTTP(d *api.AgentServiceCheck, timeout time.Duration) func(context.Context) (status, output string) {
	method := cmp.Or(d.Method, http.MethodGet)
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: d.TLSSkipVerify, ServerName: d.TLSServerName},
	}}
	return func(ctx context.Context) (status, output string) {
		r, err := http.NewRequestWithContext(ctx, method, d.HTTP, strings.NewReader(d.Body))
		if err != nil {
			return api.HealthCritical, err.Error()
		}
		for name, values := range d.Header {
			r.Header[http.CanonicalHeaderKey(name)] = values
		}
		if host := r.Header.Get("Host"); host != "" {
			r.Host = host
		}
		answer, err := client.Do(r)
		if err != nil {
			return api.HealthCritical, err.Error()
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(answer.Body, longestOutput)) // what has come
		output = fmt.Sprintf("HTTP %s %s: %s Output: %s", method, d.HTTP, answer.Status, body)
		switch {
		case answer.StatusCode/100 == 2:
			return api.HealthPassing, output
		case answer.StatusCode == http.StatusTooManyRequests:
			return api.HealthWarning, output
		}
		return api.HealthCritical, output
	}
}

func probeTCP(address string, timeout time.Duration) func(context.Context) (status, output string) {
	return func(ctx context.Context) (status, output string) {
		conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", address)
		if err != nil {
			return api.HealthCritical, err.Error()
		}
		conn.Close()
		return api.HealthPassing, "TCP connect " + address + ": Success"
	}
}

// startLocked starts the probes of a check, or the time until somebody has to report.
func (a *Agent) startLocked(c *agentCheck) {
	a.setLocked(c, c.Status, c.Output)
	if c.probe == nil {
		c.expiry = time.AfterFunc(c.ttl, func() { a.expire(c) })
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	a.checking.Go(func() { a.check(ctx, c) })
}

// check probes until ctx ends.
func (a *Agent) check(ctx context.Context, c *agentCheck) {
	_ = wake.Repeat(ctx, c.interval, func() (done bool, err error) {
		status, output := c.probe(ctx)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.setLocked(c, status, output)
		return false, nil
	})
}

// expire notes that nobody has reported the status of a TTL check in time.
func (a *Agent) expire(c *agentCheck) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setLocked(c, api.HealthCritical, "TTL expired (last output before timeout follows): "+c.Output)
}

// setLocked sets the status of a check. Like Consul, it tells the catalog at once of another
// status, and of another output with it or with the next change.
func (a *Agent) setLocked(c *agentCheck, status, output string) {
	if c.ended {
		return
	}
	changed := c.Status != status
	c.Status, c.Output = status, output
	switch {
	case status != api.HealthCritical && c.removal != nil:
		c.removal.Stop()
		c.removal = nil
	case status == api.HealthCritical && c.removal == nil && c.removeAfter > 0:
		c.removal = time.AfterFunc(c.removeAfter, func() { a.remove(c) })
	}
	if changed {
		a.publishLocked(c.ServiceName)
	}
}

// remove deregisters the service of a check that has been critical for too long.
func (a *Agent) remove(c *agentCheck) {
	a.mu.Lock()
	gone := c.ended || c.Status != api.HealthCritical
	a.mu.Unlock()
	if !gone {
		_ = a.deregister(c.ServiceID) // another one has done it
	}
}
