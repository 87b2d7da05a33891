package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sluice/discovery"
	"sluice/locality"
)

// place is where the process of an instance is. What each machine has for itself,
// such as a loopback address, is that of a node.
type place struct{ service, address, node string }

func (f *Facts) placeOf(i Instance) place {
	p := place{service: i.Service, address: i.address()}
	if locality.Ambiguous(i.Address) {
		p.node = f.Nodes[i.Node].Address
	}
	return p
}

// duplicates returns the registrations of a service that are one process, or look
// as if they were (see doubt), in groups of at least two.
func (f *Facts) duplicates() [][]Instance {
	groups := make(map[place][]Instance)
	for _, i := range f.Instances {
		if i.Unusable == "" {
			p := f.placeOf(i)
			groups[p] = append(groups[p], i)
		}
	}
	var duplicates [][]Instance
	for _, group := range groups {
		if len(group) > 1 {
			duplicates = append(duplicates, group)
		}
	}
	return duplicates
}

// duplicateFindings are about processes that are registered more than once.
func (f *Facts) duplicateFindings() []Finding {
	var findings []Finding
	for _, group := range f.duplicates() {
		keep := slices.MaxFunc(group, f.compareLife)
		for _, i := range group {
			if i.key() != keep.key() {
				findings = append(findings, f.duplicateFinding(i, keep))
			}
		}
	}
	return findings
}

// life is how much speaks for a registration: that of an agent that is alive and
// lists it itself is the one that the process keeps up.
func (f *Facts) life(i Instance) int {
	owner, asked := f.Owners[i.Node]
	answered := asked && owner.Problem == ""
	switch f.Nodes[i.Node].Liveness {
	case NodeAlive:
		switch {
		case answered && owner.has(i):
			return 4
		case !answered:
			return 3
		}
		return 1 // its agent does not know it, and will take it out
	case NodeWithoutAgent:
		return 2
	}
	return 0
}

