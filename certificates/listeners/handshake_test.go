package listeners

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sluice/certificates"
	"sluice/config"
	"sluice/test/long"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// A world is a listener whose settings and files change, and what should follow from them.
type world struct {
	*rand.Rand
	seed    uint64
	t       *testing.T
	m       *Manager
	dir     string
	socket  net.Listener
	site    testcert.Files
	rsa     bool // site
	of      [2]*testcert.Authority
	clients [2][3]tls.Certificate // with the serial numbers 10, 11 and 12

	listener config.Listener
	tls      *TLS
	trusted  int                       // of
	listed   []int64                   // serial numbers that the list of trusted revokes
	expired  bool                      // the list
	sealedBy []string                  // by ticket_keys: keys of the file, the first seals
	open     []opened                  // connections of clients with certificates
	told     *certificates.Revocations // that Options.Revoked was called for
}

type opened struct {
	tls    *TLS
	chains [][]*x509.Certificate
	serial int64
	of     int
}

const ownKeys = "own"

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 0)), seed: seed, t: t, dir: t.TempDir()}
	w.m = New(Options{Others: func() []certificates.Use { return nil }, Revoked: func() { w.told = w.tls.Revocations() }})
	t.Cleanup(w.m.Close)
	w.socket = verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	t.Cleanup(func() { w.socket.Close() })
	if w.rsa = w.IntN(4) == 0; w.rsa {
		w.site = testcert.WriteRSA(t, w.dir, "a.example")
	} else {
		w.site = testcert.Write(t, w.dir, "a.example")
	}
	for i := range w.of {
		w.of[i] = testcert.NewAuthority(t, fmt.Sprintf("ca%d.example", i))
		for n := range w.clients[i] {
			_, _, w.clients[i][n] = w.of[i].Chain(t, "/web", func(c *x509.Certificate) { c.SerialNumber = big.NewInt(int64(10 + n)) })
		}
	}
	w.writeClients()
	w.reload()
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, text []byte) {
	w.t.Helper()
	verify.NoError(w.t, os.WriteFile(w.path(name), text, 0o600))
}

// writeClients writes client_ca and client_crl, which fit together.
func (w *world) writeClients() {
	w.trusted, w.listed, w.expired = w.IntN(2), nil, w.IntN(5) == 0
	for n := range int64(3) {
		if w.IntN(3) == 0 {
			w.listed = append(w.listed, 10+n)
		}
	}
	from, until := time.Now().Add(-2*time.Hour), time.Now().Add(time.Hour)
	if w.expired {
		until = from.Add(time.Hour)
	}
	a := w.of[w.trusted]
	w.write("ca.pem", a.Root)
	w.write("crl.pem", a.CRL(w.t, from, until, w.listed))
}

var ticketTexts = []string{"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=", "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="}

func (w *world) writeTickets() {
	w.sealedBy = nil
	text := ""
	for _, i := range w.Perm(len(ticketTexts))[:1+w.IntN(2)] {
		w.sealedBy = append(w.sealedBy, ticketTexts[i])
		text += ticketTexts[i] + "\n"
	}
	w.write("tickets", []byte(text))
}

