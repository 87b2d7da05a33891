package discoverytest

import "github.com/hashicorp/consul/api"

// Instance returns a passing instance of service on the node "node-1", at
// 127.0.0.1 and port, with Consul's default weights.
func Instance(service, id string, port int) *api.ServiceEntry {
	e := &api.ServiceEntry{
		Service: &api.AgentService{
			ID:      id,
			Service: service,
			Address: "127.0.0.1",
			Port:    port,
			Weights: api.AgentWeights{Passing: 1, Warning: 1},
		},
		Checks: api.HealthChecks{
			{CheckID: "serfHealth", Name: "Serf Health Status", Status: api.HealthPassing},
			{CheckID: "service:" + id, Name: "Service '" + service + "' check", Status: api.HealthPassing, ServiceID: id},
		},
	}
	return OnNode(e, "node-1", "127.0.0.1")
}

// OnNode puts e on another node and returns it.
func OnNode(e *api.ServiceEntry, node, address string) *api.ServiceEntry {
	e.Node = &api.Node{Node: node, Address: address, Datacenter: "dc1"}
	for _, check := range e.Checks {
		check.Node = node
	}
	return e
}

// Health sets the status and the output of e's own check and returns e.
func Health(e *api.ServiceEntry, status, output string) *api.ServiceEntry {
	for _, check := range e.Checks {
		if check.ServiceID != "" {
			check.Status, check.Output = status, output
		}
	}
	return e
}

// Maintenance puts e into maintenance mode, as "consul maint -service" does, and
// returns e.
func Maintenance(e *api.ServiceEntry, reason string) *api.ServiceEntry {
	e.Checks = append(e.Checks, &api.HealthCheck{
		Node:      e.Node.Node,
		CheckID:   api.ServiceMaintPrefix + e.Service.ID,
		Name:      "Service Maintenance Mode",
		Status:    api.HealthCritical,
		Notes:     reason,
		ServiceID: e.Service.ID,
	})
	return e
}
