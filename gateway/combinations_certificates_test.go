package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/config"
	"sluice/test/testcert"
)

// A combinedClient is who sends requests in TestCombinations. All of them offer the sessions of all
// others.
type combinedClient struct {
	listener string // it has all protocols for HTTP at each
	who      string // the common name of its certificate, "" for none; wrong: good, but by another authority
}

var (
	openClients      = []combinedClient{{"web", ""}, {"plain", ""}, {"secure", ""}, {"proxied", ""}}
	localClients     = []combinedClient{{"local", ""}, {"relayed", ""}} // at unix sockets
	certifiedClients = []combinedClient{{"certified", ""}, {"certified", "good"}, {"certified", "other"}, {"certified", "revoked"}, {"certified", "wrong"}}
)

// combinedListeners are those for HTTP.
var combinedListeners = []string{"web", "plain", "secure", "proxied", "certified", "local", "relayed"}

// asked reports whether the listener may ask for a certificate.
func (c combinedClient) asked() bool { return c.listener == "certified" || c.listener == "names" }

func (c combinedClient) secure() bool { return c.listener == "secure" || c.listener == "certified" }

func (c combinedClient) scheme() string {
	if c.secure() {
		return "https"
	}
	return "http"
}

// Terms are how the listeners certified and names ask for certificates, and where plain redirects
// to.
type terms struct {
	auth string // "": they do not
	list bool   // revoked is in the list of revoked certificates
	port int    // of HTTPS; 0: plain does not redirect
	// http3: the listeners secure and certified have it.
	http3 bool
}

func termsOf(c *config.Config) (t terms) {
	for _, l := range c.Listeners {
		switch {
		case l.Name == "certified" && l.TLS.ClientCA != "":
			t.auth, t.list = l.TLS.ClientAuth, l.TLS.ClientCRL != ""
		case l.Name == "secure":
			t.http3 = l.HTTP3
		case l.Name == "plain" && l.RedirectHTTPS != nil:
			t.port = l.RedirectHTTPS.Port
		}
	}
	return t
}

// rejected is the standing of those who get no connection. That of others is the common name by
// which they are known, "" for none, or toHTTPS and where they are redirected to.
const rejected, toHTTPS = "rejected", "https://"

// standing returns what a client is from its handshake on.
func (t terms) standing(c combinedClient) string {
	who := c.who
	switch {
	case c.listener == "plain" && t.port == 443:
		return toHTTPS + "a.example.com"
	case c.listener == "plain" && t.port != 0:
		return fmt.Sprint(toHTTPS, "a.example.com:", t.port)
	case !c.asked() || t.auth == "" || t.auth == "optional" && who == "":
		return ""
	case who == "" || who == "wrong" || who == "revoked" && t.list:
		return rejected
	}
	return who
}

// changingTerms are those of a gateway: those that have come, or may have come into force.
type changingTerms struct {
	mu sync.Mutex
	timeline[terms]
}

// change does what changes the terms to one of next, and returns the one that has come.
func (t *changingTerms) change(next []terms, do func() terms) {
	t.mu.Lock()
	t.publish(next...)
	t.mu.Unlock()
	now := do()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.publish(now)
	t.settle()
}

// begin returns what since takes later.
func (t *changingTerms) begin() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.settled
}

// since returns the terms that may have been in force since begin has returned from.
func (t *changingTerms) since(from int) []terms {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.states[from:])
}

// An entrance is how a request comes to a gateway: on which terms its connections may have been
// accepted.
type entrance struct {
	*generation
	combinedClient
	begun     int
	forwarded string // the scheme that the client is believed to have forwarded; "": none

	mu sync.Mutex
	by []terms // that may have accepted its connections
}

func (g *generation) enter(c combinedClient) *entrance {
	return &entrance{generation: g, combinedClient: c, begun: g.terms.begin()}
}

// traced returns a context for requests by which the entrance knows their connections.
func (e *entrance) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { e.uses(i.Conn.LocalAddr(), i.Conn.RemoteAddr()) }})
}

// uses notes a connection by its addresses.
func (e *entrance) uses(local, remote net.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.by = append(e.by, e.acceptedBy(endsOf(local, remote))...)
}

