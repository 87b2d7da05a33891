package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"sluice/admin"
	"sluice/test/verify"
)

// held is a query whose answer an issuer holds back.
type held struct{ asked, answer chan struct{} }

// An issuer of tokens, which may be away.
type issuer struct {
	*httptest.Server
	t    *testing.T
	away atomic.Bool
	held atomic.Pointer[held] // nil: it answers at once

	mu   sync.Mutex
	keys []jose.JSONWebKey // guarded by mu; the last one signs
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t}
	i.rotate()
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := i.held.Swap(nil); h != nil {
			close(h.asked)
			select {
			case <-h.answer:
			case <-r.Context().Done():
			}
		}
		if i.away.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		var set jose.JSONWebKeySet
		for _, key := range i.keys {
			set.Keys = append(set.Keys, key.Public())
		}
		_ = json.NewEncoder(w).Encode(set)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) rotate() {
	i.t.Helper()
	key := verify.Result(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Must(i.t)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, jose.JSONWebKey{Key: key, KeyID: rand.Text()})
}

func (i *issuer) token(subject string) string {
	i.t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	signer := verify.Result(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.keys[len(i.keys)-1]}, nil)).Must(i.t)
	return verify.Result(jwt.Signed(signer).Claims(map[string]any{"iss": "issuer", "aud": "shop", "sub": subject, "exp": time.Now().Add(time.Hour).Unix()}).Serialize()).Must(i.t)
}

// route returns a route of the service star, which requires a token of i.
func (i *issuer) route(path string) string {
	return fmt.Sprintf("{ path: %s, service: star, jwt: { jwks_url: %q, issuer: issuer, audiences: [shop], headers: { X-User: sub } } }", path, i.URL)
}

// asks requests a path with a token, and returns the status with the reason, or the body.
func (r *running) asks(path, token string) string {
	r.t.Helper()
	var header []string
	if token != "" {
		header = []string{"Authorization", "Bearer " + token}
	}
	answer := r.do(r.request(http.MethodGet, r.url("web")+path, nil, header...))
	if answer.StatusCode == http.StatusOK {
		return answer.body
	}
	return fmt.Sprint(answer.StatusCode, " ", answer.Header.Get("X-Sluice-Reason"))
}

// Tokens are checked from the first request on, across reloads, outages of the issuer and upgrades.
func TestTokensAcrossReloadsAndUpgrades(t *testing.T) {
	t.Parallel()
	i := startIssuer(t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "user ", r.Header.Get("X-User")) }))
	defer app.Close()
	text := func(routes ...string) string {
		return fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [%s]", strings.TrimPrefix(app.URL, "http://"), strings.Join(routes, ", "))
	}
	r := start(t, text(i.route("/")))
	first := i.token("ada")
	r.awaitStatus("/", http.StatusUnauthorized)
	verify.Equal(t, r.asks("/", first), "user ada", "the first request")
	verify.Equal(t, r.asks("/", ""), "401 token_missing", "without a token")
	other := startIssuer(t)
	r.replace(text(i.route("/"), other.route("/other")))
	verify.Equal(t, r.asks("/other", other.token("eve")), "user eve", "a new issuer, after a reload")
	verify.Equal(t, r.asks("/other", first), "401 token_invalid", "a token of the other issuer") // it has the name of this one

	i.away.Store(true)
	other.away.Store(true)
	next := r.upgrade(text(i.route("/"), other.route("/other")), nil)
	verify.Equal(t, next.asks("/", first), "user ada", "in the new process, without the issuer")
	verify.Equal(t, next.asks("/other", other.token("eve")), "user eve", "in the new process, without the issuer")
	verify.Equal(t, next.asks("/", ""), "401 token_missing", "in the new process")
}

// A process that replaces another one has the keys of an issuer that only its configuration names,
// as after a reload.
func TestTokensOfANewIssuerInANewProcess(t *testing.T) {
	t.Parallel()
	i := startIssuer(t)
	app := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "user ", r.Header.Get("X-User")) })
	text := fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [", app)
	old := start(t, text+"{ service: star }]")
	old.awaitStatus("/", http.StatusOK)

	late := make(chan struct{})
	slow := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-late:
		case <-time.After(time.Second / 2): // after a process that does not wait has taken over
		}
		i.Config.Handler.ServeHTTP(w, r)
	})
	route := strings.ReplaceAll(i.route("/"), i.URL, "http://"+slow)
	next := old.succeedAfter(text+route+"]", nil, func(g *Gateway) { g.waits.start, g.waits.takeover = 0, patience })
	verify.NoError(t, <-next.outcome)
	verify.Equal(t, next.asks("/", i.token("ada")), "user ada", "the first request in the new process")
	close(late)
}

// A request that waits for a new key of an issuer gets it, although a reload has removed that
// issuer meanwhile.
func TestTokensOfARemovedIssuer(t *testing.T) {
	t.Parallel()
	i := startIssuer(t)
	star := origin(t, "star")
	text := func(route string) string {
		return fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [%s]", star, route)
	}
	r := start(t, text(i.route("/")), func(g *Gateway) { g.waits.retire = patience })
	verify.Equal(t, r.asks("/", i.token("ada")), "star", "with the first key")
	sets := fetch[[]admin.KeySet](r, "/api/keys")
	verify.That(t, len(sets) == 1 && sets[0].Source == i.URL && len(sets[0].Keys) == 1 && sets[0].Read != nil && sets[0].Error == "", "/api/keys: %+v", sets)
	h := &held{make(chan struct{}), make(chan struct{})}
	i.held.Store(h)
	i.rotate()
	var answer string
	var request sync.WaitGroup
	request.Go(func() { answer = r.asks("/", i.token("ada")) })
	<-h.asked
	r.replace(text("{ service: star }"))
	verify.Equal(t, r.asks("/", ""), "star", "by the next route")
	close(h.answer)
	request.Wait()
	verify.Equal(t, answer, "star", "with the next key")
}
