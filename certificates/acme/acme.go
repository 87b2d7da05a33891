// Package acme obtains certificates by ACME (RFC 8555) and renews them, with certmagic.
// Certificates, keys and the account are in a directory or in Consul's KV store, which processes
// and replicas may share: one of them orders, and each of them answers the challenges.
package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/rs/zerolog"
	"go.uber.org/zap"

	"sluice/certificates"
	"sluice/certificates/acme/dns01"
	"sluice/config/units"
	"sluice/consul"
	"sluice/observe/panics"
)

// Protocol is the ALPN protocol of the challenge TLS-ALPN-01 (RFC 8737).
const Protocol = "acme-tls/1"

// Options are required, except where they say otherwise.
type Options struct {
	Directory units.Location // URL of the authority
	Email     string         // of the account; may be empty
	Storage   string         // directory of certificates, keys and account; with Consul: of copies
	// Consul, if not nil, has the certificates, keys and the account in its KV store, below
	// Prefix. It must not be closed before Close.
	Consul *consul.Client
	Prefix string // without a slash at its end
	// Cipher encrypts the values in Consul; nil: they are in plain text.
	Cipher *certificates.Cipher
	// Trusted verifies the TLS of Directory; nil: the system's certificates.
	Trusted *x509.CertPool
	// HTTP: requests of the challenge HTTP-01 at some listener reach HTTPChallenge. Otherwise
	// HTTP-01 is not used.
	HTTP bool
	// DNS, if not nil, proves all names by DNS-01 alone. Without it there are no wildcards.
	DNS *dns01.Options
	Log zerolog.Logger

	checkEvery time.Duration // how often to look for renewals; 0: certmagic's default. Tests set it
}

// A Manager has the certificates of some names from a directory and a storage. It is safe
// for concurrent use.
type Manager struct {
	log       zerolog.Logger
	directory units.Location
	cache     *certmagic.Cache
	config    *certmagic.Config
	issuer    *certmagic.ACMEIssuer
	files     *files         // the storage or, with consul, its copies; nil: no copies
	consul    *consulStorage // nil: a directory
	state     *storage       // of consul or, without it, files
	socket    net.Listener   // see holdAddress
	solver    *dns01.Solver  // nil: without DNS-01

	ctx     context.Context // of orders and renewals; ends with Close
	close   func()
	running sync.WaitGroup

	mu sync.Mutex
	// mu guards the fields below.
	names     map[string]context.CancelFunc // managed, in lower case; ends the orders of a name
	restored  map[string]*tls.Certificate   // that were in use before the storage was read
	failures  map[string]failure            // by name: of the latest order
	encrypted bool                          // encryptAll was started
}

// New returns a manager without names. The caller must call Close.
func New(o Options) (*Manager, error) {
	m := &Manager{log: o.Log, directory: o.Directory, names: make(map[string]context.CancelFunc), restored: make(map[string]*tls.Certificate), failures: make(map[string]failure)}
	var err error
	if m.socket, err = holdAddress(); err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.config, nil },
		RenewCheckInterval: o.checkEvery,
		Logger:             zap.NewNop(), // see note
	})
	// The check would write and delete a value before each order, and a crash would leave it.
	// An order begins with its lock, which is a write too.
	settings := certmagic.Config{OnEvent: m.note, Logger: zap.NewNop(), DisableStorageCheck: true}
	// It would ask any address, without a time-out.
	settings.OCSP.DisableStapling = true
	if o.Consul == nil {
		m.files = newFiles(o.Storage, false, o.Log)
		m.state, settings.Storage = &m.files.storage, m.files
	} else {
		m.consul = newConsulStorage(o.Consul, o.Prefix, o.Cipher, o.Log)
		m.state, settings.Storage = &m.consul.storage, m.consul
		if o.Storage != "" {
			m.files = newFiles(o.Storage, true, o.Log)
			settings.LocalCache = m.files
		}
	}
	m.config = certmagic.New(m.cache, settings)
	held := m.socket.Addr().(*net.TCPAddr)
	m.issuer = certmagic.NewACMEIssuer(m.config, certmagic.ACMEIssuer{
		CA: o.Directory.Reveal(), TestCA: o.Directory.Reveal(), Email: o.Email, Agreed: true, TrustedRoots: o.Trusted,
		DisableHTTPChallenge: !o.HTTP,
		ListenHost:           held.IP.String(), AltHTTPPort: held.Port, AltTLSALPNPort: held.Port,
		Logger: zap.NewNop(),
	})
	if o.DNS != nil {
		m.solver = dns01.New(*o.DNS)
		m.issuer.DNS01Solver = m.solver
	}
	m.config.Issuers = []certmagic.Issuer{m.issuer}
	var cancel context.CancelFunc
	m.ctx, cancel = context.WithCancel(patiently(context.Background()))
	m.close = sync.OnceFunc(func() {
		cancel()
		if m.solver != nil {
			m.solver.Close()
		}
		m.state.end() // else a renewal would wait for the storage
		m.socket.Close()
		m.running.Wait()
		go func() {
			defer panics.Contain(panics.Task, nil)
			// It waits for certmagic's requests: minutes, if the authority does not answer.
			m.cache.Stop()
		}()
		if m.consul != nil {
			m.consul.close()
		}
		if m.files != nil {
			m.files.close()
		}
	})
	m.running.Go(func() { panics.Repeat(m.ctx.Done(), panics.Task, time.Second, m.refuseConnections) })
	return m, nil
}

