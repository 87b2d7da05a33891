package consul

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"
)

// certificates are what a client trusts, and shows, over TLS: what their files
// hold when a connection is opened. Short-lived certificates are renewed on disk;
// a connection that is open keeps those that it began with. It is safe for
// concurrent use.
type certificates struct {
	files api.TLSConfig
	log   zerolog.Logger

	mu      sync.Mutex // guards the fields below
	config  *tls.Config
	problem error // why the files could not be used last time
}

// newCertificates reads the files for the first time.
func newCertificates(files api.TLSConfig, log zerolog.Logger) (*certificates, error) {
	config, err := readTLS(files)
	if err != nil {
		return nil, fmt.Errorf("consul: TLS: %w", err)
	}
	return &certificates{files: files, log: log, config: config}, nil
}

// current returns the configuration for a new connection. Files that cannot be
// read, or do not fit together, leave it as it was: they may be in the middle of
// a change.
func (c *certificates) current() *tls.Config {
	if c.files.CAFile == "" && c.files.CAPath == "" && c.files.CertFile == "" {
		return c.config
	}
	config, err := readTLS(c.files)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil && c.problem == nil:
		c.log.Warn().Err(err).Msg("consul: the certificates cannot be read, going on with those that were read before")
	case err == nil && (c.problem != nil || !sameTLS(c.config, config)):
		c.log.Info().Msg("consul: other certificates are used for new connections from now on")
	}
	if c.problem = err; err == nil {
		c.config = config
	}
	return c.config
}

// dialTLS returns a dial function for TLS over what dial opens.
func (c *certificates) dialTLS(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		config := c.current().Clone()
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

// readTLS reads the files.
func readTLS(files api.TLSConfig) (*tls.Config, error) {
	for _, name := range []string{files.CAFile, files.CertFile} {
		if err := complete(name); err != nil {
			return nil, err
		}
	}
	return api.SetupTLSConfig(&files)
}

// complete returns an error if a file ends within a certificate: those before it
// would be taken for all there are.
func complete(name string) error {
	if name == "" {
		return nil
	}
	rest, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for block := new(pem.Block); block != nil; {
		block, rest = pem.Decode(rest)
	}
	if bytes.Contains(rest, []byte("-----BEGIN")) {
		return fmt.Errorf("%s ends within a certificate", name)
	}
	return nil
}

// sameTLS reports whether a and b trust the same and show the same.
func sameTLS(a, b *tls.Config) bool {
	sameChain := func(a, b tls.Certificate) bool { return slices.EqualFunc(a.Certificate, b.Certificate, bytes.Equal) }
	return slices.EqualFunc(a.Certificates, b.Certificates, sameChain) &&
		(a.RootCAs == b.RootCAs || a.RootCAs != nil && b.RootCAs != nil && a.RootCAs.Equal(b.RootCAs))
}
