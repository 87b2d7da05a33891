package route

import (
	"fmt"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Affinity configures which requests go to the same peer.
type Affinity struct {
	// Keys are for balancer.PolicyHash: requests with the same value of the first
	// key that they have go to the same peer.
	Keys []HashKey
	// Cookie is for balancer.PolicySticky: the name of a cookie that identifies a
	// peer. A response sets it if the client did not send it or another peer
	// answered. "": none.
	Cookie string
	// CookieAttributes follow the cookie's value in a response: "; Path=/". Secure is added
	// if the client uses HTTPS.
	CookieAttributes string
	// SecureCookie: Secure is added to every response.
	SecureCookie bool
	// RefreshCookie sets the cookie in every response, so that it does not expire.
	RefreshCookie bool
}

// HashKey is a part of a request.
type HashKey struct {
	Source HashSource
	Name   string // of the header field (in lower case), cookie or query parameter
}

// HashSource is the part of a request that holds a HashKey.
type HashSource uint8

const (
	// HashClientAddress is the client's IP address; behind trusted proxies, the one
	// that they forward.
	HashClientAddress HashSource = iota
	// HashPath is the path as sent, without the query.
	HashPath
	// HashHeader is the value of the first field of that name.
	HashHeader
	// HashCookie is the value of a cookie.
	HashCookie
	// HashQuery is the value of a query parameter as sent.
	HashQuery
	// HashClaim is a claim of the request's token, for rate limits only.
	HashClaim
	// HashAnswer is a header field of the authentication server's answer, likewise.
	HashAnswer
)

var hashSourceNames = [...]string{"client_address", "path", "header", "cookie", "query", "claim", "answer"}

// ParseHashKey reads a key of the configuration: "client_address", "path", "header
// NAME", "cookie NAME" or "query NAME".
func ParseHashKey(s string) (HashKey, error) {
	source, name, named := strings.Cut(s, " ")
	for i, known := range hashSourceNames {
		k := HashKey{HashSource(i), name}
		if source != known || named != (k.Source >= HashHeader) {
			continue
		}
		switch {
		case k.Source >= HashClaim:
			continue
		case named && !isToken(name) && k.Source != HashQuery, named && strings.ContainsAny(name, " &=#") || named && name == "":
			return HashKey{}, fmt.Errorf("%q is not a valid %s name", name, source)
		case k.Source == HashHeader:
			k.Name = strings.ToLower(name)
		}
		return k, nil
	}
	return HashKey{}, fmt.Errorf(`hash key %q: want "client_address", "path", "header NAME", "cookie NAME" or "query NAME"`, s)
}

// String returns the key in the form of ParseHashKey.
func (k HashKey) String() string {
	s := hashSourceNames[k.Source]
	if k.Source >= HashHeader {
		s += " " + k.Name
	}
	return s
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
var isToken = httpguts.ValidHeaderFieldName
