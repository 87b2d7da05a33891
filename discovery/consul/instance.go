package consul

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/discovery"
	"sluice/discovery/locality"
)

// InstanceOf returns the instance of an entry of /v1/health/service, which has a node
// and a service, for [ServiceOptions.Address]. unusable says why it can get no traffic with
// any status; "": it can.
func InstanceOf(entry *api.ServiceEntry, address string) (i discovery.Instance, unusable string) {
	short := shorten(entry)
	if address != "" {
		short.useTagged(address, entry.Service.TaggedAddresses, entry.Node.TaggedAddresses)
	}
	i = instance(short, &ServiceOptions{})
	return i, whyUnusable(i)
}

// instances returns the instances of an answer, and the entries that are not usable. Several
// registrations of one process have the tags, the meta and the weights of the one that was
// written last: a process that registers again, with another agent, says what is true now.
func instances(entries []serviceEntry, o *ServiceOptions) ([]discovery.Instance, []Skipped) {
	set := make([]discovery.Instance, 0, len(entries))
	var skipped []Skipped
	drained := make(map[discovery.Key]string)            // by an operator, with the detail
	registered := make([]*entryService, 0, len(entries)) // of set
	newest := make(map[process]int, len(entries))        // index in set
	for _, entry := range entries {
		if entry.Node == nil || entry.Service == nil {
			skipped = append(skipped, Skipped{Reason: "the entry has no node or no service"})
			continue
		}
		if o.Connect && !entry.Service.has(o.Tags) {
			continue // Consul does not select by tags here
		}
		entry.Checks = slices.DeleteFunc(entry.Checks, func(c *entryCheck) bool { return c == nil })
		i := instance(entry, o)
		why := whyUnusable(i)
		if name := o.missingPort(entry.Service); name != "" {
			why = fmt.Sprintf("it has no port with the name %q", name)
		}
		if o.Connect {
			why = cmp.Or(why, o.setMeshIdentity(&i, entry.Service.Connect))
		}
		if why != "" {
			skipped = append(skipped, Skipped{ID: i.ID, Node: i.Node, Reason: why})
			continue
		}
		if check := maintenance(entry.Checks, api.ServiceMaintPrefix); check != nil {
			drained[i.Key()] = i.Detail
		}
		if n, twice := newest[processOf(i)]; !twice || set[n].Registered < i.Registered {
			newest[processOf(i)] = len(set)
		}
		set, registered = append(set, i), append(registered, entry.Service)
	}
	if len(newest) < len(set) {
		for n := range set {
			latest := newest[processOf(set[n])]
			set[n].Tags, set[n].Meta, set[n].Kind, set[n].Registered = set[latest].Tags, set[latest].Meta, set[latest].Kind, set[latest].Registered
			set[n].Weight = weight(registered[latest].Weights, set[n].Status, o.PassingOnly)
		}
	}
	// Maintenance mode at one agent applies to the process, also where another agent has
	// registered it.
	for n := range set {
		if detail, ok := drained[set[n].Key()]; ok {
			set[n].Status, set[n].Weight, set[n].Detail, set[n].Unchecked = discovery.StatusMaintenance, 0, detail, false
		}
	}
	return discovery.Normalize(set), skipped
}

// missingPort returns the name of a port that s does not have; "": it has all that it needs.
func (o *ServiceOptions) missingPort(s *entryService) string {
	for _, name := range [...]string{o.Port, o.CheckPort} {
		if name != "" && s.port(name) == 0 {
			return name
		}
	}
	return ""
}

// process is what [discovery.Key] identifies, without the memory that this needs.
type process struct {
	service, id, address, machine string
	port                          int
}

func processOf(i discovery.Instance) process {
	p := process{service: i.Service, id: i.ID, address: i.Address, port: i.Port}
	if locality.Ambiguous(i.Address) {
		p.machine = i.NodeAddress
	}
	return p
}

