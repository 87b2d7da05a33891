// Package listeners has the TLS of listeners for clients: certificates from files, Consul and ACME,
// and keys of session tickets. What is in use outlives the listeners, and a new process gets it.
package listeners

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/certificates/acme"
	"sluice/certificates/kv"
	"sluice/config"
	"sluice/consul"
	"sluice/proxy/handover"
)

// Options configure a Manager.
type Options struct {
	Consul *consul.Client
	Wait   func() time.Duration      // of blocking queries
	Copies string                    // the directory of copies of what Consul has; "": none
	Others func() []certificates.Use // the uses of certificates by others than listeners
	// Revoked is called after revoked certificates of listeners change. It must not call Manager.
	Revoked func()
	Log     zerolog.Logger
}

// Manager has the TLS of all listeners. Its methods may be called concurrently.
type Manager struct {
	options     Options
	authorities *authorities
	kv          *kv.Manager
	tickets     certificates.TicketKeys

	updating  sync.Mutex // held by update: the listeners that it read last count
	obtaining sync.Mutex // held by Obtain: the names that it read last count

	inUse atomic.Pointer[[]*TLS] // the slice is replaced, not changed
}

// New returns a Manager without listeners.
func New(o Options) *Manager {
	m := &Manager{options: o}
	m.inUse.Store(new([]*TLS))
	m.authorities = &authorities{consul: o.Consul, log: o.Log, managers: make(map[authority]*acme.Manager)}
	m.kv = kv.New(kv.Options{Consul: o.Consul, Wait: o.Wait, Copies: o.Copies, Changed: m.update, Log: o.Log})
	return m
}

// Use sets the TLS of the listeners in use; nil: without TLS. What others use stays until Retain.
func (m *Manager) Use(all []*TLS) {
	all = slices.DeleteFunc(slices.Clone(all), func(t *TLS) bool { return t == nil })
	m.inUse.Store(&all)
	m.RotateKeys(time.Now())
	m.update()
}

func (m *Manager) used() []*TLS { return *m.inUse.Load() }

// Retain ends what no listener in use uses.
func (m *Manager) Retain() {
	m.authorities.retain(acmeUses(m.used()))
	m.kv.Retain(prefixes(m.used()))
}

// EndChallenges ends orders: challenges cannot be answered any more. Certificates in use stay.
func (m *Manager) EndChallenges() { m.authorities.retain(nil) }

// Close ends everything.
func (m *Manager) Close() {
	m.inUse.Store(new([]*TLS))
	m.Retain()
	m.authorities.removing.Wait()
}

// Obtain begins to obtain and renew certificates by ACME: the listeners answer challenges now.
func (m *Manager) Obtain() {
	m.obtaining.Lock()
	defer m.obtaining.Unlock()
	m.authorities.obtain(acmeUses(m.used()))
}

// UseRoutes sets the routes of c, whose hosts listeners with acme.routes get certificates for: call
// it before Await, and Obtain once challenges are answered.
func (m *Manager) UseRoutes(all []*TLS, c *config.Config) {
	for _, t := range all {
		if t != nil && t.acme != nil && len(t.acme.settings.Routes) > 0 {
			t.acme.route(c.RouteHosts(t.listener))
		}
	}
}

// AnswerChallenge returns the response to an HTTP challenge of the order of a listener.
func (m *Manager) AnswerChallenge(host, path string) ([]byte, bool) {
	for _, u := range acmeUses(m.used()) {
		if body, ok := u.HTTPChallenge(host, path); ok {
			return body, true
		}
	}
	return nil, false
}

// Await waits, at most for timeout, for the certificates of listeners; nil: of those in use.
func (m *Manager) Await(ctx context.Context, all []*TLS, timeout time.Duration) {
	if all == nil {
		all = m.used()
	}
	over := time.After(timeout)
	loading, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, u := range acmeUses(all) {
		u.Load(loading, u.names())
	}
	awaitAll(ctx, prefixes(all), over)
}

