package gateway

import (
	"context"
	"maps"
	"slices"
	"time"

	"sluice/certificates"
)

// certificatesEvery is the time between two reads of the files of certificates.
const certificatesEvery = 5 * time.Second

// certificateUses returns all uses of certificates, except by ACME.
func (g *Gateway) certificateUses() []certificates.Use {
	uses := []certificates.Use{{User: "consul", Source: g.consul.Certificates()}}
	clusters := g.etcd.Certificates()
	for _, endpoints := range slices.Sorted(maps.Keys(clusters)) {
		uses = append(uses, certificates.Use{User: "etcd " + endpoints, Source: clusters[endpoints]})
	}
	if g.adminCertificate != nil {
		uses = append(uses, certificates.Use{User: adminUser, Source: g.adminCertificate})
	}
	uses = append(uses, g.certificates.Uses()...)
	for _, service := range g.services.all() {
		uses = append(uses, *service.certificates.Load()...)
	}
	return uses
}

// certificateStatuses returns the state of all certificates.
func (g *Gateway) certificateStatuses() []certificates.Usage {
	return append(g.certificates.Statuses(), certificates.Statuses(g.certificateUses())...)
}

// followCertificates reads the files of certificates and users periodically from g.warm until ctx
// ends, and warns of certificates that are not valid or expire soon.
func (g *Gateway) followCertificates(ctx context.Context) {
	ticker := time.NewTicker(g.waits.certificates)
	defer ticker.Stop()
	warnings, faults := make(certificates.Warnings), make(map[string]string)
	select {
	case <-g.warm: // those in Consul are not known before
	case <-ctx.Done():
		return
	}
	for {
		g.readCertificates()
		g.routes.Load().ReadUsers(faults, g.log)
		warnings.Log(g.certificateStatuses(), time.Now(), g.log)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// readCertificates reads the files of all certificates again, and reviews the others.
func (g *Gateway) readCertificates() {
	for _, use := range g.certificateUses() {
		use.Refresh()
	}
	g.certificates.Refresh()
}
