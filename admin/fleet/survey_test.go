package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sluice/consul/registration"
	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/test/consultest"
	"sluice/test/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testSecret is the secret of the replicas.
const testSecret = "s3cret"

// proving adds the proofs of whichever replica of the tests is asked.
func proving(h http.HandlerFunc) http.HandlerFunc {
	var all []*Proofs
	for _, name := range []string{"a", "b", "c", "x"} {
		all = append(all, NewProofs(func() string { return name }, func() (string, error) { return testSecret, nil }))
	}
	return func(w http.ResponseWriter, r *http.Request) {
		for _, p := range all {
			if p.Answer(w, r, h) == nil {
				return
			}
		}
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// replicaAPI starts the admin API of another replica, and returns its address.
func replicaAPI(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(proving(h))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// replicaHandler returns the handler of a replica.
func replicaHandler(r Replica) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/api/replica" {
			_ = json.NewEncoder(w).Encode(r)
		}
	}
}

// listed returns the registered instance of a replica on a host.
func listed(id, host, admin string) discovery.Instance {
	return discovery.Instance{
		Service: "sluice", ID: id, Node: "n", Address: "127.0.0.1", Port: 8080,
		Meta: map[string]string{
			registration.MetaReplica: id, registration.MetaHost: host, registration.MetaAdmin: admin,
			registration.MetaVersion: "v0", registration.MetaConfig: "c1", registration.MetaStarted: "2026-01-02T03:04:05Z",
		},
	}
}

// survey returns a survey of the listed replicas from the replica "a" on the host "web1".
func survey(list ...discovery.Instance) Survey {
	return Survey{
		Self: func() Replica {
			return Replica{Replica: "a", Host: "web1", ConfigHash: "c1", Version: "v1", Ready: true, Parts: map[string]string{}}
		},
		List:   func(context.Context) ([]discovery.Instance, error) { return list, nil },
		Secret: func() (string, error) { return testSecret, nil },
		TLS:    func() (*tls.Config, error) { return nil, nil }, Control: locality.ByOperator,
	}
}

// late is the error of a replica that did not answer in time.
const late = "no answer in time"

// take surveys the listed replicas from the replica "a" on the host "web1", again if the machine
// was too slow.
func take(t *testing.T, list ...discovery.Instance) (r Report) {
	t.Helper()
	consultest.Await(t, "all replicas answer in time", func() bool {
		r = survey(list...).Take(t.Context())
		return !slices.ContainsFunc(r.Replicas, func(m Member) bool { return strings.Contains(m.Error, late) })
	})
	return r
}

// find returns a replica of a report.
func find(t *testing.T, r Report, name string) Member {
	t.Helper()
	for _, m := range r.Replicas {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("no replica %q in %+v", name, r)
	return Member{}
}

func TestSurveyQueriesTheOthers(t *testing.T) {
	b := Replica{Replica: "b", Host: "web2", ConfigHash: "c1", Version: "v2", Ready: true, Parts: map[string]string{}}
	r := take(t, listed("a", "web1", "127.0.0.1:1"), listed("b", "web1", replicaAPI(t, replicaHandler(b))))
	verify.That(t, r.Converged != nil && *r.Converged && len(r.Replicas) == 2, "got %+v", r)
	m := find(t, r, "b")
	verify.That(t, m.Version == "v2" && m.Error == "" && m.Ready && !m.Self, "b: %+v", m)
	m = find(t, r, "a")
	verify.That(t, m.Self && m.Version == "v1", "a: %+v", m)
}

func TestSurveyHasTheErrorOfAReplica(t *testing.T) {
	away := listed("x", "web1", "")
	delete(away.Meta, registration.MetaAdmin)
	stranger := listed("x", "web1", "")
	stranger.Meta = nil
	for name, c := range map[string]struct {
		instance discovery.Instance
		want     string
	}{
		"refused":    {listed("x", "web1", "127.0.0.1:1"), "admin API at 127.0.0.1:1: connection refused"},
		"no address": {away, "its registration has no address of its admin API"},
		"not sluice": {stranger, "not registered by sluice"},
		"no parts":   {listed("x", "web1", replicaAPI(t, replicaHandler(Replica{Replica: "x"}))), "not an answer of sluice: it has no parts"},
		"not JSON":   {listed("x", "web1", replicaAPI(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })), "not an answer of sluice"},
		"404":        {listed("x", "web1", replicaAPI(t, http.NotFound)), "404 Not Found"},
		"token":      {listed("x", "web1", replicaAPI(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) })), "another consul.register.replica_token_file"},
	} {
		t.Run(name, func(t *testing.T) {
			r := take(t, c.instance)
			m := find(t, r, "x")
			verify.That(t, strings.Contains(m.Error, c.want) && m.Parts == nil, "got %+v, want %q", m, c.want)
			verify.That(t, r.Converged == nil && len(r.Unknown) == 1, "got %+v", r)
		})
	}
}

