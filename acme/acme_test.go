package acme

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/rs/zerolog"
)

func newManager(t *testing.T, http bool) (*Manager, *net.TCPAddr) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().(*net.TCPAddr)
	m := New(Options{
		Names: []string{"a.example"}, Directory: "https://127.0.0.1:1/dir", Storage: t.TempDir(),
		HTTP: http, Listener: address, Log: zerolog.Nop(),
	})
	t.Cleanup(func() {
		m.Close()
		m.Close() // may be called again
		l.Close()
	})
	return m, address
}

// certmagic would start its own server for a challenge at a free address.
func TestChallengesNeedNoServer(t *testing.T) {
	for _, http := range []bool{true, false} {
		m, address := newManager(t, http)
		i := m.issuer
		if i.ListenHost != address.IP.String() || i.AltHTTPPort != address.Port || i.AltTLSALPNPort != address.Port {
			t.Errorf("certmagic tries %s with the ports %d and %d, want those of the listener %v", i.ListenHost, i.AltHTTPPort, i.AltTLSALPNPort, address)
		}
		if i.DisableHTTPChallenge == http {
			t.Errorf("HTTP %v: HTTP-01 disabled: %v", http, i.DisableHTTPChallenge)
		}
	}
}

// A challenge of another replica is in the storage. The storage is not asked for names of
// others: anyone can send such requests.
func TestHTTPChallengeOfAnotherReplica(t *testing.T) {
	m, _ := newManager(t, true)
	storage := m.config.Storage.(*certmagic.FileStorage).Path
	const token = `{"type":"http-01","token":"abc","keyAuthorization":"abc.key","identifier":{"type":"dns","value":%q}}`
	for _, name := range []string{"a.example", "b.example"} {
		file := filepath.Join(storage, "acme", certmagic.StorageKeys.Safe(m.issuer.IssuerKey()), "challenge_tokens", name+".json")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, fmt.Appendf(nil, token, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range []string{"a.example", "A.example:80"} {
		if body, ok := m.HTTPChallenge(host, ChallengePath+"abc"); !ok || string(body) != "abc.key" {
			t.Errorf("%s: got %q, %v", host, body, ok)
		}
	}
	for _, request := range [][2]string{{"b.example", "abc"}, {"a.example", "other"}, {"a.example", ""}} {
		if body, ok := m.HTTPChallenge(request[0], ChallengePath+request[1]); ok {
			t.Errorf("%s: got %q", request, body)
		}
	}
}
