package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Tokens are the bearer tokens of the admin API.
type Tokens struct {
	Operate string // allows everything; "": no request needs a token
	Look    string // allows requests that only read; "": none. It differs from Operate

	// routed says that a route has let the requests in. Without a token it alone says who may
	// ask.
	routed bool
}

// scope is what a request may do.
type scope int

const (
	scopeNothing scope = iota
	scopeLook
	scopeOperate
)

// authorized lets requests pass that the tokens of that moment do not deny.
func authorized(of func() Tokens, need scope, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if d := of().denial(r, need); d != nil {
			if d.challenge != "" {
				w.Header().Set("WWW-Authenticate", d.challenge)
			}
			writeError(w, d.status, d.why)
			return
		}
		next(w, r)
	}
}

// A denial is why a request may not have what it asks for.
type denial struct {
	status    int
	why       string
	challenge string // of the field WWW-Authenticate; "": no token helps
}

// denial requires a token that allows need, if there is one of these (RFC 6750, section 2.1), and
// returns nil if r has it. Without one it accepts any request except requests that a browser sends
// for a page of another site. A link on such a page may lead to what only reads.
func (t Tokens) denial(r *http.Request, need scope) *denial {
	open, given := t.Operate == "", t.scopeOf(r)
	switch {
	case !open && given == scopeNothing:
		return &denial{http.StatusUnauthorized, "a valid token is required: Authorization: Bearer …", `Bearer realm="sluice"`}
	case !open && given < need:
		return &denial{http.StatusForbidden, "this token is only for looking (admin.read_token_file): the token of admin.token_file is required",
			`Bearer realm="sluice", error="insufficient_scope", scope="operate"`}
	case t.routed:
	case open && !isLiteral(r.Host):
		// The name may belong to another site (DNS rebinding).
		return &denial{http.StatusForbidden, fmt.Sprintf("host %q: without a token, use an IP address or localhost", r.Host), ""}
	case open && isForeign(r) && (need > scopeLook || !followsLink(r)):
		return &denial{http.StatusForbidden, "without a token, requests from pages of other sites are refused", ""}
	}
	return nil
}

// scopeOf returns what the token of r allows. It compares in constant time.
func (t Tokens) scopeOf(r *http.Request) scope {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return scopeNothing
	}
	given = strings.TrimSpace(given)
	look, operate := isToken(given, t.Look), isToken(given, t.Operate)
	switch {
	case operate:
		return scopeOperate
	case look:
		return scopeLook
	}
	return scopeNothing
}

// isToken reports whether given is the token, in constant time. No text is an empty token.
func isToken(given, token string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && token != ""
}

// isLiteral reports whether a Host field is an IP address or localhost, with or without
// a port.
func isLiteral(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	_, err = netip.ParseAddr(name)
	return err == nil || strings.EqualFold(name, "localhost")
}

// isForeign reports whether a browser sends the request for a page of another origin.
func isForeign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "none", "same-origin":
		return false
	case "":
		// Browsers from before 2023 send the origin of a script, but none with a link.
		origin := r.Header.Get("Origin")
		return origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host
	}
	return true
}

// followsLink reports whether a browser shows the answer in place of the page that leads to it,
// so that no page can read the answer.
func followsLink(r *http.Request) bool { return r.Header.Get("Sec-Fetch-Dest") == "document" }
