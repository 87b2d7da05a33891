package gateway

import (
	"fmt"
	"net"
	"slices"

	"sluice/acme"
	"sluice/certificates"
	"sluice/config"
)

// newACME returns the manager of the ACME certificates of a listener of c, which is bound
// to address.
func (g *Gateway) newACME(l config.Listener, address net.Addr, c *config.Config) (*acme.Manager, error) {
	settings := l.TLS.ACME
	o := acme.Options{
		Names: settings.Names, Directory: settings.Directory, Email: settings.Email, Storage: settings.Storage,
		HTTP: servesHTTP(c), Listener: address.(*net.TCPAddr), Log: g.log,
	}
	if settings.ConsulKV != "" {
		o.Consul, o.Prefix = g.consul, settings.ConsulKV
		cipher, err := certificates.ReadCipher(settings.EncryptionKeys)
		if err != nil {
			return nil, fmt.Errorf("acme.encryption_keys: %w", err)
		}
		o.Cipher = cipher
	}
	if settings.CA != "" {
		contents, err := certificates.Read(certificates.Files{CA: settings.CA})
		if err != nil {
			return nil, err
		}
		o.Trusted = contents.Trusted
	}
	return acme.New(o), nil
}

// servesHTTP reports whether a listener of c serves HTTP without TLS.
func servesHTTP(c *config.Config) bool {
	return slices.ContainsFunc(c.Listeners, func(l config.Listener) bool {
		return l.TLS == nil && l.Protocol != config.ProtocolTCP
	})
}

// obtainCertificates has the certificates of the listener obtained and renewed until
// stopCertificates. It is called when the listener is about to accept connections, so
// that challenges are answered.
func (g *Gateway) obtainCertificates(l *listener) {
	if l.tls == nil || l.tls.acme == nil {
		return
	}
	if err := l.tls.acme.Start(); err != nil {
		g.log.Error().Str("listener", l.config.Name).Err(err).Msg("no certificate can be obtained")
	}
}

// stopCertificates ends orders and renewals. It may be called again.
func (l *listener) stopCertificates() {
	if l.tls != nil && l.tls.acme != nil {
		l.tls.acme.Close()
	}
}

// answerChallenge returns the response to a challenge of a listener's order.
func (g *Gateway) answerChallenge(host, path string) ([]byte, bool) {
	for _, l := range g.allListeners() {
		if l.tls == nil || l.tls.acme == nil {
			continue
		}
		if body, ok := l.tls.acme.HTTPChallenge(host, path); ok {
			return body, true
		}
	}
	return nil, false
}