// standings returns what the client may be. If the request has failed, it may have been on another
// connection that does not exist.
func (e *entrance) standings(failed bool) (all []string) {
	if e.forwarded == "https" && e.listener == "plain" {
		return []string{""}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	by := e.by
	if failed || len(by) == 0 {
		by = append(by, e.terms.since(e.begun)...)
	}
	for _, t := range by {
		all = append(all, t.standing(e.combinedClient))
	}
	return all
}

// A trespass is an answer that no standing of a client can have.
type trespass struct{ error }

// settle compares what a client has got by a route, which may be nil, with what its standings ask
// for, and returns the standings for which that is right. got is as of outcome.
func (e *entrance) settle(route *combinedRoute, denied bool, got string) (all []string, err error) {
	standings := e.standings(false)
	if got == "certificate_revoked" && slices.Contains(standings, e.who) && slices.Contains(e.standings(true), rejected) {
		return nil, fmt.Errorf("the connection has ended: %s", got)
	}
	for _, s := range standings {
		if outcome := route.outcome(s, denied); s != rejected && (outcome == got || got == toHTTPS && strings.HasPrefix(outcome, got)) { // gRPC does not say where
			all = append(all, s)
		}
	}
	if all == nil {
		err = trespass{fmt.Errorf("a client whose standing is one of %q got %q", standings, got)}
	}
	return all, err
}

// otherRoute is what clients get by a route for whom another one comes before.
const otherRoute = "the other route"

// chooseCertificates chooses which certificates a route is for, and which ones another route for
// the same path.
func (c *combinations) chooseCertificates(r *combinedRoute) {
	names := func() []string {
		return pick(c, []string{"any"}, []string{"cn=good"}, []string{"cn=good"}, []string{"cn=good", "dns=other.example.com"})
	}
	switch c.random.IntN(8) {
	case 0:
		r.keys["client_certificate"] = "required"
	case 1:
		r.names = names()
		r.keys["client_certificates"] = r.names
	}
	if !r.streamed && c.one(6) {
		r.other, r.opposite = names(), c.one(2)
	}
}

// others returns the routes for the same paths, which come before.
func (c *combinations) others() (routes []settings) {
	for _, r := range c.routes {
		if r.other == nil {
			continue
		}
		when := settings{"client_certificates": r.other}
		if r.opposite {
			when = settings{"not": when}
		}
		routes = append(routes, settings{"path": r.keys["path"], "priority": 5, "when": when, "direct_response": settings{"status": http.StatusIMUsed, "body": otherRoute}})
	}
	return routes
}

// has reports whether a client of a standing has one of the names.
func has(names []string, standing string) bool {
	return standing != "" && slices.ContainsFunc(names, func(name string) bool {
		return name == "any" || name == "cn="+standing || name == "dns="+standing+".example.com"
	})
}

// outcome returns what a client of a standing gets, which the route denies or not: "" for what it
// is for.
func (r *combinedRoute) outcome(standing string, denied bool) string {
	switch {
	case strings.HasPrefix(standing, toHTTPS):
		return standing
	case r == nil:
	case r.other != nil && has(r.other, standing) != r.opposite:
		return otherRoute
	case denied:
		return "client_denied"
	case (r.keys["client_certificate"] != nil || r.names != nil) && standing == "":
		return "certificate_required"
	case r.names != nil && !has(r.names, standing):
		return "certificate_denied"
	}
	return ""
}

// outcomeOf returns which outcome an answer is.
func outcomeOf(response *http.Response) string {
	reason := response.Header.Get("X-Sluice-Reason")
	switch {
	case response.StatusCode == http.StatusIMUsed:
		return otherRoute
	case reason == "https_redirect":
		to, _, _ := strings.Cut(strings.TrimPrefix(response.Header.Get("Location"), toHTTPS), "/")
		return toHTTPS + to
	case reason == "client_denied" || strings.HasPrefix(reason, "certificate_"):
		return reason
	}
	return ""
}

// barred reports whether a route is for nothing that the client can be.
func (e *entrance) barred(r *combinedRoute, denied bool) bool {
	return r.outcome("", denied) != "" && (!e.asked() || e.who == "wrong" || r.outcome(e.who, denied) != "")
}

// identified reports whether a peer was told that its client has one of the standings.
func identified(told string, standings []string) bool {
	return slices.ContainsFunc(standings, func(s string) bool {
		return s == "" && told == "" || s != "" && strings.Contains(told, fmt.Sprintf(`;Subject="CN=%s"`, s)) && strings.Count(told, "Hash=") == 1
	})
}

func (c *combinations) certify() {
	c.site = writeLeaf(c.t, c.servers.authority, c.dir, "site", func(l *x509.Certificate) {
		l.DNSNames, l.SerialNumber = []string{"*.example.com"}, big.NewInt(c.random.Int64N(1<<30))
	})
}

// issue makes the authority of the listeners keys of tickets, and the certificates of clients.
func (s *combinedServers) issue(t *testing.T) {
	s.authority = testcert.NewAuthority(t, "servers.example.com")
	for n, text := range []string{"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n"} {
		s.tickets = append(s.tickets, writeFile(t, s.dir, fmt.Sprint("tickets", n), []byte(text)))
	}
	authority, other := testcert.NewAuthority(t, "clients.example.com"), testcert.NewAuthority(t, "clients.example.com")
	s.clients = make(map[string]tls.Certificate)
	for n, who := range []string{"good", "other", "revoked", "wrong"} {
		by, name := authority, who
		if who == "wrong" {
			by, name = other, "good"
		}
		_, _, s.clients[who] = by.Chain(t, "/"+name, func(c *x509.Certificate) {
			c.Subject, c.SerialNumber, c.DNSNames = pkix.Name{CommonName: name}, big.NewInt(int64(10+n)), []string{name + ".example.com"}
			c.NotAfter = time.Now().Add(20 * time.Hour)
		})
	}
	s.clientCA = writeFile(t, s.dir, "clients.pem", authority.Root)
	s.clientCRL = writeFile(t, s.dir, "clients.crl", authority.CRL(t, time.Now().Add(-time.Hour), time.Now().Add(20*time.Hour), []int64{12}))
}
