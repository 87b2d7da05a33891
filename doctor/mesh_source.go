package doctor

import (
	"context"
	"slices"

	"github.com/hashicorp/consul/api"
)

// querySource returns what config entries say about sluice as the source of connections, each as
// an entry and a field. Envoy beside sluice would carry it out; sluice has no such proxy. What
// the token may not read is left out.
func (d *Doctor) querySource(ctx context.Context, name string) (fields []string) {
	get := func(kind, name string) api.ConfigEntry {
		e, _, err := d.api.ConfigEntries().Get(kind, name, query(ctx))
		if err != nil {
			return nil // there is none, or it may not be read
		}
		return e
	}
	if e, ok := get(api.ServiceDefaults, name).(*api.ServiceConfigEntry); ok && e.UpstreamConfig != nil {
		if e.UpstreamConfig.Defaults != nil {
			fields = append(fields, "service-defaults "+name+": UpstreamConfig.Defaults")
		}
		for _, o := range e.UpstreamConfig.Overrides {
			if o != nil {
				fields = append(fields, "service-defaults "+name+": UpstreamConfig.Overrides of "+o.Name)
			}
		}
	}
	if e, ok := get(api.MeshConfig, api.MeshConfigMesh).(*api.MeshConfigEntry); ok && e.TLS != nil && e.TLS.Outgoing != nil {
		for field, set := range map[string]bool{
			"TLSMinVersion": e.TLS.Outgoing.TLSMinVersion != "", "TLSMaxVersion": e.TLS.Outgoing.TLSMaxVersion != "",
			"CipherSuites": len(e.TLS.Outgoing.CipherSuites) > 0,
		} {
			if set {
				fields = append(fields, "mesh: TLS.Outgoing."+field)
			}
		}
	}
	if get(api.IngressGateway, name) != nil {
		fields = append(fields, "ingress-gateway "+name)
	}
	slices.Sort(fields)
	return fields
}

// sourceFindings report what config entries say about sluice as the source of connections.
func (m *Mesh) sourceFindings() (findings []Finding) {
	for _, field := range m.Source {
		findings = append(findings, Finding{
			Severity: SeverityWarning, Code: CodeMeshSource, Service: m.Name,
			Seen: field + " is not carried out",
			Why:  "The entry is about the proxy beside sluice, and there is none: the settings of sluice's own configuration hold.",
			Do:   "Set this in sluice's configuration (limits, timeouts, health and listeners), and take it out of the entry.",
		})
	}
	return findings
}
