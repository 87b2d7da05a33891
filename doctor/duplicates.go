package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sluice/discovery"
	"sluice/discovery/locality"
)

// processAddress identifies a process. A loopback or link-local address belongs to a node.
type processAddress struct{ service, address, node string }

func (f *Facts) processAddressOf(i Instance) processAddress {
	p := processAddress{service: i.Service, address: i.address()}
	if locality.Ambiguous(i.Address) {
		p.node = f.Nodes[i.Node].Address
	}
	return p
}

// duplicates returns groups of registrations of a service with the same address.
func (f *Facts) duplicates() map[processAddress][]Instance {
	groups := make(map[processAddress][]Instance)
	for _, i := range f.Instances {
		if i.Unusable == "" {
			p := f.processAddressOf(i)
			groups[p] = append(groups[p], i)
		}
	}
	maps.DeleteFunc(groups, func(_ processAddress, group []Instance) bool { return len(group) == 1 })
	return groups
}

// duplicateFindings are about processes with several registrations.
func (f *Facts) duplicateFindings() []Finding {
	var findings []Finding
	for _, group := range f.duplicates() {
		keep := f.kept(group)
		for _, i := range group {
			if i.Node != keep.Node || i.ID != keep.ID {
				findings = append(findings, f.duplicateFinding(i, keep))
			}
		}
	}
	return findings
}

// kept returns the registration of a process that stays: the live one of those on the node that the
// operator names, or else of all. If registrations differ, the one written last says what the
// process is now, whichever node has its address.
func (f *Facts) kept(group []Instance) Instance {
	named := slices.DeleteFunc(slices.Clone(group), func(i Instance) bool { return i.Node != f.Keep })
	if len(named) > 0 {
		group = named
	}
	alike := !slices.ContainsFunc(group, func(i Instance) bool { return difference(i, group[0]) != "" })
	home := func(i Instance) int {
		if alike && i.Address == f.Nodes[i.Node].Address {
			return 1
		}
		return 0
	}
	return slices.MaxFunc(group, func(a, b Instance) int {
		return cmp.Or(
			cmp.Compare(f.rank(a), f.rank(b)),
			-cmp.Compare(a.Status, b.Status), // passing is the smallest
			cmp.Compare(home(a), home(b)),
			cmp.Compare(a.Modified, b.Modified),
			cmp.Compare(a.Node, b.Node),
			cmp.Compare(a.ID, b.ID),
		)
	})
}

// rank orders registrations by the state of their agents: highest if the agent is alive
// and lists the registration.
func (f *Facts) rank(i Instance) int {
	agent, asked := f.NodeAgents[i.Node]
	answered := asked && agent.Problem == ""
	switch f.Nodes[i.Node].Liveness {
	case NodeAlive:
		switch {
		case answered && agent.has(i):
			return 4
		case !answered:
			return 3
		}
		return 1 // its agent does not know it, and will remove it
	case NodeWithoutAgent:
		return 2
	}
	return 0
}

// duplicateFinding is about i; keep is the live registration of its process.
func (f *Facts) duplicateFinding(i, keep Instance) Finding {
	finding := Finding{
		Severity: SeverityWarning, Code: CodeDuplicate,
		Service: i.Service, ID: i.ID, Node: i.Node, Address: i.address(),
		Why: "sluice has one peer for both, with the better status: an old registration may hide that the live one fails. Deregistration through one agent leaves the other registration.",
		Fix: &Fix{KeepID: keep.ID, KeepNode: keep.Node},
	}
	finding.Seen = fmt.Sprintf("%s is also registered on node %s, %s", keep.ID, keep.Node, f.reason(i, keep))
	if i.ID != keep.ID {
		finding.Code = CodeDuplicateAddress
		finding.Seen = fmt.Sprintf("%s on node %s has the same address, %s", keep.ID, keep.Node, f.reason(i, keep))
		finding.Why = "One process has two peers: it gets twice its share of the requests, and a failure counts twice."
	}
	agent := f.NodeAgents[i.Node]
	finding.Fix.Agent = agent.URL
	if finding.Fix.WhyNot = f.whyNot(i, keep); finding.Fix.WhyNot == "" {
		finding.Fix.WhyNot = joined(" and ", f.doubt(i), difference(i, keep))
		finding.Fix.Confirm = finding.Fix.WhyNot != ""
	}
	finding.Fix.Possible = finding.Fix.WhyNot == ""
	if f.Token.ACLs {
		finding.Policy = agent.Lacks + fmt.Sprintf("service %q { policy = \"write\" }\n", i.Service)
	}
	switch {
	case finding.Fix.Possible:
		finding.Do = "sluice doctor --fix deregisters it, through the agent of node " + i.Node + "."
		finding.Command = f.agentDeregister(i)
	case finding.Fix.Confirm:
		finding.Do = "If it is the same process, sluice doctor --fix deregisters it, after you confirm: " + finding.Fix.WhyNot + "."
		if difference(i, keep) != "" && i.Node != keep.Node {
			finding.Do += " To keep this one in place of the other: --keep " + shellWord(i.Node) + "."
		}
		finding.Command = f.agentDeregister(i)
	case f.Nodes[i.Node].Liveness == NodeDead:
		finding.Do = "Not fixed: " + finding.Fix.WhyNot + ". If the machine is gone for good, remove its node from the cluster."
		finding.Command = "consul force-leave " + shellWord(i.Node)
	case f.Nodes[i.Node].Liveness == NodeWithoutAgent:
		finding.Do = "Not fixed: " + finding.Fix.WhyNot + ". If nothing maintains it, remove it from the catalog."
		finding.Command = catalogDeregister(i)
	case agent.Problem != "":
		finding.Do = "Not fixed: " + finding.Fix.WhyNot + ". Deregister it on its node's machine, or give the agent's URL: --agent-address " + shellWord(i.Node) + "=URL."
		finding.Command = f.agentDeregister(i)
	default:
		finding.Do = "Not fixed: " + finding.Fix.WhyNot + "."
	}
	return finding
}

