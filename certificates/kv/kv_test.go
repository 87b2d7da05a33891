package kv

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/consul"
	"sluice/test/discoverytest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// While Consul is away, a new process has what the old one had for each prefix of its first
// configuration, also if only the history of the old process has the prefix; but not for one that
// comes later.
func TestRestoredBeforeFollowed(t *testing.T) {
	client := verify.Result(consul.New(consul.Options{Addresses: []string{"http://127.0.0.1:1"}})).Must(t)
	defer client.Close()
	m := New(Options{Consul: client, Wait: func() time.Duration { return time.Second }})
	defer m.Retain(nil)
	cert, key := testcert.PEM("a.example")
	state := certificates.InUse{Keys: map[string]string{"a.pem": string(cert) + string(key)}}
	followed := m.Follow("certs/file")
	m.Restore(map[string]certificates.InUse{"certs/file": state, "certs/history": state, "certs/later": state})
	inHistory := m.Follow("certs/history")
	m.Retain([]*Prefix{followed, inHistory})
	for p, want := range map[*Prefix]int{followed: 1, inHistory: 1, m.Follow("certs/later"): 0} {
		verify.Equal(t, len(p.Certificates()), want, "%s: certificates", p.prefix)
	}
}

// That Consul refuses to list the keys is an answer, for which nobody waits any longer, and which
// the log has once. One refusal is none yet: an agent may not know a new token at once.
func TestRefusedPrefixIsNotAwaited(t *testing.T) {
	for _, test := range []struct {
		name     string
		refusals int64
		want     int // certificates
	}{{"once", 1, 1}, {"always", 1 << 60, 0}} {
		cert, key := testcert.PEM("a.example")
		kv := discoverytest.NewKV()
		kv.Put("certs/a.pem", string(cert)+string(key))
		var asked atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/kv/certs") && asked.Add(1) <= test.refusals {
				http.Error(w, "Permission denied", http.StatusForbidden)
				return
			}
			kv.ServeHTTP(w, r)
		}))
		client := verify.Result(consul.New(consul.Options{Addresses: []string{server.URL}})).Must(t)
		var lines bytes.Buffer
		m := New(Options{Consul: client, Wait: func() time.Duration { return time.Minute }, Changed: func() {}, Log: zerolog.New(&lines)})
		p := m.Follow("certs")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		for range 2 {
			verify.That(t, p.Await(ctx, nil), "refused %s: the wait does not end", test.name)
		}
		cancel()
		verify.Equal(t, len(p.Certificates()), test.want, "refused %s: certificates", test.name)
		m.Retain(nil)
		verify.Equal(t, strings.Count(lines.String(), `"level":"warn"`), 1, "refused %s: warnings in %s", test.name, lines.String())
		client.Close()
		server.Close()
	}
}
