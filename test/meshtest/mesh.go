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
	m := &Mesh{consultest.Start(t, o)}
	// A server makes a root after its election.
	consultest.Await(t, "Consul has a root certificate", func() bool { return m.activeRoot() != "" })
	return m
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
	ca := m.Client().Connect()
	config, _, err := ca.CAGetConfig(nil)
	verify.NoError(t, err)
	config.Config["PrivateKey"], config.Config["RootCert"] = newKey(t), ""
	_, err = ca.CASetConfig(config, nil)
	verify.NoError(t, err)
	consultest.Await(t, "the agent knows the new root", func() bool {
		after := m.activeRoot()
		return after != "" && after != before
	})
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
