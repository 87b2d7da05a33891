package mesh

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/test/discoverytest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// handshake returns the client's error of a handshake in memory, and of the first read.
func handshake(client, server *tls.Config) error {
	up, down := net.Pipe()
	defer up.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer down.Close()
		conn, written := newPatientConn(down)
		c := tls.Server(conn, server)
		if c.Handshake() == nil {
			_, _ = c.Write([]byte{1})
		}
		_, _ = io.Copy(io.Discard, down)
		close(written)
	}()
	c := tls.Client(up, client)
	err := c.Handshake()
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	up.Close()
	<-ended
	return err
}

// patientConn is an end of a pipe whose writes do not wait for the reader, as those of a socket.
type patientConn struct {
	net.Conn
	written chan []byte
}

func newPatientConn(c net.Conn) (net.Conn, chan<- []byte) {
	p := patientConn{c, make(chan []byte, 100)}
	go func() {
		for b := range p.written {
			_, _ = c.Write(b)
		}
	}()
	return p, p.written
}

func (p patientConn) Write(b []byte) (int, error) {
	p.written <- bytes.Clone(b)
	return len(b), nil
}

// rig is an Identity that asks an agent in memory, in virtual time.
type rig struct {
	*Identity
	*agent
	feed *events.Feed
	log  *subprocess.Output
}

// inMesh runs do with an Identity of sluice.
func inMesh(t *testing.T, do func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{agent: newAgent(), feed: events.New(), log: new(subprocess.Output)}
		pipe := discoverytest.ServePipe(r.agent)
		defer pipe.Close()
		client := verify.Result(consul.New(consul.Options{Addresses: []string{"http://fake"}, ProbeInterval: time.Minute, Log: zerolog.Nop(), Dial: pipe.DialContext})).Must(t)
		defer client.Close()
		r.Identity = NewIdentity(IdentityOptions{Consul: client, Wait: func() time.Duration { return 10 * time.Minute }, Events: r.feed, Log: zerolog.New(r.log)})
		defer r.Configure("")
		do(t, r)
	})
}

// web is an instance in the mesh.
var web = discovery.Instance{Service: "web", Identity: "/ns/default/dc/dc1/svc/web"}

// begin makes sluice a member of the mesh, with a leaf of a root.
func (r *rig) begin(t *testing.T, ca *root, life time.Duration) {
	r.set(leafPath, ca.leafOf(t, "sluice", life))
	r.set(rootsPath, rootsOf(ca))
	r.Configure("sluice")
	synctest.Wait()
}

// kinds returns the kinds of the events so far, and what they say.
func (r *rig) kinds() (kinds []events.Kind, texts string) {
	for _, e := range r.feed.All() {
		kinds, texts = append(kinds, e.Kind), texts+e.Text+"\n"
	}
	return kinds, texts
}

// accepts reports whether a connection to web, with the leaf and from the root, works.
func (r *rig) accepts(t *testing.T, by *root) error {
	terms, err := r.TermsFor(&web)
	if err != nil {
		return err
	}
	return connect(t, terms.Config, by.leafOf(t, "web", time.Hour), tls.VersionTLS13)
}

