package certificates

import "crypto/tls"

// ClientOptions are the TLS settings of connections to servers.
type ClientOptions struct {
	Files              Files       // CA: that servers are verified with, "" for the system's; Cert: of the client, "" for none
	ServerName         string      // in the server's certificate; "": the host that is connected to
	InsecureSkipVerify bool        // accept any certificate
	Changed            func(error) // see Follow; may be nil
}

// A Client is the TLS configuration of connections to servers. It is safe for
// concurrent use.
type Client struct {
	*Follower
	options ClientOptions
}

// NewClient reads the files for the first time.
func NewClient(o ClientOptions) (*Client, error) {
	f, err := Follow(o.Files, o.Changed)
	if err != nil {
		return nil, err
	}
	return &Client{f, o}, nil
}

// Config reads the files again and returns the configuration of a new connection,
// which the caller may change.
func (c *Client) Config() *tls.Config { return c.ConfigOf(c.Read()) }

// ConfigOf is Config with contents that were read before.
func (c *Client) ConfigOf(contents *Contents) *tls.Config {
	config := &tls.Config{
		RootCAs:            contents.Trusted,
		ServerName:         c.options.ServerName,
		InsecureSkipVerify: c.options.InsecureSkipVerify,
	}
	if contents.Certificate != nil {
		config.Certificates = []tls.Certificate{*contents.Certificate}
	}
	return config
}
