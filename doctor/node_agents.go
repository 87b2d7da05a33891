package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	consulsource "sluice/discovery/consul"
)

// memberAlive is a member status:
// https://developer.hashicorp.com/consul/api-docs/agent#list-members
const memberAlive = 1

// queryNodeAgents queries the agents of the nodes with duplicates.
func (d *Doctor) queryNodeAgents(ctx context.Context, f *Facts) {
	needed := make(map[string]bool)
	for _, group := range f.duplicates() {
		for _, i := range group {
			if f.Nodes[i.Node].Liveness == NodeAlive {
				needed[i.Node] = true
			}
		}
	}
	if len(needed) == 0 {
		return
	}
	nodes := slices.Sorted(maps.Keys(needed))
	f.NodeAddresses = d.nodeAddresses(ctx)
	members, problem := d.members(ctx, f)
	f.NodeAgents = make(map[string]NodeAgent, len(nodes))
	var mu sync.Mutex // guards f.NodeAgents and d.agents
	agentOf := func(node string) (*consul.API, error) {
		mu.Lock()
		defer mu.Unlock()
		return d.agentOf(node, members)
	}
	_ = each(ctx, maxQueries, len(nodes), func(ctx context.Context, n int) error {
		node := nodes[n]
		var agent NodeAgent
		client, err := agentOf(node)
		switch {
		case err != nil:
			agent.Problem = err.Error()
		case client == nil:
			agent.Problem = "its node is not a member of the agent's cluster" + quoted(problem)
		default:
			agent = queryNodeAgent(ctx, client, f.Nodes[node])
		}
		mu.Lock()
		defer mu.Unlock()
		f.NodeAgents[node] = agent
		return nil
	})
}

// members returns the addresses of alive members by node, or why there are none. The
// token is sent to these addresses, so they come from the member list: more programs
// may write to the catalog.
func (d *Doctor) members(ctx context.Context, f *Facts) (addresses map[string]string, problem string) {
	if f.Remote {
		return nil, "the agent belongs to another data centre"
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var members []api.AgentMember
	if _, err := d.api.Raw().Query("/v1/agent/members", &members, query(ctx)); err != nil {
		return nil, consul.Shorten(err).Error()
	}
	if len(members) == 0 {
		problem = "the agent lists no members, the token may lack node:read"
	}
	addresses = make(map[string]string, len(members))
	for _, m := range members {
		if m.Status == memberAlive {
			addresses[m.Name] = m.Addr
		}
	}
	if node := f.Agent.Node; node != "" {
		addresses[node] = "" // d.api
	}
	return addresses, problem
}

// agentOf returns a client of a node's agent, or nil if its address is unknown.
func (d *Doctor) agentOf(node string, members map[string]string) (client *consul.API, err error) {
	if client, ok := d.agents[node]; ok {
		return client, nil
	}
	at, named := d.options.AgentURLs[node]
	if !named {
		address, member := members[node]
		switch {
		case !member:
			return nil, nil
		case address == "":
			return d.api, nil
		}
		at = agentURL(d.api.URL, address)
	}
	if client, err = d.options.Consul.API(at); err == nil {
		d.agents[node] = client
	}
	return client, err
}

// agentURL returns the URL of the agent at address, with scheme and port of like.
func agentURL(like, address string) string {
	scheme, port := "http", "8500"
	if u, err := url.Parse(like); err == nil && u.Host != "" {
		scheme = u.Scheme
		port = cmp.Or(u.Port(), map[string]string{"https": "443"}[scheme], "80")
	}
	return scheme + "://" + net.JoinHostPort(address, port)
}

// queryNodeAgent reads the registrations of a node's agent, after checking its node.
func queryNodeAgent(ctx context.Context, client *consul.API, at Node) NodeAgent {
	node := at.Name
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	agent := NodeAgent{URL: client.URL}
	var s self
	_, err := client.Raw().Query("/v1/agent/self", &s, query(ctx))
	switch {
	case consul.StatusCode(err) == http.StatusForbidden:
		agent.Problem = fmt.Sprintf("%s: %v: the token lacks agent:read for %q", client.URL, consul.Shorten(err), node)
		agent.Lacks = fmt.Sprintf("agent %q { policy = \"read\" }\n", node)
		return agent
	case err != nil:
		agent.Problem = fmt.Sprintf("%s: %v", client.URL, consul.Shorten(err))
		return agent
	case s.Config.NodeName != node:
		agent.Problem = fmt.Sprintf("at %s answers the agent of node %s", client.URL, s.Config.NodeName)
		return agent
	}
	var services map[string]*api.AgentService
	if _, err := client.Raw().Query("/v1/agent/services", &services, query(ctx)); err != nil {
		agent.Problem = fmt.Sprintf("%s: %v", client.URL, consul.Shorten(err))
		return agent
	}
	agent.Services = make(map[string]Registration, len(services))
	for id, s := range services {
		i, _ := consulsource.InstanceOf(&api.ServiceEntry{Node: &api.Node{Node: node, Address: at.Address}, Service: s}, "")
		agent.Services[id] = Registration{i.Service, i.HostPort()}
	}
	return agent
}

// nodeAddresses returns the addresses of the catalog's nodes, or nil.
func (d *Doctor) nodeAddresses(ctx context.Context) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	o := query(ctx)
	o.Datacenter, o.RequireConsistent = d.options.Datacenter, d.consistent
	nodes, _, err := d.api.Catalog().Nodes(o)
	if err != nil {
		return nil
	}
	addresses := make(map[string]bool, len(nodes))
	for _, n := range present(nodes) {
		addresses[n.Address] = true
	}
	return addresses
}
