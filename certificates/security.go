package certificates

import (
	"crypto/tls"

	"sluice/discovery"
)

// Security is the TLS of connections to the peers of a service: a [Client], or that of Consul's
// mesh. It is safe for concurrent use. It is compared: connections with another one are not
// used again.
type Security interface {
	// TermsFor returns the TLS of a new connection to an instance, without a wait. A [LackError] is
	// no fault of the instance.
	TermsFor(i *discovery.Instance) (Terms, error)
}

// A LackError is why sluice lacks what all connections need, such as a certificate of its own.
type LackError struct{ Err error }

func (e LackError) Error() string { return e.Err.Error() }
func (e LackError) Unwrap() error { return e.Err }

// Terms are the TLS of a new connection to a peer.
type Terms struct {
	Config *tls.Config // without protocols, perhaps without a name; the caller may change it
	// Version identifies Config: sessions are resumed while it is the same. nil: none is.
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
