package mesh

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/meshtest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// identify returns an Identity of sluice with a token, until t ends.
func identify(t *testing.T, m *meshtest.Mesh, token string) *Identity {
	t.Helper()
	log := new(subprocess.Output)
	client := verify.Result(consul.New(consul.Options{Addresses: []string{m.URL()}, Token: token, Log: zerolog.Nop()})).Must(t)
	i := NewIdentity(IdentityOptions{Consul: client, Wait: func() time.Duration { return time.Minute }, Log: zerolog.New(log)})
	i.Configure("sluice")
	t.Cleanup(func() {
		i.Configure("")
		client.Close()
		if t.Failed() {
			t.Logf("log of the identity:\n%s", log)
		}
	})
	return i
}

// awaitIdentity waits until there is a certificate.
func awaitIdentity(t *testing.T, i *Identity) {
	t.Helper()
	consultest.Await(t, "sluice has a certificate", func() bool { return i.Current() != nil })
}

// watched checks each certificate and each set of roots that is in use until t ends, and every pace
// a connection to each service at an address. It returns how many connections there were.
func watched(t *testing.T, i *Identity, addresses map[string]string, pace time.Duration) (stop func() (connections int)) {
	ctx, cancel := context.WithCancel(t.Context())
	var checking sync.WaitGroup
	connections := 0
	checking.Go(func() {
		var checked *Material
		for next := time.Now(); ctx.Err() == nil; _ = consul.Sleep(ctx, time.Millisecond) {
			if m := i.Current(); m != checked {
				verify.Succeeds(t, fits(m.leaf, m.roots, time.Now()))
				checked = m
			} else if time.Now().Before(next) {
				continue
			}
			next = time.Now().Add(pace)
			for service, address := range addresses {
				if err := reach(ctx, i, service, address); err != nil && ctx.Err() == nil {
					t.Errorf("a connection to %s: %v", service, err)
					return
				}
				connections++
			}
		}
	})
	return func() int {
		cancel()
		checking.Wait()
		return connections
	}
}

// reach opens a connection to a service, which must answer a request.
func reach(ctx context.Context, i *Identity, service, address string) error {
	terms, err := i.TermsFor(&discovery.Instance{Identity: "/ns/default/dc/dc1/svc/" + service})
	if err != nil {
		return err
	}
	c, err := (&tls.Dialer{Config: terms.Config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// Whatever rotates when, each connection works, with certificates of the former root or of the new
// one.
func TestRotationsFailNoConnection(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	m := meshtest.Start(t, consultest.Options{})
	sidecar := m.Sidecar(t, meshtest.Service{Name: "web", Port: meshtest.ServeHTTP(t, "web").Port})
	native := m.Native(t, meshtest.Service{Name: "api"})
	// Consul replaces each leaf at a random time within half a minute: of many, one is early.
	identities := make([]*Identity, long.Count(t, 10, 1))
	stops := make([]func() int, len(identities))
	pace := time.Duration(len(identities)) * long.Count(t, 50*time.Millisecond, time.Millisecond)
	for n := range identities {
		i := identify(t, m, "")
		i.Configure(fmt.Sprintf("sluice-%d", n))
		awaitIdentity(t, i)
		consultest.Await(t, "both answer", func() bool {
			return reach(t.Context(), i, "web", sidecar.Address) == nil && reach(t.Context(), i, "api", native.Address) == nil
		})
		identities[n], stops[n] = i, watched(t, i, map[string]string{"web": sidecar.Address, "api": native.Address}, pace)
	}
	rotations := 1 + random.IntN(3)
	for range rotations {
		former := make(map[*Identity]*Material)
		for _, i := range identities {
			former[i] = i.Current()
		}
		m.RotateCA(t)
		if random.IntN(2) == 0 {
			consultest.Await(t, "another leaf is in use", func() bool {
				return slices.ContainsFunc(identities, func(i *Identity) bool { return i.Current().leaf.text != former[i].leaf.text })
			})
		}
	}
	active := func() []byte {
		roots, _, err := m.Client().Agent().ConnectCARoots(nil)
		verify.NoError(t, err)
		for _, root := range roots.Roots {
			if all, err := parseAll(root.RootCertPEM); root.Active && err == nil {
				return all[0].SubjectKeyId
			}
		}
		return nil
	}
	var last *Identity
	consultest.Await(t, "a leaf is of the last root", func() bool {
		root := active()
		for _, i := range identities {
			if m := i.Current(); bytes.Equal(m.leaf.chain[0].AuthorityKeyId, root) && len(m.roots.trusted) == rotations+1 {
				last = i
			}
		}
		return last != nil
	})
	connections := 0
	for _, stop := range stops {
		connections += stop()
	}
	t.Logf("%d rotations, %d connections, %d leaves", rotations, connections, last.leaves.Load())
}

// The token needs what the docs say, and no restart when it gets that.
func TestTheTokenNeedsServiceWrite(t *testing.T) {
	t.Parallel()
	m := meshtest.Start(t, consultest.Options{ACLs: true})
	policy, token, err := m.NewToken("sluice", `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`)
	verify.NoError(t, err)
	i := identify(t, m, token.SecretID)
	consultest.Await(t, "a refusal", i.Refused)
	verify.Contains(t, i.Err().Error(), `lacks service:write: service "sluice" { policy = "write" }`, "the error")
	verify.Equal(t, i.Statuses()[0].State(time.Now()).String(), "missing", "the status")
	rules := verify.Result(consultest.DocumentedPolicy("../../docs/mesh.md", "## The certificate of sluice")).Must(t)
	policy.Rules = rules
	_, _, err = m.Client().ACL().PolicyUpdate(policy, nil)
	verify.NoError(t, err)
	awaitIdentity(t, i)
	consultest.Await(t, "no fault", func() bool { return i.Err() == nil })
	verify.That(t, strings.HasSuffix(i.Current().URI(), "/ns/default/dc/dc1/svc/sluice"), "the identity is %s", i.Current().URI())
}
