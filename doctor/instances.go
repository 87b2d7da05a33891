package doctor

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/discovery"
	"sluice/healthcheck"
)

// instanceFindings are about single instances.
func (f *Facts) instanceFindings(criticalFor time.Duration) []Finding {
	since := make(map[Peer]time.Time, len(f.Peers))
	refused := make(map[Peer]string) // by id and address
	others := make(map[Peer]string)  // likewise
	for _, p := range f.Peers {
		others[Peer{ID: p.ID, Address: p.Address}] = p.Other
		if p.Refused != "" {
			refused[Peer{ID: p.ID, Address: p.Address}] = p.Refused
		}
		if p.Critical {
			since[Peer{Node: p.Node, ID: p.ID, Address: p.Address}] = p.Since
		}
	}
	var findings []Finding
	for _, i := range f.Instances {
		at, known := since[Peer{Node: i.Node, ID: i.ID, Address: i.contact()}]
		for _, finding := range slices.Concat(
			f.addressFindings(i, refused[Peer{ID: i.ID, Address: i.contact()}]), taggedAddressFindings(i), f.unreachableFindings(i),
			f.otherFindings(i, others[Peer{ID: i.ID, Address: i.contact()}]),
			f.sidecarFindings(i), f.nodeFindings(i), checkFindings(i), f.criticalFindings(i, criticalFor, at, known),
		) {
			findings = append(findings, finding.about(i))
		}
	}
	return findings
}

// addressFindings are about an unusable address. refused is why a running sluice opens no
// connection to it; "": it does, or is not known.
func (f *Facts) addressFindings(i Instance, refused string) []Finding {
	const register = "Register the address and port at which other machines reach the application."
	if i.Unusable != "" && !i.Sidecar {
		finding := Finding{
			Severity: SeverityError, Code: CodeNoPort,
			Seen: i.Unusable,
			Why:  "It gets no request. Consul stores port 0 when an application registers without a port.",
			Do:   register,
		}
		if !f.routed(i.Service) {
			finding.Severity = SeverityNotice
			finding.Do = "Nothing, if it should get no requests. Else: r" + register[1:]
		}
		return []Finding{finding}
	}
	ip, _ := netip.ParseAddr(i.Address) // the zero Addr for a host name
	ip = ip.Unmap()
	severity := SeverityError
	if !i.Serving() {
		severity = SeverityWarning
	}
	switch {
	case ip.IsLoopback() && f.elsewhere(i.Node):
		return []Finding{{
			Severity: severity, Code: CodeLoopback,
			Seen: i.Address + " is registered, on another machine",
			Why:  "A request to a loopback address would reach a process on sluice's machine. So sluice sends none, unless discovery.allow_local is set.",
			Do:   register + " An instance without an address has its node's address.",
		}}
	case refused != "":
		return []Finding{{
			Severity: severity, Code: CodeRefused,
			Seen: "sluice opens no connection to it: " + refused,
			Why:  "It gets no request. sluice refuses its own listeners, because requests could loop or reach its admin API, and loopback addresses of unknown machines.",
			Do:   register + " If the registration is unknown, find its origin.",
		}}
	}
	return nil
}

// taggedAddressFindings are about a tagged address that is missing.
func taggedAddressFindings(i Instance) []Finding {
	if i.LacksTag == "" || i.Sidecar || i.Unusable != "" {
		return nil
	}
	return []Finding{{
		Severity: SeverityWarning, Code: CodeNoTaggedAddress,
		Seen: fmt.Sprintf("it has no address with the tag %q", i.LacksTag),
		Why:  "The configuration asks for this address. sluice connects to " + i.contact() + ", which it may not reach.",
		Do:   "Register the service with TaggedAddresses. If it has no address of its own, the tagged addresses of its node count.",
	}}
}

// routed reports whether a service has a route, or there is no configuration.
func (f *Facts) routed(service string) bool {
	return f.Config == nil || f.tags.routed[service] || slices.ContainsFunc(f.Uses, func(u Use) bool { return u.Routed && u.Service == service })
}

// elsewhere reports whether a node is not the machine of the queried agent.
func (f *Facts) elsewhere(node string) bool {
	if node == f.Agent.Node && !f.Remote {
		return false
	}
	ip, err := netip.ParseAddr(f.Nodes[node].Address)
	return err != nil || !ip.Unmap().IsLoopback()
}

// otherFindings are about an instance in whose place another one answers. who is what sluice's
// checks have heard; "": the output of its own check may say it.
func (f *Facts) otherFindings(i Instance, who string) []Finding {
	if _, heard, ok := strings.Cut(i.Critical, healthcheck.OtherService); ok && who == "" {
		who = heard
	}
	if who == "" {
		return nil
	}
	return []Finding{{
		Severity: SeverityError, Code: CodeOtherService,
		Seen:    fmt.Sprintf("%s answers at %s, and not %s/%s", who, i.contact(), i.Service, i.ID),
		Why:     "It has ended, and another program has its port. sluice sends it no request; load balancers that do not ask who answers do.",
		Do:      "Deregister it through its own agent.",
		Command: f.agentDeregister(i),
	}}
}

