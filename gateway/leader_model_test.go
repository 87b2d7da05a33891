package gateway

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/observe/wake"
	"sluice/proxy/proxyprotocol"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// keyOfLeader is a Consul with a key, in front of a fake one with the rest.
type keyOfLeader struct {
	*discoverytest.Consul

	mu sync.Mutex
	// mu guards the fields below.
	index   uint64
	pair    *api.KVPair // nil: there is none
	broken  bool
	changed chan struct{}
}

const (
	leaderKey  = "service/db/leader"
	firstIndex = 100_000
)

func (k *keyOfLeader) change(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
	close(k.changed)
	k.changed = make(chan struct{})
}

// look returns the answer, or what tells of another one.
func (k *keyOfLeader) look(after uint64) (index uint64, body string, broken bool, changed chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.broken:
		return 0, "", true, nil
	case after == k.index:
		return 0, "", false, k.changed
	case k.pair == nil:
		return k.index, "", false, nil
	}
	return k.index, fmt.Sprintf(`[{"Key":%q,"Value":"%s","LockIndex":%d,"Session":%q}]`, leaderKey, k.pair.Value, k.pair.LockIndex, k.pair.Session), false, nil
}

func (k *keyOfLeader) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/kv/") {
		k.Consul.ServeHTTP(w, r)
		return
	}
	after, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
	over := time.After(wait)
	for {
		index, body, broken, changed := k.look(after)
		if broken {
			panic(http.ErrAbortHandler)
		}
		if changed == nil {
			w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
			w.Header().Set("X-Consul-KnownLeader", "true")
			if body == "" {
				w.WriteHeader(http.StatusNotFound)
			}
			_, _ = io.WriteString(w, body)
			return
		}
		select {
		case <-changed:
		case <-over:
			after = 0
		case <-r.Context().Done():
			return
		}
	}
}

// A session is a connection of a client that sends a line again and again.
type session struct {
	conn net.Conn
	at   string // the database; "": the connection was refused
	end  chan struct{}

	ended time.Time // set when end is closed
}

// leaderModel is what clients must see, whatever happens to Consul and sluice.
type leaderModel struct {
	t         *testing.T
	random    *rand.Rand
	registry  *keyOfLeader
	server    *httptest.Server // of registry
	by        string           // tag, key or passing
	cut       bool             // else drain
	secure    bool             // clients use TLS
	limited   bool             // the service has few places, so that each session that has ended must have given back its own
	proxied   byte             // clients come through a proxy that sends a PROXY header of this version, before TLS; 0: they do not
	text      string
	databases []*database
	a, b      *running // replicas
	olds      []*running
	sessions  map[*running][]*session

	index    uint64 // with which Consul began: firstIndex, and a lower one after each loss
	claims   map[string]bool
	critical string          // the id of one that is
	drained  map[string]bool // by an operator
	leader   string          // "": none
	lost     string          // the leader when Consul has lost the key; "": all replicas have seen another one since
}

// publish says what is so to Consul.
func (m *leaderModel) publish() {
	var entries []*api.ServiceEntry
	for _, d := range m.databases {
		e := discoverytest.Instance("db", "db/"+d.name, d.port)
		status := api.HealthPassing
		if m.by == "tag" && m.claims[d.name] {
			e.Service.Tags = []string{"primary"}
		}
		if m.by == "passing" && !m.claims[d.name] || m.critical == d.name {
			status = api.HealthCritical
		}
		entries = append(entries, discoverytest.Health(e, status, "by the test"))
	}
	m.registry.Consul.Set("db", entries...)
	m.registry.change(func() {
		m.registry.index++
		m.registry.pair = nil
		for name := range m.claims {
			m.registry.pair = &api.KVPair{Value: []byte(base64.StdEncoding.EncodeToString([]byte(name))), LockIndex: 1, Session: "s"}
		}
		if m.by != "key" {
			m.registry.pair = nil
		}
	})
}

// name changes who claims to lead. Consul may be away.
func (m *leaderModel) name(names ...string) {
	m.claims = make(map[string]bool)
	for _, name := range names {
		m.claims[name] = true
	}
	m.leader = ""
	if len(names) == 1 {
		m.leader = names[0]
	}
	for _, d := range m.databases {
		if d.name == m.leader {
			d.retired.Store(false)
		}
	}
	m.publish()
}

func (m *leaderModel) any() string { return m.databases[m.random.IntN(len(m.databases))].name }

