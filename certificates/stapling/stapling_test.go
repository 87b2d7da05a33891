package stapling

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ocsp"

	"sluice/test/testcert"
	"sluice/test/verify"
)

// responder answers instead of the network.
type responder func(*http.Request) (*http.Response, error)

func (r responder) RoundTrip(q *http.Request) (*http.Response, error) { return r(q) }

func answerWith(body []byte) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body))}, nil
}

func manager(r http.RoundTripper) *Manager {
	m := New(Options{MayConnect: func(netip.AddrPort) error { return nil }, Changed: func() {}, Log: zerolog.Nop()})
	if r != nil {
		m.client.Transport = r
	}
	return m
}

const day = 24 * time.Hour

func named(url string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.OCSPServer, c.NotAfter = []string{url}, time.Now().Add(100*day)
		c.ExtraExtensions = []pkix.Extension{{Id: featuresID, Value: []byte{0x30, 3, 2, 1, 5}}}
	}
}

// A responder that answers nothing, as behind a firewall, keeps no dial for the minutes of the kernel after the end of its question.
func TestNoDialOutlivesItsQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
		defer listener.Close()
		a := testcert.NewAuthority(t, "a.example")
		_, _, pair := a.Chain(t, "/web", named("http://"+listener.Addr().String()))
		dialed := make(chan error, 1)
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			ConnectStart: func(string, string) { time.Sleep(askTimeout + time.Second) },
			ConnectDone:  func(_, _ string, err error) { dialed <- err },
		})
		m := manager(nil)
		defer m.Close()
		issuer := verify.Result(x509.ParseCertificate(pair.Certificate[1])).Must(t)
		_, _, err := m.ask(ctx, pair.Leaf, issuer)
		verify.That(t, err != nil, "an answer without a connection")
		verify.That(t, <-dialed != nil, "the dial goes on")
	})
}

// A staple is asked for again in the middle of its time, stays while the responder is away, ends with its time, and at once
// when the certificate is revoked. A new process begins with it.
func TestLifeOfAStaple(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testcert.NewAuthority(t, "a.example")
		_, _, pair := a.Chain(t, "/web", named("http://responder.example/ocsp"))
		var away, revoked atomic.Bool
		var asked atomic.Int64
		m := manager(responder(func(q *http.Request) (*http.Response, error) {
			asked.Add(1)
			body := verify.Result(io.ReadAll(q.Body)).Must(t)
			question := verify.Result(ocsp.ParseRequest(body)).Must(t)
			verify.That(t, q.URL.String() == "http://responder.example/ocsp" && question.SerialNumber.Cmp(pair.Leaf.SerialNumber) == 0, "the question is %s %v", q.URL, question)
			if away.Load() {
				return nil, errors.New("away")
			}
			status := ocsp.Good
			if revoked.Load() {
				status = ocsp.Revoked
			}
			return answerWith(a.OCSP(t, ocsp.Response{Status: status, SerialNumber: pair.Leaf.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(4 * day), RevokedAt: time.Now()}))
		}))
		defer m.Close()
		all := []*tls.Certificate{&pair}
		m.Follow(all)
		m.Await(t.Context())
		first := m.Staple(pair.Leaf)
		verify.That(t, first != nil && Required(pair.Leaf), "there is no staple")
		m.Follow(all)
		time.Sleep(2*day - time.Minute)
		synctest.Wait()
		verify.Equal(t, asked.Load(), 1, "questions before the middle")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		second := m.Staple(pair.Leaf)
		verify.That(t, asked.Load() == 2 && second != nil && !bytes.Equal(first, second), "the staple is not new in the middle of its time")

		away.Store(true)
		time.Sleep(4*day - 10*time.Minute)
		synctest.Wait()
		until, err := m.Status(pair.Leaf)
		verify.That(t, bytes.Equal(m.Staple(pair.Leaf), second) && !until.IsZero() && err != nil, "the staple did not stay: %v, %v", until, err)
		verify.That(t, asked.Load() < 70, "%d questions while the responder is away", asked.Load())
		state := m.State()
		time.Sleep(10 * time.Minute)
		until, _ = m.Status(pair.Leaf)
		verify.That(t, m.Staple(pair.Leaf) == nil && until.IsZero(), "a staple outlives its time")
		away.Store(false)
		time.Sleep(longestRetry)
		synctest.Wait()
		verify.That(t, m.Staple(pair.Leaf) != nil, "there is no staple after the responder's return")

		next := manager(responder(func(*http.Request) (*http.Response, error) { return nil, errors.New("away") }))
		defer next.Close()
		next.Adopt(m.State())
		next.Follow(all)
		next.Await(t.Context())
		verify.That(t, bytes.Equal(next.Staple(pair.Leaf), m.Staple(pair.Leaf)), "a new process has no staple")
		old := manager(nil)
		old.Adopt(state)
		old.cancel() // it asks nobody
		old.Follow(all)
		verify.That(t, old.Staple(pair.Leaf) == nil, "an expired staple is adopted")

		revoked.Store(true)
		time.Sleep(2 * day)
		synctest.Wait()
		_, err = m.Status(pair.Leaf)
		verify.That(t, m.Staple(pair.Leaf) == nil && errors.Is(err, errRevoked), "a revoked certificate has a staple: %v", err)
		m.Follow(nil)
		verify.That(t, len(m.all()) == 0, "a certificate that is not used is followed")
	})
}

