package gateway

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/config"
	"sluice/tags"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// anyNameKey has all TLS that has no name of its own, and plainKey everything else. They belong to
// one of the services that ask for them.
var (
	anyNameKey = &askedKey{dialect: config.DialectTraefik, protocol: tags.ProtocolTLS, common: true, wide: true}
	plainKey   = &askedKey{dialect: config.DialectTraefik, protocol: tags.ProtocolTCP, common: true, wide: true}
)

// refusedStream is what becomes of a connection that gets no peer, whatever the reason is.
const refusedStream = "closed"

// takesStream reports whether a connection is one of those of a key.
func (k *askedKey) takesStream(q foundRequest) bool {
	switch k {
	case plainKey:
		return true
	case anyNameKey:
		return q.protocol == tags.ProtocolTLS
	}
	return q.protocol == tags.ProtocolTLS && k.host == q.host
}

// newStreamAsk returns tags for the connections of a key at random. Those without an address list
// are always the same: they are one ask.
func (c *foundRun) newStreamAsk(k *askedKey) *ask {
	a := &ask{askedKey: k, number: len(c.asks), kind: pickOf(c.random, openAsk, openAsk, listedAsk, listedAsk, nobodyAsk, closedAsk, wrongAsk)}
	a.priority = map[*askedKey]int{anyNameKey: -1, plainKey: -2}[k]
	for _, known := range c.asks {
		if known.askedKey == k && known.kind == openAsk && a.kind == openAsk {
			return known
		}
	}
	name, host, secure := "named", k.host, true
	switch k {
	case anyNameKey:
		name, host = "any", "*"
	case plainKey:
		name, host, secure = "plain", "*", false
	}
	rule := fmt.Sprintf("HostSNI(`%s`)", host)
	tag := func(key, value string) {
		a.tags = append(a.tags, fmt.Sprintf("traefik.tcp.routers.%s.%s=%s", name, key, value))
	}
	list := func(networks string) {
		tag("middlewares", name+"list")
		a.tags = append(a.tags, fmt.Sprintf("traefik.tcp.middlewares.%slist.ipallowlist.sourcerange=%s", name, networks))
	}
	switch other := fmt.Sprintf("10.1.%d.%d/32", a.number/256, a.number%256); a.kind {
	case listedAsk:
		list("127.0.0.0/8," + other)
	case nobodyAsk:
		list(other)
	case closedAsk:
		tag("middlewares", fmt.Sprint("missing", a.number))
	case wrongAsk:
		rule = pickOf(c.random, "HostSNI(`"+k.host, "Nonsense(`x`)", "ALPN(`h2`)")
	}
	if tag("rule", rule); secure {
		tag("tls.passthrough", "true")
	}
	tag("entrypoints", "wires")
	c.keep(a)
	return a
}

// connect opens a connection whose service is found by tags, asks its peer several times, and says
// what is wrong with the answers.
func (c *foundRun) connect(random *rand.Rand) error {
	q := foundRequest{protocol: tags.ProtocolTCP}
	if random.IntN(3) > 0 {
		q.protocol, q.host = tags.ProtocolTLS, pickOf(random, append([]string{"other"}, foundServices...)...)+".wires.example.com"
	}
	since := c.since()
	g, arrived := c.begin()
	defer arrived()
	conn, err := net.Dial("tcp", g.Address("wires").String())
	if err != nil { // it was refused before Dial has returned
		return c.judge(q, since, refusedStream, err.Error())
	}
	defer func() { conn.Close() }()
	conn.SetDeadline(time.Now().Add(10 * patience))
	if q.protocol == tags.ProtocolTLS {
		conn = tls.Client(conn, &tls.Config{ServerName: q.host, InsecureSkipVerify: true})
	}
	in, first := bufio.NewReader(conn), ""
	pace := time.NewTicker(3 * time.Millisecond)
	defer pace.Stop()
	for n := range 1 + random.IntN(20) {
		peer, err := askStream(conn, in)
		arrived()
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return fmt.Errorf("%+v: no answer: %w", q, err)
		}
		switch {
		case n > 0 && (err != nil || peer != first):
			return fmt.Errorf("%+v: a connection to %s has got the answer of %q, or has ended: %w", q, first, peer, err)
		case n == 0 && err != nil:
			return c.judge(q, since, refusedStream, err.Error())
		case n == 0:
			if err := c.judge(q, since, peersAnswer("", peer, "HTTP/1.1"), ""); err != nil {
				return err
			}
		}
		first = peer
		<-pace.C
	}
	return nil
}

func askStream(conn net.Conn, in *bufio.Reader) (peer string, err error) {
	if _, err := io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: wires.example.com\r\n\r\n"); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return response.Header.Get("Got-Peer"), err
}

// asStream returns answers as the client of a connection sees them.
func asStream(answers map[string]bool) map[string]bool {
	seen := make(map[string]bool)
	for answer, allowed := range answers {
		if !strings.HasPrefix(answer, fmt.Sprint(http.StatusOK)) {
			answer = refusedStream
		}
		seen[answer] = seen[answer] || allowed
	}
	return seen
}

// A secretlyTLS listener serves clients with TLS and without it.
type secretlyTLS struct {
	net.Listener
	config *tls.Config
}

func newSecretlyTLS(t *testing.T, l net.Listener) net.Listener {
	t.Helper()
	cert, key := testcert.PEM("wires.example.com")
	pair := verify.Result(tls.X509KeyPair(cert, key)).Must(t)
	return &secretlyTLS{l, &tls.Config{Certificates: []tls.Certificate{pair}}}
}

func (l *secretlyTLS) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &secretConn{Conn: conn, config: l.config}, nil
}

// A secretConn is a connection whose first byte says whether it has TLS. It is read before it is
// written.
type secretConn struct {
	net.Conn
	config *tls.Config
	once   sync.Once
	bytes  net.Conn // without TLS
}

func (c *secretConn) Read(p []byte) (int, error) {
	c.once.Do(func() {
		in := bufio.NewReader(c.Conn)
		first, _ := in.Peek(1)
		if c.bytes = (&peekedConn{c.Conn, in}); len(first) == 1 && first[0] == 22 {
			c.bytes = tls.Server(c.bytes, c.config)
		}
	})
	return c.bytes.Read(p)
}

func (c *secretConn) Write(p []byte) (int, error) { return c.bytes.Write(p) }

type peekedConn struct {
	net.Conn
	in *bufio.Reader
}

func (c *peekedConn) Read(p []byte) (int, error) { return c.in.Read(p) }
