package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Diagnose returns the findings, the worst first: critical-long is one after criticalFor. It is
// pure.
func Diagnose(f *Facts, criticalFor time.Duration) []Finding {
	resolved := *f
	f = &resolved
	f.tags = f.resolveTags()
	findings := append(append(f.agentFindings(), f.tokenFindings()...), f.bufferFindings()...)
	if f.Blind == "" {
		findings = append(findings, slices.Concat(
			f.useFindings(), f.nameFindings(), f.duplicateFindings(), f.sharedFindings(), f.meshFindings(), f.tags.findings(), f.instanceFindings(criticalFor),
		)...)
	}
	slices.SortStableFunc(findings, compare)
	return findings
}

// nameFindings are about services with names that no query can ask for.
func (f *Facts) nameFindings() []Finding {
	var findings []Finding
	for _, name := range f.Unlisted {
		findings = append(findings, Finding{
			Severity: SeverityWarning, Code: CodeServiceName, Service: name,
			Seen: fmt.Sprintf("a service has the name %q", name),
			Why:  "Consul cannot list its instances: in the path of the query the name leads elsewhere. sluice does not use the service.",
			Do:   "Register it with another name.",
		})
	}
	return findings
}

func (f *Facts) agentFindings() []Finding {
	findings := []Finding{}
	a := f.Agent
	if a.Leader == "" {
		why := "Without a leader Consul accepts no registrations, deregistrations and check results. sluice keeps its peers."
		if f.Blind == "" {
			why += " The findings below may be out of date."
		} else {
			why += " The catalog cannot be read: " + f.Blind + "."
		}
		findings = append(findings, Finding{
			Severity: SeverityError, Code: CodeNoLeader, Node: a.Node,
			Seen:    fmt.Sprintf("the agent at %s knows no leader", a.URL),
			Why:     why,
			Do:      "Check that a majority of the servers is up and that they reach each other.",
			Command: "consul operator raft list-peers -stale",
		})
	}
	return findings
}

// readPolicy is the ACL policy that shows everything.
const readPolicy = `service_prefix "" { policy = "read" }
node_prefix    "" { policy = "read" }
agent_prefix   "" { policy = "read" }
`

// tokenFindings are about ACLs, except the ACLs of single services.
func (f *Facts) tokenFindings() []Finding {
	var findings []Finding
	if f.Token.Anonymous && f.Token.DefaultDeny {
		findings = append(findings, Finding{
			Severity: SeverityError, Code: CodeACLAnonymous,
			Seen:   "no token was sent, and Consul's default policy is deny",
			Why:    "Consul shows only what the anonymous token's policy allows, and does not report what it omits. The findings below may be incomplete.",
			Do:     "Set a token: CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_TOKEN, or consul.token_file in the configuration. This policy shows everything.",
			Policy: readPolicy,
		})
	}
	if len(f.Filtered) > 0 {
		findings = append(findings, Finding{
			Severity: SeverityWarning, Code: CodeACLFiltered,
			Seen:   "ACLs filtered Consul's answers to " + strings.Join(f.Filtered, ", "),
			Why:    "The token may not read every service or node: findings may be missing, and services reported as missing may exist.",
			Do:     "Use a token with this policy.",
			Policy: readPolicy,
		})
	}
	if f.Agent.Refused != "" {
		findings = append(findings, Finding{
			Severity: SeverityNotice, Code: CodeACLAgent,
			Seen:   "the agent refuses /v1/agent/self: " + f.Agent.Refused,
			Why:    "The agent's node and version are unknown.",
			Do:     "Use a token with this policy.",
			Policy: `agent_prefix "" { policy = "read" }` + "\n",
		})
	}
	return findings
}

// useFindings are about the configured services, and services of Consul without a
// route.
func (f *Facts) useFindings() []Finding {
	var findings []Finding
	used := make(map[string]bool)
	for _, u := range f.Uses {
		u.Routed = u.Routed || f.tags.routed[u.Service]
		used[u.Service] = used[u.Service] || u.Routed && u.Name != ""
		findings = append(findings, u.findings(f)...)
		if !u.Routed {
			findings = append(findings, Finding{
				Severity: SeverityNotice, Code: CodeUnrouted, Service: cmp.Or(u.Service, u.Name),
				Seen: fmt.Sprintf("services.%s is in the configuration, and no route leads to it", u.Name),
				Why:  "It gets no request.",
				Do:   "Add a route, or remove the service from the file.",
			})
		}
	}
	if f.Config == nil {
		return findings
	}
	found := make(map[string]int)
	for _, i := range f.Instances {
		if !used[i.Service] && !i.Sidecar && i.Service != f.Own && !f.tags.routed[i.Service] {
			found[i.Service]++
		}
	}
	for service, instances := range found {
		findings = append(findings, Finding{
			Severity: SeverityNotice, Code: CodeUnused, Service: service,
			Seen: fmt.Sprintf("Consul has %s of it, and no route leads to it", plural(instances, "instance")),
			Why:  "sluice sends it no request.",
			Do:   "Add a route if sluice should serve it.",
		})
	}
	return findings
}

// findings report a service whose selection has no serving instance.
func (u Use) findings(f *Facts) []Finding {
	finding := Finding{Severity: SeverityError, Service: cmp.Or(u.Service, u.Name)}
	if !u.Routed {
		finding.Severity = SeverityWarning
	}
	selected := ""
	if u.Selected != "" {
		selected = " (" + u.Selected + ")"
	}
	policy := fmt.Sprintf("service     %q { policy = \"read\" }\nnode_prefix \"\" { policy = \"read\" }\n", finding.Service)
	const why = "sluice answers 503 for this service, or keeps the peers that it had."
	switch {
	case u.Forbidden:
		finding.Code = CodeACLService
		finding.Seen = "Consul refuses to list it: " + u.Refused
		finding.Why, finding.Do, finding.Policy = why, "Give the token this policy.", policy
	case u.Refused != "":
		finding.Code = CodeServiceRefused
		finding.Seen = "Consul does not list it" + selected + ": " + u.Refused
		finding.Why, finding.Do = why, "Check the service's consul section in the configuration against Consul's error."
	case u.Listed == 0 && u.Hidden:
		finding.Code = CodeACLService
		finding.Seen = "ACLs hide all of its instances" + selected
		finding.Why, finding.Do, finding.Policy = why, "Give the token this policy.", policy
	case u.Listed == 0:
		finding.Code = CodeServiceMissing
		finding.Seen = "Consul has no instance of it" + selected
		if u.Name != "" {
			finding.Seen = "services." + u.Name + " is in the configuration, and " + finding.Seen
		}
		finding.Why = why
		finding.Do = "Check that the application runs and registers in this data centre, with this name and these tags."
		if f.Token.Anonymous && f.Token.DefaultDeny {
			finding.Do = "ACLs may hide it: run the doctor with a token."
		}
	case u.Serving == 0:
		finding.Code = CodeServiceEmpty
		finding.Seen = fmt.Sprintf("Consul has %s%s, and none is in service", plural(u.Listed, "instance"), selected)
		finding.Why = why
		finding.Do = "Look at the output of the checks: in the findings about its instances, or in sluice peers."
	default:
		return nil
	}
	return []Finding{finding}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
