package gateway

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/consul/mesh"
	"sluice/observe/events"
)

// membership is the place of this process in Consul's service mesh, while a service is reached through it.
type membership struct {
	identity   *mesh.Identity
	intentions *mesh.Intentions // about connections of sluice
	name       string           // of sluice in the mesh; of the last join
	log        zerolog.Logger
}

// newMembership returns a membership that is not used yet. denied is called when connections to a service are to end.
func newMembership(r *registries, denied func(mesh.Destination), feed *events.Feed, log zerolog.Logger) *membership {
	c := r.config().Consul
	return &membership{
		identity: mesh.NewIdentity(mesh.IdentityOptions{Consul: r.consul, Wait: r.wait, Events: feed, Log: log}),
		intentions: mesh.NewIntentions(mesh.IntentionOptions{
			Consul: r.consul, Namespace: c.Namespace, Partition: c.Partition, Wait: r.wait, Denied: denied, Events: feed, Log: log,
		}),
		log: log,
	}
}

// isInMesh reports whether a service is reached through the mesh.
func isInMesh(s config.Service) bool { return s.Consul != nil && s.Consul.Connect }

// needsMesh reports whether a service of c is reached through the mesh.
func needsMesh(c *config.Config) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(c.Services)), isInMesh)
}

// join has the certificate of sluice followed, and the intentions about it, if c needs them. present are the services
// of which there are peers already.
func (m *membership) join(c *config.Config, present []mesh.Destination) {
	if !needsMesh(c) {
		return
	}
	roots := make(map[string]string, len(c.Consul.Connect.Peers))
	for name, peer := range c.Consul.Connect.Peers {
		roots[name] = peer.CA
	}
	if err := m.identity.Trust(roots); err != nil {
		m.log.Warn().Err(err).Msg("mesh: no connection to instances of these peered clusters is made")
	}
	m.name = c.Consul.MeshName()
	m.identity.Configure(m.name)
	m.intentions.Follow(m.name, append(destinationsOf(c), present...))
}

// leave ends that, if c does not need it, but for the intentions about the services of which there are still peers: present.
func (m *membership) leave(c *config.Config, present []mesh.Destination) {
	if !needsMesh(c) {
		m.identity.Configure("")
		m.intentions.Follow(m.name, present)
	}
}

// await waits until there is a certificate, if one is needed and Consul does not refuse it, at most for timeout.
func (m *membership) await(ctx context.Context, timeout time.Duration) {
	if m.identity.Service() != "" && !m.identity.Refused() {
		m.identity.Await(ctx, timeout)
	}
}

// missing returns what is wrong with the certificate, and whether waiting may help; "": nothing.
func (m *membership) missing() (text string, wait bool) {
	if m.identity.Service() == "" {
		return "", false
	}
	err := m.identity.Err()
	if err == nil {
		return "", false
	}
	return "mesh: " + err.Error(), m.identity.Current() == nil && !m.identity.Refused()
}
