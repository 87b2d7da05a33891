package certificates

import "crypto/tls"

// ClientTLS is how sluice connects to servers that use TLS. The files are in PEM format, and read
// again when they change.
type ClientTLS struct {
	CA         string `key:"ca" format:"file"`            // trusted; empty: the system's
	Cert       string `key:"cert" format:"file"`          // of the client; empty: none
	Key        string `key:"key" format:"file"`           // of Cert
	ServerName string `key:"server_name"`                 // of the server; empty: its host
	SkipVerify bool   `key:"skip_verify" default:"false"` // accept any certificate
}

// Files returns the files of t.
func (t ClientTLS) Files() Files { return Files{CA: t.CA, Cert: t.Cert, Key: t.Key} }

// ClientOptions configure a [Client].
type ClientOptions struct {
	ClientTLS
	CADirectory string      // of files of trusted certificates, if CA is empty; empty: none
	Changed     func(error) // see Follow; may be nil
}

// A Client is the TLS configuration of connections to servers. It is safe for concurrent use.
type Client struct {
	*Follower
	options ClientOptions
}

// NewClient reads the files for the first time.
func NewClient(o ClientOptions) (*Client, error) {
	files := o.Files()
	files.CADirectory = o.CADirectory
	f, err := Follow(files, o.Changed)
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
		InsecureSkipVerify: c.options.SkipVerify,
	}
	if contents.Certificate != nil {
		config.Certificates = []tls.Certificate{*contents.Certificate}
	}
	return config
}
