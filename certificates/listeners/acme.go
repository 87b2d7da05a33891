package listeners

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/certificates/acme"
	"sluice/config"
	"sluice/consul"
	"sluice/observe/panics"
)

// authorities are the managers of certificates by ACME: one for each directory and storage,
// whatever listeners use it. A listener comes and goes with its configuration, and the
// certificates stay. A new manager has the certificates of the others, and of the old
// process, before it knows its storage: a certificate in use is given up only for another
// one. It is safe for concurrent use.
type authorities struct {
	consul *consul.Client
	log    zerolog.Logger

	removing sync.WaitGroup // the records of challenges of managers that are closed

	mu sync.Mutex
	// mu guards the fields below.
	managers map[authority]*acme.Manager
	restored map[string]acme.Pair // of the old process: see save
}

// authority identifies a manager. It is comparable.
type authority struct {
	directory, email, storage, consulKV, encryptionKeys, ca string
	dns                                                     string // of DNS-01; "": without
	http                                                    bool   // HTTP-01 may be used
}

// acmeUse is the use of a manager by a listener.
type acmeUse struct {
	*acme.Manager
	settings *config.ACME
	http     bool // HTTP-01 may be used
	routed   routed
}

// names returns all names that the listener gets certificates for, or waits to order.
func (u *acmeUse) names() []string { return slices.Concat(u.settings.Names, u.routed.all()) }

// due returns the names whose certificates may be ordered or renewed now.
func (u *acmeUse) due() []string {
	return slices.Concat(u.settings.Names, u.routed.due(func(name string) bool { return len(u.Certificates([]string{name})) > 0 }))
}

// route gets certificates for hosts of routes, of those that the settings allow.
func (u *acmeUse) route(hosts []string) {
	u.routed.replace(slices.DeleteFunc(hosts, func(host string) bool {
		return u.isNamed(host) || u.isNamed(acme.Wildcard(host)) || !u.settings.Allows(host)
	}))
}

// suits reports whether the use, or nil, can stay with c, in which its listener is the same.
func (u *acmeUse) suits(c *config.Config) bool {
	return u == nil || u.http == mayUseHTTP(u.settings, c)
}

// covers reports whether a certificate that the listener gets by ACME is for a name.
func (u *acmeUse) covers(name string) bool { return u.manages(name) || u.manages(acme.Wildcard(name)) }

// manages reports whether the listener gets the certificate of a name, or wildcard, by ACME.
func (u *acmeUse) manages(name string) bool { return u.isNamed(name) || u.routed.has(name) }

func (u *acmeUse) isNamed(name string) bool {
	return slices.ContainsFunc(u.settings.Names, func(n string) bool { return strings.EqualFold(n, name) })
}

// acquire returns the use of a manager by a listener of c. A new manager does nothing until
// it is told its names, and ends with the next retain that does not name it.
func (a *authorities) acquire(settings *config.ACME, c *config.Config) (*acmeUse, error) {
	key := authority{
		settings.Directory.Reveal(), settings.Email, settings.Storage, settings.ConsulKV, strings.Join(settings.EncryptionKeys, "\n"), settings.CA, "", mayUseHTTP(settings, c),
	}
	if settings.DNS != nil {
		key.dns = fmt.Sprintf("%#v", *settings.DNS)
	}
	use := &acmeUse{settings: settings, http: key.http}
	a.mu.Lock()
	defer a.mu.Unlock()
	if use.Manager = a.managers[key]; use.Manager != nil {
		return use, nil
	}
	o := acme.Options{Directory: settings.Directory, Email: settings.Email, Storage: settings.Storage, HTTP: key.http, Log: a.log}
	if settings.ConsulKV != "" {
		o.Consul, o.Prefix = a.consul, settings.ConsulKV
		cipher, err := certificates.ReadCipher(settings.EncryptionKeys)
		if err != nil {
			return nil, fmt.Errorf("acme.encryption_keys: %w", err)
		}
		o.Cipher = cipher
	}
	if settings.DNS != nil {
		dns := *settings.DNS
		dns.Log, o.DNS = a.log, &dns
	}
	if settings.CA != "" {
		contents, err := certificates.Read(certificates.Files{CA: settings.CA})
		if err != nil {
			return nil, err
		}
		o.Trusted = contents.Trusted
	}
	m, err := acme.New(o)
	if err != nil {
		return nil, err
	}
	a.beginLocked(m, key.directory)
	a.managers[key], use.Manager = m, m
	return use, nil
}

// obtain has the certificates of listeners obtained and renewed. It is called when they
// are about to accept connections, so that challenges are answered.
func (a *authorities) obtain(uses []*acmeUse) {
	names := make(map[*acme.Manager][]string)
	for _, u := range uses {
		names[u.Manager] = append(names[u.Manager], u.due()...)
	}
	for m, all := range names {
		if err := m.Manage(all); err != nil {
			a.log.Error().Strs("names", all).Err(err).Msg("no certificate can be obtained")
		}
	}
}

// retain ends the managers without a use.
func (a *authorities) retain(uses []*acmeUse) {
	for _, m := range a.unused(uses) {
		m.Close()
		a.removing.Go(func() {
			defer panics.Contain(panics.Task, nil)
			m.AwaitRecords()
		})
	}
}

// unused removes and returns the managers that are not in uses.
func (a *authorities) unused(uses []*acmeUse) (unused []*acme.Manager) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.managers, func(_ authority, m *acme.Manager) bool {
		used := slices.ContainsFunc(uses, func(u *acmeUse) bool { return u.Manager == m })
		if !used {
			unused = append(unused, m)
		}
		return !used
	})
	return unused
}

// save returns the certificates in use for a new process, by name, and by name and directory:
// several may have one for a name. They are secret.
func (a *authorities) save() map[string]acme.Pair {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string]acme.Pair)
	for key, m := range a.managers {
		for name, pair := range m.Pairs() {
			all[name], all[name+" "+key.directory] = pair, pair
		}
	}
	return all
}

// restore uses the certificates of the old process.
func (a *authorities) restore(pairs map[string]acme.Pair) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.restored = pairs
	for key, m := range a.managers {
		a.beginLocked(m, key.directory)
	}
}

// beginLocked gives a manager the certificates of the old process and of the managers: those of
// another directory only for names without one of its own.
func (a *authorities) beginLocked(m *acme.Manager, directory string) {
	m.Restore(pairsOf(directory, a.restored))
	for key, own := range a.managers {
		if key.directory == directory {
			m.Restore(own.Pairs())
		}
	}
	others := []map[string]acme.Pair{pairsOf("", a.restored)}
	for _, other := range a.managers {
		others = append(others, other.Pairs())
	}
	for _, pairs := range others {
		maps.DeleteFunc(pairs, func(name string, _ acme.Pair) bool { return len(m.Certificates([]string{name})) > 0 })
	}
	for _, pairs := range others {
		m.Restore(pairs)
	}
}

// pairsOf returns those of pairs that are by name and this directory, by name; "": those by name
// alone.
func pairsOf(directory string, pairs map[string]acme.Pair) map[string]acme.Pair {
	all := make(map[string]acme.Pair)
	for key, pair := range pairs {
		if name, of, _ := strings.Cut(key, " "); of == directory {
			all[name] = pair
		}
	}
	return all
}

// mayUseHTTP reports whether HTTP-01 may be used: without DNS-01, if a listener of c is plain HTTP.
func mayUseHTTP(settings *config.ACME, c *config.Config) bool {
	return settings.DNS == nil && slices.ContainsFunc(c.Listeners, func(l config.Listener) bool {
		return l.TLS == nil && l.Protocol != config.ProtocolTCP
	})
}
