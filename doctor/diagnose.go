package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// behindAfter is how old the data of a server may be.
	behindAfter = 5 * time.Second

	// expiresSoon is how long before its end a token is worth a word.
	expiresSoon = 7 * 24 * time.Hour
)

// Thresholds are what a diagnosis depends on beside the facts.
type Thresholds struct {
	CriticalFor time.Duration // from when on an instance is critical for long
}

// Diagnose returns what is wrong, the worst first. It is pure.
func Diagnose(f *Facts, t Thresholds) []Finding {
	findings := append(f.agentFindings(), f.tokenFindings()...)
	rules := []func() []Finding{
		f.useFindings,
		f.duplicateFindings,
		f.conflictFindings,
		f.sharedFindings,
		func() []Finding { return f.instanceFindings(t) },
	}
	if f.Blind != "" {
		rules = nil
	}
	for _, rule := range rules {
		findings = append(findings, rule()...)
	}
	slices.SortStableFunc(findings, compare)
	return findings
}

// agentFindings are about the agent that was asked.
func (f *Facts) agentFindings() []Finding {
	findings := []Finding{}
	a := f.Agent
	if a.Leader == "" {
		why := "Without a leader Consul takes no registration, no deregistration and no result of a check. sluice keeps the peers that it has."
		if f.Blind == "" {
			why += " What follows may be out of date."
		} else {
			why += " The catalog cannot be read: " + f.Blind + "."
		}
		findings = append(findings, Finding{
			Severity: SeverityError, Code: CodeNoLeader, Node: a.Node,
			Seen:    fmt.Sprintf("the agent at %s knows no leader", a.URL),
			Why:     why,
			Do:      "Look at the servers: are a majority of them up, and do they reach each other?",
			Command: "consul operator raft list-peers -stale",
		})
	}
	if a.LastContact > behindAfter {
		findings = append(findings, Finding{
			Severity: SeverityWarning, Code: CodeAgentBehind, Node: a.Node,
			Seen: fmt.Sprintf("the server behind the agent at %s last heard from the leader %v ago", a.URL, a.LastContact.Round(time.Second)),
			Why:  "What it answers to queries in the mode \"stale\" is that old: instances that left still get requests.",
			Do:   "Look at the load and the network of that server; ask another agent meanwhile.",
		})
	}
	if a.MaxConnections > 0 && f.MaxWatches >= a.MaxConnections {
		findings = append(findings, Finding{
			Severity: SeverityWarning, Code: CodeConnectionLimit, Node: a.Node,
			Seen: fmt.Sprintf("sluice may open %d connections (consul.max_watches), the agent takes %d from one address (limits.http_max_conns_per_client)", f.MaxWatches, a.MaxConnections),
			Why:  "Beyond its limit the agent answers 429: to sluice, and to every other program on the same machine.",
			Do:   "Lower consul.max_watches, or raise limits.http_max_conns_per_client of the agent and reload it.",
		})
	}
	return findings
}

// readPolicy is what it takes to see everything.
const readPolicy = `service_prefix "" { policy = "read" }
node_prefix    "" { policy = "read" }
agent_prefix   "" { policy = "read" }
`

// tokenFindings are about ACLs, but for those of single services.
func (f *Facts) tokenFindings() []Finding {
	var findings []Finding
	if f.Token.Anonymous && f.Token.DefaultDeny {
		findings = append(findings, Finding{
			Severity: SeverityError, Code: CodeACLAnonymous,
			Seen:   "no token was sent, and Consul's default policy is deny",
			Why:    "Consul shows the anonymous only what the anonymous token's policy allows, and does not say that it left something out. What follows may be a small part of the truth.",
			Do:     "Name a token: CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_TOKEN, or consul.token_file in the configuration. This policy lets it see everything.",
			Policy: readPolicy,
		})
	}
	if len(f.Filtered) > 0 {
		findings = append(findings, Finding{
			Severity: SeverityWarning, Code: CodeACLFiltered,
			Seen:   "Consul left something out of its answers to " + strings.Join(f.Filtered, ", "),
			Why:    "The token may not see every service or node, so there may be more to find than this, and what looks missing may be there.",
			Do:     "Use a token with this policy.",
			Policy: readPolicy,
		})
	}
	if f.Agent.Refused != "" {
		findings = append(findings, Finding{
			Severity: SeverityNotice, Code: CodeACLAgent,
			Seen:   "the agent does not say who it is: " + f.Agent.Refused,
			Why:    "Which node is this machine's own, the agent's version and its limit of connections are not known.",
			Do:     "Use a token with this policy.",
			Policy: `agent_prefix "" { policy = "read" }` + "\n",
		})
	}
	if e := f.Token.Expires; !e.IsZero() && e.Sub(f.Time) < expiresSoon {
		findings = append(findings, Finding{
			Severity: SeverityWarning, Code: CodeTokenExpires,
			Seen: fmt.Sprintf("the token %q expires at %s, in %v", f.Token.Name, e.UTC().Format(time.RFC3339), e.Sub(f.Time).Round(time.Minute)),
			Why:  "From then on Consul answers 403. sluice keeps the peers that it has, and follows no change.",
			Do:   "Put a new token into consul.token_file: it is read again for each query, nothing needs a restart.",
		})
	}
	return findings
}

