package gateway

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/proxy/proxyprotocol"
	"sluice/test/discoverytest"
	"sluice/test/long"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// A database says its name to each client, and sends back what it gets.
type database struct {
	name    string
	port    int
	open    atomic.Int64
	retired atomic.Bool // nothing may come any more
	late    atomic.Int64
	unknown atomic.Int64 // connections with a PROXY header of somebody else
}

// clientOfProxy is who the test's proxy says that it has connected for.
var clientOfProxy = proxyprotocol.Addresses{Client: netip.MustParseAddrPort("192.0.2.7:4711"), Server: netip.MustParseAddrPort("192.0.2.1:5432")}

// readHeader reads the PROXY header at the start of a connection, and reports whether it is about a
// client.
func readHeader(in *bufio.Reader, client netip.Addr) (known bool, err error) {
	for n := 1; ; n++ {
		start, err := in.Peek(n)
		if err != nil {
			return false, err
		}
		length, err := proxyprotocol.Length(start)
		if err != nil || length == 0 {
			if err != nil {
				return false, err
			}
			continue
		}
		of, _, err := proxyprotocol.Parse(start[:length])
		_, _ = in.Discard(length)
		return of.Client.Addr() == client, err
	}
}

// newDatabase returns a database. With a client, each connection must begin with a PROXY header
// about it.
func newDatabase(t *testing.T, name string, secure *tls.Config, client netip.Addr) *database {
	t.Helper()
	d := &database{name: name}
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	d.port = l.Addr().(*net.TCPAddr).Port
	listen(t, l, func(conn net.Conn) {
		d.open.Add(1)
		defer d.open.Add(-1)
		if secure != nil {
			conn = tls.Server(conn, secure)
		}
		if _, err := fmt.Fprintln(conn, name); err != nil {
			return // it was never used
		}
		in := bufio.NewReader(conn)
		if client.IsValid() {
			switch known, err := readHeader(in, client); {
			case err == io.EOF || errors.Is(err, syscall.ECONNRESET): // it was never used
				return
			case err != nil || !known:
				d.unknown.Add(1)
				return
			}
		}
		for {
			line, err := in.ReadString('\n')
			if len(line) > 0 && d.retired.Load() {
				d.late.Add(1)
			}
			if err != nil {
				return
			}
			if _, err := io.WriteString(conn, line); err != nil {
				return
			}
		}
	})
	return d
}

// TestLeaderRandomly: whatever happens to Consul, the leader and sluice, sessions are at the leader
// or nowhere.
func TestLeaderRandomly(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("SLUICE_LEADER_SEED"); text != "" {
		seed = verify.Result(strconv.ParseUint(text, 10, 64)).Must(t)
	}
	t.Logf("SLUICE_LEADER_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, by := range []string{"tag", "key", "passing"} {
		testLeaderRandomly(t, by, rand.New(rand.NewPCG(random.Uint64(), 0)), long.Count(t, 5, 20))
	}
}

