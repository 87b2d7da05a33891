package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"

	"sluice/test/verify"
)

// combinedTokens are the tokens of an issuer that rotates its keys, and at times does not answer as
// it should. Each has a key that the issuer has published in a good answer, which sluice has got,
// or gets by a request with that token.
type combinedTokens struct {
	issuer, forger *issuer
	fault          atomic.Pointer[http.HandlerFunc] // nil: it answers
	server         *httptest.Server

	// Read-locked by requests with the newest token, for which the issuer answers until they have
	// ended.
	answering sync.RWMutex

	mu sync.Mutex
	// mu guards the fields below.
	known  []string // sluice has their keys
	newest string   // of a key that sluice may not have yet; "": none
}

// chooseTokens makes a route require a token.
func (c *combinations) chooseTokens(r *combinedRoute) {
	r.keys["jwt"], r.without = settings{"jwks_file": c.servers.tokens, "issuer": "issuer", "audiences": []string{"shop"}, "headers": settings{"X-User": "sub"}}, http.StatusUnauthorized
	r.header["Authorization"], r.fields["Got-X-User"] = "Bearer "+c.servers.issuer.token("ada"), "ada"
	if c.one(4) {
		return
	}
	if c.tokens == nil {
		c.tokens = startCombinedTokens(c)
	}
	jwt := r.keys["jwt"].(settings)
	delete(jwt, "jwks_file")
	jwt["jwks_url"], r.header["Authorization"] = c.tokens.server.URL, "Bearer "+c.tokens.known[0]
}

// varyTokens changes the rules of a route in a way that keeps what they mean for all tokens.
func (c *combinations) varyTokens(keys settings) {
	before, ok := keys["jwt"].(settings)
	if !ok || c.one(2) {
		return
	}
	jwt := maps.Clone(before)
	jwt["leeway"], jwt["remove"] = pick(c, "0s", "1m"), c.one(2)
	switch c.random.IntN(3) {
	case 0:
		jwt["audiences"] = []string{"other", "shop"}
	case 1:
		delete(jwt, "audiences")
		jwt["require"] = settings{"aud": []string{"shop"}, "sub": []string{"ada", "eve"}}
	case 2:
		jwt["algorithms"] = []string{"EdDSA", "ES256"}
	}
	keys["jwt"] = jwt
}

func startCombinedTokens(c *combinations) *combinedTokens {
	s := &combinedTokens{issuer: startIssuer(c.t), forger: &issuer{t: c.t}}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := s.fault.Load(); fault != nil {
			(*fault)(w, r)
			return
		}
		s.issuer.Config.Handler.ServeHTTP(w, r)
	}))
	c.t.Cleanup(s.server.Close)
	s.known = []string{s.issuer.token("ada")}
	s.forge()
	return s
}

// forge gives the forger a key of its own with the name of the issuer's newest.
func (s *combinedTokens) forge() {
	s.issuer.mu.Lock()
	defer s.issuer.mu.Unlock()
	key := verify.Result(ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)).Must(s.issuer.t)
	s.forger.keys = []jose.JSONWebKey{{Key: key, KeyID: s.issuer.keys[len(s.issuer.keys)-1].KeyID}}
}

// combinedIssuerFaults are what an issuer does in place of its answer.
var combinedIssuerFaults = map[string]http.HandlerFunc{
	"fails":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
	"hangs":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"breaks":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"nonsense": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
	"no keys":  func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{}) },
}

// disturbIssuer makes the issuer rotate its keys, fail, or answer again.
func (c *combinedRun) disturbIssuer(g *generation) {
	s := c.tokens
	switch {
	case s == nil || c.one(4):
	case s.fault.Load() != nil:
		if c.one(3) {
			s.fault.Store(nil)
		}
	case c.one(4):
		s.issuer.rotate()
		token := s.issuer.token("ada")
		s.mu.Lock()
		s.newest = token
		s.mu.Unlock()
	default:
		s.answering.Lock()
		defer s.answering.Unlock()
		keys := 0
		for _, set := range g.routes.Load().KeySets() {
			if set.Source == s.server.URL {
				keys = len(set.Keys)
			}
		}
		s.settle(keys)
		fault := combinedIssuerFaults[pick(c.combinations, "fails", "hangs", "breaks", "nonsense", "no keys")]
		s.fault.Store(&fault)
	}
}

// settle makes requests use only tokens of keys that sluice has, which has this number of keys.
func (s *combinedTokens) settle(keys int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest != "" && keys == s.published() {
		s.known = append(s.known, s.newest)
	}
	s.newest = ""
}

func (s *combinedTokens) published() int {
	s.issuer.mu.Lock()
	defer s.issuer.mu.Unlock()
	return len(s.issuer.keys)
}

// authorize gives a request by a route one of the tokens, or without it one that somebody else has
// signed, or none. end is called when the request has ended.
func (c *combinedRun) authorize(request *http.Request, route *combinedRoute, without bool, random *rand.Rand) (end func()) {
	end = func() {}
	if jwt, ok := route.keys["jwt"].(settings); !ok || jwt["jwks_url"] == nil {
		return end
	}
	s := c.tokens
	if without {
		if random.IntN(2) == 0 {
			request.Header.Set("Authorization", "Bearer "+s.forger.token("eve"))
		}
		return end
	}
	s.answering.RLock()
	s.mu.Lock()
	token := s.known[random.IntN(len(s.known))]
	if s.newest != "" && random.IntN(3) == 0 {
		token, end = s.newest, s.answering.RUnlock
	} else {
		s.answering.RUnlock()
	}
	s.mu.Unlock()
	request.Header.Set("Authorization", "Bearer "+token)
	return end
}