// useFindings are about the services that are wanted, and those of Consul that
// the configuration does not use.
func (f *Facts) useFindings() []Finding {
	var findings []Finding
	used := make(map[string]bool)
	for _, u := range f.Uses {
		used[u.Service] = used[u.Service] || u.Routed && u.Name != ""
		if finding, wrong := u.finding(f); wrong {
			findings = append(findings, finding)
		}
		if !u.Routed {
			findings = append(findings, Finding{
				Severity: SeverityNotice, Code: CodeUnrouted, Service: cmp.Or(u.Service, u.Name),
				Seen: fmt.Sprintf("services.%s is in the configuration, and no route leads to it", u.Name),
				Why:  "It is watched and checked, and gets no request.",
				Do:   "Add a route, or take it out of the file.",
			})
		}
	}
	if !f.Configured {
		return findings
	}
	found := make(map[string]int)
	for _, i := range f.Instances {
		if !used[i.Service] && !i.Sidecar && i.Service != f.Own {
			found[i.Service]++
		}
	}
	for service, instances := range found {
		findings = append(findings, Finding{
			Severity: SeverityNotice, Code: CodeUnused, Service: service,
			Seen: fmt.Sprintf("Consul has %s of it, and no route leads to it", plural(instances, "instance")),
			Why:  "sluice sends it no request.",
			Do:   "Nothing, if others serve it. Else name it in a route.",
		})
	}
	return findings
}

// finding says what is wrong with the instances that u selects.
func (u Use) finding(f *Facts) (Finding, bool) {
	finding := Finding{Severity: SeverityError, Service: cmp.Or(u.Service, u.Name)}
	if !u.Routed {
		finding.Severity = SeverityWarning
	}
	selected := ""
	if u.Selected != "" {
		selected = " (" + u.Selected + ")"
	}
	policy := fmt.Sprintf("service     %q { policy = \"read\" }\nnode_prefix \"\" { policy = \"read\" }\n", finding.Service)
	const dark = "sluice answers 503 for this service, or goes on with peers that it saw before."
	switch {
	case u.Forbidden:
		finding.Code = CodeACLService
		finding.Seen = "Consul refuses to list it: " + u.Refused
		finding.Why, finding.Do, finding.Policy = dark, "Give the token this policy.", policy
	case u.Refused != "":
		finding.Code = CodeServiceRefused
		finding.Seen = "Consul does not list it" + selected + ": " + u.Refused
		finding.Why, finding.Do = dark, "Compare the service's section consul in the configuration with Consul's words."
	case u.Listed == 0 && u.Hidden:
		finding.Code = CodeACLService
		finding.Seen = "Consul lists none of its instances" + selected + ", because the token may not see them"
		finding.Why, finding.Do, finding.Policy = dark, "Give the token this policy.", policy
	case u.Listed == 0:
		finding.Code = CodeServiceMissing
		finding.Seen = "Consul has no instance of it" + selected
		if u.Name != "" {
			finding.Seen = "services." + u.Name + " is in the configuration, and " + finding.Seen
		}
		finding.Why = dark
		finding.Do = "Does the application run, and does it register in this data centre, under this very name and these tags?"
		if f.Token.Anonymous && f.Token.DefaultDeny {
			finding.Do = "It may be there and hidden: look again with a token."
		}
	case u.Serving == 0:
		finding.Code = CodeServiceEmpty
		finding.Seen = fmt.Sprintf("Consul has %s%s, and requests may go to none", plural(u.Listed, "instance"), selected)
		finding.Why = dark
		finding.Do = "Look at the checks: the findings on its instances have their words, so does sluice peers."
	default:
		return Finding{}, false
	}
	return finding, true
}

// plural returns "1 instance" or "3 instances".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