// holdAddress binds an address for as long as the manager is open. certmagic starts a server
// of its own for a challenge if the address that it is told is free. This one never is; the
// listeners, which come and go, answer.
func holdAddress() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// refuseConnections closes the connections by which certmagic finds the address in use.
func (m *Manager) refuseConnections() {
	for {
		conn, err := m.socket.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// Manage sets the names whose certificates are loaded, ordered if they are missing, and
// renewed, in the background until Close. Failed orders are repeated after growing pauses. With
// a Cipher, it encrypts what is in Consul in plain text or with an old key.
func (m *Manager) Manage(names []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return nil
	}
	if !m.encrypted && m.consul != nil && m.consul.cipher != nil {
		m.encrypted = true
		m.running.Go(func() {
			defer panics.Contain(panics.Task, nil)
			if err := m.consul.encryptAll(m.ctx); err != nil && m.ctx.Err() == nil {
				m.log.Warn().Err(err).Msg("acme: not all values in Consul are encrypted with the first key")
			}
		})
	}
	wanted := make(map[string]bool)
	var errs []error
	for _, name := range names {
		name = strings.ToLower(name)
		wanted[name] = true
		if m.names[name] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(patiently(m.ctx))
		m.names[name] = cancel
		errs = append(errs, m.config.ManageAsync(ctx, []string{name}))
	}
	for name, cancel := range m.names {
		if !wanted[name] {
			cancel()
			m.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name}})
			delete(m.names, name)
			delete(m.failures, name)
			delete(m.restored, name)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("acme: %w", err)
	}
	return nil
}

// Close ends orders and renewals, without a wait for the authority. No file is created after it.
// Certificate may still be called, and Close again.
func (m *Manager) Close() { m.close() }

// AwaitRecords waits, after Close, until challenges' records are removed from DNS, or time is up.
func (m *Manager) AwaitRecords() {
	if m.solver != nil {
		m.solver.Await()
	}
}

// Certificate returns the certificate in use for the name of a handshake. It waits for nothing.
func (m *Manager) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := strings.ToLower(hello.ServerName)
	c := m.inUseLocked(name)
	if c == nil || expired(c) {
		if w := m.inUseLocked(Wildcard(name)); w != nil && (c == nil || !expired(w)) {
			c = w
		}
	}
	if c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("acme: there is no certificate for %q yet", hello.ServerName)
}

// Wildcard returns the wildcard that is valid for a name.
func Wildcard(name string) string {
	_, domain, _ := strings.Cut(name, ".")
	return "*." + domain
}

func expired(c *tls.Certificate) bool { return !c.Leaf.NotAfter.After(time.Now()) }

// Certificates returns the certificates in use for names.
func (m *Manager) Certificates(names []string) (all []*tls.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if c := m.inUseLocked(strings.ToLower(name)); c != nil {
			all = append(all, c)
		}
	}
	return all
}

// ChallengeCertificate returns the answer to a challenge TLS-ALPN-01 for the name of a
// handshake. Call it only for names of listeners: it may wait for the storage.
func (m *Manager) ChallengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return m.config.GetCertificate(hello)
}

// HTTPChallenge returns the body of the response to a GET request of the challenge
// HTTP-01; false: the request is for no present challenge.
func (m *Manager) HTTPChallenge(host, path string) (body []byte, ok bool) {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host // without a port
	}
	name = strings.ToLower(name)
	m.mu.Lock()
	managed := m.names[name] != nil
	m.mu.Unlock()
	if !managed {
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
		if err != nil {
			err = errors.New(m.directory.MaskIn(err.Error()))
		}
		m.record(name, err)
		m.log.Warn().Str("name", name).Err(err).Msg("acme: no certificate was issued; the order is repeated later")
	}
	return nil
}

func (m *Manager) record(name string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] != nil {
		m.failures[name] = failure{err, leaf(m.inUseLocked(name))}
	}
}

// failure is a failed order, until another certificate is in use: a replica may have ordered it.
type failure struct {
	err   error             // nil: it succeeded
	inUse *x509.Certificate // nil: none
}

// leaf returns the certificate of its names; nil: there is none.
func leaf(c *tls.Certificate) *x509.Certificate {
	if c == nil {
		return nil
	}
	return c.Leaf
}

// Statuses returns the status of the certificate of each name. Without a certificate,
// the times are zero.
func (m *Manager) Statuses(names []string) []certificates.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []certificates.Status
	for _, name := range names {
		c := leaf(m.inUseLocked(strings.ToLower(name)))
		var chain []*x509.Certificate
		if c != nil {
			chain = append(chain, c)
		}
		fault := m.state.fault()
		if f := m.failures[strings.ToLower(name)]; f.err != nil && f.inUse.Equal(c) {
			fault = f.err
		}
		all = append(all, certificates.StatusOf("acme:"+name, []string{name}, chain, fault))
	}
	return all
}
