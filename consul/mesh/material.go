package mesh

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Bounds of what is taken from an answer. Consul has one root, and two or three while it rotates.
const (
	maxRoots = 100
	maxChain = 20 // certificates that a leaf or a root comes with
)

// LeafText is the certificate of a service in the mesh with its key, as in Consul's answer.
// https://developer.hashicorp.com/consul/api-docs/agent/connect#service-leaf-certificate
type LeafText struct {
	CertPEM       string // the leaf, and then its chain
	PrivateKeyPEM string
}

// RootsText are the trusted certificates of the mesh, as in Consul's answer.
// https://developer.hashicorp.com/consul/api-docs/agent/connect#certificate-authority-ca-roots
type RootsText struct {
	TrustDomain string
	Roots       []RootText
}

// RootText is a trusted certificate, and what it has signed for others to sign with.
type RootText struct {
	RootCert          string
	IntermediateCerts []string
}

// leaf is a parsed LeafText.
type leaf struct {
	text        LeafText
	certificate tls.Certificate
	chain       []*x509.Certificate
	uri         *url.URL
}

// readLeaf reads the leaf of a service in an answer of Consul.
func readLeaf(body []byte, service string) (*leaf, error) {
	var text LeafText
	if err := json.Unmarshal(body, &text); err != nil {
		return nil, fmt.Errorf("the answer is not a certificate: %w", err)
	}
	l, err := parseLeaf(text)
	if err != nil {
		return nil, err
	}
	if name := l.uri.Path[strings.LastIndexByte(l.uri.Path, '/')+1:]; !strings.EqualFold(name, service) {
		return nil, fmt.Errorf("the answer has the certificate of %.200s: want service %q", l.uri, service)
	}
	return l, nil
}

func parseLeaf(text LeafText) (*leaf, error) {
	pair, err := tls.X509KeyPair([]byte(text.CertPEM), []byte(text.PrivateKeyPEM))
	if err != nil {
		return nil, fmt.Errorf("the answer has no certificate with its key: %w", err)
	}
	if len(pair.Certificate) > maxChain {
		return nil, fmt.Errorf("the answer has a chain of %d certificates: want at most %d", len(pair.Certificate), maxChain)
	}
	l := &leaf{text: text, certificate: pair}
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("the answer has a chain that cannot be read: %w", err)
		}
		l.chain = append(l.chain, c)
	}
	if l.uri, err = identityOf(l.chain[0]); err != nil {
		return nil, err
	}
	return l, nil
}

// identityOf returns the SPIFFE URI of a certificate, which must have exactly one URI.
// https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#2-spiffe-id
func identityOf(c *x509.Certificate) (*url.URL, error) {
	if len(c.URIs) != 1 {
		return nil, fmt.Errorf("a certificate with %d URIs is none of the mesh: want one", len(c.URIs))
	}
	if u := c.URIs[0]; !strings.EqualFold(u.Scheme, "spiffe") || u.Host == "" {
		return nil, fmt.Errorf("the certificate of %.200q is none of the mesh", u)
	}
	return c.URIs[0], nil
}

// roots is a parsed RootsText.
type roots struct {
	text          RootsText
	trusted       []*x509.Certificate
	pool          *x509.CertPool
	intermediates []*x509.Certificate
}

// readRoots reads the roots in an answer of Consul.
func readRoots(body []byte) (*roots, error) {
	var text RootsText
	if err := json.Unmarshal(body, &text); err != nil {
		return nil, fmt.Errorf("the answer is not a list of roots: %w", err)
	}
	return parseRoots(text)
}

func parseRoots(text RootsText) (*roots, error) {
	switch {
	case text.TrustDomain == "":
		return nil, errors.New("the answer has no trust domain")
	case len(text.Roots) == 0:
		return nil, errors.New("the answer has no root: Consul has no certificate authority yet")
	case len(text.Roots) > maxRoots:
		return nil, fmt.Errorf("the answer has %d roots: want at most %d", len(text.Roots), maxRoots)
	}
	r := &roots{text: text, pool: x509.NewCertPool()}
	for _, root := range text.Roots {
		all, err := parseAll(root.RootCert)
		if err != nil {
			return nil, err
		}
		r.trusted = append(r.trusted, all...)
		if len(root.IntermediateCerts) > maxChain {
			return nil, fmt.Errorf("a root has %d intermediate certificates: want at most %d", len(root.IntermediateCerts), maxChain)
		}
		for _, text := range root.IntermediateCerts {
			if all, err = parseAll(text); err != nil {
				return nil, err
			}
			r.intermediates = append(r.intermediates, all...)
		}
	}
	for _, c := range r.trusted {
		r.pool.AddCert(c)
	}
	return r, nil
}

