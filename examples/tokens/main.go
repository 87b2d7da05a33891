// Command tokens is an issuer of tokens and an app, for sluice with sluice.yaml beside it:
//
//	go run ./examples/tokens -listen 127.0.0.1:9090 &
//	sluice run --config examples/tokens/sluice.yaml &
//	curl -i http://127.0.0.1:8080/
//	curl -H "Authorization: Bearer $(curl -s '127.0.0.1:9090/token?sub=ada&role=admin')" http://127.0.0.1:8080/
//	curl -X POST 127.0.0.1:9090/rotate
//
// The app answers with what it gets. Each POST to /rotate publishes another key, and later tokens are signed with it.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9090", "address of the issuer and of the app")
	flag.Parse()
	i := new(issuer)
	if err := i.rotate(); err == nil {
		err = http.ListenAndServe(*listen, i.handler())
		fmt.Fprintln(os.Stderr, "tokens:", err)
	}
	os.Exit(1)
}

// An issuer signs tokens with the latest of its keys.
type issuer struct {
	mu   sync.Mutex
	keys []jose.JSONWebKey // guarded by mu
}

func (i *issuer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/jwks.json", i.publish)
	mux.HandleFunc("/token", i.issue)
	mux.HandleFunc("POST /rotate", func(w http.ResponseWriter, _ *http.Request) {
		if err := i.rotate(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { // the app
		fmt.Fprintf(w, "%s: user %q, roles %q, token %q\n", r.URL.Path, r.Header.Get("X-User"), r.Header.Get("X-Roles"), r.Header.Get("Authorization"))
	})
	return mux
}

// rotate makes a key, and keeps the one before, whose tokens are still in use.
func (i *issuer) rotate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys[max(0, len(i.keys)-1):], jose.JSONWebKey{Key: key, KeyID: rand.Text(), Algorithm: "ES256", Use: "sig"})
	return nil
}

// publish answers with the public keys.
func (i *issuer) publish(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, key := range i.keys {
		set.Keys = append(set.Keys, key.Public())
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_ = json.NewEncoder(w).Encode(set)
}

// issue answers with a token for an hour.
func (i *issuer) issue(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	key := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": "http://127.0.0.1:9090", "aud": "shop", "sub": r.FormValue("sub"), "exp": time.Now().Add(time.Hour).Unix(),
		"realm_access": map[string]any{"roles": r.Form["role"]},
	}).Serialize()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, token)
}