// reload gives the listener other settings.
func (w *world) reload() {
	w.writeTickets()
	s := &config.ListenerTLS{Certificates: []config.Certificate{{Cert: w.site.Cert, Key: w.site.Key}}}
	switch w.IntN(4) {
	case 0:
		s.Profile = "modern"
	case 1:
		s.Profile = "intermediate"
	case 2:
		s.Ciphers = []config.TLSSuite{{Value: tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
		if w.rsa {
			s.Ciphers[0].Value = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
		}
		s.Curves = []config.TLSCurve{{Value: tls.CurveP256}}
	}
	switch w.IntN(4) {
	case 0, 1:
		s.ClientCA, s.ClientAuth = w.path("ca.pem"), []string{"required", "optional"}[w.IntN(2)]
		if w.IntN(3) > 0 {
			s.ClientCRL = w.path("crl.pem")
		}
	case 2:
		s.TicketKeys = w.path("tickets")
	}
	w.listener = config.Listener{Name: "web", HTTP2: true, TLS: s}
	w.tls = verify.Result(w.m.TLS(w.listener, &config.Config{Listeners: []config.Listener{w.listener}}, w.tls)).Must(w.t)
	w.m.Use([]*TLS{w.tls})
}

// A visitor is a client.
type visitor struct {
	min, max uint16
	suite    uint16 // of TLS 1.2
	curve    tls.CurveID
	of, cert int // its certificate; cert -1: none
	cache    tls.ClientSessionCache
	ticket   *ticket // in cache; nil: none
}

// A ticket is what is known about a session of a client.
type ticket struct {
	sealedBy string
	version  uint16
}

func (w *world) visitor() *visitor {
	v := &visitor{min: tls.VersionTLS12, max: tls.VersionTLS13, cache: tls.NewLRUClientSessionCache(1), of: w.IntN(2), cert: w.IntN(4) - 1}
	switch w.IntN(3) {
	case 0:
		v.max = tls.VersionTLS12
	case 1:
		v.min = tls.VersionTLS13
	}
	v.suite = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	}[w.IntN(4)]
	v.curve = allCurves[w.IntN(len(allCurves))]
	return v
}

// allCurves are the key exchanges of visitors: first the ones of both profiles, and of these first
// the one that TLS 1.2 has not.
var allCurves = []tls.CurveID{tls.X25519MLKEM768, tls.CurveP256, tls.X25519, tls.CurveP384, tls.CurveP521}

// expect decides what a handshake of v should end with: its version, 0 for none, and whether it may
// resume a session.
func (w *world) expect(v *visitor) (version uint16, mayResume bool) {
	s := w.listener.TLS
	least, suites, curves := uint16(tls.VersionTLS12), certificates.Suites, allCurves
	switch {
	case s.Profile == "modern":
		least, curves = tls.VersionTLS13, curves[:4]
	case s.Profile == "intermediate":
		curves = curves[:4]
	case len(s.Ciphers) > 0:
		suites, curves = []uint16{s.Ciphers[0].Value}, curves[1:2]
	}
	version = v.max
	switch {
	case version < least, !slices.Contains(curves, v.curve):
		return 0, false
	case version == tls.VersionTLS12 && (v.curve == allCurves[0] || w.rsa != (v.suite == tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) || !slices.Contains(suites, v.suite)):
		return 0, false
	case s.ClientCA == "":
		keys := []string{ownKeys}
		if s.TicketKeys != "" {
			keys = append(keys, w.sealedBy...)
		}
		return version, v.ticket != nil && v.ticket.version == version && slices.Contains(keys, v.ticket.sealedBy)
	case v.cert < 0 && s.ClientAuth == "required":
		return 0, false
	case v.cert < 0:
		return version, false
	case v.of != w.trusted, s.ClientCRL != "" && (w.expired || slices.Contains(w.listed, int64(10+v.cert))):
		return 0, false
	}
	return version, false
}

// shake performs a handshake. The server's state counts: a client with TLS 1.3 does not wait for
// its verdict.
func (w *world) shake(v *visitor) (tls.ConnectionState, error) {
	client := &tls.Config{
		ServerName: "a.example", InsecureSkipVerify: true, MinVersion: v.min, MaxVersion: v.max, CipherSuites: []uint16{v.suite},
		CurvePreferences: []tls.CurveID{v.curve}, ClientSessionCache: v.cache,
	}
	if v.cert >= 0 {
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &w.clients[v.of][v.cert], nil }
	}
	near := verify.Result(net.Dial("tcp", w.socket.Addr().String())).Must(w.t) // a net.Pipe has no room for a session that is not read yet
	defer near.Close()
	far := verify.Result(w.socket.Accept()).Must(w.t)
	defer far.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer near.Close()
		conn := tls.Client(near, client)
		if conn.Handshake() == nil {
			conn.Read(make([]byte, 1)) // the ticket comes before
		}
	}()
	server := tls.Server(far, w.tls.Config)
	err := server.Handshake()
	if err == nil {
		_, err = server.Write([]byte{1})
	}
	far.Close()
	<-done
	return server.ConnectionState(), err
}

func (w *world) step(v *visitor) {
	t := w.t
	version, mayResume := w.expect(v)
	state, err := w.shake(v)
	what := fmt.Sprintf("seed %d: %+v, visitor %+v, revoked %v of %d, expired %t", w.seed, *w.listener.TLS, *v, w.listed, w.trusted, w.expired)
	if err != nil {
		verify.Require(t, version == 0 && !errors.Is(err, net.ErrClosed), "%s: %v", what, err)
		v.ticket = nil // a client forgets a session after a failure, or not
		v.cache = tls.NewLRUClientSessionCache(1)
		return
	}
	verify.Require(t, state.Version == version && (state.CurveID == v.curve || state.DidResume) && (!state.DidResume || mayResume), "%s: version %#x, curve %s, resumed %t; want %#x, may resume: %t",
		what, state.Version, state.CurveID, state.DidResume, version, mayResume)
	if mayResume && v.suite == tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 {
		verify.Require(t, state.DidResume, "%s: the session is not resumed", what)
	}
	switch s := w.listener.TLS; {
	case s.ClientCA != "":
		v.ticket, v.cache = nil, tls.NewLRUClientSessionCache(1)
	case s.TicketKeys != "":
		v.ticket = &ticket{w.sealedBy[0], version}
	default:
		v.ticket = &ticket{ownKeys, version}
	}
	if len(state.VerifiedChains) > 0 {
		w.open = append(w.open, opened{w.tls, state.VerifiedChains, int64(10 + v.cert), v.of})
	}
}

// Handshakes end as a plain function of the listener's settings and files, and of the client, says:
// by profile, version, cipher suite, curve, certificate and list of revoked ones, resumed or not,
// across reloads and changes of files. The clients of open connections are revoked if the list of
// now says so, whichever listener had the socket when they came.
func TestRandomHandshakes(t *testing.T) {
	for seed := range long.Count(t, uint64(8), 400) {
		w := newWorld(t, seed)
		visitors := []*visitor{w.visitor(), w.visitor(), w.visitor()}
		for range 60 {
			switch w.IntN(10) {
			case 0:
				w.reload()
			case 1:
				w.writeClients()
				w.m.Refresh()
			case 2:
				if w.listener.TLS.TicketKeys != "" {
					w.writeTickets()
					w.m.Refresh()
				}
			case 3:
				visitors[w.IntN(len(visitors))] = w.visitor()
			default:
				w.step(visitors[w.IntN(len(visitors))])
			}
			verify.Require(t, w.told == w.tls.Revocations(), "seed %d: nobody was told of a change of the lists", seed)
			for _, o := range w.open {
				want := w.listener.TLS.ClientCRL != "" && o.of == w.trusted && slices.Contains(w.listed, o.serial)
				verify.Require(t, o.tls.Revocations().Revokes(o.chains) == want, "seed %d: an open connection of number %d of %d: revoked is not %t", seed, o.serial, o.of, want)
			}
		}
	}
}