// An agent that answers with the same leaf for ever, as if it was valid, and a new one later.
func TestALeafThatIsNotRenewed(t *testing.T) {
	inMesh(t, func(t *testing.T, r *rig) {
		const life = 10 * time.Hour
		ca, begin := newRoot(t), time.Now()
		r.begin(t, ca, life)
		verify.NoError(t, r.accepts(t, ca))
		_, err := r.TermsFor(new(discovery.Instance))
		verify.That(t, err != nil, "an instance that is not in the mesh")
		verify.Equal(t, r.Await(t.Context(), 0), true, "it is there")

		time.Sleep(life * 89 / 100)
		r.Refresh()
		r.questions(rootsPath)
		for n, q := range r.questions(leafPath) {
			verify.That(t, q.blocks == (n > 0), "a query after %v blocks: %v", q.at.Sub(begin), q.blocks)
		}
		verify.Succeeds(t, r.Err())
		kinds, _ := r.kinds()
		verify.Slices(t, kinds, nil, "events before it is due")

		time.Sleep(life * 3 / 100)
		synctest.Wait()
		asked := r.questions(leafPath)
		without := slices.DeleteFunc(slices.Clone(asked), func(q question) bool { return q.blocks })
		verify.That(t, len(without) > 30 && len(without) < 130, "%d queries without an index in 12 minutes, want one each 10 or 20 s", len(without))
		verify.Succeeds(t, r.Err())

		time.Sleep(life * 4 / 100)
		synctest.Wait()
		kinds, texts := r.kinds()
		verify.Slices(t, kinds, []events.Kind{events.KindMeshFails}, "events when it is overdue")
		verify.Contains(t, texts, "is not renewed, and expires at "+utc(r.Current().Expires()), "event")
		verify.Succeeds(t, r.accepts(t, ca))

		time.Sleep(life * 5 / 100)
		synctest.Wait()
		kinds, texts = r.kinds()
		verify.Slices(t, kinds, []events.Kind{events.KindMeshFails, events.KindMeshFails}, "events when it has expired")
		verify.Contains(t, texts, "has expired", "event")
		_, err = r.TermsFor(&web)
		verify.That(t, err != nil && strings.Contains(err.Error(), "has expired"), "an expired leaf: %v", err)
		verify.Equal(t, r.Statuses()[0].State(time.Now()).String(), "expired", "its status")

		r.set(leafPath, ca.leafOf(t, "sluice", life))
		time.Sleep(askAgainEvery + time.Second)
		synctest.Wait()
		verify.Succeeds(t, r.accepts(t, ca))
		verify.Succeeds(t, r.Err())
		kinds, _ = r.kinds()
		verify.Equal(t, kinds[len(kinds)-1], events.KindMeshWorks, "the last event")
		verify.Equal(t, len(kinds), 3, "events")
	})
}

// A refusal names the right, and ends by itself. One event each.
func TestARefusedLeaf(t *testing.T) {
	inMesh(t, func(t *testing.T, r *rig) {
		ca := newRoot(t)
		r.set(rootsPath, rootsOf(ca))
		r.refuse(leafPath, http.StatusForbidden, "Permission denied: token lacks permission 'service:write' on \"sluice\"")
		r.Configure("sluice")
		verify.Equal(t, r.Await(t.Context(), 20*time.Minute), false, "it waits in vain")
		_, err := r.TermsFor(&web)
		verify.That(t, err != nil && strings.Contains(err.Error(), `lacks service:write: service "sluice" { policy = "write" }`), "the error: %v", err)
		verify.Equal(t, r.Refused(), true, "it is refused")
		kinds, _ := r.kinds()
		verify.Slices(t, kinds, []events.Kind{events.KindMeshFails}, "events")
		verify.Equal(t, r.Statuses()[0].State(time.Now()).String(), "missing", "its status")

		r.set(leafPath, ca.leafOf(t, "sluice", 72*time.Hour))
		time.Sleep(time.Minute)
		verify.Succeeds(t, r.accepts(t, ca))
		r.refuse(leafPath, http.StatusForbidden, "ACL not found")
		time.Sleep(20 * time.Minute)
		verify.Succeeds(t, r.accepts(t, ca))
		verify.Equal(t, r.Refused(), true, "it is refused")
		kinds, texts := r.kinds()
		verify.Slices(t, kinds, []events.Kind{events.KindMeshFails, events.KindMeshWorks, events.KindMeshFails}, "events")
		verify.Contains(t, texts, "is not renewed", "the last event")
	})
}

// The first error, without an answer before, and while the certificate authority fails, harms no
// agent.
func TestAnAuthorityThatFailsIsSaid(t *testing.T) {
	inMesh(t, func(t *testing.T, r *rig) {
		for _, path := range []string{leafPath, rootsPath} {
			r.refuse(path, http.StatusInternalServerError, "Connect must be enabled in order to use this endpoint")
		}
		r.Configure("sluice")
		time.Sleep(time.Minute)
		synctest.Wait()
		kinds, texts := r.kinds()
		verify.Slices(t, kinds, []events.Kind{events.KindMeshFails}, "events")
		verify.Contains(t, texts, "Connect must be enabled", "events")
		verify.Equal(t, r.Refused(), false, "it is not refused")
	})
}

