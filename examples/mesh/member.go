package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// member is a native member of the mesh: its certificate, whom it trusts, and whom Consul lets
// connect. https://developer.hashicorp.com/consul/docs/connect/native
type member struct {
	consul  *api.Client
	service string
	leaf    atomic.Pointer[tls.Certificate]
	roots   atomic.Pointer[x509.CertPool]
	end     context.CancelFunc
	running sync.WaitGroup
}

// join begins to follow the certificate of a service and the roots, and waits for both.
func join(ctx context.Context, consul *api.Client, service string) (*member, error) {
	m := &member{consul: consul, service: service}
	following, end := context.WithCancel(context.Background())
	m.end = end
	first := make(chan error, 2)
	m.follow(following, first, m.readLeaf)
	m.follow(following, first, m.readRoots)
	for range 2 {
		select {
		case err := <-first:
			if err != nil {
				return nil, errors.Join(err, m.leave())
			}
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), m.leave())
		}
	}
	return m, nil
}

// follow repeats a blocking query. first gets the result of the first one.
func (m *member) follow(ctx context.Context, first chan<- error, read func(*api.QueryOptions) (*api.QueryMeta, error)) {
	m.running.Go(func() {
		index := uint64(0)
		for begun := false; ctx.Err() == nil; begun = true {
			meta, err := read((&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx))
			if !begun {
				first <- err
			}
			if err == nil {
				index = meta.LastIndex
				continue
			}
			index = 0
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
}

func (m *member) readLeaf(q *api.QueryOptions) (*api.QueryMeta, error) {
	leaf, meta, err := m.consul.Agent().ConnectCALeaf(m.service, q)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))
	if err != nil {
		return nil, err
	}
	m.leaf.Store(&pair)
	return meta, nil
}

func (m *member) readRoots(q *api.QueryOptions) (*api.QueryMeta, error) {
	list, meta, err := m.consul.Agent().ConnectCARoots(q)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, root := range list.Roots {
		pool.AppendCertsFromPEM([]byte(root.RootCertPEM))
	}
	m.roots.Store(pool)
	return meta, nil
}

// tls returns the configuration of a server in the mesh.
func (m *member) tls() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS12,
		GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.leaf.Load(), nil },
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: m.admit,
	}
}

// admit verifies the certificate of a client, and asks Consul whether it may connect.
func (m *member) admit(s tls.ConnectionState) error {
	leaf, between := s.PeerCertificates[0], x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: m.roots.Load(), Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return err
	}
	if len(leaf.URIs) != 1 {
		return errors.New("the certificate of the client has not one URI")
	}
	number := make([]string, 0, 20)
	for _, b := range leaf.SerialNumber.Bytes() {
		number = append(number, fmt.Sprintf("%02x", b))
	}
	answer, err := m.consul.Agent().ConnectAuthorize(&api.AgentAuthorizeParams{
		Target: m.service, ClientCertURI: leaf.URIs[0].String(), ClientCertSerial: strings.Join(number, ":"),
	})
	if err == nil && !answer.Authorized {
		err = errors.New(answer.Reason)
	}
	return err
}

// leave ends what join began.
func (m *member) leave() error {
	m.end()
	m.running.Wait()
	return nil
}

// newRoot gives Consul's certificate authority another key, and so another root.
func (s *tour) newRoot() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	authority := s.Consul.Client().Connect()
	config, _, err := authority.CAGetConfig(nil)
	if err != nil {
		return err
	}
	config.Config["PrivateKey"] = string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	config.Config["RootCert"] = ""
	_, err = authority.CASetConfig(config, nil)
	return err
}

// write writes config entries, in their order.
func (s *tour) write(entries ...api.ConfigEntry) error {
	for _, entry := range entries {
		if _, _, err := s.Consul.Client().ConfigEntries().Set(entry, nil); err != nil {
			return fmt.Errorf("write the %s %s: %w", entry.GetKind(), entry.GetName(), err)
		}
	}
	return nil
}
