package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/verify"
)

// triesByNumber has what peers got in each try of a request.
type triesByNumber struct {
	mu sync.Mutex
	// mu guards the field below.
	by map[string][]string // by the request's number
}

func (s *triesByNumber) add(number, got string) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[number] = append(s.by[number], got)
	return len(s.by[number]) == 1
}

func (s *triesByNumber) of(number string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[number]
}

// Over each protocol, with retries, peers that are not there, reloads, and while the issuer is
// away: each peer that gets a request gets it with a token that allows it, and with the subject of
// that token.
func TestTokensAtRandom(t *testing.T) {
	t.Parallel()
	random := mathrand.New(mathrand.NewPCG(verify.Seed(t), 0))
	for _, http2 := range []bool{false, true} {
		testTokensAtRandom(t, http2, random)
	}
}

func testTokensAtRandom(t *testing.T, http2 bool, random *mathrand.Rand) {
	i, other := startTokenIssuer(t), &tokenIssuer{t: t}
	forged := jose.JSONWebKey{Key: verify.Result(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Must(t), KeyID: "a"}
	other.signer = verify.Result(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: forged}, nil)).Must(t)
	tokens := []struct {
		text, reason string
		status       int
	}{
		{i.token(nil), "", 200}, {i.token(nil), "", 200}, {i.token(map[string]any{"n": 1}), "", 200},
		{i.token(map[string]any{"exp": 1}), "token_expired", 401}, {i.token(map[string]any{"role": "x"}), "token_denied", 403},
		{other.token(nil), "token_invalid", 401}, {"", "token_missing", 401},
	}
	seen := &triesByNumber{by: make(map[string][]string)}
	peer := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		first := seen.add(r.Header.Get("X-Number"), fmt.Sprint(r.Header["X-User"], r.Header["Authorization"]))
		if first && r.Header.Get("X-First") == "reset" {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, r.Header.Get("X-User"))
	}
	p := startProxy(t, Options{})
	peers := []string{startServer(t, peer), startServer(t, peer)}
	p.usePeers(http2, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin}, peers...)
	fronts := p.fronts()
	removed, first, what, number := false, "", "", ""
	defer func() { // also if the request has got no answer
		if t.Failed() {
			t.Logf("%s: %d tries came to a peer", what, len(seen.of(number)))
		}
	}()
	for n := range 120 {
		number = strconv.Itoa(n)
		switch random.IntN(8) {
		case 0:
			i.away.Store(!i.away.Load())
		case 1: // a new process
			if saved, ok := i.keys.Save(); ok {
				i.follow(saved)
			}
		case 2:
			removed = !removed
		}
		retry := route.Retry{Attempts: 3, BodyBytes: 20 << 10}
		method, body, all := "GET", "", peers
		switch first = ""; random.IntN(4) {
		case 0:
			method, body = "POST", "body"
		case 1:
			all = append([]string{nowhere[0]}, peers...)
		case 2:
			first = "reset"
		}
		p.setPeers(all...)
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: retry})
		place := []string{"bearer", "header X-Token", "cookie session"}[random.IntN(3)]
		actions := i.requires(place)
		if removed && place == "bearer" {
			actions = i.requires(place, "Authorization")
		}
		p.setActions(actions) // a reload

		token := tokens[random.IntN(len(tokens))]
		fields := []string{"X-User: eve", "X_User: eve", "X-First: " + first, "X-Number: " + number}
		sent := "[]"
		if token.text != "" {
			switch place {
			case "bearer":
				if fields = append(fields, "Authorization: Bearer "+token.text); !removed {
					sent = "[Bearer " + token.text + "]"
				}
			case "cookie session":
				fields = append(fields, "Cookie: a=b; session="+token.text)
			default:
				fields = append(fields, "X-Token: "+token.text)
			}
		}
		front := fronts[random.IntN(len(fronts))]
		what = fmt.Sprintf("request %d, to peers by HTTP/2: %t, %s %s, token in %s, first try %q, away %t", n, http2, front.name, method, place, first, i.away.Load())
		response, got := front.ask(t, method, "/", body, fields...)
		verify.Require(t, response.StatusCode == token.status && response.Header.Get("X-Sluice-Reason") == token.reason,
			"%s: got %d %q, want %d %q: %s", what, response.StatusCode, response.Header.Get("X-Sluice-Reason"), token.status, token.reason, got)
		asked := seen.of(number)
		if token.status != 200 {
			verify.Require(t, len(asked) == 0, "%s: peers got %q", what, asked)
			continue
		}
		verify.Require(t, got == "ada" && len(asked) > 0 && (first == "" || len(asked) > 1), "%s: got %q after %q", what, got, asked)
		for _, try := range asked {
			verify.Require(t, try == "[ada] "+sent, "%s: a peer got %q, want %q", what, try, sent)
		}
	}
	eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
}
