package consul

import "github.com/hashicorp/consul/api"

// API is hashicorp/consul/api's client of one agent, with the certificates and the
// token of a Client, for queries that do not block. It is safe for concurrent use.
type API struct {
	*api.Client
	URL string // of the agent

	agent *agent
	meter *meter
	token string
}

// Agents returns the addresses in o or the environment, at least one.
func (o Options) Agents() ([]string, error) {
	_, addresses, _, err := o.settings()
	return addresses, err
}

// API returns a client of the agent at address, which has the format of o.Addresses. It
// opens at most o.MaxWatches connections and reads the token once. It does not connect
// yet.
func (o Options) API(address string) (*API, error) {
	config, _, token, err := o.settings()
	if err != nil {
		return nil, err
	}
	connections := o.MaxWatches
	if connections <= 0 {
		connections = defaultMaxWatches
	}
	files, err := newCertificates(config.TLSConfig, o.Log)
	if err != nil {
		return nil, err
	}
	config.Token = token.current()
	m := newMeter(newGate(connections), connections)
	a, err := newAgent(*config, address, o.Dial, files, m)
	if err != nil {
		return nil, err
	}
	m.gate.use(&a.multiplexed)
	return &API{Client: a.api, URL: a.url, agent: a, meter: m, token: config.Token}, nil
}

// Anonymous reports whether requests have no token.
func (a *API) Anonymous() bool { return a.token == "" }

// Stats returns the cost of the client for the agent.
func (a *API) Stats() Stats { return a.meter.stats() }

// Close closes the connections.
func (a *API) Close() { a.agent.close() }