// step does something at random.
func (m *leaderModel) step() (what string) {
	if m.critical != "" {
		m.critical = ""
		m.publish()
		m.check("the leader works again") // else Consul may lose it before sluice knows
	}
	switch m.random.IntN(12) {
	case 0, 1, 2:
		m.name(m.any())
		return "a leader"
	case 3:
		if m.lost != "" { // who has not seen the key since keeps the leader
			return ""
		}
		m.name()
		return "no leader"
	case 4:
		if m.by == "key" {
			return ""
		}
		m.name("a", "b")
		return "two leaders"
	case 5: // Consul is away, and another one leads then
		m.fail(true)
		m.check("an outage")
		next := m.any()
		m.fail(false)
		m.name(next)
		return "the end of an outage, and the leader " + next
	case 6: // Consul forgets all, and gets the registrations again
		if m.leader == "" {
			return ""
		}
		m.index -= 1000 // so that no replica waits for a change of the index that comes again
		m.registry.change(func() { m.registry.index, m.registry.pair = m.index, nil })
		m.registry.Consul.Lose(m.index, "db")
		m.server.CloseClientConnections() // a server that starts anew ends all queries, which else wait for an index of before
		m.check("a loss")
		if m.by == "key" {
			m.lost = m.leader
		}
		m.name(m.leader)
		return "a loss and its end"
	case 7:
		if m.by == "passing" || m.leader == "" {
			return ""
		}
		m.critical = m.leader
		m.publish()
		return "the leader fails"
	case 8:
		m.a.write(m.text + fmt.Sprintf("log: { level: %s }\n", []string{"info", "debug"}[m.random.IntN(2)]))
		m.a.Reload()
		return "a reload"
	case 9:
		if m.leader == "" || m.drained[m.leader] {
			return ""
		}
		m.drained[m.leader] = true
		for _, r := range []*running{m.a, m.b} {
			r.drain("db", url.PathEscape("db/"+m.leader))
		}
		return "the drain of " + m.leader + " by an operator"
	case 10:
		for _, r := range []*running{m.a, m.b} {
			for _, o := range r.orders.Set().All() {
				verify.Result(r.orders.Store.End(o.Key(), "")).Must(m.t)
			}
		}
		clear(m.drained)
		return "the end of all drains"
	}
	next := m.any()
	old := m.a
	m.a = old.upgrade(m.text, afterHandover(m.t, func() { m.name(next) }))
	m.olds = append(m.olds, old)
	m.check("an upgrade and the leader " + next)
	for _, s := range m.sessions[old] {
		s.conn.Close()
	}
	delete(m.sessions, old)
	old.end()
	m.olds = nil
	return ""
}

// fail lets all queries fail, or none.
func (m *leaderModel) fail(fails bool) {
	if m.registry.change(func() { m.registry.broken = fails }); fails {
		m.registry.Consul.Break(discoverytest.Fault{Drop: true})
	} else {
		m.registry.Consul.Heal()
	}
}

// connect opens a session, and returns it when the database has said its name.
func (m *leaderModel) connect(r *running) *session {
	conn, err := net.Dial("tcp", r.Address("db").String())
	if errors.Is(err, syscall.ECONNRESET) { // it was refused before Dial has returned
		return new(session)
	}
	verify.NoError(m.t, err)
	m.t.Cleanup(func() { conn.Close() })
	if m.proxied != 0 {
		_, _ = conn.Write(proxyprotocol.Header(m.proxied, clientOfProxy))
	}
	if m.secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
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

// leader returns the database that leads, as far as r knows; "": none.
func (r *running) leader() string {
	for _, p := range r.services.pool("db").Snapshot().All {
		return strings.TrimPrefix(p.Instance().ID, "db/")
	}
	return ""
}

// check waits until sluice does what the model says: new sessions go to the leader, and those to a
// former one end, unless they may finish. From then on nothing comes to a former leader.
func (m *leaderModel) check(what string) {
	m.t.Helper()
	want := m.leader
	if m.critical == want || m.drained[want] {
		want = ""
	}
	for n, r := range slices.Concat([]*running{m.a, m.b}, m.olds) {
		if m.drained[m.leader] || m.leader == "" { // else new sessions show whether it has heard of it
			m.a.await(fmt.Sprintf("after %s: %d knows that %q leads", what, n, m.leader), func() bool { return r.leader() == m.leader })
		}
		m.a.await(fmt.Sprintf("after %s: new sessions of %d go to %q", what, n, want), func() bool {
			s := m.connect(r)
			if s.at == "" {
				return want == ""
			}
			m.sessions[r] = append(m.sessions[r], s)
			return s.at == want
		})
		kept := m.sessions[r][:0]
		for _, s := range m.sessions[r] {
			switch {
			case s.at != m.leader && m.cut:
				m.await(s.end, "after %s: a session of %d to %s ends", what, n, s.at)
				continue
			case wake.Closed(s.end):
				m.t.Fatalf("after %s: a session of %d to %s has ended, the leader is %s", what, n, s.at, m.leader)
				continue
			}
			if m.limited && len(kept) > 0 {
				s.conn.Close()
				continue
			}
			kept = append(kept, s)
		}
		m.sessions[r] = kept
	}
	if m.leader != m.lost {
		m.lost = ""
	}
	for _, d := range m.databases {
		if d.name == m.leader || !m.cut {
			continue
		}
		m.a.await(fmt.Sprintf("after %s: %s has no connection", what, d.name), func() bool { return d.open.Load() == 0 })
		d.retired.Store(true)
	}
}

func (m *leaderModel) await(end chan struct{}, format string, args ...any) {
	m.t.Helper()
	select {
	case <-end:
	case <-time.After(4 * patience):
		m.t.Fatalf(format, args...)
	}
}
