package certificates

import (
	"crypto/tls"

	"sluice/discovery"
)

// Security is the TLS of connections to the peers of a service: a [Client], or what Consul's service mesh
// provides. It is safe for concurrent use, and compared: connections with another one are not used again.
type Security interface {
	// TermsFor returns the TLS of a new connection to an instance. It does not wait. A [LackError] is no fault of the
	// instance.
	TermsFor(i *discovery.Instance) (Terms, error)
}

// A LackError is why sluice lacks what it needs for any connection, such as a certificate of its own.
type LackError struct{ Err error }

func (e LackError) Error() string { return e.Err.Error() }
func (e LackError) Unwrap() error { return e.Err }

// Terms are the TLS of a new connection to a peer.
type Terms struct {
	Config *tls.Config // without protocols, and without a name if the peer's host counts; the caller may change it
	// Version is what Config was made of: sessions are resumed while it is the same. nil: none is resumed.
	Version any
	// ByPriorKnowledge says that a peer need not agree to HTTP/2 by ALPN.
	ByPriorKnowledge bool
}

// TermsFor implements [Security], with the contents of the last Read.
func (c *Client) TermsFor(*discovery.Instance) (Terms, error) {
	contents := c.Contents()
	return Terms{Config: c.ConfigOf(contents), Version: contents}, nil
}

// Fresh returns c as a Security that reads the files again for each connection.
func (c *Client) Fresh() Security { return fresh{c} }

type fresh struct{ *Client }

// TermsFor implements [Security].
func (f fresh) TermsFor(i *discovery.Instance) (Terms, error) {
	f.Read()
	return f.Client.TermsFor(i)
}