// unreachableFindings are about a failed connection attempt.
func (f *Facts) unreachableFindings(i Instance) []Finding {
	why, silent := f.Silent[i.contact()]
	if !silent || !i.Serving() {
		return nil
	}
	return []Finding{{
		Severity: SeverityError, Code: CodeUnreachable,
		Seen: "no connection from here, although Consul says " + i.Status.String() + ": " + why,
		Why:  "Its check runs on its own machine, requests come from this one. Attempts on it fail.",
		Do:   "Check the address and firewalls. An application in a container may register an address that only the container's machine reaches.",
	}}
}

// nodeFindings are about an instance on a dead or external node.
func (f *Facts) nodeFindings(i Instance) []Finding {
	node := f.Nodes[i.Node]
	switch {
	case node.Liveness == NodeDead:
		return []Finding{{
			Severity: SeverityWarning, Code: CodeDeadNode,
			Seen:    "the agent of its node is dead" + quoted(node.Detail),
			Why:     "It is not checked and gets no request. Consul keeps a dead node for 72 hours.",
			Do:      "Start the agent. If the machine is gone for good, remove its node from the cluster.",
			Command: "consul force-leave " + shellWord(i.Node),
		}}
	case node.Liveness == NodeWithoutAgent && !node.Watched:
		return []Finding{{
			Severity: SeverityWarning, Code: CodeNoAgent,
			Seen:    "its node has no agent and no check",
			Why:     "It was written into the catalog directly, or is a leftover. It always passes, also when the process is dead.",
			Do:      "If something maintains it (Terraform, a script), let consul-esm check it. If not, remove it from the catalog.",
			Command: catalogDeregister(i),
		}}
	case node.Liveness == NodeWithoutAgent:
		return []Finding{{
			Severity: SeverityNotice, Code: CodeNoAgent,
			Seen: "its node has no agent, but a check" + quoted(node.Detail),
			Why:  "It is as up to date as the program that writes it into the catalog.",
			Do:   "Nothing, if that is intended.",
		}}
	}
	return nil
}

// checkFindings are about an instance without a check.
func checkFindings(i Instance) []Finding {
	if i.Checks > 0 || i.Sidecar {
		return nil
	}
	return []Finding{{
		Severity: SeverityWarning, Code: CodeNoCheck,
		Seen: "it was registered without a check",
		Why:  "It passes as long as its node's agent lives, and gets requests even when the process is dead.",
		Do:   "Register it with a check and deregister_critical_service_after, or use health.active in sluice's configuration.",
	}}
}

// criticalFindings are about an instance with failing checks. since is when a running
// sluice took it out of service, if known.
func (f *Facts) criticalFindings(i Instance, criticalFor time.Duration, since time.Time, known bool) []Finding {
	if i.Status != discovery.StatusCritical || i.Critical == "" || f.Nodes[i.Node].Liveness == NodeDead {
		return nil
	}
	finding := Finding{
		Severity: SeverityWarning, Code: CodeCriticalLong,
		Why:     "It gets no request. It stays registered until it is deregistered, by hand or by deregister_critical_service_after.",
		Do:      "Repair it, or deregister it through its own agent.",
		Command: f.agentDeregister(i),
	}
	untouched := ""
	if i.Untouched {
		untouched = "; that check has not changed since it was registered"
	}
	if known {
		age := f.Time.Sub(since)
		if age < criticalFor {
			return nil
		}
		finding.Seen = fmt.Sprintf("critical for at least %s: %s%s", duration(age), i.Critical, untouched)
		return []Finding{finding}
	}
	finding.Severity, finding.Code = SeverityNotice, CodeCritical
	finding.Seen = "critical: " + i.Critical + untouched
	finding.Why += " Since when is unknown: Consul does not store it, and "
	if f.Peers != nil {
		finding.Why += "the running sluice does not have it."
	} else {
		finding.Why += "no running sluice answered (--admin)."
	}
	return []Finding{finding}
}

func duration(d time.Duration) string {
	if d < time.Hour {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}

func quoted(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// agentDeregister is the command that deregisters i through its own agent.
func (f *Facts) agentDeregister(i Instance) string {
	command := "consul services deregister -id=" + shellWord(i.ID)
	switch agent := f.NodeAgents[i.Node]; {
	case agent.URL != "" && agent.Problem == "":
		return command + " -http-addr=" + shellWord(agent.URL)
	case i.Node == f.Agent.Node && !f.Remote:
		return command + " -http-addr=" + shellWord(f.Agent.URL)
	case strings.HasPrefix(i.Node, "-"):
		return "" // ssh would parse it as an option
	}
	return "ssh " + shellWord(i.Node) + " " + shellWord(command)
}

// catalogDeregister is the command that removes i from the catalog only.
func catalogDeregister(i Instance) string {
	body, _ := json.Marshal(map[string]string{"Node": i.Node, "ServiceID": i.ID}) // cannot fail
	return `curl -X PUT -H "X-Consul-Token: $CONSUL_HTTP_TOKEN" -d ` + shellWord(string(body)) + ` "$CONSUL_HTTP_ADDR/v1/catalog/deregister"`
}

// shellWord quotes s for a shell if necessary.
func shellWord(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:/=@%+,", r))
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
