package gateway

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/proxy/upstream"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// greeter listens as a server that says its name first, and then sends back what it
// gets.
func greeter(t *testing.T, name string) (address string) {
	t.Helper()
	return listen(t, verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t), func(conn net.Conn) {
		fmt.Fprintln(conn, name)
		io.Copy(conn, conn)
	})
}

// A tcpClient is a connection to a listener for TCP.
type tcpClient struct {
	net.Conn
	lines *bufio.Scanner
}

func (r *running) connect(listener string) *tcpClient {
	r.t.Helper()
	conn := verify.Result(net.Dial("tcp", r.Address(listener).String())).Must(r.t)
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &tcpClient{conn, bufio.NewScanner(conn)}
}

// say sends a line.
func (c *tcpClient) say(text string) {
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintln(c, text)
}

// line returns the next line; "": there is none.
func (c *tcpClient) line() string {
	c.SetDeadline(time.Now().Add(patience))
	c.lines.Scan()
	return c.lines.Text()
}

// Listeners for TCP come, change and go; their connections stay.
func TestTCPListenersChange(t *testing.T) {
	t.Parallel()
	text := func(listeners string, services ...string) string {
		return "listeners: [" + listeners + "]\nshutdown: { idle: 100ms, grace: 1h }\nservices: { " + strings.Join(services, ", ") + " }\n"
	}
	service := func(name string) string {
		return fmt.Sprintf("%s: { peers: [%q], drain: { timeout: 1h } }", name, greeter(t, name))
	}
	a, b := service("a"), service("b")
	address := fmt.Sprintf("127.0.0.1:%d", consultest.ReservePort(t))
	db := fmt.Sprintf("name: db, address: %q", address)
	r := start(t, text("{ "+db+", protocol: tcp, service: a }", a))
	first := r.connect("db")
	verify.Equal(t, first.line(), "a", "at first")
	// The listener gets another service.
	r.replace(text("{ "+db+", protocol: tcp, service: b }", a, b))
	verify.Equal(t, r.connect("db").line(), "b", "with another service")
	verify.Equal(t, r.Address("db").String(), address, "then")
	first.say("still here")
	verify.Equal(t, first.line(), "still here", "the first connection")
	// It changes its protocol, and back.
	r.replace(text("{ "+db+" }", b) + "routes: [{ service: b }]\n")
	plain := r.connect("db")
	fmt.Fprint(plain, "GET / HTTP/1.0\r\n\r\n")
	verify.Contains(t, plain.line(), "HTTP/1.1 ", "with protocol http")
	r.replace(text("{ "+db+", protocol: tcp, service: b }", b))
	last := r.connect("db")
	verify.Equal(t, last.line(), "b", "with protocol tcp again")
	// It goes.
	removed := r.Address("db")
	r.replace(text("{ name: other, address: '127.0.0.2:0', protocol: tcp, service: b }", b))
	r.awaitRefused(removed)
	last.say("still here")
	verify.Equal(t, last.line(), "still here", "a connection of a listener that was removed")
	verify.Equal(t, r.connect("other").line(), "b", "a new listener")
}

// A listener for TCP connects also to peers that had HTTP/2 before the reload that has added it.
func TestStreamsToPeersThatHadHTTP2(t *testing.T) {
	t.Parallel()
	a := greeter(t, "a")
	r := start(t, preamble+fmt.Sprintf("services: { a: { peers: [%q], upstream: { protocol: h2c } } }\nroutes: [{ service: a }]\n", a))
	r.awaitReady()
	r.replace(fmt.Sprintf("listeners: [{ name: db, address: '127.0.0.1:0', protocol: tcp, service: a }]\nservices: { a: { peers: [%q] } }\n", a))
	c := r.connect("db")
	verify.Equal(t, c.line(), "a", "the first line")
	peer := r.services.pool("a").Snapshot().All[0]
	_, busy := peer.Transport.(upstream.Connector).Connections()
	verify.Equal(t, busy, 1, "connections")
	peer.Transport.(upstream.Connector).Cut()
	verify.Equal(t, c.line(), "", "a line after the cut")
}

// listen accepts connections for serve until the test ends.
func listen(t *testing.T, l net.Listener, serve func(net.Conn)) (address string) {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// secureGreeter listens as a TLS server for *.example.com that says its name, and the server
// name that the client has asked for.
func secureGreeter(t *testing.T, name string) (address string, roots *x509.CertPool) {
	t.Helper()
	cert, key := testcert.PEM("*.example.com")
	pair := verify.Result(tls.X509KeyPair(cert, key)).Must(t)
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	l := verify.Result(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})).Must(t)
	return listen(t, l, func(conn net.Conn) {
		if secure := conn.(*tls.Conn); secure.Handshake() == nil {
			fmt.Fprintln(conn, name, secure.ConnectionState().ServerName)
		}
	}), roots
}

