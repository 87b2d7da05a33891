package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/verify"
)

// A mailServer authenticates connections by NTLM, as IIS does, in two steps, and tells whose mail a
// request gets.
type mailServer struct {
	*origin
	proceed chan struct{} // a request for /held waits for it
}

func startMailServer(t testing.TB) *mailServer {
	m := &mailServer{proceed: make(chan struct{})}
	var steps sync.Map // by connection, what it has said
	m.origin = startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		before, _ := steps.Load(c)
		said, _ := before.(string)
		switch scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " "); {
		case strings.EqualFold(scheme, "NTLM") && credentials == "1":
			said = "NTLM"
		case strings.EqualFold(scheme, "NTLM") && said == "NTLM":
			said = credentials
		}
		steps.Store(c, said)
		switch {
		case r.URL.Path == "/open":
			return c.write(okResponse)
		case said == "" || said == "NTLM":
			return c.write("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a, b\", NTLM " + said + "\r\nContent-Length: 0\r\n\r\n")
		case r.Header.Get("Upgrade") != "":
			c.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nthe mail of " + said)
			return false
		case r.URL.Path == "/held":
			<-m.proceed
		}
		c.answer("the mail of " + said)
		return r.URL.Path != "/bye"
	}))
	t.Cleanup(func() { close(m.proceed) })
	return m
}

// A mailClient is a connection of a client.
type mailClient struct {
	t    testing.TB
	conn net.Conn
	*bufio.Reader
}

func newMailClient(t testing.TB, conn net.Conn) *mailClient {
	return &mailClient{t, conn, bufio.NewReader(conn)}
}

func (c *mailClient) ask(path string, lines ...string) {
	fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n", path, strings.Join(append(lines, ""), "\r\n"))
}

func (c *mailClient) expect(want, path string, lines ...string) {
	c.t.Helper()
	c.ask(path, lines...)
	c.expectAnswer(want)
}

func (c *mailClient) expectAnswer(want string) {
	c.t.Helper()
	r := verify.Result(http.ReadResponse(c.Reader, nil)).Must(c.t)
	body := string(verify.Result(io.ReadAll(r.Body)).Must(c.t))
	if r.StatusCode == 401 {
		body = "401"
	}
	verify.Require(c.t, body == want, "got %q, want %q", body, want)
}

// logIn authenticates the client's connection by NTLM.
func (c *mailClient) logIn(user string) {
	c.t.Helper()
	c.expect("401", "/")
	c.expect("401", "/", "Authorization: NTLM 1")
	c.expect("the mail of "+user, "/", "Authorization: ntlm "+user)
}

// Who authenticates a connection to a peer has it alone: the client gets it again, whatever else
// its peers are asked for, and nobody else gets it.
func TestAuthenticatedConnectionIsOfOneClient(t *testing.T) {
	t.Parallel()
	m, other := startMailServer(t), startMailServer(t)
	p := startProxy(t, Options{})
	options := someTransport
	options.IdleTimeout = time.Hour
	p.usePeers(false, options, balancer.Options{Policy: balancer.PolicyRoundRobin}, m.address(), other.address())
	p.setService(route.Service{Retry: route.Retry{Attempts: 3}})
	ann, bob, eve := newMailClient(t, p.dial()), newMailClient(t, p.dial()), newMailClient(t, p.dial())
	for range 3 {
		ann.expect("ok", "/open") // idle connections that anybody may get
	}
	ann.logIn("Ann")
	for range 3 {
		bob.expect("401", "/")
		eve.expect("ok", "/open")
		ann.expect("the mail of Ann", "/")
	}
	bob.logIn("Bob")
	for range 3 {
		ann.expect("the mail of Ann", "/")
		bob.expect("the mail of Bob", "/")
		eve.expect("401", "/")
		eve.expect("ok", "/open")
	}

	// Another peer would answer first, and does not know Ann.
	before := m.requests() + other.requests()
	ann.ask("/held")
	eventually(t, "the request is in flight", func() bool { return m.requests()+other.requests() == before+1 })
	for _, peer := range p.pool.Snapshot().All {
		peer.Transport.Suspect()
	}
	p.sweptFor(200 * time.Millisecond)
	verify.Equal(t, m.requests()+other.requests(), before+1, "requests of peers")
	select {
	case m.proceed <- struct{}{}:
	case other.proceed <- struct{}{}:
	}
	ann.expectAnswer("the mail of Ann")

	// A peer that has closed the connection knows nobody.
	ann.expect("the mail of Ann", "/bye")
	ann.expect("401", "/")
	ann.logIn("Ann")
	ann.ask("/", "Connection: Upgrade", "Upgrade: echo")
	r := verify.Result(http.ReadResponse(ann.Reader, nil)).Must(t)
	verify.Equal(t, r.StatusCode, 101, "the upgrade")
	expectRest(t, ann.Reader, "the mail of Ann")
	bob.expect("the mail of Bob", "/")

	// The connections of clients that are gone end.
	for _, c := range []*mailClient{ann, bob, eve} {
		c.conn.Close()
	}
	p.expectNothingOpen()
	eventually(t, "what was kept for the clients is closed", func() bool {
		idle, busy := 0, 0
		for _, c := range p.connectors.List() {
			i, b := c.Connections()
			idle, busy = idle+i, busy+b
		}
		return busy == 0 && idle == m.open()+other.open()
	})
	bob = newMailClient(t, p.dial())
	for range 6 {
		bob.expect("401", "/")
	}
	p.expectNothingCounted()
}