func instance(entry serviceEntry, o *ServiceOptions) discovery.Instance {
	s := entry.Service
	status, reason := health(entry.Checks)
	i := discovery.Instance{
		Service:     cmp.Or(s.Service, o.Service),
		ID:          s.ID,
		Node:        entry.Node.Node,
		Address:     entry.address(),
		AddressTag:  s.tag,
		Port:        s.port(o.Port),
		NodeAddress: entry.Node.Address,
		Registered:  s.ModifyIndex,
		Tags:        s.Tags,
		Meta:        s.Meta,
		Weight:      weight(s.Weights, status, o.PassingOnly),
		Status:      status,
		Detail:      reason.detail(),
		Datacenter:  entry.Node.Datacenter,
		Kind:        s.Kind,
	}
	if o.CheckPort != "" {
		i.CheckPort = s.port(o.CheckPort)
	}
	if status == discovery.StatusCritical {
		i.Unchecked, i.FirstResult = entry.unchecked()
	}
	return i
}

// whyUnusable returns why i can get no traffic, or "".
func whyUnusable(i discovery.Instance) string {
	switch {
	case i.Address == "":
		return "it has no address, nor has its node"
	case !discovery.MayBeInstance(i.Address):
		return fmt.Sprintf("its address %q is no host name and no IP address", consul.OneLine(i.Address))
	case i.Port == 0:
		return "it has port 0"
	case i.Port < 0 || i.Port > 65535:
		return fmt.Sprintf("its port is %d", i.Port)
	}
	return ""
}

// weight returns the share of traffic in a status. Consul rejects passing weights below
// 1, so 0 means that the answer has no weights: then the default is 1. A warning weight
// of 0 means no traffic.
func weight(w entryWeights, status discovery.Status, passingOnly bool) int {
	if w.Passing <= 0 {
		w = entryWeights{Passing: 1, Warning: 1}
	}
	switch {
	case status == discovery.StatusPassing:
		return min(w.Passing, discovery.MaxWeight)
	case status == discovery.StatusWarning && !passingOnly:
		return min(max(w.Warning, 0), discovery.MaxWeight)
	}
	return 0
}

// health returns the worst status of checks, and the check that is the reason; nil: the status is
// passing. Of several it is one with an output. Maintenance mode overrides every check. Without
// checks the status is passing.
func health(checks []*entryCheck) (worst discovery.Status, reason *entryCheck) {
	for _, prefix := range []string{api.ServiceMaintPrefix, api.NodeMaint} {
		if check := maintenance(checks, prefix); check != nil {
			return discovery.StatusMaintenance, check
		}
	}
	worst = discovery.StatusPassing
	for _, check := range checks {
		if check == nil {
			continue
		}
		status := checkStatus(check.Status)
		if status > worst || reason != nil && status == worst && check.explains(reason) {
			worst, reason = status, check
		}
	}
	return worst, reason
}

// explains reports whether c says more than other, which has the same status.
func (c *entryCheck) explains(other *entryCheck) bool {
	if (c.Output == "") != (other.Output == "") {
		return c.Output != ""
	}
	return c.CheckID < other.CheckID
}

func (c *entryCheck) name() string { return cmp.Or(c.Name, c.CheckID) }

// detail says in one line why c is not passing; "" for nil.
func (c *entryCheck) detail() string {
	switch {
	case c == nil:
		return ""
	case strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix):
		return detail("service maintenance", c.Notes)
	case c.CheckID == api.NodeMaint:
		return detail("node maintenance", c.Notes)
	case strings.TrimSpace(c.Output) != "":
		return detail(c.name(), c.Output)
	case c.CreateIndex > 0 && c.CreateIndex == c.ModifyIndex && checkStatus(c.Status) == discovery.StatusCritical:
		return detail(c.name(), "it has not passed since it was registered, and Consul has no output of it yet")
	}
	return detail(c.name(), "Consul has no output of it")
}

// checkStatus returns StatusCritical for an unknown status.
func checkStatus(word string) discovery.Status {
	switch word {
	case api.HealthPassing:
		return discovery.StatusPassing
	case api.HealthWarning:
		return discovery.StatusWarning
	}
	return discovery.StatusCritical
}

// maintenance returns the check of a maintenance mode, which exists while the mode is
// on.
func maintenance(checks []*entryCheck, prefix string) *entryCheck {
	n := slices.IndexFunc(checks, func(c *entryCheck) bool { return c != nil && strings.HasPrefix(c.CheckID, prefix) })
	if n < 0 {
		return nil
	}
	return checks[n]
}

// detail returns one line of limited length.
func detail(name, text string) string {
	if text = strings.TrimSpace(text); text == "" {
		return name
	}
	return consul.OneLine(name + ": " + text)
}
