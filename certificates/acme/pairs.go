package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"sluice/observe/panics"
)

// A Pair is a certificate with its chain, and its private key, in PEM format. It is secret.
type Pair struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// Restore puts certificates into use, by name, until the storage has valid ones. They come from
// a process or a manager before this one, and the storage may be away. Those that have
// expired, or end before the one in use, are ignored.
func (m *Manager) Restore(pairs map[string]Pair) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, pair := range pairs {
		name = strings.ToLower(name)
		c, err := tls.X509KeyPair([]byte(pair.Cert), []byte(pair.Key))
		if err != nil {
			m.log.Warn().Str("name", name).Err(err).Msg("acme: an earlier certificate cannot be used")
			continue
		}
		if before := m.inUseLocked(name); c.Leaf.NotAfter.After(time.Now()) && (before == nil || c.Leaf.NotAfter.After(before.Leaf.NotAfter)) {
			m.restored[name] = &c
		}
	}
}

// Pairs returns the certificates in use by name.
func (m *Manager) Pairs() map[string]Pair {
	m.mu.Lock()
	defer m.mu.Unlock()
	pairs := make(map[string]Pair)
	for name := range m.names {
		c := m.inUseLocked(name)
		if c == nil {
			continue
		}
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			m.log.Warn().Str("name", name).Err(err).Msg("acme: the private key cannot be handed on")
			continue
		}
		var chain strings.Builder
		for _, der := range c.Certificate {
			_ = pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // cannot fail
		}
		pairs[name] = Pair{chain.String(), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))}
	}
	return pairs
}

// Load puts the certificates of names in the storage into use, so that the first handshakes
// find them. It asks once, until ctx ends: Manage goes on.
func (m *Manager) Load(ctx context.Context, names []string) {
	var running sync.WaitGroup
	for _, name := range names {
		name = strings.ToLower(name)
		running.Go(func() {
			defer panics.Contain(panics.Task, nil)
			for _, storage := range []certmagic.Storage{m.config.LocalCache, m.config.Storage} {
				if storage != nil && len(m.Certificates([]string{name})) == 0 {
					m.restoreStored(ctx, storage, name)
				}
			}
		})
	}
	running.Wait()
}

// restoreStored restores what a storage has for a name, if it has not expired.
func (m *Manager) restoreStored(ctx context.Context, storage certmagic.Storage, name string) {
	issuer := m.issuer.IssuerKey()
	cert, err := storage.Load(ctx, certmagic.StorageKeys.SiteCert(issuer, name))
	if err != nil {
		return
	}
	if key, err := storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuer, name)); err == nil {
		m.Restore(map[string]Pair{name: {string(cert), string(key)}})
	}
}

// inUseLocked returns the certificate of a name, which may be a wildcard, that ends last; nil:
// there is none. A restored one, which may be of another authority, counts only while the storage
// has none that is valid.
func (m *Manager) inUseLocked(name string) *tls.Certificate {
	var c *tls.Certificate
	for _, managed := range m.cache.AllMatchingCertificates(name) {
		if !slices.Contains(managed.Names, name) {
			continue // a wildcard's, which has a status of its own
		}
		if c == nil || managed.Leaf.NotAfter.After(c.Leaf.NotAfter) {
			c = &managed.Certificate
		}
	}
	if a := m.restored[name]; a != nil && (c == nil || expired(c) && c.Leaf.NotAfter.Before(a.Leaf.NotAfter)) {
		return a
	}
	return c
}
