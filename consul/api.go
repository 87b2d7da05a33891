package consul

import "github.com/hashicorp/consul/api"

// API is hashicorp/consul/api's client of one agent, with the certificates and the
// token of a Client, for queries that do not block. It is safe for concurrent use.
type API struct {
	*api.Client
	URL string // of the agent

	client *Client
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
	o.Addresses = []string{address}
	client, err := newClient(o, true)
	if err != nil {
		return nil, err
	}
	a := client.agents.all[0]
	return &API{Client: a.api, URL: a.url, client: client}, nil
}

// Anonymous reports whether requests have no token.
func (a *API) Anonymous() bool { return a.client.token.current() == "" }

// Stats returns the cost of the client for the agent.
func (a *API) Stats() Stats { return a.client.Stats() }

// Close closes the connections.
func (a *API) Close() { a.client.Close() }
