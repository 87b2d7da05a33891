package consul

import (
	"github.com/hashicorp/consul/api"

	"sluice/discovery"
)

// API is hashicorp/consul/api's own client of one agent, with the certificates
// and the token of a Client: for questions that are no watch. It is safe for
// concurrent use.
type API struct {
	*api.Client
	URL string // of the agent

	agent *agent
	meter *meter
	token string
}

// Agents returns the addresses that o or the environment names, at least one.
func (o ClientOptions) Agents() ([]string, error) {
	_, addresses, _, err := o.settings()
	return addresses, err
}

// API returns a client of the agent at address, written as in o.Addresses. It
// opens at most o.MaxWatches connections, reads the token once, and does not
// connect yet.
func (o ClientOptions) API(address string) (*API, error) {
	config, _, token, err := o.settings()
	if err != nil {
		return nil, err
	}
	connections := o.MaxWatches
	if connections <= 0 {
		connections = defaultMaxWatches
	}
	certificates, err := newCertificates(config.TLSConfig, o.Log)
	if err != nil {
		return nil, err
	}
	config.Token = token.current()
	m := newMeter(newGate(connections), connections)
	a, err := newAgent(*config, address, o.dial, certificates, m)
	if err != nil {
		return nil, err
	}
	return &API{Client: a.api, URL: a.url, agent: a, meter: m, token: config.Token}, nil
}

// Anonymous reports whether requests go without a token.
func (a *API) Anonymous() bool { return a.token == "" }

// Stats returns what the client has cost the agent so far.
func (a *API) Stats() Stats { return a.meter.stats() }

// Close closes the connections.
func (a *API) Close() { a.agent.close() }

// InstanceOf returns what a Client makes of an entry of /v1/health/service, and
// why it would not be used at all, or "". Entry has a node and a service.
func InstanceOf(entry *api.ServiceEntry) (i discovery.Instance, unusableWhy string) {
	i = instance(shorten(entry), &ServiceOptions{})
	return i, unusable(i)
}
