package doctor

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/config"
	"sluice/config/chain"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
)

// expiresSoon is the time before the end of a root in which it is reported.
const expiresSoon = 30 * 24 * time.Hour

// meshFindings are about the service mesh.
func (f *Facts) meshFindings() (findings []Finding) {
	m := f.Mesh
	if m == nil {
		return nil
	}
	findings = append(m.rootFindings(f.Time), m.identityFindings(f.Time)...)
	findings = append(findings, m.sourceFindings()...)
	for _, s := range m.Services {
		add := func(service string, about []Finding) {
			for _, finding := range about {
				if finding.Service = service; finding.Severity == SeverityError && !s.Routed {
					finding.Severity = SeverityWarning
				}
				findings = append(findings, finding)
			}
		}
		add(s.Service, s.refusedFindings())
		add(s.Service, s.protocolFindings())
		add(s.Service, s.chainFindings(f.Config))
		for _, to := range s.Destinations {
			add(to.Service, s.missingFindings(to))
			add(to.Service, s.deniedFindings(m, to))
		}
	}
	return findings
}

// rootFindings are about the roots, if there are any.
func (m *Mesh) rootFindings(now time.Time) (findings []Finding) {
	active := 0
	report := func(severity Severity, seen, why, do string) {
		findings = append(findings, Finding{Severity: severity, Code: CodeMeshRoot, Seen: seen, Why: why, Do: do})
	}
	const (
		dies   = "Every service of the mesh has a certificate of this root: no connection succeeds without it."
		rotate = "Give Consul's certificate authority another root: consul connect ca set-config."
	)
	for _, r := range m.Roots {
		if r.Active {
			active++
		}
		switch c := r.Certificate; {
		case c == nil:
			report(SeverityError, fmt.Sprintf("the root %s cannot be read: %s", r.Name, r.Problem), dies, "Check the configuration of Consul's certificate authority.")
		case !now.Before(c.NotAfter) && r.Active:
			report(SeverityError, fmt.Sprintf("the root %s expired at %s", r.Name, utc(c.NotAfter)), dies, rotate)
		case !now.Before(c.NotAfter):
			report(SeverityWarning, fmt.Sprintf("the root %s, which signs nothing any more, expired at %s", r.Name, utc(c.NotAfter)),
				"Services that still have certificates of it cannot be reached.", "Restart the agents and proxies that have not renewed theirs.")
		case now.Add(expiresSoon).After(c.NotAfter) && r.Active:
			report(SeverityWarning, fmt.Sprintf("the root %s expires at %s", r.Name, utc(c.NotAfter)), dies, rotate)
		}
	}
	if len(m.Roots) > 0 && active != 1 {
		report(SeverityError, fmt.Sprintf("%s of %d are active, want 1", plural(active, "root"), len(m.Roots)),
			"Which root signs certificates is not defined.", "Check Consul's log, and set the configuration of its certificate authority again.")
	}
	return findings
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// identityFindings are about sluice's certificate.
func (m *Mesh) identityFindings(now time.Time) []Finding {
	finding := Finding{
		Severity: SeverityError, Code: CodeMeshIdentity, Service: m.Name,
		Why: "sluice needs a certificate of the mesh for every connection to it: its services get no requests.",
	}
	switch {
	case m.Forbidden:
		finding.Seen = fmt.Sprintf("Consul gives no certificate for %s: %s", m.Name, m.Refused)
		finding.Do = "Give the token this policy."
		finding.Policy = fmt.Sprintf("service %q { policy = \"write\" }\n", m.Name)
	case m.Refused != "":
		finding.Seen = fmt.Sprintf("Consul gives no certificate for %s: %s", m.Name, m.Refused)
		finding.Do = "Check that the mesh is enabled on Consul's servers, connect { enabled = true }, and that it has a certificate authority."
	default:
		if finding.Seen = m.leafProblem(now); finding.Seen == "" {
			return nil
		}
		finding.Do = "Ask the agent for another one: restart it, and look at its log for errors of its certificate authority."
	}
	return []Finding{finding}
}

// leafProblem returns what is wrong with sluice's certificate; "": nothing.
func (m *Mesh) leafProblem(now time.Time) string {
	leaf := m.Leaf[0]
	if !now.Before(leaf.NotAfter) {
		return fmt.Sprintf("the certificate of %s expired at %s, and Consul's agent has no other", m.Name, utc(leaf.NotAfter))
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range m.Roots {
		if r.Certificate != nil {
			roots.AddCert(r.Certificate)
		}
	}
	for _, c := range m.Leaf[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return fmt.Sprintf("the certificate of %s does not fit the roots: %v", m.Name, err)
	}
	prefix, suffix := "spiffe://"+m.TrustDomain+"/", "/svc/"+m.Name
	if len(leaf.URIs) != 1 || !hasFold(leaf.URIs[0].String(), prefix, suffix) {
		return fmt.Sprintf("the certificate is for %v, want one URI %s…%s", leaf.URIs, prefix, suffix)
	}
	return ""
}

// hasFold reports whether s has a prefix and a suffix, in whatever case.
func hasFold(s, prefix, suffix string) bool {
	s = strings.ToLower(s)
	return strings.HasPrefix(s, strings.ToLower(prefix)) && strings.HasSuffix(s, strings.ToLower(suffix))
}

// refusedFindings report that it is not known how the service is reached.
func (s MeshService) refusedFindings() []Finding {
	refused, forbidden, services := s.Refused, s.Forbidden, []string{s.Service}
	for _, to := range s.Destinations {
		if to.Refused != "" {
			refused, forbidden = cmp.Or(refused, to.Service+": "+to.Refused), forbidden || to.Forbidden
			services = append(services, to.Service)
		}
	}
	if refused == "" {
		return nil
	}
	finding := Finding{
		Severity: SeverityError, Code: CodeMeshRefused,
		Seen: "Consul does not say how it is reached through the mesh: " + refused,
		Why:  "sluice needs its discovery chain, and the instances and intentions of all destinations in it. Without them it answers 503, or keeps what it had.",
		Do:   "Check the config entries of the service against Consul's error.",
	}
	if forbidden {
		finding.Do, finding.Policy = "Give the token this policy.", meshPolicy(services...)
	}
	return []Finding{finding}
}

// meshPolicy is what reading services in the mesh needs.
func meshPolicy(services ...string) string {
	rules := ""
	slices.Sort(services)
	for _, name := range slices.Compact(services) {
		rules += fmt.Sprintf("service_prefix %q { policy = \"read\" }\n", name)
	}
	return rules + "node_prefix    \"\" { policy = \"read\" }\n"
}

// missingFindings report that no instance of a destination can be reached through the mesh.
func (s MeshService) missingFindings(to Destination) []Finding {
	finding := Finding{
		Severity: SeverityError, Code: CodeMeshMissing,
		Why: "sluice answers 503 for this service, or keeps the peers that it had.",
		Do:  "Register the service with a sidecar, connect { sidecar_service {} }, and start it.",
	}
	if slices.ContainsFunc(s.Destinations, func(other Destination) bool { return other.Serving > 0 }) {
		finding.Severity = SeverityWarning
		finding.Why = fmt.Sprintf("The discovery chain of %s leads to it: requests that go there get 503, unless other instances stand in.", s.Service)
	}
	switch {
	case to.Refused != "" || to.Serving > 0:
		return nil
	case to.Hidden:
		finding.Seen = "ACLs hide instances of it in the mesh, and none is visible that is in service"
		finding.Do, finding.Policy = "Give the token this policy: the sidecars have names of their own, which begin with the name of the service.", meshPolicy(to.Service)
	case to.Listed > 0:
		finding.Seen = fmt.Sprintf("Consul has %s of it in the mesh, and none is in service", plural(to.Listed, "instance"))
		finding.Do = "Look at the checks of its sidecars: the first one passes when the sidecar listens."
	case to.Apps > 0:
		finding.Seen = fmt.Sprintf("Consul has %s of it, and none in the mesh: none has a sidecar or is native", plural(to.Apps, "instance"))
		finding.Do += fmt.Sprintf(" Or take services.%s.consul.connect out of the configuration.", s.Name)
	case to.Service == s.Service && to.Datacenter == "": // all are missing: see Use.finding
		return nil
	default:
		finding.Seen = "Consul has no instance of it in the mesh"
		if to.Datacenter != "" {
			finding.Seen += ", in the data centre " + to.Datacenter
		}
	}
	return []Finding{finding}
}

// deniedFindings report that sluice gets no connection to a destination.
func (s MeshService) deniedFindings(m *Mesh, to Destination) []Finding {
	if to.Denied == "" {
		return nil
	}
	return []Finding{{
		Severity: SeverityError, Code: CodeMeshDenied,
		Seen: fmt.Sprintf("%s may not connect: %s", m.Name, to.Denied),
		Why:  "The destination ends every connection of sluice, or refuses its requests: none gets through.",
		Do: fmt.Sprintf("If clients of sluice may use it, add the source %s with the action allow to its service-intentions. One for a name has precedence over one for all.",
			m.Name),
	}}
}

// protocolFindings report that what sluice speaks contradicts the protocol in service-defaults.
func (s MeshService) protocolFindings() []Finding {
	finding := Finding{Severity: SeverityWarning, Code: CodeMeshProtocol}
	const defaults = "service-defaults have the protocol "
	byRequest := s.Protocol != "" && s.Protocol != "tcp"
	switch {
	case s.Listener != "" && byRequest && len(s.Entries) > 0:
		finding.Severity = SeverityError
		finding.Seen = fmt.Sprintf("%s%s and it has a service-%s, and the listener %s for TCP leads to it", defaults, s.Protocol, strings.Join(s.Entries, " and a service-"), s.Listener)
		finding.Why = "A connection is not read as requests: the listener leads to the service's own instances, whatever the config entries say."
		finding.Do = "Use a listener and routes for HTTP, or the protocol tcp without these config entries."
	case s.Listener != "" && byRequest:
		finding.Seen = fmt.Sprintf("%s%s, and the listener %s for TCP leads to it", defaults, s.Protocol, s.Listener)
		finding.Why = "Its sidecars take requests of HTTP only: they end every other connection."
		finding.Do = "Use a listener and routes for HTTP, or the protocol tcp."
	case s.HTTP2 && s.Protocol == "http":
		finding.Seen = defaults + "http, and upstream.protocol is h2"
		finding.Why = "Its sidecars forward requests of HTTP/2 by HTTP/1.1: calls of gRPC fail, and trailers are lost."
		finding.Do = "Set the protocol http2 or grpc in service-defaults, or take upstream.protocol out of the configuration."
	default:
		return nil
	}
	return []Finding{finding}
}

// chainFindings report what sluice does not carry out of a discovery chain.
func (s MeshService) chainFindings(c *config.Config) (findings []Finding) {
	if s.Chain == nil {
		return nil
	}
	from := config.DefaultService()
	from.Consul = &config.ConsulService{ServiceOptions: consulsource.ServiceOptions{Service: s.Service, Connect: true}}
	if c != nil && c.Services[s.Name].Consul != nil {
		from = c.Services[s.Name]
	}
	result, err := chain.Translate(s.Name, from, "", s.Chain)
	if err != nil {
		return []Finding{{
			Severity: SeverityError, Code: CodeMeshChain,
			Seen: "sluice cannot use its discovery chain: " + err.Error(),
			Why:  "sluice uses the former one, or answers 503 if it has none.",
			Do:   "Change the config entries of the service.",
		}}
	}
	for _, problem := range result.Problems {
		findings = append(findings, Finding{
			Severity: SeverityWarning, Code: CodeMeshChain,
			Seen: problem,
			Why:  "sluice does not carry this out. The rest of the discovery chain is in use.",
			Do:   "Change the config entry, or set this in sluice's configuration.",
		})
	}
	return findings
}

// sidecarFindings are about a sidecar whose service is not registered.
func (f *Facts) sidecarFindings(i Instance) []Finding {
	if i.Proxied == "" || len(f.Filtered) > 0 || len(f.Only) > 0 && !slices.Contains(f.Only, i.Proxied) {
		return nil
	}
	if slices.ContainsFunc(f.Instances, func(of Instance) bool {
		return of.Service == i.Proxied && (i.ProxiedID == "" || of.ID == i.ProxiedID && of.Node == i.Node)
	}) {
		return nil
	}
	finding := Finding{
		Severity: SeverityWarning, Code: CodeMeshSidecar,
		Seen: fmt.Sprintf("it is the sidecar of %s, which is not registered", strings.TrimSpace(i.Proxied+" "+i.ProxiedID)),
		Why:  "Consul lists it as an instance of the service in the mesh, and nothing answers behind it.",
		Do:   "Register the service again, or deregister the sidecar through its own agent.", Command: f.agentDeregister(i),
	}
	if i.Status == discovery.StatusPassing {
		finding.Severity = SeverityError
		finding.Why += " Its checks pass, so requests reach it."
	}
	return []Finding{finding}
}
