package gateway

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// sessionLine is what clients of databases say which must not come late. No other process has it.
var sessionLine = fmt.Sprintf("x %x\n", rand.Uint64())

// A database says its name to each client, and sends back what it gets.
type database struct {
	name    string
	port    int
	open    atomic.Int64
	retired atomic.Bool // nothing may come any more
	late    atomic.Int64
}

func newDatabase(t *testing.T, name string) *database {
	t.Helper()
	d := &database{name: name}
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	d.port = l.Addr().(*net.TCPAddr).Port
	listen(t, l, func(conn net.Conn) {
		d.open.Add(1)
		defer d.open.Add(-1)
		if _, err := fmt.Fprintln(conn, name); err != nil {
			return // it was never used
		}
		in := bufio.NewReader(conn)
		for {
			line, err := in.ReadString('\n')
			// A client of another test, whose peer had this port, sends other lines.
			if line == sessionLine && d.retired.Load() {
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

// A reload that removes a service with a leader is no demotion, whatever becomes of the leader
// then. One that brings it back finds who leads now, and follows: sessions from then on end with
// the next demotion.
func TestServiceWithALeaderGoesAndComesBack(t *testing.T) {
	t.Parallel()
	for _, demoted := range []bool{false, true} { // while there is no service
		consul := discoverytest.Start(t)
		databases := []*database{newDatabase(t, "a"), newDatabase(t, "b")}
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

// leader returns the database that leads, as far as r knows; "": none.
func (r *running) leader() string {
	for _, p := range r.services.pool("db").Snapshot().All {
		return strings.TrimPrefix(p.Instance().ID, "db/")
	}
	return ""
}