// A responder that has no newer answer in the middle of the time of the last one, as one whose answers are made once a day, is not asked
// again and again.
func TestResponderThatRepeatsItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testcert.NewAuthority(t, "a.example")
		_, _, pair := a.Chain(t, "/web", named("http://responder.example/ocsp"))
		var asked atomic.Int64
		var answer []byte
		m := manager(responder(func(*http.Request) (*http.Response, error) {
			if n := asked.Add(1); n == 1 {
				answer = a.OCSP(t, ocsp.Response{Status: ocsp.Good, SerialNumber: pair.Leaf.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(4 * day)})
			}
			return answerWith(answer)
		}))
		defer m.Close()
		m.Follow([]*tls.Certificate{&pair})
		time.Sleep(4*day - time.Minute)
		synctest.Wait()
		verify.That(t, asked.Load() > 10 && asked.Load() < 150, "%d questions", asked.Load())
		verify.That(t, m.Staple(pair.Leaf) != nil, "the staple is not used to its end")
	})
}

// A certificate whose file lacks that of its authority gets its staple when the file has it.
func TestStapleWhenTheAuthorityIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testcert.NewAuthority(t, "a.example")
		_, _, pair := a.Chain(t, "/web", named("http://responder.example/ocsp"))
		m := manager(responder(func(*http.Request) (*http.Response, error) {
			return answerWith(a.OCSP(t, ocsp.Response{Status: ocsp.Good, SerialNumber: pair.Leaf.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(4 * day)}))
		}))
		defer m.Close()
		alone := pair
		alone.Certificate = pair.Certificate[:1]
		m.Follow([]*tls.Certificate{&alone})
		m.Await(t.Context())
		_, err := m.Status(pair.Leaf)
		verify.That(t, m.Staple(pair.Leaf) == nil && err != nil, "a staple without an authority: %v", err)
		m.Follow([]*tls.Certificate{&pair})
		m.Await(t.Context())
		_, err = m.Status(pair.Leaf)
		verify.That(t, m.Staple(pair.Leaf) != nil && err == nil, "no staple with an authority: %v", err)
		m.Follow([]*tls.Certificate{&alone, &pair, &alone})
		verify.That(t, m.Staple(pair.Leaf) != nil, "the staple is lost")
	})
}

