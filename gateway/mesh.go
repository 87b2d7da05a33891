package gateway

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/consul/mesh"
	"sluice/observe/events"
)

// membership is the place of this process in Consul's service mesh, while a service is reached
// through it.
type membership struct {
	identity   *mesh.Identity
	intentions *mesh.Intentions          // about connections of sluice
	present    func() []mesh.Destination // the services of which there are peers in the mesh
	log        zerolog.Logger

	mu sync.Mutex
	// mu guards the fields below, and is held while they are put to use.
	name    string // of sluice in the mesh; of the last join
	leaving bool   // the configuration does not need the mesh, and there may still be peers in it
}

// newMembership returns a membership that is not used yet. present returns the services of which
// there are peers in the mesh, and denied is called when connections to a service are to end.
func newMembership(r *registries, present func() []mesh.Destination, denied func(mesh.Destination), feed *events.Feed, log zerolog.Logger) *membership {
	c := r.config().Consul
	return &membership{
		identity: mesh.NewIdentity(mesh.IdentityOptions{Consul: r.consul, Wait: r.wait, Events: feed, Log: log}),
		intentions: mesh.NewIntentions(mesh.IntentionOptions{
			Consul: r.consul, Namespace: c.Namespace, Partition: c.Partition, Wait: r.wait, Denied: denied, Events: feed, Log: log,
		}),
		present: present, log: log,
	}
}

// isInMesh reports whether a service is reached through the mesh.
func isInMesh(s config.Service) bool { return s.Consul != nil && s.Consul.Connect }

// needsMesh reports whether a service of c is reached through the mesh.
func needsMesh(c *config.Config) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(c.Services)), isInMesh)
}

// join has the certificate of sluice followed, and the intentions about it, if c needs them.
func (m *membership) join(c *config.Config) {
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
	m.mu.Lock()
	defer m.mu.Unlock()
	m.name, m.leaving = c.Consul.MeshName(), false
	m.identity.Configure(m.name)
	m.intentions.Follow(m.name, append(destinationsOf(c), m.present()...))
}

// leave ends that, if c does not need it, but for the intentions about the services of which there
// are still peers, and the certificate for them: the former instances of a service get requests
// until its new source has a set, and those of a removed one the requests that were matched before.
func (m *membership) leave(c *config.Config) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !needsMesh(c) {
		m.leaving = true
		m.leaveLocked()
	}
}

// leaveAtLast ends what leave has left, as far as there are no peers any more.
func (m *membership) leaveAtLast() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaving {
		m.leaveLocked()
	}
}

func (m *membership) leaveLocked() {
	present := m.present()
	m.intentions.Follow(m.name, present)
	if len(present) == 0 {
		m.leaving = false
		m.identity.Configure("")
	}
}

// await waits until there is a certificate, if one is needed and Consul does not refuse it, at most
// for timeout.
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
