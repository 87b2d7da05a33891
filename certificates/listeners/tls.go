package listeners

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/certificates"
	"sluice/certificates/acme"
	"sluice/certificates/kv"
	"sluice/config"
	"sluice/proxy/socket"
)

// TLS is the TLS of a listener. It follows its certificates.
type TLS struct {
	// Config serves every connection: it chooses current, and has the ticket keys.
	Config   *tls.Config
	current  atomic.Pointer[tls.Config] // with the certificates
	listener string                     // its name
	user     string                     // for people: "listener …"
	uses     []certificates.Use
	pairs    []certificates.Source  // of uses, those with the listener's certificates, best first
	kv       []*kv.Prefix           // of pairs, the ones in Consul
	ca       *certificates.Follower // of uses, the one of client_ca and client_crl; nil: none
	tickets  *certificates.Follower // of uses, the one of ticket_keys; nil: none
	acme     *acmeUse               // nil: none

	policy     certificates.Policy
	clientAuth tls.ClientAuthType
	protocols  []string // for ALPN
	// revocations are asked about the clients of open connections. A listener that gets the socket
	// shares them.
	revocations *atomic.Pointer[certificates.Revocations]

	mu sync.Mutex
	// mu guards the fields below.
	used         []*tls.Certificate // in current
	usedContents *certificates.Contents
}

// TLS returns the TLS of a listener of c; nil: it has none. It is not in use before Use.
// before is that of the listener whose socket it gets; nil: there is none.
func (m *Manager) TLS(l config.Listener, c *config.Config, before *TLS) (*TLS, error) {
	if l.TLS == nil {
		return nil, nil
	}
	t := &TLS{listener: l.Name, user: fmt.Sprintf("listener %q", l.Name), protocols: []string{"h2", "http/1.1"}, policy: l.TLS.Policy()}
	if before != nil {
		t.revocations = before.revocations
	} else {
		t.revocations = new(atomic.Pointer[certificates.Revocations])
	}
	switch {
	case l.Protocol == config.ProtocolTCP:
		t.protocols = nil // what is inside is not known
	case !l.HTTP2:
		t.protocols = t.protocols[1:]
	}
	changed := certificates.LogChanges("used_by", t.user, m.options.Log)
	add := func(s certificates.Source) {
		t.uses = append(t.uses, certificates.Use{User: t.user, Source: s})
		t.pairs = append(t.pairs, s)
	}
	for _, files := range l.TLS.Certificates {
		if files.ConsulKV != "" {
			p := m.kv.Follow(files.ConsulKV)
			t.kv = append(t.kv, p)
			add(p)
			continue
		}
		pair, err := certificates.Follow(certificates.Files{Cert: files.Cert, Key: files.Key}, changed)
		if err != nil {
			return nil, err
		}
		add(pair)
	}
	if l.TLS.ClientCA != "" {
		ca, err := certificates.Follow(certificates.Files{CA: l.TLS.ClientCA, CRL: l.TLS.ClientCRL}, changed)
		if err != nil {
			return nil, fmt.Errorf("client_ca: %w", err)
		}
		t.uses = append(t.uses, certificates.Use{User: t.user, Source: ca})
		t.ca = ca
		t.clientAuth = tls.RequireAndVerifyClientCert
		if l.TLS.ClientAuth == "optional" {
			t.clientAuth = tls.VerifyClientCertIfGiven
		}
	}
	if l.TLS.TicketKeys != "" {
		tickets, err := certificates.Follow(certificates.Files{TicketKeys: l.TLS.TicketKeys}, changed)
		if err != nil {
			return nil, fmt.Errorf("ticket_keys: %w", err)
		}
		t.uses = append(t.uses, certificates.Use{User: t.user, Source: tickets})
		t.tickets = tickets
	}
	if l.TLS.ACME != nil {
		var err error
		if t.acme, err = m.authorities.acquire(l.TLS.ACME, c); err != nil {
			return nil, err
		}
	}
	t.Config = &tls.Config{GetConfigForClient: t.configFor}
	m.tickets.Rotate(time.Now())
	t.useTicketKeys(&m.tickets)
	t.update()
	return t, nil
}

// useTicketKeys makes new connections use the keys of own and, first, of ticket_keys.
func (t *TLS) useTicketKeys(own *certificates.TicketKeys) {
	var ofFile [][32]byte
	if t.tickets != nil {
		ofFile = t.tickets.Contents().TicketKeys
	}
	own.Use(t.Config, ofFile)
}

