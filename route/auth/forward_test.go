package auth

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/config/units"
	"sluice/discovery/locality"
	"sluice/route/places"
	"sluice/test/verify"
)

// No question goes to an address that is not allowed, by whatever name.
func TestAddressesOfQuestions(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		for _, allowed := range []bool{false, true} {
			f := NewForward(units.NewLocation("http://"+host+":"+port), 0, locality.New().ByOthers(func() bool { return allowed }))
			_, err := f.Ask(t.Context(), places.BlockOf(netip.MustParseAddr("10.0.0.1")), http.Header{}, nil)
			f.Close()
			verify.That(t, (!allowed || err == nil) && (allowed || err != nil && strings.Contains(err.Error(), "want discovery.allow_local")), "%s, allowed %v: %v", host, allowed, err)
		}
	}
	verify.Equal(t, asked.Load(), 3, "the server questions")
}

// A client whose questions are not answered does not hold back the questions of others.
func TestQuestionsOfOneClientHaveTheirShare(t *testing.T) {
	asked := make(chan struct{}, 2*maxConnections)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Slow") != "" {
			asked <- struct{}{}
			<-r.Context().Done()
		}
	}))
	defer server.Close()
	f := NewForward(units.NewLocation(server.URL), 0, locality.ByOperator)
	defer f.Close()
	slow, other := places.BlockOf(netip.MustParseAddr("10.0.0.1")), places.BlockOf(netip.MustParseAddr("10.0.0.2"))
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for range maxConnections {
		asking.Go(func() {
			_, err := f.Ask(ctx, slow, http.Header{"Slow": {"1"}}, nil)
			verify.That(t, err != nil, "an answer to a question without one")
		})
	}
	for range maxPerBlock {
		<-asked
	}
	a, err := f.Ask(t.Context(), other, http.Header{}, nil)
	verify.That(t, err == nil && a.Allows(), "beside them: %v, %v", a, err)
	verify.Equal(t, len(asked), 0, "the client has questions more than its share")
}

// A server that accepts connections and does not answer handshakes takes the connections of later
// questions only as long as a question may take.
func TestQuestionsAfterHandshakesWithoutAnAnswer(t *testing.T) {
	var mute atomic.Bool
	mute.Store(true)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Listener = &muteListener{Listener: server.Listener, mute: &mute}
	server.StartTLS()
	defer server.Close()
	const timeout = time.Second
	f := NewForward(units.NewLocation(server.URL), timeout, locality.ByOperator)
	defer f.Close()
	f.client.Transport.(*http.Transport).TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig
	ask := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		_, err := f.Ask(ctx, places.Many, http.Header{}, nil)
		return err
	}
	var asking sync.WaitGroup
	for range maxConnections {
		asking.Go(func() { verify.That(t, ask(timeout) != nil, "an answer without a handshake") })
	}
	asking.Wait()
	mute.Store(false)
	verify.NoError(t, ask(10*timeout)) // the server works again
}

// The URL of a server may have a credential: no error of a question shows it.
func TestErrorsOfQuestionsHideTheURL(t *testing.T) {
	closing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		verify.NoError(t, err)
		conn.Close()
	}))
	defer closing.Close()
	for _, to := range []string{closing.URL, "http://127.0.0.1:1"} {
		f := NewForward(units.NewLocation(strings.Replace(to, "//", "//us3r:s3cret@", 1)+"/?key=s3cret"), time.Minute, locality.ByOperator)
		_, err := f.Ask(t.Context(), places.Many, http.Header{}, nil)
		f.Close()
		verify.That(t, err != nil && !strings.Contains(err.Error(), "s3"), "%s: %v", to, err)
	}
}

// A muteListener keeps connections from the server while it is mute.
type muteListener struct {
	net.Listener
	mute *atomic.Bool
	kept []net.Conn
}

func (l *muteListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || !l.mute.Load() {
			return c, err
		}
		l.kept = append(l.kept, c)
	}
}
