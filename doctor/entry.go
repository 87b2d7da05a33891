package doctor

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	consulsource "sluice/discovery/consul"
)

// present returns list without its elements that are null. Consul sends none.
func present[S ~[]*T, T any](list S) S {
	return slices.DeleteFunc(list, func(element *T) bool { return element == nil })
}

func (g *gathering) add(entries []*api.ServiceEntry) {
	for _, e := range entries {
		if e == nil || e.Node == nil || e.Service == nil || e.Service.Service == consulItself {
			continue
		}
		e.Checks = present(e.Checks)
		var ofNode api.HealthChecks
		for _, c := range e.Checks {
			if c.ServiceID == "" {
				ofNode = append(ofNode, c)
			}
		}
		g.addNode(e.Node, ofNode)
		i := instanceOf(e, g.doctor.addressTag(e.Service.Service))
		g.mu.Lock()
		g.facts.Instances = append(g.facts.Instances, i)
		g.mu.Unlock()
	}
}

func (g *gathering) addNode(n *api.Node, checks api.HealthChecks) {
	node := nodeOf(n, checks)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.facts.Nodes[node.Name] = node
}

func nodeOf(n *api.Node, checks api.HealthChecks) Node {
	node := Node{Name: n.Node, Address: n.Address, Liveness: NodeWithoutAgent}
	for _, c := range checks {
		switch {
		case c.CheckID == serfHealth:
			node.Liveness, node.Detail = NodeAlive, consul.OneLine(c.Output)
			if c.Status != api.HealthPassing {
				node.Liveness = NodeDead
			}
			return node
		case c.CheckID != api.NodeMaint:
			node.Watched = true
			node.Detail = cmp.Or(node.Detail, consul.OneLine(c.Output))
		}
	}
	return node
}

// instanceOf returns the instance of an entry, to which sluice connects at the address with a
// tag; "": the registered one.
func instanceOf(e *api.ServiceEntry, tag string) Instance {
	i := Instance{
		Sidecar: e.Service.Kind != api.ServiceKindTypical,
		Created: e.Service.CreateIndex, Modified: e.Service.ModifyIndex,
	}
	if p := e.Service.Proxy; p != nil && e.Service.Kind == api.ServiceKindConnectProxy {
		i.Proxied, i.ProxiedID = p.DestinationServiceName, p.DestinationServiceID
	}
	i.Instance, i.Unusable = consulsource.InstanceOf(e, "")
	if tag != "" {
		used, _ := consulsource.InstanceOf(e, tag)
		i.Contact, i.LacksTag = used.HostPort(), ""
		if used.AddressTag == "" {
			i.LacksTag = tag
		}
	}
	var critical []string
	i.Untouched = true
	for _, c := range e.Checks {
		if c.ServiceID == "" || strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix) {
			continue
		}
		i.Checks++
		i.CheckKinds = append(i.CheckKinds, c.Name+" "+c.Type)
		if c.Status == api.HealthCritical {
			critical = append(critical, cmp.Or(c.Name, c.CheckID)+quoted(consul.OneLine(c.Output)))
			i.Untouched = i.Untouched && c.CreateIndex == c.ModifyIndex
		}
	}
	slices.Sort(i.CheckKinds)
	i.Untouched = i.Untouched && len(critical) > 0
	i.Critical = strings.Join(critical, "; ")
	return i
}