// A replica that hangs delays the report, but does not prevent it.
func TestSurveyIsBounded(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	address := replicaAPI(t, func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-end:
		case <-q.Context().Done():
		}
	})
	t.Cleanup(func() { close(end) })
	r := survey(listed("x", "web1", address)).Take(t.Context()) // ends because of the timeout
	m := find(t, r, "x")
	verify.That(t, strings.Contains(m.Error, late), "got %+v", m)
}

// A stranger who registers as a replica gets no secret and makes sluice ask no other address,
// whatever it registers or answers.
func TestAStrangerGetsNoSecret(t *testing.T) {
	sent := make(chan string, 100)
	thief := replicaAPI(t, func(http.ResponseWriter, *http.Request) { sent <- "the thief was asked" })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		sent <- fmt.Sprint(q.Header)
		http.Redirect(w, q, "http://"+thief+"/api/replica", http.StatusFound)
	}))
	t.Cleanup(server.Close)
	m := find(t, take(t, listed("x", "web1", server.Listener.Addr().String())), "x")
	verify.That(t, strings.Contains(m.Error, "302 Found"), "got %+v", m)
	for range len(sent) {
		text := <-sent
		verify.That(t, !strings.Contains(text, testSecret) && !strings.Contains(text, "Bearer") && !strings.Contains(text, "thief"), "was sent: %s", text)
	}

	machine := locality.New()
	_, port, _ := net.SplitHostPort(thief)
	for what, admin := range map[string]string{
		"loopback": thief, "userinfo": "x@" + thief, "a path": thief + "/delete?x=:80", "a fragment": thief + "#:80", "mapped": "[::ffff:127.0.0.1]:" + port,
		"unspecified": "0.0.0.0:" + port, "unspecified, IPv6": "[::]:" + port, "short": "127.1:" + port, "a number": "2130706433:" + port,
		"a name": "localhost:" + port, "a name with a dot": "localhost.:" + port, "capitals": "LOCALHOST:" + port, "the service's": ":" + port,
	} {
		s := survey(listed("x", "web1", admin)) // on this machine, as it says
		s.Control = machine.ByOthers(func() bool { return false })
		m := find(t, s.Take(t.Context()), "x")
		verify.That(t, m.Error != "" && m.Parts == nil, "%s: %+v", what, m)
	}
	verify.Equal(t, len(sent), 0, "questions to this machine")
}

// Without a secret nobody is asked.
func TestNoSecretNoQuestion(t *testing.T) {
	s := survey(listed("x", "web1", replicaAPI(t, func(http.ResponseWriter, *http.Request) { t.Error("it was asked") })))
	s.Secret = func() (string, error) { return "", nil }
	verify.Equal(t, find(t, s.Take(t.Context()), "x").Error, errNoSecret.Error(), "error")
}

func TestSurveyWithoutConsul(t *testing.T) {
	s := Survey{
		Self:   func() Replica { return Replica{Replica: "a", Parts: map[string]string{}} },
		List:   func(context.Context) ([]discovery.Instance, error) { return nil, errors.New("refused") },
		Secret: func() (string, error) { return "", nil },
		TLS:    func() (*tls.Config, error) { return nil, nil },
	}
	r := s.Take(t.Context())
	verify.That(t, r.Error == "refused" && r.Converged == nil && len(r.Replicas) == 1 && r.Replicas[0].Status == "unregistered", "got %+v", r)
}

// The same id on two agents counts once. Two replicas may have the same id.
func TestNames(t *testing.T) {
	a1, a2, b := listed("a", "web1", "127.0.0.1:1"), listed("a", "web1", "127.0.0.1:1"), listed("a", "web2", "10.0.0.1:1")
	a1.Node, a1.Status = "dead", discovery.StatusCritical
	a2.Node, b.Node = "live", "other"
	b.Meta[registration.MetaReplica] = "b"
	b.Meta[registration.MetaAdmin] = "127.0.0.1:1"
	r := take(t, a1, a2, b)
	verify.That(t, find(t, r, "a@dead").Duplicate && !find(t, r, "a@live").Duplicate && !find(t, r, "a@other").Duplicate && !find(t, r, "a@other").Self, "got %+v", r.Replicas)
}

