package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/consul/mesh"
)

// Mesh is what Consul says about its service mesh, if the configuration uses it for a service.
type Mesh struct {
	Name        string // of sluice in the mesh
	TrustDomain string
	Roots       []Root
	Leaf        []*x509.Certificate // sluice's certificate, and what is between it and a root
	Refused     string              // why there are no roots or no leaf; "": there are
	Forbidden   bool                // a permission is missing for the leaf
	Services    []MeshService       // nothing is known of them without roots
	Source      []string            // entries and fields about sluice as the source of connections
}

// Root is a root certificate of the mesh, as the doctor has found it in Consul.
type Root struct {
	Name        string
	Active      bool
	Certificate *x509.Certificate // nil: see Problem
	Problem     string            // why it cannot be read
}

// MeshService is a service of the configuration that is reached through the mesh.
type MeshService struct {
	Name     string // in the configuration
	Service  string // in Consul
	Routed   bool
	HTTP2    bool   // sluice speaks HTTP/2 to it
	Listener string // for TCP, which leads to it; "": none

	Chain        *mesh.Compiled // its discovery chain; nil: not known
	Protocol     string         // of service-defaults
	Entries      []string       // "router" and "splitter", if it has them
	Refused      string         // error of the query of its discovery chain
	Forbidden    bool           // a permission is missing for that
	Destinations []Destination  // of its discovery chain, but not those in peered clusters
}

// Destination is a service to which a discovery chain leads.
type Destination struct {
	Service    string
	Datacenter string // "": the chain's

	Listed, Serving int // instances in the mesh
	Apps            int // instances outside of it
	Hidden          bool

	Denied    string // why it denies sluice every request; "": it does not
	Refused   string // error of a query
	Forbidden bool   // a permission is missing for it
}

// queryMesh asks about the mesh, if the configuration reaches a service through it.
func (d *Doctor) queryMesh(ctx context.Context, f *Facts) {
	services := meshServices(f)
	if len(services) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	m := &Mesh{Name: d.options.MeshName, Services: services}
	f.Mesh = m
	if err := d.queryIdentity(ctx, m); err != nil {
		if m.Refused, m.Forbidden = consul.Shorten(err).Error(), consul.Forbidden(err); m.TrustDomain == "" {
			return // there is no mesh
		}
	}
	m.Source = d.querySource(ctx, m.Name)
	_ = each(ctx, maxQueries, len(m.Services), func(ctx context.Context, n int) error {
		s := &m.Services[n]
		if err := d.queryChain(ctx, s); err != nil {
			s.Refused, s.Forbidden = consul.Shorten(err).Error(), consul.Forbidden(err)
		}
		for i := range s.Destinations {
			to := &s.Destinations[i]
			if err := d.queryDestination(ctx, f, to); err != nil {
				to.Refused, to.Forbidden = consul.Shorten(err).Error(), consul.Forbidden(err)
			}
		}
		return nil
	})
}

// meshServices returns the services that are reached through the mesh: of the configuration,
// and those that sluice would find in the catalog.
func meshServices(f *Facts) (services []MeshService) {
	configured := map[string]bool{f.Own: true}
	for _, u := range f.Uses {
		configured[u.Service] = true
		if u.Mesh {
			s := MeshService{Name: u.Name, Service: u.Service, Routed: u.Routed, HTTP2: u.HTTP2, Listener: u.Listener}
			services = append(services, s)
		}
	}
	if f.Config != nil && f.Config.Catalog != nil && f.Config.Catalog.Connect {
		for _, name := range slices.Sorted(maps.Keys(f.resolveTags().routed)) {
			if !configured[name] {
				services = append(services, MeshService{Name: name, Service: name, Routed: true})
			}
		}
	}
	return services
}

// queryIdentity reads the roots, and the certificate of sluice.
func (d *Doctor) queryIdentity(ctx context.Context, m *Mesh) error {
	roots, _, err := d.api.Agent().ConnectCARoots(query(ctx))
	if err != nil {
		return err
	}
	m.TrustDomain = roots.TrustDomain
	for _, r := range present(roots.Roots) {
		root := Root{Name: cmp.Or(r.Name, r.ID), Active: r.Active}
		if list, err := certificatesOf(r.RootCertPEM); err != nil {
			root.Problem = err.Error()
		} else {
			root.Certificate = list[0]
		}
		m.Roots = append(m.Roots, root)
	}
	leaf, _, err := d.api.Agent().ConnectCALeaf(m.Name, query(ctx))
	if err == nil {
		m.Leaf, err = certificatesOf(leaf.CertPEM)
	}
	return err
}

