package route

import (
	"fmt"
	"strings"
)

// Affinity says which requests belong together, so that the pool can keep them
// on one peer.
type Affinity struct {
	// Keys are for balancer.PolicyHash: of the first one that a request has,
	// requests with the same value belong together. A request that has none
	// belongs to no other.
	Keys []HashKey
	// Cookie is for balancer.PolicySticky: the name of a cookie that names a peer.
	// It is set in a response where the client did not send it or another peer
	// answered. "": none.
	Cookie string
	// CookieAttributes follow the cookie's value in a response: "; Path=/".
	CookieAttributes string
	// RefreshCookie sets the cookie in every response, as its attributes may make
	// it expire.
	RefreshCookie bool
}

// HashKey is a part of a request.
type HashKey struct {
	Source HashSource
	Name   string // of the header field, in lower case, of the cookie or the query parameter; else ""
}

// HashSource is where a HashKey is found.
type HashSource uint8

const (
	// HashClientAddress is the client's IP address: behind trusted proxies, the
	// one that they forward for.
	HashClientAddress HashSource = iota
	// HashPath is the path as the client sent it, without the query.
	HashPath
	// HashHeader is the value of the first header field of a name.
	HashHeader
	// HashCookie is the value of a cookie.
	HashCookie
	// HashQuery is the value of a query parameter, as the client sent it.
	HashQuery
)

var hashSourceNames = [...]string{"client_address", "path", "header", "cookie", "query"}

// ParseHashKey reads a key as it stands in the configuration: "client_address",
// "path", "header NAME", "cookie NAME" or "query NAME".
func ParseHashKey(s string) (HashKey, error) {
	source, name, named := strings.Cut(s, " ")
	for i, known := range hashSourceNames {
		k := HashKey{HashSource(i), name}
		if source != known || named != (k.Source >= HashHeader) {
			continue
		}
		switch {
		case named && !isToken(name) && k.Source != HashQuery, named && strings.ContainsAny(name, " &=#") || named && name == "":
			return HashKey{}, fmt.Errorf("%q is no name of a %s", name, source)
		case k.Source == HashHeader:
			k.Name = strings.ToLower(name)
		}
		return k, nil
	}
	return HashKey{}, fmt.Errorf(`hash key %q: want "client_address", "path", "header NAME", "cookie NAME" or "query NAME"`, s)
}

// String returns the key as ParseHashKey reads it.
func (k HashKey) String() string {
	s := hashSourceNames[k.Source]
	if k.Source >= HashHeader {
		s += " " + k.Name
	}
	return s
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2, as names of
// fields and cookies are.
func isToken(s string) bool {
	const others = "!#$%&'*+-.^_`|~"
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return s != ""
}