// A replica with TLS is asked by HTTPS, and its certificate is verified. With settings for that,
// one without TLS gets no request, and no token.
func TestSurveyWithTLS(t *testing.T) {
	var asked atomic.Int32
	handler := func(w http.ResponseWriter, q *http.Request) {
		asked.Add(1)
		replicaHandler(Replica{Replica: "b", Parts: map[string]string{}})(w, q)
	}
	secure := httptest.NewUnstartedServer(proving(handler))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(proving(handler))
	defer plain.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())

	for _, c := range []struct {
		name, admin string
		tls         *tls.Config
		asked       int32
		want        string // part of the error; "": it answers
	}{
		{"trusted", "https://" + secure.Listener.Addr().String(), &tls.Config{RootCAs: roots}, 1, ""},
		{"without TLS", plain.Listener.Addr().String(), nil, 1, ""},
		{"not trusted", "https://" + secure.Listener.Addr().String(), nil, 0, "see consul.register.replica_tls"},
		{"another name", "https://" + secure.Listener.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "other.example"}, 0, "other.example"},
		{"TLS is required", plain.Listener.Addr().String(), &tls.Config{RootCAs: roots}, 0, "does not use TLS, which consul.register.replica_tls requires"},
		{"a unix socket", "unix:/run/admin.sock", nil, 0, "its admin API is a unix socket"},
		{"nothing", "https://", nil, 0, "no address of its admin API"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Report
			s := survey(listed("b", "web1", c.admin))
			s.TLS = func() (*tls.Config, error) { return c.tls.Clone(), nil }
			consultest.Await(t, "an answer in time", func() bool {
				asked.Store(0)
				r = s.Take(t.Context())
				return !slices.ContainsFunc(r.Replicas, func(m Member) bool { return strings.Contains(m.Error, late) })
			})
			m := find(t, r, "b")
			verify.That(t, (m.Error == "") == (c.want == "") && strings.Contains(m.Error, c.want) && asked.Load() == c.asked, "asked %d times, %+v", asked.Load(), m)
		})
	}
}

// An address that accepts connections and answers no handshake keeps none of them after the end of
// the question.
func TestNoConnectionOutlivesItsHandshake(t *testing.T) {
	t.Parallel()
	listener := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer listener.Close()
	_, err := queryReplica(t.Context(), survey().client(nil, time.Second), &Member{Admin: https + listener.Addr().String()}, testSecret)
	verify.That(t, err != nil, "an answer without a handshake")
	c := verify.Result(listener.Accept()).Must(t)
	defer c.Close()
	verify.NoError(t, c.SetReadDeadline(time.Now().Add(consultest.Patience)))
	_, err = io.Copy(io.Discard, c) // until the client closes it
	verify.NoError(t, err)
}

// An address that answers nothing, as behind a firewall, keeps no dial for the minutes of the
// kernel after the end of its question.
func TestNoDialOutlivesItsQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
		defer listener.Close()
		dialed := make(chan error, 1)
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			ConnectStart: func(string, string) { time.Sleep(askTimeout + time.Second) },
			ConnectDone:  func(_, _ string, err error) { dialed <- err },
		})
		_, err := queryReplica(ctx, survey().client(nil, askTimeout), &Member{Admin: listener.Addr().String()}, testSecret)
		verify.That(t, err != nil, "an answer without a connection")
		verify.That(t, <-dialed != nil, "the dial goes on")
	})
}

// What a replica registers or answers does not make the report unreadable.
func TestReportOfAStrangeStartIsEncoded(t *testing.T) {
	for text, known := range map[string]bool{"2026-01-02T03:04:05Z": true, "2026-01-02T03:04:05+24:00": false, "yesterday": false} {
		registered := listed("b", "web2", "")
		registered.Meta[registration.MetaStarted] = text
		answering := listed("c", "web1", replicaAPI(t, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"replica":"c","parts":{},"started":%q}`, text)
		}))
		answering.Meta[registration.MetaStarted] = text
		report := survey(registered, answering).Take(t.Context())
		_, err := json.Marshal(report)
		verify.That(t, err == nil && len(report.Replicas) == 3, "%q: %v", text, err)
		for _, m := range report.Replicas[1:] {
			verify.That(t, (m.Started != nil) == known, "%q: got %+v", text, m)
		}
	}
}
