package doctor

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/hashicorp/consul/api"

	"sluice/discovery/consul"
)

// memberAlive is the status of a member that answers the others.
// https://developer.hashicorp.com/consul/api-docs/agent#list-members
const memberAlive = 1

// askOwners asks the agents of the nodes with duplicates what they have
// registered themselves.
func (d *Doctor) askOwners(ctx context.Context, f *Facts) {
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
	f.Owners = make(map[string]Owner, len(nodes))
	var mu sync.Mutex // guards f.Owners and d.owners
	_ = each(ctx, len(nodes), func(ctx context.Context, n int) error {
		node := nodes[n]
		var owner Owner
		mu.Lock()
		client, err := d.ownerOf(node, members)
		mu.Unlock()
		switch {
		case err != nil:
			owner.Problem = err.Error()
		case client == nil:
			owner.Problem = "it is no member of the agent's cluster" + quoted(problem)
		default:
			owner = ask(ctx, client, f.Nodes[node])
		}
		mu.Lock()
		defer mu.Unlock()
		f.Owners[node] = owner
		return nil
	})
}

// members returns the addresses of the cluster's members that are alive, by
// node, and why there are none. They come from the members themselves and not
// from the catalog, to which more programs may write: the token is sent there.
func (d *Doctor) members(ctx context.Context, f *Facts) (addresses map[string]string, problem string) {
	if f.Remote {
		return nil, "the agent belongs to another data centre"
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var members []*api.AgentMember
	if _, err := d.api.Raw().Query("/v1/agent/members", &members, query(ctx)); err != nil {
		return nil, plainly(err).Error()
	}
	if len(members) == 0 {
		problem = "the agent shows none, the token may lack node:read"
	}
	addresses = make(map[string]string, len(members))
	for _, m := range members {
		if m.Status == memberAlive {
			addresses[m.Name] = m.Addr
		}
	}
	if node := f.Agent.Node; node != "" {
		addresses[node] = "" // the one that is asked anyway
	}
	return addresses, problem
}

// ownerOf returns a client of a node's agent, or nil if it is not known where
// that is.
func (d *Doctor) ownerOf(node string, members map[string]string) (client *consul.API, err error) {
	if client, ok := d.owners[node]; ok {
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
		d.owners[node] = client
	}
	return client, err
}

// agentURL returns where the agent at address answers if it is set up as the
// one at like.
func agentURL(like, address string) string {
	scheme, port := "http", "8500"
	if u, err := url.Parse(like); err == nil && u.Host != "" {
		scheme = u.Scheme
		if p := u.Port(); p != "" {
			port = p
		} else if scheme == "https" {
			port = "443"
		} else {
			port = "80"
		}
	}
	return scheme + "://" + net.JoinHostPort(address, port)
}

// ask asks the agent of a node what it has registered, after it made sure that
// the agent is that node's.
func ask(ctx context.Context, client *consul.API, at Node) Owner {
	node := at.Name
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	owner := Owner{URL: client.URL}
	var s self
	_, err := client.Raw().Query("/v1/agent/self", &s, query(ctx))
	switch {
	case status(err) == http.StatusForbidden:
		owner.Problem = fmt.Sprintf("%s: %v: the token lacks agent:read for %q", client.URL, plainly(err), node)
		owner.Lacks = fmt.Sprintf("agent %q { policy = \"read\" }\n", node)
		return owner
	case err != nil:
		owner.Problem = fmt.Sprintf("%s: %v", client.URL, plainly(err))
		return owner
	case s.Config.NodeName != node:
		owner.Problem = fmt.Sprintf("at %s answers the agent of node %s", client.URL, s.Config.NodeName)
		return owner
	}
	var services map[string]*api.AgentService
	if _, err := client.Raw().Query("/v1/agent/services", &services, query(ctx)); err != nil {
		owner.Problem = fmt.Sprintf("%s: %v", client.URL, plainly(err))
		return owner
	}
	owner.Services = make(map[string]Registration, len(services))
	for id, s := range services {
		i, _ := consul.InstanceOf(&api.ServiceEntry{Node: &api.Node{Node: node, Address: at.Address}, Service: s})
		owner.Services[id] = Registration{i.Service, i.HostPort()}
	}
	return owner
}

// nodeAddresses returns the addresses of the nodes of the catalog, as far as that can
// be read.
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
	for _, n := range nodes {
		addresses[n.Address] = true
	}
	return addresses
}
