package consul

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
)

// maxDetail is the length in bytes of what is kept of a text from Consul.
const maxDetail = 200

// instances turns an answer into instances, and tells which entries cannot be.
func instances(entries []serviceEntry, o *ServiceOptions) ([]discovery.Instance, []Skipped) {
	set := make([]discovery.Instance, 0, len(entries))
	var skipped []Skipped
	drained := make(map[discovery.Key]string) // by an operator, and why
	for _, entry := range entries {
		if entry.Node == nil || entry.Service == nil {
			skipped = append(skipped, Skipped{Why: "the entry has no node or no service"})
			continue
		}
		entry.Checks = slices.DeleteFunc(entry.Checks, func(c *entryCheck) bool { return c == nil })
		i := instance(entry, o)
		if why := unusable(i); why != "" {
			skipped = append(skipped, Skipped{ID: i.ID, Node: i.Node, Why: why})
			continue
		}
		if check := maintenance(entry.Checks, api.ServiceMaintPrefix); check != nil {
			drained[i.Key()] = i.Detail
		}
		set = append(set, i)
	}
	// Whoever puts a process into maintenance mode through one agent means the
	// process, also where another agent has it registered too.
	for n := range set {
		if detail, ok := drained[set[n].Key()]; ok {
			set[n].Status, set[n].Weight, set[n].Detail, set[n].Unchecked = discovery.StatusMaintenance, 0, detail, false
		}
	}
	return discovery.Normalize(set), skipped
}

func instance(entry serviceEntry, o *ServiceOptions) discovery.Instance {
	s := entry.Service
	status, detail := health(entry.Checks)
	return discovery.Instance{
		Service:     cmp.Or(s.Service, o.Service),
		ID:          s.ID,
		Node:        entry.Node.Node,
		Address:     entry.address(),
		Port:        s.port(),
		NodeAddress: entry.Node.Address,
		Tags:        s.Tags,
		Meta:        s.Meta,
		Weight:      weight(s.Weights, status, o.PassingOnly),
		Status:      status,
		Detail:      detail,
		Datacenter:  entry.Node.Datacenter,
		Unchecked:   status == discovery.StatusCritical && entry.unchecked(),
	}
}

// unusable returns why i cannot be sent traffic, or "".
func unusable(i discovery.Instance) string {
	switch {
	case i.Address == "":
		return "it has no address, nor has its node"
	case i.Port == 0:
		return "it has port 0"
	case i.Port < 0 || i.Port > 65535:
		return fmt.Sprintf("its port is %d", i.Port)
	}
	return ""
}

// weight returns the share of traffic in a status. Consul refuses a passing
// weight under 1, so 0 means that the answer has no weights: then its default, 1,
// counts. A warning weight of 0 means no traffic.
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

// health returns the worst status of checks, and the reason if it is not
// passing. Maintenance mode wins over every check; no checks are passing.
func health(checks []*entryCheck) (discovery.Status, string) {
	if check := maintenance(checks, api.ServiceMaintPrefix); check != nil {
		return discovery.StatusMaintenance, detail("service maintenance", check.Notes)
	}
	if check := maintenance(checks, api.NodeMaint); check != nil {
		return discovery.StatusMaintenance, detail("node maintenance", check.Notes)
	}
	worst, reason := discovery.StatusPassing, (*entryCheck)(nil)
	for _, check := range checks {
		status := checkStatus(check.Status)
		if status > worst || reason != nil && status == worst && check.CheckID < reason.CheckID {
			worst, reason = status, check
		}
	}
	if reason == nil {
		return discovery.StatusPassing, ""
	}
	return worst, detail(cmp.Or(reason.Name, reason.CheckID), reason.Output)
}

// checkStatus takes an unknown word for critical: no traffic on a guess.
func checkStatus(word string) discovery.Status {
	switch word {
	case api.HealthPassing:
		return discovery.StatusPassing
	case api.HealthWarning:
		return discovery.StatusWarning
	}
	return discovery.StatusCritical
}

// maintenance returns the check of a maintenance mode that is on: it is there
// while the mode is on.
func maintenance(checks []*entryCheck, prefix string) *entryCheck {
	n := slices.IndexFunc(checks, func(c *entryCheck) bool { return strings.HasPrefix(c.CheckID, prefix) })
	if n < 0 {
		return nil
	}
	return checks[n]
}

// detail is one line of limited length.
func detail(name, text string) string {
	if text = strings.TrimSpace(text); text == "" {
		return name
	}
	return OneLine(name + ": " + text)
}

// OneLine returns the start of a text from Consul, up to 200 bytes, without line
// breaks.
func OneLine(text string) string {
	line := strings.Join(strings.Fields(text), " ")
	if len(line) > maxDetail {
		line = strings.ToValidUTF8(line[:maxDetail], "") + "…"
	}
	return line
}

// serving returns how many of set Consul wants to be used.
func serving(set []discovery.Instance) int {
	n := 0
	for _, i := range set {
		if i.Serving() {
			n++
		}
	}
	return n
}