// Revocations are the lists that refuse clients of open connections; nil: there are none.
func (t *TLS) Revocations() *certificates.Revocations { return t.revocations.Load() }

// publish applies the revoked certificates as last read to open connections. It reports a change.
func (t *TLS) publish() bool {
	var lists *certificates.Revocations
	if t.ca != nil {
		lists = t.ca.Contents().Revocations
	}
	return t.revocations.Swap(lists) != lists
}

// Suits reports whether t can be kept with the configuration c, in which its listener is unchanged.
func (t *TLS) Suits(c *config.Config) bool { return t == nil || t.acme.suits(c) }

// update makes new connections use the certificates as they were last read.
func (t *TLS) update() {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.ofSources()
	var clients *certificates.Contents
	if t.ca != nil {
		clients = t.ca.Contents()
	}
	if t.current.Load() != nil && slices.Equal(own, t.used) && clients == t.usedContents {
		return
	}
	t.used, t.usedContents = own, clients
	c := &tls.Config{
		NextProtos: t.protocols,
		ClientAuth: t.clientAuth,
		// A resumed session would not be verified with changed trusted certificates or lists.
		SessionTicketsDisabled: t.clientAuth != tls.NoClientCert,
	}
	t.policy.Restrict(c)
	if clients != nil {
		c.ClientCAs = clients.Trusted
		if lists := clients.Revocations; lists != nil {
			c.VerifyConnection = func(state tls.ConnectionState) error { return lists.Verify(state.VerifiedChains, time.Now()) }
		}
	}
	for _, certificate := range own {
		c.Certificates = append(c.Certificates, *certificate)
	}
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if t.acme != nil {
			if certificate, err := t.obtained(hello); certificate != nil || err != nil {
				return certificate, err
			}
		}
		return choose(c.Certificates, hello, time.Now()), nil
	}
	t.current.Store(c)
}

// choose returns the certificate for a client: the first valid one for the requested name, else
// the first for the name, else the first; nil: there is none. crypto/tls calls it only with a name,
// and ignores the clock; the default is its choice.
func choose(all []tls.Certificate, hello *tls.ClientHelloInfo, now time.Time) (chosen *tls.Certificate) {
	if len(all) == 1 {
		return &all[0] // as crypto/tls
	}
	for i := range all {
		c := &all[i]
		valid := isValidAt(c.Leaf, now)
		if (!valid && chosen != nil) || hello.SupportsCertificate(c) != nil {
			continue
		}
		if valid {
			return c
		}
		chosen = c
	}
	if chosen == nil && len(all) > 0 {
		return &all[0]
	}
	return chosen
}

func isValidAt(leaf *x509.Certificate, now time.Time) bool {
	return !now.Before(leaf.NotBefore) && !now.After(leaf.NotAfter)
}

// isValid reports whether a certificate, or nil, is valid now for the name that a client requests.
func isValid(c *tls.Certificate, hello *tls.ClientHelloInfo, now time.Time) bool {
	return c != nil && isValidAt(c.Leaf, now) && hello.SupportsCertificate(c) == nil
}

// configFor returns the configuration of a connection. A challenge of ACME has its own: the
// proxy serves nothing after such a handshake, and its session cannot be resumed.
func (t *TLS) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if t.acme == nil || !slices.Equal(hello.SupportedProtos, []string{acme.Protocol}) || !t.acme.manages(hello.ServerName) {
		return t.current.Load(), nil
	}
	var certificate *tls.Certificate
	var err error
	if late := socket.AwaitOthers(hello, func() { certificate, err = t.acme.ChallengeCertificate(hello) }); late != nil {
		return nil, late
	}
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{*certificate}, NextProtos: hello.SupportedProtos, SessionTicketsDisabled: true}, nil
}

// obtained returns the certificate from ACME for the requested name; nil: one of the
// files is chosen.
func (t *TLS) obtained(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !t.acme.covers(hello.ServerName) {
		return nil, nil
	}
	certificate, err := t.acme.Certificate(hello)
	now, others := time.Now(), t.current.Load().Certificates
	if err != nil && len(others) > 0 || err == nil && now.After(certificate.Leaf.NotAfter) && isValid(choose(others, hello, now), hello, now) {
		return nil, nil // an expired certificate does not stand before a valid one
	}
	return certificate, err
}

// ofSources returns the certificates in use, except those by ACME.
func (t *TLS) ofSources() (all []*tls.Certificate) {
	for _, p := range t.pairs {
		all = append(all, p.Certificates()...)
	}
	return all
}
