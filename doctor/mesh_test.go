package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/consul/mesh"
	"sluice/test/verify"
)

// authority is a root of a mesh.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority returns a root that is valid until a time, or what a parent has signed in its place.
func newAuthority(t *testing.T, until time.Time, parent *authority) authority {
	t.Helper()
	return signed(t, parent, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: now.Add(-time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
}

func signed(t *testing.T, by *authority, template *x509.Certificate) authority {
	t.Helper()
	key := verify.Result(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Must(t)
	if by == nil {
		by = &authority{template, key}
	}
	der := verify.Result(x509.CreateCertificate(rand.Reader, template, by.certificate, key.Public(), by.key)).Must(t)
	return authority{verify.Result(x509.ParseCertificate(der)).Must(t), key}
}

// leaf returns a certificate for a URI.
func (a authority) leaf(t *testing.T, uri string, until time.Time) *x509.Certificate {
	t.Helper()
	return signed(t, &a, &x509.Certificate{
		SerialNumber: big.NewInt(2), URIs: []*url.URL{verify.Result(url.Parse(uri)).Must(t)}, NotBefore: now.Add(-time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}).certificate
}

func TestDiagnoseMesh(t *testing.T) {
	const day = 24 * time.Hour
	root, other, ending, ended := newAuthority(t, now.Add(1000*day), nil), newAuthority(t, now.Add(1000*day), nil), newAuthority(t, now.Add(day), nil), newAuthority(t, now.Add(-time.Minute), nil)
	const uri = "spiffe://ABC.consul/ns/default/dc/dc1/svc/sluice"
	good := root.leaf(t, uri, now.Add(72*time.Hour))
	between := newAuthority(t, now.Add(1000*day), &root)
	roots := func(list ...Root) func(*Mesh) { return func(m *Mesh) { m.Roots = list } }
	leaf := func(list ...*x509.Certificate) func(*Mesh) { return func(m *Mesh) { m.Leaf = list } }
	service := func(change func(*MeshService)) func(*Mesh) { return func(m *Mesh) { change(&m.Services[0]) } }
	to := func(change func(*Destination)) func(*Mesh) {
		return func(m *Mesh) { change(&m.Services[0].Destinations[0]) }
	}
	and := func(more Destination) func(*Mesh) {
		return service(func(s *MeshService) { s.Destinations = append(s.Destinations, more) })
	}
	active := Root{Name: "new", Active: true, Certificate: root.certificate}
	for _, test := range []struct {
		name   string
		change func(*Mesh)
		want   string // severity, code and a part of what is seen; several by ";"
	}{
		{"nothing wrong", func(*Mesh) {}, ""},
		{"after a rotation", roots(Root{Name: "old", Certificate: other.certificate}, active), ""},
		{"signed by an intermediate", leaf(between.leaf(t, uri, now.Add(time.Hour)), between.certificate), ""},
		{"another case", leaf(root.leaf(t, strings.ToLower(uri), now.Add(time.Hour))), ""},

		{"two roots are active", roots(active, Root{Name: "other", Active: true, Certificate: other.certificate}), "error mesh-root 2 roots of 2 are active, want 1"},
		{"no root is active", roots(Root{Name: "old", Certificate: root.certificate}), "error mesh-root 0 roots of 1 are active"},
		{"a root expires", roots(active, Root{Name: "x", Certificate: ending.certificate}), ""},
		{"the active root expires", func(m *Mesh) {
			m.Roots, m.Leaf = []Root{{Name: "x", Active: true, Certificate: ending.certificate}}, []*x509.Certificate{ending.leaf(t, uri, now.Add(time.Hour))}
		}, "warning mesh-root the root x expires at 2026-02-04T04:05:06Z"},
		{"the active root has expired", roots(Root{Name: "x", Active: true, Certificate: ended.certificate}),
			"error mesh-identity the certificate of sluice does not fit the roots;error mesh-root the root x expired at"},
		{"an old root has expired", roots(active, Root{Name: "x", Certificate: ended.certificate}), "warning mesh-root the root x, which signs nothing any more, expired"},
		{"a root that cannot be read", roots(active, Root{Name: "x", Problem: "asn1"}), "error mesh-root the root x cannot be read: asn1"},

		{"no leaf without a right", func(m *Mesh) { m.Leaf, m.Refused, m.Forbidden = nil, "403", true }, "error mesh-identity Consul gives no certificate for sluice: 403"},
		{"no mesh", func(m *Mesh) { m.Leaf, m.Roots, m.Refused = nil, nil, "500 (Connect must be enabled)" }, "error mesh-identity Consul gives no certificate for sluice: 500 (Connect"},
		{"an expired leaf", leaf(root.leaf(t, uri, now)), "error mesh-identity the certificate of sluice expired at 2026-02-03T04:05:06Z"},
		{"a leaf of another root", leaf(other.leaf(t, uri, now.Add(time.Hour))), "error mesh-identity the certificate of sluice does not fit the roots"},
		{"a leaf without its intermediate", leaf(between.leaf(t, uri, now.Add(time.Hour))), "error mesh-identity the certificate of sluice does not fit the roots"},
		{"a leaf of another service", leaf(root.leaf(t, "spiffe://abc.consul/ns/default/dc/dc1/svc/web", now.Add(time.Hour))), "error mesh-identity the certificate is for [spiffe://abc.consul/ns/default/dc/dc1/svc/web]"},
		{"a leaf of another mesh", leaf(root.leaf(t, "spiffe://def.consul/ns/default/dc/dc1/svc/sluice", now.Add(time.Hour))), "error mesh-identity the certificate is for"},

		{"refused", service(func(s *MeshService) { s.Refused, s.Destinations = "500", nil }), "error mesh-refused Consul does not say how it is reached through the mesh: 500"},
		{"a destination is refused", and(Destination{Service: "shop", Refused: "403", Forbidden: true}), "error mesh-refused Consul does not say how it is reached through the mesh: shop: 403"},
		{"without a sidecar", to(func(d *Destination) { d.Listed, d.Serving = 0, 0 }), "error mesh-missing Consul has 2 instances of it, and none in the mesh"},
		{"without an instance", to(func(d *Destination) { d.Listed, d.Serving, d.Apps = 0, 0, 0 }), ""}, // is service-missing
		{"hidden sidecars", to(func(d *Destination) { d.Listed, d.Serving, d.Hidden = 0, 0, true }), "error mesh-missing ACLs hide"},
		{"no sidecar passes", to(func(d *Destination) { d.Serving = 0 }), "error mesh-missing Consul has 2 instances of it in the mesh, and none is in service"},
		{"another destination has no instance", and(Destination{Service: "shop", Datacenter: "dc2"}), "warning mesh-missing Consul has no instance of it in the mesh, in the data centre dc2"},
		{"denied", to(func(d *Destination) { d.Denied = "no" }), "error mesh-denied sluice may not connect: no"},
		{"denied without a route", func(m *Mesh) { m.Services[0].Destinations[0].Denied, m.Services[0].Routed = "no", false }, "warning mesh-denied"},

		{"a chain that cannot be used", service(func(s *MeshService) { s.Chain = &mesh.Compiled{StartNode: "x"} }), `error mesh-chain sluice cannot use its discovery chain: the chain has no node "x"`},

		{"requests", service(func(s *MeshService) { s.Protocol, s.Entries = "http", []string{"router", "splitter"} }), ""},
		{"HTTP/2", service(func(s *MeshService) { s.Protocol, s.HTTP2 = "grpc", true }), ""},
		{"connections", service(func(s *MeshService) { s.Protocol, s.Listener = "tcp", "db" }), ""},
		{"connections to what takes requests", service(func(s *MeshService) { s.Protocol, s.Listener = "http2", "db" }), "warning mesh-protocol service-defaults have the protocol http2, and the listener db for TCP"},
		{"connections past a router", service(func(s *MeshService) { s.Protocol, s.Listener, s.Entries = "http", "db", []string{"router", "splitter"} }),
			"error mesh-protocol service-defaults have the protocol http and it has a service-router and a service-splitter, and the listener db"},
		{"HTTP/2 that the sidecar does not forward", service(func(s *MeshService) { s.Protocol, s.HTTP2 = "http", true }), "warning mesh-protocol service-defaults have the protocol http, and upstream.protocol is h2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := healthy()
			f.Mesh = &Mesh{
				Name: "sluice", TrustDomain: "abc.consul", Roots: []Root{active}, Leaf: []*x509.Certificate{good},
				Services: []MeshService{{Name: "web", Service: "web", Routed: true, Protocol: "tcp", Destinations: []Destination{{Service: "web", Listed: 2, Serving: 1, Apps: 2}}}},
			}
			test.change(f.Mesh)
			findings := Diagnose(f, 0)
			var want []string
			if test.want != "" {
				want = strings.Split(test.want, ";")
			}
			var got []string
			for i, finding := range findings {
				verify.That(t, finding.Why != "" && finding.Do != "", "without an effect or a remedy: %+v", finding)
				if got = append(got, brief(Finding{Severity: finding.Severity, Code: finding.Code})+" "+finding.Seen); i < len(want) && strings.HasPrefix(got[i], want[i]) {
					got[i] = want[i]
				}
			}
			verify.Slices(t, got, want, "findings")
		})
	}
}

func TestSidecarWithoutItsService(t *testing.T) {
	sidecar := func(node, id string) Instance {
		return star(9, node, "10.0.0.1", 21000).with(func(i *Instance) {
			i.Service, i.ID, i.Sidecar, i.Proxied, i.ProxiedID = "star-sidecar-proxy", "proxy", true, "star", id
		})
	}
	for _, test := range []struct {
		name   string
		change func(*Facts)
		want   []string
	}{
		{"of an instance", func(f *Facts) { f.Instances = append(f.Instances, sidecar("a", "star-1")) }, nil},
		{"of a service", func(f *Facts) { f.Instances = append(f.Instances, sidecar("c", "")) }, nil},
		{"of an instance that is gone", func(f *Facts) { f.Instances = append(f.Instances, sidecar("a", "star-7")) }, []string{"error mesh-sidecar star-sidecar-proxy proxy on node a, 10.0.0.1:21000"}},
		{"of an instance on another node", func(f *Facts) { f.Instances = append(f.Instances, sidecar("a", "star-2")) }, []string{"error mesh-sidecar star-sidecar-proxy proxy on node a, 10.0.0.1:21000"}},
		{"of a service that is gone", func(f *Facts) { f.Instances = []Instance{sidecar("a", "")} }, []string{"error mesh-sidecar star-sidecar-proxy proxy on node a, 10.0.0.1:21000"}},
		{"that fails", func(f *Facts) { f.Instances = []Instance{sidecar("a", "").with(critical)} },
			[]string{"warning mesh-sidecar star-sidecar-proxy proxy on node a, 10.0.0.1:21000", "notice critical star-sidecar-proxy proxy on node a, 10.0.0.1:21000"}},
		{"of a service that was not looked at", func(f *Facts) { f.Only, f.Instances = []string{"star-sidecar-proxy"}, []Instance{sidecar("a", "")} }, nil},
		{"of a service that ACLs may hide", func(f *Facts) { f.Filtered, f.Instances = []string{"/x"}, []Instance{sidecar("a", "")} }, []string{"warning acl-filtered"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := healthy()
			test.change(f)
			verify.Slices(t, briefs(Diagnose(f, 0)), test.want, "findings")
		})
	}
}