// AwaitPrefixes waits, at most for timeout, for certificates in Consul of listeners in use.
func (m *Manager) AwaitPrefixes(ctx context.Context, timeout time.Duration) {
	awaitAll(ctx, prefixes(m.used()), time.After(timeout))
}

// Refresh makes new connections use the latest certificates of all sources, also of others.
func (m *Manager) Refresh() {
	for _, use := range m.uses() {
		use.Refresh()
	}
	if slices.ContainsFunc(acmeUses(m.used()), func(u *acmeUse) bool { return u.routed.waits() }) {
		m.Obtain()
	}
	m.update()
	m.RotateKeys(time.Now())
}

// update makes new connections use the certificates that are known now.
func (m *Manager) update() {
	m.updating.Lock()
	defer m.updating.Unlock()
	changed := false
	for _, t := range m.used() {
		t.update()
		changed = t.publish() || changed
	}
	if changed {
		m.options.Revoked()
	}
}

// RotateKeys makes the listeners use a new key for session tickets, if it is time.
func (m *Manager) RotateKeys(now time.Time) {
	m.tickets.Rotate(now)
	for _, t := range m.used() {
		t.useTicketKeys(&m.tickets)
	}
}

// uses returns all uses of certificates, except by ACME.
func (m *Manager) uses() []certificates.Use {
	uses := m.options.Others()
	for _, t := range m.used() {
		uses = append(uses, t.uses...)
	}
	return uses
}

// Statuses returns the state of all certificates, also the ones of others.
func (m *Manager) Statuses() (all []certificates.Usage) {
	used := m.used()
	for _, t := range used {
		if t.acme == nil {
			continue
		}
		for _, status := range t.acme.Statuses(t.acme.names()) {
			all = append(all, certificates.Usage{UsedBy: t.user, Status: status})
		}
	}
	for _, t := range used {
		all = append(all, certificates.Statuses(t.uses)...)
	}
	return append(all, certificates.Statuses(m.options.Others())...)
}

// Missing returns the listeners in use that have no certificate at all, although they are to have
// one, each as a sentence for people.
func (m *Manager) Missing() (missing []string) {
	for _, t := range m.used() {
		if len(t.ofSources()) > 0 {
			continue
		}
		if t.acme == nil {
			missing = append(missing, t.user+": there is no certificate in Consul yet")
		} else if names := t.acme.names(); len(names) > 0 && len(t.acme.Certificates(names)) == 0 {
			missing = append(missing, t.user+": no certificate has been obtained by ACME yet")
		}
	}
	return missing
}

// Pause ends the watches of Consul until Resume: a new process watches it.
func (m *Manager) Pause() { m.kv.Pause() }

// Resume begins the watches again, after Pause.
func (m *Manager) Resume() { m.kv.Resume() }

// Parts returns what a new process continues with. It is secret.
func (m *Manager) Parts() []handover.Part {
	return []handover.Part{
		handover.NewPart("ticket_keys", m.tickets.All, m.tickets.Restore),
		handover.NewPart("certificates", m.kv.Save, m.kv.Restore),
		handover.NewPart("acme_certificates", m.authorities.save, m.authorities.restore),
	}
}

// acmeUses returns the uses of managers of certificates by ACME.
func acmeUses(all []*TLS) (uses []*acmeUse) {
	for _, t := range all {
		if t != nil && t.acme != nil {
			uses = append(uses, t.acme)
		}
	}
	return uses
}

// prefixes returns the certificates in Consul that are used.
func prefixes(all []*TLS) (used []*kv.Prefix) {
	for _, t := range all {
		if t != nil {
			used = append(used, t.kv...)
		}
	}
	return used
}

// awaitAll waits until the certificates below all prefixes are known, at most until over.
func awaitAll(ctx context.Context, all []*kv.Prefix, over <-chan time.Time) {
	for _, p := range all {
		if !p.Await(ctx, over) {
			return
		}
	}
}
