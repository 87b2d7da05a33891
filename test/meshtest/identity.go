package meshtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/verify"
)

// Identity is what a service presents in the mesh, and whom it trusts, as its agent says. It
// follows Consul's changes until its test ends.
type Identity struct {
	leaf  atomic.Pointer[tls.Certificate]
	roots atomic.Pointer[x509.CertPool]
}

// Identity returns the identity of a service, which need not be registered.
func (m *Mesh) Identity(t testing.TB, service string) *Identity {
	t.Helper()
	i := new(Identity)
	agent := m.Client().Agent()
	ctx, stop := context.WithCancel(t.Context())
	var following sync.WaitGroup
	t.Cleanup(func() { stop(); following.Wait() })
	first := make(chan error, 2)
	watch := func(get func(*api.QueryOptions) (uint64, error)) {
		following.Go(func() {
			begun := false
			for index := uint64(0); ctx.Err() == nil; {
				next, err := get((&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx))
				if err != nil { // such as an agent that starts again
					next = 0
					select {
					case <-ctx.Done():
					case <-time.After(100 * time.Millisecond):
					}
				} else if !begun {
					begun = true
					first <- nil
				}
				index = next
			}
			if !begun {
				first <- ctx.Err()
			}
		})
	}
	watch(func(q *api.QueryOptions) (uint64, error) {
		leaf, meta, err := agent.ConnectCALeaf(service, q)
		if err != nil {
			return 0, err
		}
		pair, err := tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))
		if err == nil {
			i.leaf.Store(&pair)
		}
		return meta.LastIndex, err
	})
	watch(func(q *api.QueryOptions) (uint64, error) {
		list, meta, err := agent.ConnectCARoots(q)
		if err != nil {
			return 0, err
		}
		pool := x509.NewCertPool()
		for _, root := range list.Roots {
			pool.AppendCertsFromPEM([]byte(root.RootCertPEM))
		}
		i.roots.Store(pool)
		return meta.LastIndex, nil
	})
	for range 2 {
		verify.NoError(t, <-first)
	}
	return i
}

// Leaf returns the certificate in use, with its chain and key.
func (i *Identity) Leaf() *tls.Certificate { return i.leaf.Load() }

// server returns a configuration for connections of clients of the mesh. As Envoy's, it goes on
// without ALPN if the client offers nothing of alpn.
func (i *Identity) server(alpn ...string) *tls.Config {
	config := &tls.Config{
		ClientAuth:             tls.RequireAnyClientCert,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.leaf.Load(), nil },
		VerifyConnection:       func(s tls.ConnectionState) error { return i.verify(s.PeerCertificates) },
		SessionTicketsDisabled: true,
	}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		known := func(protocol string) bool { return slices.Contains(alpn, protocol) }
		if !slices.ContainsFunc(hello.SupportedProtos, known) {
			return nil, nil
		}
		chosen := config.Clone()
		chosen.NextProtos = alpn
		return chosen, nil
	}
	return config
}

func (i *Identity) verify(chain []*x509.Certificate) error {
	if len(chain) == 0 || len(chain[0].URIs) != 1 {
		return errors.New("the client has no certificate with one URI")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: i.roots.Load(), Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// sourceOf returns the name of the service of a client.
func sourceOf(s tls.ConnectionState) string {
	_, name, _ := strings.Cut(s.PeerCertificates[0].URIs[0].Path, "/svc/")
	return name
}