// What is wrong is logged once: by the identity, and not as a state of a certificate besides, nor
// once for each of its queries.
func TestALackIsToldOnce(t *testing.T) {
	for _, leafFirst := range []bool{true, false} {
		feed, log := events.New(), new(subprocess.Output)
		i := NewIdentity(IdentityOptions{Events: feed, Log: zerolog.New(log)})
		i.rename("sluice")
		refused := []func(){
			func() { i.ended(&i.leafError, fmt.Errorf("the leaf: %w", consul.ErrFiltered)) },
			func() { i.ended(&i.rootsError, fmt.Errorf("the roots: %w", consul.ErrFiltered)) },
		}
		if !leafFirst {
			slices.Reverse(refused)
		}
		for range 2 {
			for _, f := range refused {
				f()
			}
		}
		make(certificates.Warnings).Log(certificates.Statuses(i.Uses()), time.Now(), zerolog.New(log))
		verify.Equal(t, strings.Count(log.String(), `"level":"warn"`), 1, "warnings, the leaf first %v: %s", leafFirst, log)
		verify.Contains(t, log.String(), "the leaf: ", "the warning")
		verify.Equal(t, len(feed.All()), 1, "events")
	}
	ca, feed := newRoot(t), events.New()
	l := verify.Result(parseLeaf(ca.leafOf(t, "sluice", -time.Hour))).Must(t)
	i := NewIdentity(IdentityOptions{Events: feed})
	i.rename("sluice")
	i.process(func() { i.leaf = l })
	i.ended(&i.leafError, nil)
	verify.Equal(t, len(feed.All()), 0, "events while the leaf waits for the roots")
	i.current.Store(&Material{l, verify.Result(parseRoots(rootsOf(ca))).Must(t)})
	log := new(subprocess.Output)
	make(certificates.Warnings).Log(certificates.Statuses(i.Uses()), time.Now(), zerolog.New(log))
	verify.Equal(t, log.String(), "", "a certificate that has expired is told by the identity too")
}

// Whatever comes first, and what does not fit together, what is in use verifies against itself.
func TestLeafAndRootsAreOneValue(t *testing.T) {
	inMesh(t, func(t *testing.T, r *rig) {
		one, two := newRoot(t), newRoot(t)
		r.begin(t, one, 72*time.Hour)
		first := r.Current()
		uses := func(l *leaf, roots ...*root) {
			t.Helper()
			synctest.Wait()
			m := r.Current()
			verify.That(t, m.leaf.text == l.text, "another leaf is in use")
			verify.Equal(t, len(m.roots.trusted), len(roots), "roots in use")
			verify.Succeeds(t, fits(m.leaf, m.roots, time.Now()))
		}
		// A leaf of a root that is not known does not count; more roots count at once, and
		// then the leaf too.
		late := two.leafOf(t, "sluice", 72*time.Hour)
		r.set(leafPath, late)
		uses(first.leaf, one)
		r.set(rootsPath, rootsOf(one, two))
		second := verify.Result(parseLeaf(late)).Must(t)
		uses(second, one, two)
		verify.Equal(t, r.leaves.Load()*10+r.rooted.Load(), 22, "leaves and roots put to use")
		// Roots that the leaf is not of do not count until there is a leaf of them.
		r.set(rootsPath, rootsOf(one))
		uses(second, one, two)
		time.Sleep(time.Minute)
		kinds, texts := r.kinds()
		verify.Slices(t, kinds, []events.Kind{events.KindMeshFails}, "events after a minute")
		verify.Contains(t, texts, "does not fit together", "event")
		last := one.leafOf(t, "sluice", 72*time.Hour)
		r.set(leafPath, last)
		uses(verify.Result(parseLeaf(last)).Must(t), one)
		// A leaf that a known root has signed across counts before the roots do.
		three := newRoot(t)
		crossed := three.leafOf(t, "sluice", 72*time.Hour)
		crossed.CertPEM += three.crossSigned(t, one)
		r.set(leafPath, crossed)
		uses(verify.Result(parseLeaf(crossed)).Must(t), one)
		verify.Succeeds(t, r.accepts(t, one))
	})
}