// reason explains why keep is the live registration.
func (f *Facts) reason(i, keep Instance) string {
	const live = "which is the live one: "
	mine, its := f.rank(i), f.rank(keep)
	switch {
	case keep.Node == f.Keep && i.Node != f.Keep:
		return "which --keep chooses"
	case mine == its && i.Status != keep.Status:
		return live + "it is " + keep.Status.String() + ", this one " + i.Status.String()
	case mine == its && difference(i, keep) == "" && i.Address == keep.Address && keep.Address == f.Nodes[keep.Node].Address && i.Address != f.Nodes[i.Node].Address:
		return live + "it has the address of its node"
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

// whyNot returns why Doctor.Fix does not deregister i, whatever the operator confirms, or "".
func (f *Facts) whyNot(i, keep Instance) string {
	agent, asked := f.NodeAgents[i.Node]
	switch {
	case i.Status == discovery.StatusMaintenance:
		return "it is in maintenance mode"
	case f.Nodes[i.Node].Liveness == NodeDead:
		return "its agent is dead, and would register it again if it came back"
	case f.Nodes[i.Node].Liveness == NodeWithoutAgent:
		return "it has no agent, and the program that wrote it into the catalog may write it again"
	case !asked:
		return "its agent was not queried"
	case agent.Problem != "":
		return "its agent does not answer (" + agent.Problem + "), and would register it again after a removal from the catalog"
	case !agent.has(i) && agent.Services[i.ID] != Registration{}:
		other := agent.Services[i.ID]
		return fmt.Sprintf("its agent has this id for %s at %s", other.Service, other.Address)
	case !agent.has(i):
		why := "its agent does not know it, and removes it from the catalog at its next anti-entropy sync, within minutes"
		if f.Token.ACLs {
			why += ", unless " + agentLacks(i.Node)
		}
		return why
	case keep.Status != discovery.StatusPassing:
		return "the remaining registration, " + keep.ID + " on node " + keep.Node + ", is " + keep.Status.String()
	case f.Keep != "" && keep.Node != f.Keep:
		return "it has no registration on node " + f.Keep + ", which --keep names"
	case f.rank(keep) < f.rank(i):
		return "the remaining registration, " + keep.ID + " on node " + keep.Node + ", is not the live one: its agent does not list it"
	}
	return ""
}

// doubt returns why the address of i may be the address of several processes, or "". An address is
// known to be unique only if a node of the cluster has it: containers and virtual machines often
// have the same addresses on many machines. Only the operator knows.
func (f *Facts) doubt(i Instance) string {
	_, err := netip.ParseAddr(i.Address)
	switch {
	case err != nil:
		return i.Address + " is a name, which may resolve differently on each machine"
	case locality.Ambiguous(i.Address):
		return i.Address + " may be a different process on each machine and in each container"
	case f.NodeAddresses == nil:
		return "the nodes of the catalog could not be read, so several machines may have the address " + i.Address + ", such as for a container"
	case !f.NodeAddresses[i.Address]:
		return "no node of the catalog has the address " + i.Address + ", so several machines may have it, such as for a container"
	}
	return ""
}

// difference shows both sides of what differs in two registrations with one address, which may be
// of different processes; "": nothing does. A process that registers anew through another agent
// often has other tags, meta or checks there.
func difference(i, keep Instance) string {
	var parts []string
	for _, part := range []struct {
		what      string
		same      bool
		mine, its any
	}{
		{"tags", slices.Equal(i.Tags, keep.Tags), i.Tags, keep.Tags},
		{"meta values", maps.Equal(i.Meta, keep.Meta), i.Meta, keep.Meta},
		{"checks", i.Checks == keep.Checks && slices.Equal(i.CheckKinds, keep.CheckKinds), i.CheckKinds, keep.CheckKinds},
	} {
		if !part.same {
			parts = append(parts, fmt.Sprintf("its %s are %q, the ones of %s on node %s are %q", part.what, part.mine, keep.ID, keep.Node, part.its))
		}
	}
	return joined(", ", parts...)
}

// joined joins the texts that are not empty.
func joined(separator string, texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(text string) bool { return text == "" }), separator)
}

// agentLacks describes the missing permission of an agent's own token. Without it the
// agent reports success, but the catalog keeps the registration.
func agentLacks(node string) string {
	return fmt.Sprintf("the agent's own token (acl.tokens.agent) lacks node:write for %q", node)
}