func testLeaderRandomly(t *testing.T, by string, random *rand.Rand, steps int) {
	directory := t.TempDir()
	certificate, key := filepath.Join(directory, "db.pem"), filepath.Join(directory, "db.key")
	pem, keyPEM := testcert.PEM("db.example.com")
	verify.NoError(t, os.WriteFile(certificate, pem, 0o600))
	verify.NoError(t, os.WriteFile(key, keyPEM, 0o600))
	m := &leaderModel{
		t: t, random: random, by: by, cut: random.IntN(3) > 0, secure: random.IntN(2) == 0,
		registry: &keyOfLeader{Consul: discoverytest.New(), index: firstIndex, changed: make(chan struct{})},
		limited:  random.IntN(2) == 0, proxied: []byte{0, 0, 1, 2}[random.IntN(4)], drained: make(map[string]bool),
		sessions: make(map[*running][]*session), index: firstIndex,
	}
	m.registry.Consul.Lose(m.index, "db")
	m.server = httptest.NewServer(m.registry)
	t.Cleanup(func() {
		m.server.CloseClientConnections()
		m.server.Close()
	})
	var toPeers *tls.Config
	var client netip.Addr // of whom databases are told
	listener, service := "", ""
	if m.secure {
		listener = fmt.Sprintf(", tls: { certificates: [{ cert: %q, key: %q }] }", certificate, key)
		if random.IntN(2) == 0 {
			listener += ", sni: [{ host: other.example.com, service: other }]"
		}
	}
	if m.proxied != 0 {
		listener += ", proxy_protocol: { from: [127.0.0.0/8] }"
	}
	if m.limited {
		service = ", limits: { requests_per_peer: 4 }"
	}
	switch random.IntN(4) {
	case 0:
		if client = netip.MustParseAddr("127.0.0.1"); m.proxied != 0 {
			client = clientOfProxy.Client.Addr()
		}
		service += fmt.Sprintf(", proxy_protocol: v%d", 1+random.IntN(2))
	case 1, 2:
		toPeers = &tls.Config{Certificates: []tls.Certificate{verify.Result(tls.X509KeyPair(pem, keyPEM)).Must(t)}}
		service += fmt.Sprintf(", upstream: { tls: { ca: %q, server_name: db.example.com } }", certificate)
	}
	leader := map[string]string{"tag": "tag: primary", "key": "key: " + leaderKey, "passing": "passing: true"}[by]
	demotion := map[bool]string{true: "cut", false: "drain"}[m.cut]
	m.text = fmt.Sprintf(`consul: { addresses: [%q] }
listeners: [{ name: db, address: "127.0.0.1:0", protocol: tcp, service: db%s }]
services:
  db: { consul: { leader: { %s, on_demotion: %s } }, drain: { timeout: 1h }%s }
  other: { peers: ["127.0.0.1:1"] }
shutdown: { idle: 0s, grace: 0s }
`, m.server.URL, listener, leader, demotion, service)
	for _, name := range []string{"a", "b", "c"} {
		m.databases = append(m.databases, newDatabase(t, name, toPeers, client))
	}
	t.Logf("%s", m.text)
	m.name("a")
	m.a, m.b = start(t, m.text), start(t, m.text)
	m.check("the start")
	for range steps {
		if what := m.step(); what != "" {
			t.Log(what)
			m.check(what)
		}
	}
	for _, d := range m.databases {
		verify.That(t, d.late.Load() == 0, "%s got %d lines after it was demoted", d.name, d.late.Load())
		verify.That(t, d.unknown.Load() == 0, "%s got %d connections without the client's address", d.name, d.unknown.Load())
	}
	for _, list := range m.sessions {
		for _, s := range list {
			s.conn.Close()
		}
	}
	m.a.end()
	m.b.end()
}

// A reload that removes a service with a leader is no demotion, whatever becomes of the leader
// then. One that brings it back finds who leads now, and follows: sessions from then on end with
// the next demotion.
func TestServiceWithALeaderGoesAndComesBack(t *testing.T) {
	t.Parallel()
	for _, demoted := range []bool{false, true} { // while there is no service
		consul := discoverytest.Start(t)
		databases := []*database{newDatabase(t, "a", nil, netip.Addr{}), newDatabase(t, "b", nil, netip.Addr{})}
		lead := func(name string) {
			var entries []*api.ServiceEntry
			for _, d := range databases {
				e := discoverytest.Instance("db", "db/"+d.name, d.port)
				if d.name == name {
					e.Service.Tags = []string{"primary"}
				}
				entries = append(entries, e)
			}
			consul.Set("db", entries...)
		}
		text := func(service, more string) string {
			return fmt.Sprintf(`consul: { addresses: [%q] }
listeners: [{ name: db, address: "127.0.0.1:0", protocol: tcp, service: %s }]
services: { other: { peers: [%q] }%s }
`, consul.URL(), service, greeter(t, "other"), more)
		}
		with := text("db", ", db: { consul: { leader: { tag: primary } }, drain: { timeout: 1h } }")
		lead("a")
		r := start(t, with)
		goesOn := func(c *tcpClient, when string) {
			t.Helper()
			c.say("still here")
			verify.Equal(t, c.line(), "still here", "%v: the session, %s", demoted, when)
		}
		first := r.connect("db")
		verify.Equal(t, first.line(), "a", "%v: at first", demoted)
		r.replace(text("other", ""))
		verify.Equal(t, r.connect("db").line(), "other", "%v: without the service", demoted)
		goesOn(first, "without the service")
		now, next := "a", "b"
		if demoted {
			now, next = "b", "a"
			lead(now)
		}
		r.replace(with)
		second := r.connect("db")
		verify.Equal(t, second.line(), now, "%v: when the service is back", demoted)
		goesOn(first, "when the service is back")
		lead(next)
		verify.Equal(t, second.line(), "", "%v: the session of who no longer leads", demoted)
		r.await("the next leader", func() bool { return r.connect("db").line() == next })
	}
}
