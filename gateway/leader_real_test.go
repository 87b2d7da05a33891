package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/observe/wake"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// TestLeaderInConsul moves a leader whom a key of a real Consul names, as Patroni's.
func TestLeaderInConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	a, b := newDatabase(t, "a"), newDatabase(t, "b")
	locked := ""
	name := func(leader *database) { // the lock of a session that is destroyed is deleted
		t.Helper()
		client := agent.Client()
		if locked != "" {
			verify.Result(client.Session().Destroy(locked, nil)).Must(t)
		}
		var err error
		locked, _, err = client.Session().Create(&api.SessionEntry{Behavior: api.SessionBehaviorDelete, LockDelay: time.Millisecond}, nil)
		verify.NoError(t, err)
		consultest.Await(t, "the lock", func() bool {
			lock := &api.KVPair{Key: "service/db/leader", Value: []byte(leader.name), Session: locked}
			done, _, err := client.KV().Acquire(lock, nil)
			verify.NoError(t, err)
			return done
		})
	}
	for _, d := range []*database{a, b} {
		verify.NoError(t, agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "db/" + d.name, Name: "db", Address: "127.0.0.1", Port: d.port}))
	}
	name(a)
	r := start(t, fmt.Sprintf(`consul: { addresses: [%q] }
listeners: [{ name: db, address: "127.0.0.1:0", protocol: tcp, service: db }]
services: { db: { consul: { leader: { key: service/db/leader } }, drain: { timeout: 1h } } }
shutdown: { idle: 0s, grace: 0s }
`, agent.URL()))
	old, next := a, b
	var last *session
	leads := func(d *database) {
		t.Helper()
		r.await("the leader "+d.name, func() bool { last = r.session(); return last.at == d.name })
	}
	leads(a)
	for range 5 {
		name(next)
		r.await("the end of the session to "+old.name, func() bool { return wake.Closed(last.end) })
		leads(next)
		r.await("no connection to "+old.name, func() bool { return old.open.Load() == 0 })
		old, next = next, old
	}
	r.drain("db", url.PathEscape("db/"+old.name)) // the leader gets no new session
	r.await("nobody gets a session", func() bool { return r.session().at == "" })
	verify.That(t, !wake.Closed(last.end), "the session with the leader that drains has ended")
	last.conn.Close()
}

// A session is a connection of a client.
type session struct {
	conn net.Conn
	at   string // the database; "": the connection was refused
	end  chan struct{}
}

// session opens a session, and returns it when the database has said its name.
func (r *running) session() *session {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.Address("db").String())
	if errors.Is(err, syscall.ECONNRESET) { // it was refused before Dial has returned
		return new(session)
	}
	verify.NoError(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	s := &session{conn: conn, end: make(chan struct{})}
	in := bufio.NewReader(conn)
	line, _ := in.ReadString('\n')
	if s.at = strings.TrimSpace(line); s.at == "" {
		conn.Close()
		return s
	}
	go func() {
		defer close(s.end)
		io.Copy(io.Discard, in)
	}()
	return s
}
