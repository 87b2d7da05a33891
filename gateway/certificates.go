package gateway

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"sluice/certificates"
	"sluice/certificates/kv"
)

const (
	// certificatesEvery is the time between two reads of the files of certificates.
	certificatesEvery = 5 * time.Second

	// warningEvery is the time between two warnings about the same certificate.
	warningEvery = 24 * time.Hour
)

// certificateUse is a use of certificates.
type certificateUse struct {
	user string // for people: "listener …"
	certificates.Source
}

// certificatesChanged returns what logs changes of the certificates of a user.
func (g *Gateway) certificatesChanged(user string) func(error) {
	return func(err error) {
		if err != nil {
			g.log.Warn().Str("used_by", user).Err(err).Msg("changed certificates cannot be used: the previous ones stay in use")
			return
		}
		g.log.Info().Str("used_by", user).Msg("the certificates have changed: new connections use them")
	}
}

// certificateUses returns all uses of certificates, except by ACME.
func (g *Gateway) certificateUses() []certificateUse {
	uses := []certificateUse{{"consul", g.consul.Certificates()}}
	clusters := g.etcd.Certificates()
	for _, endpoints := range slices.Sorted(maps.Keys(clusters)) {
		uses = append(uses, certificateUse{"etcd " + endpoints, clusters[endpoints]})
	}
	if g.adminCertificate != nil {
		uses = append(uses, certificateUse{adminUser, g.adminCertificate})
	}
	for _, l := range g.allListeners() {
		if l.tls != nil {
			uses = append(uses, l.tls.uses...)
		}
	}
	for _, service := range g.services.all() {
		uses = append(uses, *service.certificates.Load()...)
	}
	return uses
}

// certificateStatuses returns the state of all certificates.
func (g *Gateway) certificateStatuses() []certificates.Usage {
	var all []certificates.Usage
	for _, l := range g.allListeners() {
		if l.tls == nil || l.tls.acme == nil {
			continue
		}
		for _, status := range l.tls.acme.Statuses(l.tls.acme.names) {
			all = append(all, certificates.Usage{UsedBy: fmt.Sprintf("listener %q", l.config.Name), Status: status})
		}
	}
	for _, use := range g.certificateUses() {
		for _, status := range use.Statuses() {
			all = append(all, certificates.Usage{UsedBy: use.user, Status: status})
		}
	}
	return all
}

// followCertificates reads the files of certificates and users periodically from g.warm until ctx
// ends, and warns of certificates that are not valid or expire soon.
func (g *Gateway) followCertificates(ctx context.Context) {
	ticker := time.NewTicker(g.waits.certificates)
	defer ticker.Stop()
	warned, faults := make(map[string]time.Time), make(map[string]string)
	select {
	case <-g.warm: // those in Consul are not known before
	case <-ctx.Done():
		return
	}
	for {
		g.readCertificates()
		g.readUsers(faults)
		g.rotateTicketKeys(time.Now())
		g.warnOfCertificates(time.Now(), warned)
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
	g.updateTLS()
}

// kvPrefixes returns the certificates in Consul that listeners use.
func kvPrefixes(listeners []*listener) (used []*kv.Prefix) {
	for _, l := range listeners {
		if l.tls != nil {
			used = append(used, l.tls.kv...)
		}
	}
	return used
}

// awaitCertificates waits until the certificates of listeners are known, at most for timeout.
func (g *Gateway) awaitCertificates(ctx context.Context, listeners []*listener, timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	loading, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, u := range acmeUses(listeners) {
		u.Load(loading, u.names)
	}
	for _, p := range kvPrefixes(listeners) {
		if !p.Await(ctx, timer.C) {
			return
		}
	}
}

// updateTLS makes new connections use the certificates that are known now.
func (g *Gateway) updateTLS() {
	for _, l := range g.allListeners() {
		if l.tls != nil {
			l.tls.update()
		}
	}
}

// rotateTicketKeys makes the listeners use a new key for session tickets, if it is
// time.
func (g *Gateway) rotateTicketKeys(now time.Time) {
	g.tickets.Rotate(now)
	for _, l := range g.allListeners() {
		if l.tls != nil {
			g.tickets.Use(l.tls.config)
		}
	}
}

// warnOfCertificates logs the certificates that are not valid or expire soon. warned
// has the times of earlier warnings.
func (g *Gateway) warnOfCertificates(now time.Time, warned map[string]time.Time) {
	for _, c := range g.certificateStatuses() {
		state := c.State(now)
		key := c.UsedBy + c.File + state.String() + c.Expires.String()
		if state == certificates.Valid || now.Sub(warned[key]) < warningEvery {
			continue
		}
		warned[key] = now
		event := g.log.Warn()
		if state == certificates.Expired {
			event = g.log.Error()
		}
		event.Str("used_by", c.UsedBy).Str("file", c.File).Strs("names", c.Names).
			Time("valid_from", c.Begin).Time("expires", c.Expires).Msgf("a certificate is %s", state)
	}
}