// parseAll returns the certificates in a text, of which there is at least one.
func parseAll(text string) (all []*x509.Certificate, err error) {
	for rest := []byte(text); len(all) <= maxChain; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a root cannot be read: %w", err)
		}
		all = append(all, c)
	}
	if len(all) == 0 || len(all) > maxChain {
		return nil, fmt.Errorf("a root has %d certificates or more: want 1 to %d", len(all), maxChain)
	}
	return all, nil
}

// verify returns why a chain is not valid for a use at the time now, or nil. Its first certificate
// is a mesh member's.
func (r *roots) verify(chain []*x509.Certificate, use x509.ExtKeyUsage, now time.Time) error {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	for _, c := range r.intermediates {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: r.pool, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{use}, CurrentTime: now,
	})
	return err
}

// Material is what sluice presents and trusts: a leaf, and roots that verify it. It never changes.
type Material struct {
	leaf  *leaf
	roots *roots
}

// fits returns why a leaf and roots are no Material at the time now, or nil.
func fits(l *leaf, r *roots, now time.Time) error {
	if !strings.EqualFold(l.uri.Host, r.text.TrustDomain) {
		return fmt.Errorf("the certificate of %s is not of the trust domain %s", l.uri, r.text.TrustDomain)
	}
	if err := r.verify(l.chain, x509.ExtKeyUsageClientAuth, now); err != nil {
		return fmt.Errorf("the roots do not verify the certificate of %s: %w", l.uri, err)
	}
	return nil
}

// URI returns sluice's SPIFFE URI, such as "spiffe://TRUSTDOMAIN/ns/default/dc/dc1/svc/sluice".
func (m *Material) URI() string { return m.leaf.uri.String() }

// Expires returns when the leaf ends.
func (m *Material) Expires() time.Time { return m.leaf.chain[0].NotAfter }

// partOfLife returns the time when a part of the life of the leaf is over, in percent.
func (m *Material) partOfLife(percent int64) time.Time {
	c := m.leaf.chain[0]
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 100 * time.Duration(percent))
}

// configFor returns the TLS settings of a new connection to a member of the mesh. Only mesh
// gateways read the server name. The member must have exactly one URI, with the mesh's trust domain
// and a path such as "/ns/default/dc/dc1/svc/web", and a chain that the roots verify.
func (m *Material) configFor(serverName, path string) *tls.Config {
	return m.config(m.roots, serverName, (&url.URL{Scheme: "spiffe", Host: m.roots.text.TrustDomain, Path: path}).String())
}

// config is configFor for a member with one of several URIs, and a chain that r verify.
func (m *Material) config(r *roots, serverName string, uris ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: serverName,
		// No host name is in a certificate of the mesh: VerifyConnection verifies.
		InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &m.leaf.certificate, nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			return r.verifyPeer(s.PeerCertificates, uris, time.Now())
		},
	}
}

// verifyPeer returns why a peer's chain is not valid for one of the URIs, or nil. Consul compares
// URIs without regard to case (verifyServerCertMatchesURI in its connect/tls.go).
func (r *roots) verifyPeer(chain []*x509.Certificate, uris []string, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the peer has no certificate")
	}
	uri, err := identityOf(chain[0])
	if err != nil {
		return fmt.Errorf("the peer: %w", err)
	}
	got := uri.String()
	if !slices.ContainsFunc(uris, func(want string) bool { return strings.EqualFold(got, want) }) {
		return fmt.Errorf("the peer is %.200s and not %s", got, strings.Join(uris, " or "))
	}
	return r.verify(chain, x509.ExtKeyUsageServerAuth, now)
}
