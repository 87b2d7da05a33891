package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/observe/wake"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// TestLeaderInConsul moves a leader by the three ways in which a real Consul names one.
func TestLeaderInConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	for by, leader := range map[string]string{"tag": "tag: primary", "key": "key: service/by-key/leader", "passing": "passing: true"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			testLeaderInConsul(t, agent, by, leader)
		})
	}
}

func testLeaderInConsul(t *testing.T, agent *consultest.Agent, by, leader string) {
	service := "by-" + by
	a, b := newDatabase(t, "a"), newDatabase(t, "b")
	name := consulLeader(t, agent.Client(), service, by, a, b)
	name(a)
	r := start(t, fmt.Sprintf(`consul: { addresses: [%q] }
listeners: [{ name: db, address: "127.0.0.1:0", protocol: tcp, service: db }]
services: { db: { consul: { service: %s, leader: { %s } }, drain: { timeout: 1h } } }
shutdown: { idle: 0s, grace: 0s }
`, agent.URL(), service, leader))
	var cuts []time.Duration
	old, next := a, b
	var last *session
	leads := func(d *database) {
		t.Helper()
		r.await("the leader "+d.name, func() bool { last = r.session(); return last.at == d.name })
	}
	leads(a)
	for range 5 {
		demoted := name(next)
		r.await("the end of the session to "+old.name, func() bool { return wake.Closed(last.end) })
		cuts = append(cuts, last.ended.Sub(demoted))
		leads(next)
		r.await("no connection to "+old.name, func() bool { return old.open.Load() == 0 })
		old, next = next, old
	}
	r.drain("db", url.PathEscape(service+"/"+old.name)) // the leader gets no new session
	r.await("nobody gets a session", func() bool { return r.session().at == "" })
	verify.That(t, !wake.Closed(last.end), "the session with the leader that drains has ended")
	last.conn.Close()
	slices.Sort(cuts)
	t.Logf("sessions ended %v after Consul had accepted the change, median %v", cuts, cuts[len(cuts)/2])
}

// A session is a connection of a client that sends a line again and again.
type session struct {
	conn net.Conn
	at   string // the database; "": the connection was refused
	end  chan struct{}

	ended time.Time // set when end is closed
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
	conn.SetDeadline(time.Now().Add(2 * patience))
	s := &session{conn: conn, end: make(chan struct{})}
	in := bufio.NewReader(conn)
	line, _ := in.ReadString('\n')
	if s.at = strings.TrimSpace(line); s.at == "" {
		conn.Close()
		return s
	}
	go func() {
		defer close(s.end)
		defer func() { s.ended = time.Now() }()
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for ; ; <-pace.C {
			conn.SetDeadline(time.Now().Add(2 * patience))
			if _, err := io.WriteString(conn, "x\n"); err != nil {
				return
			}
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
		}
	}()
	return s
}

// consulLeader registers databases in Consul, and returns a function that makes one of them the
// leader, and says when Consul had accepted that the former one is not.
func consulLeader(t *testing.T, client *api.Client, service, by string, all ...*database) func(*database) time.Time {
	register := func(d *database, tag, status string) {
		r := &api.AgentServiceRegistration{
			ID: service + "/" + d.name, Name: service, Address: "127.0.0.1", Port: d.port,
			Check: &api.AgentServiceCheck{CheckID: service + d.name, TTL: "1h", Status: status},
		}
		if tag != "" {
			r.Tags = []string{tag}
		}
		verify.NoError(t, client.Agent().ServiceRegister(r))
	}
	for _, d := range all {
		status := api.HealthPassing
		if by == "passing" {
			status = api.HealthCritical
		}
		register(d, "replica", status)
	}
	locked := ""
	return func(leader *database) (demoted time.Time) {
		if by == "key" { // as Patroni: the lock of a session that is destroyed is deleted
			if locked != "" {
				verify.Result(client.Session().Destroy(locked, nil)).Must(t)
			}
			demoted = time.Now()
			var err error
			locked, _, err = client.Session().Create(&api.SessionEntry{Behavior: api.SessionBehaviorDelete, LockDelay: time.Millisecond}, nil)
			verify.NoError(t, err)
			consultest.Await(t, "the lock", func() bool {
				lock := &api.KVPair{Key: "service/" + service + "/leader", Value: []byte(leader.name), Session: locked}
				done, _, err := client.KV().Acquire(lock, nil)
				verify.NoError(t, err)
				return done
			})
			return demoted
		}
		for _, d := range all { // the former one first
			switch {
			case by == "tag" && d != leader:
				register(d, "replica", api.HealthPassing)
			case by == "passing" && d != leader:
				verify.NoError(t, client.Agent().UpdateTTL(service+d.name, "replica", api.HealthCritical))
			}
		}
		demoted = time.Now()
		if by == "tag" {
			register(leader, "primary", api.HealthPassing)
		} else {
			verify.NoError(t, client.Agent().UpdateTTL(service+leader.name, "primary", api.HealthPassing))
		}
		return demoted
	}
}
