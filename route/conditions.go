package route

import (
	"net/netip"
	"strings"
)

// Conditions are what a request must fulfil beside host and path of a [Route]. All set
// fields must hold; the zero value always holds.
type Conditions struct {
	Methods []string // one of them; case matters
	Headers []Value  // each of them
	Queries []Value  // each of them
	Cookies []Value  // each of them
	Scheme  string   // "http" or "https": how the client came; behind a trusted proxy, to that
	// Clients are networks. The client's address is in one of them; behind trusted
	// proxies, it is the address that they forward. Nobody knows one that they forward in
	// a way that cannot be understood: it is in no network, and below Not in each.
	Clients []netip.Prefix
	// Certificates are names, of which the client's certificate has one.
	Certificates []CertificateName

	// Hosts (as Route.Host), HostRegexps (as Route.HostRegexp) and Paths narrow the
	// host and the path of the route, mostly below Not. One of Hosts and HostRegexps
	// holds, and one of Paths.
	Hosts       []string
	HostRegexps []string
	Paths       []Path

	// Not has conditions of which none holds: of several set fields, and of several
	// values in Headers, Queries or Cookies, each one must fail.
	Not *Conditions
	// Any has conditions of which at least one holds.
	Any []Conditions
}

// Path is a path and how it is compared.
type Path struct {
	Match PathMatch
	Text  string
}

// Value is a condition for a header field, a parameter of the query or a cookie. If a
// request has several of that name, one of them must fulfil it.
type Value struct {
	// Name of a header field does not depend on case.
	Name string
	Kind ValueKind
	// Text is compared with the value: of a query after decoding, of header fields
	// without surrounding white space.
	Text string
}

// ValueKind is how a [Value] is compared.
type ValueKind uint8

const (
	ValueIs      ValueKind = iota // equal to Text
	ValueMatches                  // the regular expression Text is found in it
	ValuePresent                  // any value, even an empty one
)

// ParseValue reads a condition of the configuration: "*" for any value, "~" and a regular
// expression, else the exact text.
func ParseValue(name, s string) Value {
	if s == "*" {
		return Value{Name: name, Kind: ValuePresent}
	}
	if expression, ok := strings.CutPrefix(s, "~"); ok {
		return Value{Name: name, Kind: ValueMatches, Text: expression}
	}
	return Value{Name: name, Text: s}
}

// String returns the condition for people, without the name.
func (v Value) String() string {
	switch v.Kind {
	case ValueMatches:
		return "~" + v.Text
	case ValuePresent:
		return "*"
	}
	return v.Text
}

// Request is what [Conditions] may see of a request beside host and path. Slices are
// valid until Match returns. An implementation must not allocate.
type Request interface {
	Method() []byte
	// Field returns the value of the first header field that has the name, which is in
	// lower case, at the index from or after it, and the index after that field. next
	// is -1 if there is none.
	Field(name string, from int) (value []byte, next int)
	Query() []byte  // as sent, without the question mark
	Scheme() string // "http" or "https"
	// Client returns the address of the client, without zone, IPv4 not mapped to IPv6. Of
	// an unknown client, with the zero address, no condition for clients holds, nor does one
	// below Not.
	Client() netip.Addr
	Listener() string // name
	// Certificate returns the certificate of who has connected, which the listener has verified;
	// nil: there is none.
	Certificate() *Certificate
	Steps() *Steps // of the request, for all that is matched with it
}