// compareLife orders registrations of a process: the last one is the live one.
func (f *Facts) compareLife(a, b Instance) int {
	home := func(i Instance) int {
		if i.Address == f.Nodes[i.Node].Address {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(f.life(a), f.life(b)),
		-cmp.Compare(a.Status, b.Status), // passing is the smallest
		cmp.Compare(home(a), home(b)),
		cmp.Compare(a.Modified, b.Modified),
		cmp.Compare(a.Node, b.Node),
		cmp.Compare(a.ID, b.ID),
	)
}

// duplicateFinding is about i, since keep is the live registration of its
// process.
func (f *Facts) duplicateFinding(i, keep Instance) Finding {
	finding := Finding{
		Severity: SeverityWarning, Code: CodeDuplicate,
		Service: i.Service, ID: i.ID, Node: i.Node, Address: i.address(),
		Why: "The process counts once, with the better status of both, so an old registration may hide that the live one fails. Deregistering through one agent leaves the other behind.",
		Fix: &Fix{KeepID: keep.ID, KeepNode: keep.Node},
	}
	finding.Seen = fmt.Sprintf("%s is also registered on node %s, %s", keep.ID, keep.Node, f.reason(i, keep))
	if i.ID != keep.ID {
		finding.Code = CodeDuplicateAddress
		finding.Seen = fmt.Sprintf("%s on node %s has the same address, %s", keep.ID, keep.Node, f.reason(i, keep))
		finding.Why = "One process has two peers: it gets twice its share of the requests, and a failure counts as two."
	}
	owner := f.Owners[i.Node]
	finding.Fix.Agent = owner.URL
	finding.Fix.WhyNot = f.whyNot(i, keep)
	finding.Fix.Possible = finding.Fix.WhyNot == ""
	if f.Token.ACLs {
		finding.Policy = owner.Lacks + fmt.Sprintf("service %q { policy = \"write\" }\n", i.Service)
	}
	switch {
	case finding.Fix.Possible:
		finding.Do = "sluice doctor --fix deregisters it, through the agent of node " + i.Node + "."
		finding.Command = f.agentDeregister(i)
	case f.Nodes[i.Node].Liveness == NodeDead:
		finding.Do = "Not done by itself: " + finding.Fix.WhyNot + ". If the machine is gone for good, let the cluster forget it, with everything that it registered."
		finding.Command = "consul force-leave " + shellWord(i.Node)
	case f.Nodes[i.Node].Liveness == NodeWithoutAgent:
		finding.Do = "Not done by itself: " + finding.Fix.WhyNot + ". If nothing maintains it, take it out of the catalog."
		finding.Command = catalogDeregister(i)
	case owner.Problem != "":
		finding.Do = "Not done by itself: " + finding.Fix.WhyNot + ". Deregister it on the machine of its node, or say where its agent answers: --agent-address " + shellWord(i.Node) + "=URL."
		finding.Command = f.agentDeregister(i)
	case finding.Fix.WhyNot == f.doubt(i, keep):
		finding.Do = "Not done by itself: " + finding.Fix.WhyNot + ". If it is the same process all the same, deregister this one."
		finding.Command = f.agentDeregister(i)
	default:
		finding.Do = "Not done by itself: " + finding.Fix.WhyNot + "."
	}
	return finding
}

// reason says why keep is the live one, and not i.
func (f *Facts) reason(i, keep Instance) string {
	const live = "which is the live one: "
	mine, its := f.life(i), f.life(keep)
	switch {
	case mine == its && i.Status != keep.Status:
		return live + "it is " + keep.Status.String() + ", this one " + i.Status.String()
	case mine == its && i.Address == keep.Address && keep.Address == f.Nodes[keep.Node].Address && i.Address != f.Nodes[i.Node].Address:
		return live + "the address is that of its node"
	case mine == its:
		return "which was written last"
	case f.Nodes[i.Node].Liveness == NodeDead:
		return live + "the agent of this one is dead"
	case f.Nodes[i.Node].Liveness == NodeWithoutAgent:
		return live + "this one has no agent"
	case mine == 1:
		return live + "the agent of this one does not know it"
	}
	return live + "its agent lists it"
}

// whyNot returns why i cannot be deregistered by Doctor.Fix, or "".
func (f *Facts) whyNot(i, keep Instance) string {
	owner, asked := f.Owners[i.Node]
	switch {
	case i.Status == discovery.StatusMaintenance:
		return "it is in maintenance mode, which keeps the process out of service"
	case f.Nodes[i.Node].Liveness == NodeDead:
		return "its agent is dead, and would register it again if it came back"
	case f.Nodes[i.Node].Liveness == NodeWithoutAgent:
		return "it has no agent, and whoever wrote it into the catalog may do so again"
	case !asked:
		return "its agent was not asked"
	case owner.Problem != "":
		return "its agent cannot be asked (" + owner.Problem + "), and would register it again if it were only taken out of the catalog"
	case !owner.has(i) && owner.Services[i.ID] != Registration{}:
		now := owner.Services[i.ID]
		return fmt.Sprintf("its agent has this id for %s at %s", now.Service, now.Address)
	case !owner.has(i):
		why := "its agent does not know it, and takes it out of the catalog with its next synchronisation, within minutes"
		if f.Token.ACLs {
			why += ", unless " + agentLacks(i.Node)
		}
		return why
	case keep.Status != discovery.StatusPassing:
		return "what would stay, " + keep.ID + " on node " + keep.Node + ", is " + keep.Status.String()
	}
	return f.doubt(i, keep)
}

// doubt returns why two registrations at one address need not be those of one
// process, or "". An address is known to be one machine's only if the cluster knows a
// node by it: those of containers and virtual machines are often the same on many.
func (f *Facts) doubt(i, keep Instance) string {
	_, err := netip.ParseAddr(i.Address)
	switch {
	case err != nil:
		return i.Address + " is a name, which may mean another machine on each machine"
	case locality.Ambiguous(i.Address):
		return i.Address + " may be another process on each machine, and in each container"
	case !f.NodeAddresses[i.Address]:
		return "no node of the catalog has the address " + i.Address + ", so it may be that of several machines, such as a container's"
	}
	for _, part := range []struct {
		what string
		same bool
	}{
		{"tags", slices.Equal(i.Tags, keep.Tags)},
		{"meta", maps.Equal(i.Meta, keep.Meta)},
		{"checks", i.Checks == keep.Checks && slices.Equal(i.CheckKinds, keep.CheckKinds)},
	} {
		if !part.same {
			return fmt.Sprintf("it has other %s than %s on node %s, so it may be another process", part.what, keep.ID, keep.Node)
		}
	}
	return ""
}

// agentLacks says what keeps an agent from taking anything out of the catalog.
// It uses a token of its own for that, not the one of who asks it, and reports
// success without it.
func agentLacks(node string) string {
	return fmt.Sprintf("the agent's own token (acl.tokens.agent) lacks node:write for %q", node)
}

// conflictFindings are about ids that mean several processes of a service.
func (f *Facts) conflictFindings() []Finding {
	type name struct{ service, id string }
	groups := make(map[name][]Instance)
	for _, i := range f.Instances {
		if i.Unusable == "" {
			n := name{i.Service, i.ID}
			groups[n] = append(groups[n], i)
		}
	}
	var findings []Finding
	for _, group := range groups {
		places := make(map[place]bool)
		for _, i := range group {
			places[f.placeOf(i)] = true
		}
		if len(places) > 1 {
			findings = append(findings, f.conflictFinding(group)...)
		}
	}
	return findings
}

// conflictFinding tells what moved and left a registration behind from what
// merely has the same name.
func (f *Facts) conflictFinding(group []Instance) []Finding {
	slices.SortFunc(group, func(a, b Instance) int { return cmp.Compare(a.Node, b.Node) })
	live := slices.IndexFunc(group, func(i Instance) bool { return i.Status == discovery.StatusPassing })
	if live < 0 {
		return nil // the checks have to be looked at first
	}
	var findings []Finding
	for _, i := range group {
		switch {
		case f.Nodes[i.Node].Liveness == NodeDead:
			return nil // a finding of its own
		case i.Status != discovery.StatusCritical:
			continue
		}
		findings = append(findings, Finding{
			Severity: SeverityWarning, Code: CodeConflict,
			Service: i.Service, ID: i.ID, Node: i.Node, Address: i.address(),
			Seen:    fmt.Sprintf("critical here, while the same id is passing at %s on node %s", group[live].address(), group[live].Node),
			Why:     "It looks as if the application moved and left this registration behind. Then it is only in the way; but it may also be another process that fails.",
			Do:      "If it moved, deregister this one through its own agent, on the machine of its node. If not, give each process an id of its own.",
			Command: f.agentDeregister(i),
		})
	}
	// Without an id of its own an instance gets the name of its service: that is
	// how one instance for each node is registered.
	if i := group[0]; len(findings) == 0 && i.ID != i.Service {
		var at []string
		for _, i := range group[:min(3, len(group))] {
			at = append(at, fmt.Sprintf("%s on node %s", i.address(), i.Node))
		}
		if more := len(group) - len(at); more > 0 {
			at = append(at, fmt.Sprintf("and %d more", more))
		}
		findings = append(findings, Finding{
			Severity: SeverityNotice, Code: CodeConflict, Service: i.Service, ID: i.ID,
			Seen: "the id means several processes: " + strings.Join(at, ", "),
			Why:  "Consul wants ids to be unique for each agent only, so requests are sent to all of them. But who names a peer by its id (sluice drain, deregistration) may mean one and get another.",
			Do:   "Give each process an id of its own, for instance with its host name and port.",
		})
	}
	return findings
}

// sharedFindings are about addresses that several services have.
func (f *Facts) sharedFindings() []Finding {
	type spot struct{ address, node string }
	at := make(map[spot]map[string]Instance) // by service
	for _, i := range f.Instances {
		if i.Unusable != "" || i.Sidecar {
			continue
		}
		p := f.placeOf(i)
		s := spot{p.address, p.node}
		if at[s] == nil {
			at[s] = make(map[string]Instance)
		}
		at[s][i.Service] = i
	}
	var findings []Finding
	for _, services := range at {
		for _, i := range services {
			for _, other := range services {
				// A process that serves under two names passes or fails under both.
				if i.Status != discovery.StatusCritical || other.Status != discovery.StatusPassing {
					continue
				}
				findings = append(findings, Finding{
					Severity: SeverityNotice, Code: CodeSharedAddress,
					Service: i.Service, ID: i.ID, Node: i.Node, Address: i.address(),
					Seen:    fmt.Sprintf("critical, while %s of the service %s is passing at the same address", other.ID, other.Service),
					Why:     "The port may have a new owner: if this registration passed again, requests for " + i.Service + " would go to " + other.Service + ".",
					Do:      "If it is a leftover, deregister it through its own agent, on the machine of its node.",
					Command: f.agentDeregister(i),
				})
			}
		}
	}
	return findings
}
