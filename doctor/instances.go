package doctor

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/discovery"
)

// instanceFindings are about instances by themselves.
func (f *Facts) instanceFindings(t Thresholds) []Finding {
	since := make(map[Peer]time.Time, len(f.Peers))
	refused := make(map[Peer]string) // by id and address
	for _, p := range f.Peers {
		if p.Refused != "" {
			refused[Peer{ID: p.ID, Address: p.Address}] = p.Refused
		}
		if p.Critical {
			since[Peer{Node: p.Node, ID: p.ID, Address: p.Address}] = p.Since
		}
	}
	var findings []Finding
	for _, i := range f.Instances {
		for _, rule := range []func(Instance) (Finding, bool){
			func(i Instance) (Finding, bool) {
				return f.placeFinding(i, refused[Peer{ID: i.ID, Address: i.address()}])
			},
			f.silentFinding,
			f.nodeFinding,
			checkFinding,
			func(i Instance) (Finding, bool) {
				at, known := since[Peer{Node: i.Node, ID: i.ID, Address: i.address()}]
				return f.criticalFinding(i, t, at, known)
			},
		} {
			if finding, wrong := rule(i); wrong {
				finding.Service, finding.ID, finding.Node, finding.Address = i.Service, i.ID, i.Node, i.address()
				findings = append(findings, finding)
			}
		}
	}
	return findings
}

// placeFinding is about an address that no request can, or should, go to. Refused is
// why a running sluice sends none there; "": it does.
func (f *Facts) placeFinding(i Instance, refused string) (Finding, bool) {
	const register = "Let the application register the address and the port at which others reach it."
	switch {
	case i.Address == "":
		return Finding{
			Severity: SeverityError, Code: CodeNoAddress,
			Seen: "neither the instance nor its node has an address",
			Why:  "sluice skips it: it gets no request.",
			Do:   register,
		}, true
	case i.Unusable != "" && !i.Sidecar:
		finding := Finding{
			Severity: SeverityError, Code: CodeNoPort,
			Seen: i.Unusable,
			Why:  "sluice skips it: it gets no request. Port 0 is what Consul stores when an application registers without a port.",
			Do:   register,
		}
		if !f.routed(i.Service) {
			finding.Severity = SeverityNotice
			finding.Do = "Nothing, if it is not meant to get requests. Else: l" + register[1:]
		}
		return finding, true
	}
	ip, _ := netip.ParseAddr(i.Address) // the zero Addr for a host name
	ip = ip.Unmap()
	severity := SeverityError
	if !i.Serving() {
		severity = SeverityWarning
	}
	switch {
	case ip.IsUnspecified():
		return Finding{
			Severity: severity, Code: CodeUnspecified,
			Seen: i.Address + " is registered: that is where a program listens, not where it is reached",
			Why:  "A connection to it would end at the machine that opens it. sluice opens none, unless it was registered on the same machine.",
			Do:   register,
		}, true
	case ip.IsLoopback() && f.elsewhere(i.Node):
		return Finding{
			Severity: severity, Code: CodeLoopback,
			Seen: i.Address + " is registered, on another machine than this one",
			Why:  "A loopback address is each machine's own: a request would go to whatever has this port on the machine that sluice runs on. So sluice sends none, unless consul.allow_local is set.",
			Do:   register + " Without an address of its own an instance has that of its node.",
		}, true
	case ip.IsLinkLocalUnicast():
		return Finding{
			Severity: severity, Code: CodeLinkLocal,
			Seen: i.Address + " is valid only within one network segment",
			Why:  "Other machines do not reach it, or reach something else. So sluice sends no requests there, unless it was registered on the same machine.",
			Do:   register,
		}, true
	case refused != "":
		return Finding{
			Severity: severity, Code: CodeRefused,
			Seen: "sluice opens no connection to it: " + refused,
			Why:  "It gets no request. A listener of sluice is refused because its admin API would be open to everybody, or a request would go round in circles; an address that each machine has for itself, because it is not known to be meant for the machine that sluice runs on.",
			Do:   register + " If nobody knows this registration, find out who made it.",
		}, true
	}
	return Finding{}, false
}

// routed reports whether requests are sent to a service, or may be: without a
// configuration that is not known.
func (f *Facts) routed(service string) bool {
	return !f.Configured || slices.ContainsFunc(f.Uses, func(u Use) bool { return u.Routed && u.Service == service })
}

// elsewhere reports whether a node is another machine than the one whose agent
// was asked. One whose own address is a loopback address is not.
func (f *Facts) elsewhere(node string) bool {
	if node == f.Agent.Node && !f.Remote {
		return false
	}
	ip, err := netip.ParseAddr(f.Nodes[node].Address)
	return err != nil || !ip.Unmap().IsLoopback()
}

// silentFinding is about an address that was tried.
func (f *Facts) silentFinding(i Instance) (Finding, bool) {
	why, silent := f.Silent[i.address()]
	if !silent || !i.Serving() {
		return Finding{}, false
	}
	return Finding{
		Severity: SeverityError, Code: CodeUnreachable,
		Seen: "no connection from here, although Consul says " + i.Status.String() + ": " + why,
		Why:  "Its check runs on its own machine, requests come from this one. Each one that picks it has to fail first.",
		Do:   "Is the address the right one? Is there a firewall between? An application in a container often registers an address that only this container's machine reaches.",
	}, true
}

