package consul

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/consultest"
)

// authority issues certificates into files.
type authority struct {
	t           *testing.T
	dir         string
	file        string // its own certificate
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	issued      int64
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: filepath.Join(t.TempDir(), "issued")}
	must(t, os.Mkdir(a.dir, 0o700))
	a.certificate = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.file, _, a.key = a.write("ca", a.certificate)
	return a
}

// issue makes a certificate for names, which may be IP addresses.
func (a *authority) issue(file string, names ...string) (certificate, key string) {
	a.issued++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.issued), Subject: pkix.Name{CommonName: file},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	certificate, key, _ = a.write(file, template)
	return certificate, key
}

// write signs template, with its own key if the authority has none yet.
func (a *authority) write(file string, template *x509.Certificate) (certificate, keyFile string, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, signer)
	must(a.t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, err)
	certificate, keyFile = filepath.Join(a.dir, file+".pem"), filepath.Join(a.dir, file+"-key.pem")
	must(a.t, os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(a.t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return certificate, keyFile, key
}

// TestRealTLS watches a service of an agent that takes only clients with a
// certificate.
func TestRealTLS(t *testing.T) {
	clearEnvironment(t)
	ca, other := newAuthority(t, "Consul CA"), newAuthority(t, "Another CA")
	server, serverKey := ca.issue("server", "server.dc1.consul")
	client, clientKey := ca.issue("client")
	stranger, strangerKey := other.issue("client")
	agent := consultest.Start(t, consultest.Options{
		Node: "node-1",
		TLS:  &consultest.TLS{CA: ca.file, Cert: server, Key: serverKey, VerifyIncoming: true},
	})
	registerTTL(t, agent, "star", "a", 8001, nil)
	address := "https://" + agent.HTTPSAddress()

	cas := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.Link(ca.file, cas))
	good := TLSOptions{CAFile: ca.file, CertFile: client, KeyFile: clientKey, ServerName: "server.dc1.consul"}
	for _, tt := range []struct {
		name   string
		change func(*TLSOptions)
		err    string // part of it; "": no error
	}{
		{"everything", func(*TLSOptions) {}, ""},
		{"a directory of CAs", func(o *TLSOptions) { o.CAFile, o.CAPath = "", filepath.Dir(cas) }, ""},
		{"no verification", func(o *TLSOptions) { o.CAFile, o.ServerName, o.InsecureSkipVerify = "", "", true }, ""},
		{"an unknown CA", func(o *TLSOptions) { o.CAFile = other.file }, "unknown authority"},
		{"the address as the name", func(o *TLSOptions) { o.ServerName = "" }, "127.0.0.1"},
		{"another name", func(o *TLSOptions) { o.ServerName = "server.dc2.consul" }, "server.dc2.consul"},
		// The server tells after the handshake, and the words differ.
		{"no client certificate", func(o *TLSOptions) { o.CertFile, o.KeyFile = "", "" }, "consul"},
		{"another CA's client certificate", func(o *TLSOptions) { o.CertFile, o.KeyFile = stranger, strangerKey }, "consul"},
	} {
		o := good
		tt.change(&o)
		answer, err := askOnce(t, ClientOptions{Addresses: []string{address}, TLS: o})
		if tt.err == "" && (err != nil || formatSet(answer.Instances) != "a") {
			t.Errorf("%s: %+v, %v", tt.name, answer, err)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), address)) {
			t.Errorf("%s: error %v, want one with %q and the address", tt.name, err, tt.err)
		}
	}

	r := watchRealClient(t, ClientOptions{Addresses: []string{address}, TLS: good}, ServiceOptions{Service: "star"})
	r.await("a")
	registerTTL(t, agent, "star", "b", 8002, nil)
	r.await("a b")
	r.awaitStatus("served over TLS", freshFrom(address))
}

// TestRealUnixSocket watches a service over the agent's socket.
func TestRealUnixSocket(t *testing.T) {
	clearEnvironment(t)
	dir, err := os.MkdirTemp("", "sluice") // t.TempDir may be too long for a socket
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := "unix://" + filepath.Join(dir, "consul.sock")
	agent := consultest.Start(t, consultest.Options{Node: "node-1", Config: map[string]any{
		"addresses": map[string]any{"http": "127.0.0.1 " + socket},
	}})
	r := watchRealClient(t, ClientOptions{Addresses: []string{socket}}, ServiceOptions{Service: "star"})
	r.await("")
	registerTTL(t, agent, "star", "a", 8001, nil)
	r.await("a")
	r.awaitStatus("served over the socket", freshFrom(socket))
}