// requests returns how many requests the origin has read.
func (o *origin) requests() int { return strings.Count(o.got(), "\r\n\r\n") }

// What is kept for a client that sends nothing ends as other idle connections do, and when its peer
// leaves.
func TestKeptConnectionEnds(t *testing.T) {
	t.Parallel()
	m := startMailServer(t)
	p := startProxy(t, Options{}, m.address())
	ann, eve := newMailClient(t, p.dial()), newMailClient(t, p.dial())
	ann.expect("401", "/")
	eve.expect("ok", "/open") // not where the peer expects Ann's answer
	verify.Equal(t, m.connections(), 2, "connections to the peer")
	ann.logIn("Ann")
	verify.Equal(t, m.connections(), 2, "connections to the peer")
	p.skip(someTransport.IdleTimeout)
	eventually(t, "it has been idle too long", func() bool { return m.open() == 0 })
	eve.conn.Close()
	ann.expect("401", "/")
	ann.logIn("Ann")
	p.setPeers(nowhere[0])
	eventually(t, "its peer has left", func() bool { return m.open() == 0 })
	p.setPeers(m.address())
	ann.expect("401", "/")
}

// Whatever the protocols of clients and peers: who sends no credentials gets nobody's mail. A copy
// for a mirror has no part in it.
func TestNobodyIsTakenForAnother(t *testing.T) {
	t.Parallel()
	eachCase(t, peerProtocols, func(t *testing.T, http2 bool) {
		var users, strangers sync.Map // by the address of a connection
		mail := func(w http.ResponseWriter, r *http.Request) {
			if _, user, ok := strings.Cut(r.Header.Get("Authorization"), "Negotiate "); ok {
				users.Store(r.RemoteAddr, user)
				_, strange := strangers.Load(r.RemoteAddr)
				verify.That(t, !http2 || !strange, "Ann's credentials came on a connection of others")
			}
			user, ok := users.Load(r.RemoteAddr)
			if !ok {
				strangers.Store(r.RemoteAddr, true)
				w.Header().Set("WWW-Authenticate", "Negotiate")
				w.WriteHeader(401)
				user = "nobody"
			}
			fmt.Fprintf(w, "the mail of %s", user)
		}
		p := startProxyTo(t, http2, Options{}, mail)
		mt := startMirror(t, p, route.Mirror{BodyBytes: 1 << 10}, nil, false, answersOK(t))
		for _, front := range p.fronts() {
			for _, method := range []string{"GET", "POST"} {
				r, body := front.ask(t, method, "/", "", "Authorization: Negotiate Ann")
				verify.That(t, r.StatusCode == 200 && body == "the mail of Ann", "%s, Ann: got %d %q", front.name, r.StatusCode, body)
			}
		}
		fronts := p.fronts()
		for _, front := range fronts {
			for range 4 {
				r, body := front.ask(t, "GET", "/", "")
				verify.That(t, r.StatusCode == 401 && body == "the mail of nobody", "%s, Bob: got %d %q", front.name, r.StatusCode, body)
			}
			front.ask(t, "GET", "/", "", "Authorization: Negotiate Ann")
		}
		mt.expectDropped(slices.Repeat([]route.Dropped{route.DroppedProtocol}, 3*len(fronts))...)
	})
}