// nodeFinding is about an instance whose node nobody answers for.
func (f *Facts) nodeFinding(i Instance) (Finding, bool) {
	node := f.Nodes[i.Node]
	switch {
	case node.Liveness == NodeDead:
		return Finding{
			Severity: SeverityWarning, Code: CodeDeadNode,
			Seen:    "the agent of its node does not answer the others" + quoted(node.Detail),
			Why:     "It gets no request, whether it works or not: nobody checks it any more. Consul keeps a dead node for 72 hours.",
			Do:      "Start the agent again. If the machine is gone for good, let the cluster forget it.",
			Command: "consul force-leave " + shellWord(i.Node),
		}, true
	case node.Liveness == NodeWithoutAgent && !node.Watched:
		return Finding{
			Severity: SeverityWarning, Code: CodeNoAgent,
			Seen:    "its node has no agent and no check",
			Why:     "It was written into the catalog directly, or is a leftover. It passes for ever: nothing notices when it dies, and nothing takes it out.",
			Do:      "If something maintains it (Terraform, a script), let consul-esm check it. If not, take it out of the catalog: with no agent to bring it back, that lasts.",
			Command: catalogDeregister(i),
		}, true
	case node.Liveness == NodeWithoutAgent:
		return Finding{
			Severity: SeverityNotice, Code: CodeNoAgent,
			Seen: "its node has no agent; somebody else checks it" + quoted(node.Detail),
			Why:  "It is as up to date as whoever writes it into the catalog.",
			Do:   "Nothing, if that is intended.",
		}, true
	}
	return Finding{}, false
}

// checkFinding is about an instance that nothing checks.
func checkFinding(i Instance) (Finding, bool) {
	if i.Checks > 0 || i.Sidecar {
		return Finding{}, false
	}
	return Finding{
		Severity: SeverityWarning, Code: CodeNoCheck,
		Seen: "it was registered without a check",
		Why:  "It passes as long as its node's agent lives: when the process hangs or is killed, it goes on getting requests.",
		Do:   "Register it with a check and deregister_critical_service_after. Until then, health.active in sluice's configuration checks it from here.",
	}, true
}

// criticalFinding is about an instance that fails its checks. Since is from when
// on a running sluice has it out of service, if that is known.
func (f *Facts) criticalFinding(i Instance, t Thresholds, since time.Time, known bool) (Finding, bool) {
	if i.Status != discovery.StatusCritical || i.Critical == "" || f.Nodes[i.Node].Liveness == NodeDead {
		return Finding{}, false
	}
	finding := Finding{
		Severity: SeverityWarning, Code: CodeCriticalLong,
		Why:     "It gets no request. Consul goes on checking it until somebody deregisters it, or its check has deregister_critical_service_after.",
		Do:      "Repair it, or deregister it through its own agent, on the machine of its node.",
		Command: f.agentDeregister(i),
	}
	untouched := ""
	if i.Untouched {
		untouched = "; that check has not changed since it was registered"
	}
	if known {
		age := f.Time.Sub(since)
		if age < t.CriticalFor {
			return Finding{}, false
		}
		finding.Seen = fmt.Sprintf("critical for at least %s: %s%s", duration(age), i.Critical, untouched)
		return finding, true
	}
	finding.Severity, finding.Code = SeverityNotice, CodeCritical
	finding.Seen = "critical: " + i.Critical + untouched
	finding.Why += " Since when is not known: Consul does not keep it, and "
	if f.PeersKnown {
		finding.Why += "the running sluice does not serve it."
	} else {
		finding.Why += "no running sluice was there to tell (--admin)."
	}
	return finding, true
}

// duration shows d in minutes, or hours and minutes.
func duration(d time.Duration) string {
	if d < time.Hour {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}

// quoted returns ": text", or nothing for no text.
func quoted(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// agentDeregister is the command that deregisters i through its own agent. It
// names that agent, or its machine: another agent may have the same id.
func (f *Facts) agentDeregister(i Instance) string {
	command := "consul services deregister -id=" + shellWord(i.ID)
	switch owner := f.Owners[i.Node]; {
	case owner.URL != "" && owner.Problem == "":
		return command + " -http-addr=" + shellWord(owner.URL)
	case i.Node == f.Agent.Node && !f.Remote:
		return command + " -http-addr=" + shellWord(f.Agent.URL)
	case strings.HasPrefix(i.Node, "-"):
		return "" // ssh would take it for an option
	}
	return "ssh " + shellWord(i.Node) + " " + shellWord(command)
}

// catalogDeregister is the command that takes i out of the catalog alone.
func catalogDeregister(i Instance) string {
	body, _ := json.Marshal(map[string]string{"Node": i.Node, "ServiceID": i.ID}) // strings can always be encoded
	return `curl -X PUT -H "X-Consul-Token: $CONSUL_HTTP_TOKEN" -d ` + shellWord(string(body)) + ` "$CONSUL_HTTP_ADDR/v1/catalog/deregister"`
}

// shellWord quotes s for a shell if that is needed.
func shellWord(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:/=@%+,", r))
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