// secure returns what a TLS server behind a listener says to a client that asks for host, and
// trusts roots.
func (r *running) secure(listener, host string, roots *x509.CertPool) string {
	r.t.Helper()
	conn := tls.Client(r.connect(listener), &tls.Config{ServerName: host, RootCAs: roots})
	defer conn.Close()
	text, err := io.ReadAll(conn)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// TestStreamsFromTags follows TLS clients by the server names that tags ask for, while instances
// come, change and go.
func TestStreamsFromTags(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	router := func(name string, options ...string) []string {
		tags := []string{"traefik.enable=true"}
		for _, option := range options {
			tags = append(tags, "traefik.tcp.routers."+name+"."+option)
		}
		return tags
	}
	db, dbRoots := secureGreeter(t, "db")
	consul.Set("db", withTags(t, "db", "db-1", db, router("db", "rule=HostSNI(`db.example.com`) || HostSNI(`sql.example.com`)", "entrypoints=tls", "tls.passthrough=true")...))
	consul.Set("mail", withTags(t, "mail", "mail-1", greeter(t, "mail"), router("mail", "rule=HostSNI(`*`)", "entrypoints=smtp,postgres")...))
	for listener, clients := range map[string]string{"office": "127.0.0.1, 192.0.2.0/24", "nobody": "192.0.2.0/24", "wrong": "everybody"} {
		consul.Set(listener, withTags(t, listener, listener+"-1", greeter(t, listener),
			append(router(listener, "rule=HostSNI(`*`)", "entrypoints="+listener, "middlewares=m"), "traefik.tcp.middlewares.m.ipallowlist.sourcerange="+clients)...))
	}
	r := start(t, fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:0" }
  - { name: tls, address: "127.0.0.1:0", protocol: tcp, sni: [{ host: fixed.example.com, service: fixed }] }
  - { name: smtp, address: "127.0.0.1:0", protocol: tcp }
  - { name: postgres, address: "127.0.0.1:0", protocol: tcp, service: fixed }
  - { name: closed, address: "127.0.0.1:0", protocol: tcp }
  - { name: office, address: "127.0.0.1:0", protocol: tcp }
  - { name: nobody, address: "127.0.0.1:0", protocol: tcp }
  - { name: wrong, address: "127.0.0.1:0", protocol: tcp }
consul: { addresses: [%q] }
catalog:
  tags: [traefik]
  claims: [{ service: "*", hosts: ["*.example.com", "*"] }]
services: { fixed: { peers: [%q] } }
`, consul.URL(), greeter(t, "fixed")))
	says := func(listener, host string, roots *x509.CertPool, want string) {
		t.Helper()
		r.await(fmt.Sprintf("%s says %q to %s", listener, want, host), func() bool { return strings.Contains(r.secure(listener, host, roots), want) })
	}
	says("tls", "db.example.com", dbRoots, "db db.example.com")
	says("tls", "sql.example.com", dbRoots, "db sql.example.com")
	says("tls", "other.org", dbRoots, "unrecognized name")
	says("closed", "db.example.com", dbRoots, "unrecognized name")
	for listener, want := range map[string]string{"smtp": "mail", "postgres": "fixed", "office": "office", "nobody": "", "wrong": ""} {
		r.await(fmt.Sprintf("%s says %q", listener, want), func() bool { return r.connect(listener).line() == want })
	}
	var routes []string
	for _, route := range fetch[[]admin.Route](r, "/api/routes") {
		if route.Unused {
			continue
		}
		asked := "nobody"
		if route.AskedBy != nil {
			asked = route.AskedBy.Instances[0]
		}
		routes = append(routes, fmt.Sprintf("%s %s %q %s %s", route.Protocol, route.Host, route.Listeners, route.Service, asked))
	}
	verify.Slices(t, routes, []string{
		`tls db.example.com ["tls"] db db-1`, `tls fixed.example.com ["tls"] fixed nobody`, `tls sql.example.com ["tls"] db db-1`, `tcp  ["smtp"] mail mail-1`,
		`tcp  ["postgres"] fixed nobody`, `tcp  ["office"] office office-1`, `tcp  ["nobody"] nobody nobody-1`, `tcp  ["wrong"] wrong wrong-1`,
	}, "routes")
	// A connection stays while the routes change.
	smtp := r.connect("smtp")
	verify.Equal(t, smtp.line(), "mail", "smtp says")
	consul.Set("db", withTags(t, "db", "db-1", db, router("db", "rule=HostSNI(`db.example.com`)", "entrypoints=tls", "tls.passthrough=true")...))
	says("tls", "sql.example.com", dbRoots, "unrecognized name")
	verify.Equal(t, r.secure("tls", "db.example.com", dbRoots), "db db.example.com", "db.example.com")
	smtp.say("still here")
	verify.Equal(t, smtp.line(), "still here", "the connection from before says")
}
