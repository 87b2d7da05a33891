package consul

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/certificates"
)

// newCertificates reads the files for the first time.
func newCertificates(files api.TLSConfig, log zerolog.Logger) (*certificates.Client, error) {
	c, err := certificates.NewClient(certificates.ClientOptions{
		ClientTLS: certificates.ClientTLS{
			CA: files.CAFile, Cert: files.CertFile, Key: files.KeyFile, ServerName: files.Address, SkipVerify: files.InsecureSkipVerify,
		},
		CADirectory: files.CAPath,
		Changed: func(err error) {
			if err != nil {
				log.Warn().Err(err).Msg("consul: the certificates cannot be read, going on with the ones that were read before")
				return
			}
			log.Info().Msg("consul: other certificates are used for new connections from now on")
		},
	})
	if err != nil {
		return nil, fmt.Errorf("consul: TLS: %w", err)
	}
	return c, nil
}

// dialTLS returns a dial function for TLS over what dial opens. It reads the files of
// c for each connection; an open one keeps the certificates that it began with.
func dialTLS(dial dialFunc, c *certificates.Client) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		config := c.Config()
		config.NextProtos = []string{"h2", "http/1.1"}
		if config.ServerName == "" {
			if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
				conn.Close()
				return nil, err
			}
		}
		ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, fmt.Errorf("no TLS handshake within %v", dialTimeout))
		defer cancel()
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, err
		}
		return secured, nil
	}
}
