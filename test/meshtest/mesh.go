package meshtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// Mesh is a Consul agent with Connect.
type Mesh struct {
	*consultest.Agent
}

// Start runs an agent with Connect and the built-in certificate authority until t ends, as
// consultest.Start does. With o.ACLs, no intention means deny.
func Start(t testing.TB, o consultest.Options) *Mesh {
	t.Helper()
	if o.Config == nil {
		o.Config = map[string]any{}
	}
	if o.Config["connect"] == nil && o.Mode != consultest.Client {
		o.Config["connect"] = map[string]any{"enabled": true}
	}
	m := Of(consultest.Start(t, o))
	m.awaitAuthority(t)
	return m
}

// Of returns the mesh of an agent that runs already. A dev agent has Connect.
func Of(a *consultest.Agent) *Mesh { return &Mesh{a} }

// awaitAuthority waits until there is a root, which a server makes after its election.
func (m *Mesh) awaitAuthority(t testing.TB) {
	t.Helper()
	consultest.Await(t, "Consul has a root certificate", func() bool { return m.activeRoot() != "" })
}

// activeRoot returns the ID of the root that signs new leaves, or "".
func (m *Mesh) activeRoot() string {
	roots, _, err := m.Client().Agent().ConnectCARoots(nil)
	if err != nil {
		return ""
	}
	return roots.ActiveRootID
}

// RotateCA makes Consul sign with a new root. When it returns, the agent has the new root beside
// the old one. The agent replaces its leaves later: up to half a minute, to spread the load.
func (m *Mesh) RotateCA(t testing.TB) {
	t.Helper()
	before := m.activeRoot()
	m.configureCA(t, map[string]any{"PrivateKey": newKey(t), "RootCert": ""})
	consultest.Await(t, "the agent knows the new root", func() bool {
		after := m.activeRoot()
		return after != "" && after != before
	})
}

// SetLeafTTL makes new leaves last for a time in Go's notation, at least an hour.
func (m *Mesh) SetLeafTTL(t testing.TB, ttl string) {
	t.Helper()
	m.configureCA(t, map[string]any{"LeafCertTTL": ttl})
}

// configureCA changes keys of the configuration of the certificate authority.
// https://developer.hashicorp.com/consul/api-docs/connect/ca#update-ca-configuration
func (m *Mesh) configureCA(t testing.TB, change map[string]any) {
	t.Helper()
	ca := m.Client().Connect()
	config, _, err := ca.CAGetConfig(nil)
	verify.NoError(t, err)
	for key, value := range change {
		config.Config[key] = value
	}
	_, err = ca.CASetConfig(config, nil)
	verify.NoError(t, err)
}

// newKey returns a private key as PEM. Another key is another root for the built-in authority.
func newKey(t testing.TB) string {
	t.Helper()
	key := verify.Result(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Must(t)
	der := verify.Result(x509.MarshalECPrivateKey(key)).Must(t)
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// Write writes a config entry, such as a service-router.
func (m *Mesh) Write(t testing.TB, entry api.ConfigEntry) {
	t.Helper()
	written, _, err := m.Client().ConfigEntries().Set(entry, nil)
	verify.Require(t, err == nil && written, "write the %s %s: %v", entry.GetKind(), entry.GetName(), err)
}

// Delete deletes a config entry, if there is one.
func (m *Mesh) Delete(t testing.TB, kind, name string) {
	t.Helper()
	_, err := m.Client().ConfigEntries().Delete(kind, name, nil)
	verify.Require(t, err == nil, "delete the %s %s: %v", kind, name, err)
}

// SetProtocol writes the service-defaults of a service. A router and a splitter need the protocol
// http, http2 or grpc.
func (m *Mesh) SetProtocol(t testing.TB, service, protocol string) {
	t.Helper()
	m.Write(t, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: service, Protocol: protocol})
}

// Intend replaces the intentions of a destination, and waits until the agent's cache has them, from
// which it answers sidecars and native services with its token.
func (m *Mesh) Intend(t testing.TB, destination string, sources ...*api.SourceIntention) {
	t.Helper()
	if len(sources) == 0 {
		m.Delete(t, api.ServiceIntentions, destination)
	} else {
		m.Write(t, &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: destination, Sources: sources})
	}
	match := &api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{"default/default/" + destination}}
	consultest.Await(t, "the agent's cache to have the intentions of "+destination, func() bool {
		// A cached query with an index makes the agent ask its servers, also if it has stopped
		// doing so by itself (hashicorp/consul issue 23368; see docs/mesh.md).
		connect := m.Client().Connect()
		now, _, err := connect.IntentionMatch(match, nil)
		cached, known, failed := connect.IntentionMatch(match, &api.QueryOptions{UseCache: true})
		if err != nil || failed != nil {
			return false
		}
		if reflect.DeepEqual(now, cached) {
			return true
		}
		_, _, _ = connect.IntentionMatch(match, &api.QueryOptions{UseCache: true, WaitIndex: known.LastIndex, WaitTime: time.Second})
		return false
	})
}

// Allow is an intention for a source, which may be "*".
func Allow(source string) *api.SourceIntention {
	return &api.SourceIntention{Name: source, Action: api.IntentionActionAllow}
}

// Deny is an intention for a source, which may be "*".
func Deny(source string) *api.SourceIntention {
	return &api.SourceIntention{Name: source, Action: api.IntentionActionDeny}
}

// ByRequest is an intention with permissions (L7), for which the destination needs the protocol
// http, http2 or grpc.
func ByRequest(source string, permissions ...*api.IntentionPermission) *api.SourceIntention {
	return &api.SourceIntention{Name: source, Permissions: permissions}
}

// AwaitPassing waits until Consul has n passing instances of a service in the mesh.
func (m *Mesh) AwaitPassing(t testing.TB, service string, n int) {
	t.Helper()
	consultest.Await(t, fmt.Sprintf("%d passing instances of %s in the mesh", n, service), func() bool {
		found, _, err := m.Client().Health().Connect(service, "", true, nil)
		return err == nil && len(found) == n
	})
}

// freePort returns a port for a server that a check of Consul asks, and that may start again on it.
func freePort(t testing.TB) int {
	t.Helper()
	l := verify.Result(consultest.Listen()).Must(t)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// sameName compares names and SPIFFE URIs as Consul does.
func sameName(a, b string) bool { return strings.EqualFold(a, b) }
