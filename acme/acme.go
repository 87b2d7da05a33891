// Package acme obtains certificates by ACME (RFC 8555) and renews them, with certmagic.
// Certificates, keys and the account are in a directory or in Consul's KV store, which
// processes and replicas may share: one of them orders, and each of them answers the
// challenges.
package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
	"github.com/rs/zerolog"
	"go.uber.org/zap"

	"sluice/certificates"
	"sluice/consul"
)

// Protocol is the ALPN protocol of the challenge TLS-ALPN-01 (RFC 8737).
const Protocol = "acme-tls/1"

// ChallengePath is the prefix of the paths of the challenge HTTP-01.
const ChallengePath = "/.well-known/acme-challenge/"

// Options are required, except where they say otherwise.
type Options struct {
	Names     []string // of hosts, a certificate for each
	Directory string   // URL of the authority
	Email     string   // of the account; may be empty
	Storage   string   // directory of certificates, keys and the account; with Consul: of copies, "" for none
	// Consul, if not nil, has the certificates, keys and the account in its KV store, below
	// Prefix. It must not be closed before Close.
	Consul *consul.Client
	Prefix string // without a slash at its end
	// Cipher encrypts the values in Consul; nil: they are in plain text.
	Cipher *certificates.Cipher
	// Trusted verifies the TLS of Directory; nil: the system's certificates.
	Trusted *x509.CertPool
	// HTTP: requests for ChallengePath of some listener reach HTTPChallenge. Otherwise
	// HTTP-01 is not used.
	HTTP bool
	// Listener is the bound address of the listener whose handshakes use Certificate.
	// It must stay bound until Close.
	Listener *net.TCPAddr
	Log      zerolog.Logger
}

// A Manager has the certificates of some names. It is safe for concurrent use.
type Manager struct {
	names  []string
	log    zerolog.Logger
	cache  *certmagic.Cache
	config *certmagic.Config
	issuer *certmagic.ACMEIssuer
	consul *consulStorage // nil: a directory

	ctx     context.Context // of orders and renewals; ends with Close
	close   func()
	running sync.WaitGroup

	mu sync.Mutex
	// mu guards the field below.
	failures map[string]error // by name: of the latest order; nil: it succeeded
}

// New returns a manager. The caller must call Close.
func New(o Options) *Manager {
	m := &Manager{names: o.Names, log: o.Log, failures: make(map[string]error)}
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return m.config, nil },
		Logger:           zap.NewNop(), // see note
	})
	settings := certmagic.Config{OnEvent: m.note, Logger: zap.NewNop()}
	if o.Consul == nil {
		settings.Storage = &certmagic.FileStorage{Path: o.Storage}
	} else {
		m.consul = newConsulStorage(o.Consul, o.Prefix, o.Cipher, o.Log)
		settings.Storage = m.consul
		if o.Storage != "" {
			settings.LocalCache = &certmagic.FileStorage{Path: o.Storage}
		}
	}
	m.config = certmagic.New(m.cache, settings)
	m.issuer = certmagic.NewACMEIssuer(m.config, certmagic.ACMEIssuer{
		CA: o.Directory, TestCA: o.Directory, Email: o.Email, Agreed: true, TrustedRoots: o.Trusted,
		DisableHTTPChallenge: !o.HTTP,
		// certmagic starts a server of its own for a challenge if its address is free.
		// This one never is.
		ListenHost: o.Listener.IP.String(), AltHTTPPort: o.Listener.Port, AltTLSALPNPort: o.Listener.Port,
		Logger: zap.NewNop(),
	})
	m.config.Issuers = []certmagic.Issuer{m.issuer}
	var cancel context.CancelFunc
	m.ctx, cancel = context.WithCancel(patiently(context.Background()))
	m.close = sync.OnceFunc(func() {
		cancel()
		m.running.Wait()
		m.cache.Stop()
		if m.consul != nil {
			m.consul.close()
		}
	})
	return m
}

// Start loads the certificates, orders the missing ones, and renews all, in the
// background until Close. Failed orders are repeated after growing pauses. With a Cipher, it
// encrypts what is in Consul in plain text or with an old key.
func (m *Manager) Start() error {
	if m.consul != nil && m.consul.cipher != nil {
		m.running.Go(func() {
			if err := m.consul.encryptAll(m.ctx); err != nil && m.ctx.Err() == nil {
				m.log.Warn().Err(err).Msg("acme: not all values in Consul are encrypted with the first key")
			}
		})
	}
	if err := m.config.ManageAsync(m.ctx, m.names); err != nil {
		return fmt.Errorf("acme: %w", err)
	}
	return nil
}

// Close ends orders and renewals. Certificate and HTTPChallenge may still be called. It
// may be called again.
func (m *Manager) Close() { m.close() }

// Manages reports whether the manager is for a name.
func (m *Manager) Manages(name string) bool {
	return slices.ContainsFunc(m.names, func(n string) bool { return strings.EqualFold(n, name) })
}

// Certificate returns the certificate of a handshake, also that of a challenge. Call it
// only for names that the manager is for: others would be looked up in Storage.
func (m *Manager) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return m.config.GetCertificate(hello)
}

// HTTPChallenge returns the body of the response to a GET request of the challenge
// HTTP-01; false: the request is for no present challenge.
func (m *Manager) HTTPChallenge(host, path string) (body []byte, ok bool) {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host // without a port
	}
	if !m.Manages(name) {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	w := answer{header: make(http.Header), status: http.StatusOK}
	r := &http.Request{Method: http.MethodGet, Host: host, URL: &url.URL{Path: path}, Header: make(http.Header)}
	r = r.WithContext(ctx)
	if !m.issuer.HandleHTTPChallenge(&w, r) || w.status != http.StatusOK {
		return nil, false
	}
	return w.body.Bytes(), true
}

// answer is a response in memory.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// note logs and records the end of an order.
func (m *Manager) note(_ context.Context, event string, data map[string]any) error {
	name, _ := data["identifier"].(string)
	switch event {
	case "cert_obtained":
		m.record(name, nil)
		m.log.Info().Str("name", name).Msg("acme: a new certificate is in use")
	case "cert_failed":
		err, _ := data["error"].(error)
		m.record(name, err)
		m.log.Warn().Str("name", name).Err(err).Msg("acme: no certificate was issued; the order is repeated later")
	}
	return nil
}

func (m *Manager) record(name string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures[name] = err
}

// Statuses returns the status of the certificate of each name. Without a certificate,
// the times are zero.
func (m *Manager) Statuses() []certificates.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []certificates.Status
	for _, name := range m.names {
		var chain []*x509.Certificate
		for _, c := range m.cache.AllMatchingCertificates(name) {
			if len(chain) == 0 || c.Leaf.NotAfter.After(chain[0].NotAfter) {
				chain = []*x509.Certificate{c.Leaf}
			}
		}
		fault := m.failures[name]
		if fault == nil && m.consul != nil {
			fault = m.consul.fault()
		}
		all = append(all, certificates.StatusOf("acme:"+name, []string{name}, chain, fault))
	}
	return all
}
