package mesh

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/test/verify"
)

const trustDomain = "11111111-2222-3333-4444-555555555555.consul"

// root is a certificate authority of a mesh in memory.
type root struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

var serial = big.NewInt(0)

// sign returns a certificate that a root signs, or that signs itself, and its key.
func sign(t testing.TB, template *x509.Certificate, by *root, key *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	if key == nil {
		key = verify.Result(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Must(t)
	}
	serial = new(big.Int).Add(serial, big.NewInt(1))
	template.SerialNumber = serial
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der := verify.Result(x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)).Must(t)
	return verify.Result(x509.ParseCertificate(der)).Must(t), key
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func newRoot(t testing.TB) *root {
	c, key := sign(t, authorityTemplate(), nil, nil)
	return &root{c, key, pemOf(c)}
}

func authorityTemplate() *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: fmt.Sprint("root ", serial)}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
}

// leafOf returns a leaf of a service, for the life from now on. more are changes of the template.
func (r *root) leafOf(t testing.TB, service string, life time.Duration, more ...func(*x509.Certificate)) LeafText {
	t.Helper()
	template := &x509.Certificate{
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/ns/default/dc/dc1/svc/" + service}},
	}
	for _, change := range more {
		change(template)
	}
	c, key := sign(t, template, r, nil)
	der := verify.Result(x509.MarshalECPrivateKey(key)).Must(t)
	return LeafText{CertPEM: pemOf(c), PrivateKeyPEM: string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))}
}

// crossSigned returns the certificate of r that another root has signed, as PEM.
func (r *root) crossSigned(t testing.TB, by *root) string {
	template := authorityTemplate()
	template.Subject, template.SubjectKeyId = r.certificate.Subject, r.certificate.SubjectKeyId
	c, _ := sign(t, template, by, r.key)
	return pemOf(c)
}

// rootsOf returns roots in Consul's answer.
func rootsOf(all ...*root) RootsText {
	text := RootsText{TrustDomain: trustDomain}
	for _, r := range all {
		text.Roots = append(text.Roots, RootText{RootCert: r.pem})
	}
	return text
}

// agent is the part of an agent that this package asks. Its methods may be called concurrently.
type agent struct {
	// mu guards the fields below.
	mu      sync.Mutex
	answers map[string]*agentAnswer // by path, with the name that the query has
	changed chan struct{}
	asked   []question
}

// agentAnswer is an answer of an agent.
type agentAnswer struct {
	index  uint64
	body   any
	status int // 0: 200
}

// question is a query that an agent got.
type question struct {
	at     time.Time
	path   string
	blocks bool
}

const leafPath, rootsPath = "/v1/agent/connect/ca/leaf/sluice", "/v1/agent/connect/ca/roots"

func newAgent() *agent {
	return &agent{answers: make(map[string]*agentAnswer), changed: make(chan struct{})}
}

// set sets what the agent answers.
func (a *agent) set(path string, body any) { a.setAnswer(path, agentAnswer{body: body}) }

// refuse makes the agent answer with a status.
func (a *agent) refuse(path string, status int, text string) {
	a.setAnswer(path, agentAnswer{status: status, body: text})
}

func (a *agent) setAnswer(path string, answer agentAnswer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answer.index = 10
	if before := a.answers[path]; before != nil {
		answer.index = before.index + 1
	}
	a.answers[path] = &answer
	close(a.changed)
	a.changed = make(chan struct{})
}

// questions returns the queries of a path since the last call.
func (a *agent) questions(path string) (all []question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var rest []question
	for _, q := range a.asked {
		if q.path == path {
			all = append(all, q)
		} else {
			rest = append(rest, q)
		}
	}
	a.asked = rest
	return all
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/status/leader" {
		fmt.Fprint(w, `"127.0.0.1:8300"`)
		return
	}
	index, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
	path := r.URL.Path
	if name := r.URL.Query().Get("name"); name != "" {
		path += "?name=" + name
	}
	a.note(question{time.Now(), path, index > 0})
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	for {
		answer, changed := a.answer(path)
		switch {
		case answer == nil:
			http.NotFound(w, r)
			return
		case answer.status != 0:
			http.Error(w, fmt.Sprint(answer.body), answer.status)
			return
		case index == 0 || answer.index > index || ctx.Err() != nil:
			w.Header().Set("X-Consul-Index", fmt.Sprint(answer.index))
			if !strings.Contains(path, "leaf") {
				w.Header().Set("X-Consul-KnownLeader", "true")
			}
			w.Header().Set("X-Cache", "HIT")
			w.Header().Set("Age", "0")
			if strings.Contains(path, "leaf") {
				w.Header().Set("Age", "86400") // since it was signed
			}
			_ = json.NewEncoder(w).Encode(answer.body)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (a *agent) note(q question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, q)
}

func (a *agent) answer(path string) (*agentAnswer, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answers[path], a.changed
}

// connect does a handshake between a client and a peer of the mesh with a leaf, in memory.
func connect(t testing.TB, client *tls.Config, leaf LeafText, version uint16) error {
	t.Helper()
	pair := verify.Result(tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))).Must(t)
	return handshake(client, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: version})
}

// marshal returns a value as an answer of Consul has it.
func marshal(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	verify.NoError(t, json.NewEncoder(&b).Encode(v))
	return b.Bytes()
}