// A new process has what the old one had, without Consul.
func TestAnIdentityIsHandedOver(t *testing.T) {
	inMesh(t, func(t *testing.T, r *rig) {
		ca := newRoot(t)
		r.begin(t, ca, 72*time.Hour)
		r.Pause()
		text := verify.Result(json.Marshal(r.Save())).Must(t)
		r.Configure("")
		verify.Equal(t, r.Current(), nil, "without a name")

		for path := range r.answers {
			r.refuse(path, http.StatusInternalServerError, "No cluster leader")
		}
		var state *IdentityState
		verify.NoError(t, json.Unmarshal(text, &state))
		next := &rig{Identity: NewIdentity(r.options)}
		defer next.Configure("")
		next.Restore(state)
		next.Configure("sluice")
		verify.Equal(t, next.Await(t.Context(), 0), true, "it is there at once")
		verify.Succeeds(t, next.accepts(t, ca))
		time.Sleep(time.Hour)
		verify.Succeeds(t, next.accepts(t, ca))
		verify.Succeeds(t, next.Err())
		r.set(rootsPath, rootsOf(ca))
		r.set(leafPath, ca.leafOf(t, "other", 72*time.Hour))
		r.setAnswer("/v1/agent/connect/ca/leaf/other", agentAnswer{body: ca.leafOf(t, "other", 72*time.Hour)})
		time.Sleep(time.Minute)
		verify.Contains(t, next.Current().URI(), "/svc/sluice", "with the leaf of another service")
		next.Configure("other")
		verify.Succeeds(t, next.accepts(t, ca))
		time.Sleep(time.Minute)
		verify.Contains(t, next.Current().URI(), "/svc/other", "with another name")
		next.Configure("")

		last := NewIdentity(r.options)
		last.Restore(nil)
		last.Restore(&IdentityState{Leaf: state.Leaf})
		time.Sleep(73 * time.Hour)
		last.Restore(state)
		verify.Equal(t, last.Current(), nil, "of what is missing or has expired")
		verify.Equal(t, strings.Count(r.log.String(), "of the old process cannot be used"), 2, "warnings")
	})
}

func TestPeersAreVerified(t *testing.T) {
	ca, other := newRoot(t), newRoot(t)
	l := verify.Result(parseLeaf(ca.leafOf(t, "sluice", time.Hour))).Must(t)
	m := &Material{l, verify.Result(parseRoots(rootsOf(other, ca))).Must(t)}
	verify.NoError(t, fits(m.leaf, m.roots, time.Now()))
	foreign := rootsOf(ca)
	foreign.TrustDomain = "2.consul"
	err := fits(l, verify.Result(parseRoots(foreign)).Must(t), time.Now())
	verify.That(t, err != nil && strings.Contains(err.Error(), "is not of the trust domain 2.consul"), "roots of another trust domain: %v", err)
	uris := func(texts ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, text := range texts {
				c.URIs = append(c.URIs, verify.URL(t, text))
			}
		}
	}
	const own = "spiffe://" + trustDomain
	for _, c := range []struct {
		name    string
		leaf    LeafText
		refused string
	}{
		{"the peer", ca.leafOf(t, "web", time.Hour), ""},
		{"of another root", other.leafOf(t, "web", time.Hour), ""},
		{"in capitals", ca.leafOf(t, "web", time.Hour, uris(strings.ToUpper(own)+"/ns/default/dc/DC1/svc/WEB")), ""},
		{"another service", ca.leafOf(t, "api", time.Hour), "/svc/api and not"},
		{"another data centre", ca.leafOf(t, "web", time.Hour, uris(own+"/ns/default/dc/dc2/svc/web")), "/dc/dc2/svc/web and not"},
		{"another trust domain", ca.leafOf(t, "web", time.Hour, uris("spiffe://2.consul/ns/default/dc/dc1/svc/web")), "spiffe://2.consul"},
		{"a longer path", ca.leafOf(t, "web", time.Hour, uris(own+"/ns/default/dc/dc1/svc/web/")), "and not"},
		{"a path with an escape", ca.leafOf(t, "web", time.Hour, uris(own+"/ns/default/dc/dc1%2Fsvc/web")), "and not"},
		{"a query", ca.leafOf(t, "web", time.Hour, uris(own+"/ns/default/dc/dc1/svc/web?")), "and not"},
		{"two URIs", ca.leafOf(t, "web", time.Hour, uris(own+"/ns/default/dc/dc1/svc/web", own+"/ns/default/dc/dc1/svc/web")), "2 URIs"},
		{"no URI", ca.leafOf(t, "web", time.Hour, uris()), "0 URIs"},
		{"no SPIFFE URI", ca.leafOf(t, "web", time.Hour, uris("https://"+trustDomain+"/ns/default/dc/dc1/svc/web")), "none of the mesh"},
		{"an unknown root", newRoot(t).leafOf(t, "web", time.Hour), "unknown authority"},
		{"an expired leaf", ca.leafOf(t, "web", -time.Second), "expired"},
		{"a leaf for clients", ca.leafOf(t, "web", time.Hour, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), "incompatible key usage"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			err := connect(t, m.configFor("web.default.dc1.internal."+trustDomain, "/ns/default/dc/dc1/svc/web"), c.leaf, version)
			verify.That(t, (err == nil) == (c.refused == "") && (err == nil || strings.Contains(err.Error(), c.refused)),
				"%s: %v, want an error with %q", c.name, err, c.refused)
		}
	}
	verify.That(t, m.roots.verifyPeer(nil, nil, time.Now()) != nil, "a peer without a certificate is accepted")
	err = connect(t, m.configFor("", ""), ca.leafOf(t, "web", time.Hour), tls.VersionTLS11)
	verify.That(t, err != nil, "TLS 1.1 is accepted")
}