// Timers stand still while the machine sleeps, and certificates expire: soon after it there is a new staple. A clock that is put back
// puts no question off.
func TestStapleAfterASleepOfTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testcert.NewAuthority(t, "a.example")
		_, _, pair := a.Chain(t, "/web", named("http://responder.example/ocsp"))
		var set, asked atomic.Int64
		clock := func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
		m := manager(responder(func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			return answerWith(a.OCSP(t, ocsp.Response{Status: ocsp.Good, SerialNumber: pair.Leaf.SerialNumber, ThisUpdate: clock(), NextUpdate: clock().Add(4 * day)}))
		}))
		m.now = clock
		defer m.Close()
		m.Follow([]*tls.Certificate{&pair})
		m.Await(t.Context())
		verify.That(t, m.Staple(pair.Leaf) != nil, "there is no staple")
		time.Sleep(time.Hour)
		set.Store(int64(4 * day))
		verify.That(t, m.Staple(pair.Leaf) == nil, "a staple outlives its time")
		time.Sleep(lookEvery)
		synctest.Wait()
		verify.That(t, m.Staple(pair.Leaf) != nil && asked.Load() == 2, "there is no new staple after the sleep")
		set.Store(0)
		time.Sleep(2*day + lookEvery)
		synctest.Wait()
		verify.Equal(t, asked.Load(), 3, "questions after the clock was put back")
	})
}

// What an old process had counts once: a certificate that was revoked since has no staple, also if it was not in use for a while.
func TestAnAdoptedStapleIsUsedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testcert.NewAuthority(t, "a.example")
		_, _, pair := a.Chain(t, "/web", named("http://responder.example/ocsp"))
		answer := func(status int) []byte {
			return a.OCSP(t, ocsp.Response{Status: status, SerialNumber: pair.Leaf.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(8 * day), RevokedAt: time.Now()})
		}
		m := manager(responder(func(*http.Request) (*http.Response, error) { return answerWith(answer(ocsp.Revoked)) }))
		defer m.Close()
		m.Adopt(map[string][]byte{fingerprint(pair.Leaf): answer(ocsp.Good)})
		all := []*tls.Certificate{&pair}
		m.Follow(all)
		verify.That(t, m.Staple(pair.Leaf) != nil, "the staple is not adopted")
		time.Sleep(4*day + time.Minute) // it is asked for again
		synctest.Wait()
		verify.That(t, m.Staple(pair.Leaf) == nil, "a revoked certificate has a staple")
		m.Follow(nil)
		m.Follow(all)
		m.Await(t.Context())
		_, err := m.Status(pair.Leaf)
		verify.That(t, m.Staple(pair.Leaf) == nil && errors.Is(err, errRevoked), "a revoked certificate has a staple again: %v", err)
	})
}

// Clients refuse a staple whose signer's certificate has expired, also one that would be valid for longer.
func TestAStapleEndsWithItsSigner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testcert.NewAuthority(t, "a.example")
		_, _, pair := a.Chain(t, "/web", named("http://responder.example/ocsp"))
		var away atomic.Bool
		m := manager(responder(func(*http.Request) (*http.Response, error) {
			if away.Load() {
				return nil, errors.New("away")
			}
			return answerWith(a.OCSPBy(t, ocsp.Response{Status: ocsp.Good, SerialNumber: pair.Leaf.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(4 * day)},
				func(c *x509.Certificate) {
					c.ExtKeyUsage, c.NotAfter = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, time.Now().Add(day)
				}))
		}))
		defer m.Close()
		m.Follow([]*tls.Certificate{&pair})
		m.Await(t.Context())
		first := m.Staple(pair.Leaf)
		verify.That(t, first != nil, "there is no staple")
		time.Sleep(day - time.Minute)
		synctest.Wait()
		second := m.Staple(pair.Leaf)
		verify.That(t, second != nil && !bytes.Equal(first, second), "the staple is not new in the middle of its signer's time")
		away.Store(true)
		time.Sleep(day)
		synctest.Wait()
		until, _ := m.Status(pair.Leaf)
		verify.That(t, m.Staple(pair.Leaf) == nil && until.IsZero(), "a staple outlives its signer, until %v", until)
	})
}