// certificatesOf returns the certificates of a text in PEM format, at least one.
func certificatesOf(text string) (list []*x509.Certificate, err error) {
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	return list, nil
}

// queryChain reads the discovery chain of a service.
func (d *Doctor) queryChain(ctx context.Context, s *MeshService) error {
	var answer struct{ Chain *mesh.Compiled }
	o := query(ctx)
	o.Datacenter = d.options.Datacenter
	// Raw escapes the path.
	if _, err := d.api.Raw().Query("/v1/discovery-chain/"+s.Service, &answer, o); err != nil {
		return err
	}
	c := answer.Chain
	if c == nil {
		return errors.New("the answer has no discovery chain")
	}
	s.Chain, s.Protocol = c, c.Protocol
	for _, n := range c.Nodes {
		if n.Type != mesh.NodeResolver && !slices.Contains(s.Entries, n.Type) {
			s.Entries = append(s.Entries, n.Type)
		}
	}
	slices.Sort(s.Entries)
	for _, id := range slices.Sorted(maps.Keys(c.Targets)) {
		t := c.Targets[id]
		to := Destination{Service: t.Service}
		if t.Datacenter != c.Datacenter {
			to.Datacenter = t.Datacenter
		}
		// Several targets may be subsets of one service.
		if t.Peer == "" && !slices.Contains(s.Destinations, to) {
			s.Destinations = append(s.Destinations, to)
		}
	}
	return nil
}

// queryDestination reads the instances of a destination in the mesh, and its intentions for sluice.
func (d *Doctor) queryDestination(ctx context.Context, f *Facts, to *Destination) error {
	for _, i := range f.Instances {
		if i.Service == to.Service && !i.Sidecar && to.Datacenter == "" {
			to.Apps++
		}
	}
	o := query(ctx)
	o.Datacenter = cmp.Or(to.Datacenter, d.options.Datacenter)
	entries, meta, err := d.api.Health().Connect(to.Service, "", false, o)
	if err != nil {
		return err
	}
	to.Hidden = meta.ResultsFilteredByACLs
	for _, e := range entries {
		if e == nil || e.Node == nil || e.Service == nil {
			continue
		}
		e.Checks = present(e.Checks)
		if to.Listed++; instanceOf(e, "").Serving() {
			to.Serving++
		}
	}
	to.Denied, err = d.denied(ctx, to.Service)
	return err
}

// denied returns why a destination denies every request of sluice; "": it does not, or each request
// decides. The intention with the highest precedence counts, else the default.
// https://developer.hashicorp.com/consul/docs/connect/intentions#precedence-and-match-order
func (d *Doctor) denied(ctx context.Context, destination string) (string, error) {
	connect := d.api.Connect()
	matches, _, err := connect.IntentionMatch(&api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{destination}}, query(ctx))
	if err != nil {
		return "", err
	}
	all := present(slices.Concat(slices.Collect(maps.Values(matches))...))
	slices.SortStableFunc(all, func(a, b *api.Intention) int { return cmp.Compare(b.Precedence, a.Precedence) })
	for _, i := range all {
		if i.SourcePeer != "" || i.SourceName != "*" && i.SourceName != d.options.MeshName {
			continue
		}
		allows := func(p *api.IntentionPermission) bool { return p != nil && p.Action == api.IntentionActionAllow }
		if i.Action == api.IntentionActionAllow || slices.ContainsFunc(i.Permissions, allows) {
			return "", nil
		}
		return fmt.Sprintf("the intention %q => %q denies it", i.SourceName, i.DestinationName), nil
	}
	allowed, _, err := connect.IntentionCheck(&api.IntentionCheck{Source: d.options.MeshName, Destination: destination}, query(ctx))
	if err != nil || allowed {
		return "", err
	}
	return fmt.Sprintf("no intention is about %s and %s, and without one Consul denies", d.options.MeshName, destination), nil
}