// Every connection is verified: none continues a session, and the peer gets the leaf.
func TestNoSessionIsResumed(t *testing.T) {
	ca := newRoot(t)
	m := &Material{verify.Result(parseLeaf(ca.leafOf(t, "sluice", time.Hour))).Must(t), verify.Result(parseRoots(rootsOf(ca))).Must(t)}
	peer := ca.leafOf(t, "web", time.Hour)
	pair := verify.Result(tls.X509KeyPair([]byte(peer.CertPEM), []byte(peer.PrivateKeyPEM))).Must(t)
	var resumed, named int
	server := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, VerifyConnection: func(s tls.ConnectionState) error {
		if s.DidResume {
			resumed++
		}
		if s.ServerName == "web.internal" && bytes.Equal(s.PeerCertificates[0].Raw, m.leaf.chain[0].Raw) {
			named++
		}
		return nil
	}}
	config := m.configFor("web.internal", "/ns/default/dc/dc1/svc/web")
	for range 3 {
		verify.NoError(t, handshake(config, server))
	}
	verify.Equal(t, resumed*10+named, 3, "connections that were resumed, and those with the leaf and the server name")
}

// Bytes of others never panic, and never replace what is good by what does not verify against
// itself.
func FuzzAnswers(f *testing.F) {
	ca, other := newRoot(f), newRoot(f)
	good := ca.leafOf(f, "sluice", 24*time.Hour)
	mixed := good
	mixed.PrivateKeyPEM = ca.leafOf(f, "sluice", time.Hour).PrivateKeyPEM
	seeds := [][]byte{
		marshal(f, good), marshal(f, ca.leafOf(f, "sluice", time.Hour)), marshal(f, other.leafOf(f, "sluice", time.Hour)), marshal(f, mixed),
		marshal(f, ca.leafOf(f, "web", time.Hour)), marshal(f, rootsOf(ca)), marshal(f, rootsOf(ca, other)), marshal(f, rootsOf(other)), marshal(f, rootsOf()),
		marshal(f, RootsText{TrustDomain: "x", Roots: make([]RootText, maxRoots+1)}), []byte("null"), []byte("[]"), []byte("{"), []byte(`{"Roots":[null]}`), nil,
		marshal(f, LeafText{CertPEM: strings.Repeat(good.CertPEM, maxChain+1), PrivateKeyPEM: good.PrivateKeyPEM}),
	}
	for _, leaf := range seeds {
		for _, roots := range seeds {
			f.Add(leaf, roots)
		}
	}
	f.Fuzz(func(t *testing.T, leafBody, rootsBody []byte) {
		i := NewIdentity(IdentityOptions{Log: zerolog.Nop()})
		i.Restore(&IdentityState{good, rootsOf(ca)})
		i.rename("sluice")
		l, err := readLeaf(leafBody, "sluice")
		if err == nil {
			verify.That(t, l.certificate.PrivateKey != nil && len(l.chain) > 0 && len(l.chain) <= maxChain, "a leaf without a key, or with a long chain")
			i.process(func() { i.leaf = l })
		}
		r, err := readRoots(rootsBody)
		if err == nil {
			verify.That(t, len(r.text.Roots) > 0 && len(r.text.Roots) <= maxRoots, "%d roots", len(r.text.Roots))
			i.process(func() { i.roots = r })
		}
		i.ended(&i.leafError, errors.Join(err))
		m := i.Current()
		verify.Succeeds(t, fits(m.leaf, m.roots, time.Now()))
		verify.Equal(t, m.leaf.uri.Path, "/ns/default/dc/dc1/svc/sluice", "whose leaf it is")
	})
}