// What a responder sends is not believed without the authority's signature, and takes bounded time and memory. It leads
// nowhere else.
func TestHostileResponders(t *testing.T) {
	a, other := testcert.NewAuthority(t, "a.example"), testcert.NewAuthority(t, "a.example")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	var answer http.HandlerFunc
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
	defer server.Close()
	_, _, pair := a.Chain(t, "/web", named(server.URL))
	issuer := verify.Result(x509.ParseCertificate(pair.Certificate[1])).Must(t)
	good := ocsp.Response{Status: ocsp.Good, SerialNumber: pair.Leaf.SerialNumber, ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	with := func(change func(*ocsp.Response)) http.HandlerFunc {
		r := good
		change(&r)
		body := a.OCSP(t, r)
		return func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }
	}
	by := func(a *testcert.Authority, change func(*x509.Certificate)) http.HandlerFunc {
		body := a.OCSPBy(t, good, change)
		return func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }
	}
	delegate := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }
	m := manager(nil)
	defer m.Close()
	for what, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"good":           {with(func(*ocsp.Response) {}), ""},
		"a redirect":     {http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect).ServeHTTP, "status 307"},
		"too long":       {func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1<<20)) }, "more than 65536 bytes"},
		"a long head":    {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, "server response headers exceeded"},
		"no answer":      {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "text") }, "asn1"},
		"another signer": {func(w http.ResponseWriter, _ *http.Request) { w.Write(other.OCSP(t, good)) }, "verif"},
		"another number": {with(func(r *ocsp.Response) { r.SerialNumber = big.NewInt(99) }), "no response matching"},
		"unknown":        {with(func(r *ocsp.Response) { r.Status = ocsp.Unknown }), "does not know it"},
		"expired":        {with(func(r *ocsp.Response) { r.NextUpdate = time.Now().Add(-time.Second) }), "has expired"},
		"of the future":  {with(func(r *ocsp.Response) { r.ThisUpdate = time.Now().Add(time.Hour) }), "not valid before"},
		"a delegate":     {by(a, delegate), ""},
		"a site":         {by(a, func(*x509.Certificate) {}), "may not answer for the authority"}, // any customer of the authority
		"one of another": {by(other, delegate), "verif"},
		"a late one":     {by(a, func(c *x509.Certificate) { delegate(c); c.NotAfter = time.Now().Add(-time.Minute) }), "is not valid now"},
		"without an end": {with(func(r *ocsp.Response) { r.NextUpdate = time.Time{} }), "until when"},
	} {
		answer = test.answer
		_, _, err := m.ask(t.Context(), pair.Leaf, issuer)
		verify.That(t, (err == nil) == (test.want == "") && (err == nil || strings.Contains(err.Error(), test.want)), "%s: got %v, want %q", what, err, test.want)
	}

	m.options.MayConnect = func(to netip.AddrPort) error { return errors.New("not " + to.Addr().String()) }
	closed := New(m.options)
	defer closed.Close()
	answer = with(func(*ocsp.Response) {})
	_, _, err := closed.ask(context.Background(), pair.Leaf, issuer)
	verify.That(t, err != nil && strings.Contains(err.Error(), "not 127.0.0.1"), "got %v", err)
	for _, url := range []string{"https://a.example/", "ldap://a.example", "http://user@a.example/", "http:///x", "\x7f"} {
		leaf := *pair.Leaf
		leaf.OCSPServer = []string{url}
		_, _, err := m.ask(t.Context(), &leaf, issuer)
		verify.That(t, err != nil && strings.Contains(err.Error(), "is no URL for HTTP"), "%q: got %v", url, err)
	}
}
