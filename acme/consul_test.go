package acme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/test/consultest"
)

// newClient returns a client of the agent at url.
func newClient(t *testing.T, url, token string) *consul.Client {
	t.Helper()
	client, err := consul.New(consul.Options{Addresses: []string{url}, Token: token, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// newStorage returns a storage with a client of its own.
func newStorage(t *testing.T, url, token string) *consulStorage {
	t.Helper()
	s := newConsulStorage(newClient(t, url, token), "sluice/acme", zerolog.Nop())
	t.Cleanup(s.close)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The storage behaves as that in a directory, with the documented permissions.
func TestConsulStorage(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	rules, err := consultest.DocumentedPolicy("../docs/tls.md", "### Storage in Consul")
	must(t, err)
	_, token, err := agent.NewToken("acme", rules)
	must(t, err)
	ctx := t.Context()
	for name, s := range map[string]certmagic.Storage{
		"consul": newStorage(t, agent.URL(), token.SecretID), "directory": &certmagic.FileStorage{Path: t.TempDir()},
	} {
		missing := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		_, err := s.Load(ctx, "a/b.crt")
		missing("Load", err)
		_, err = s.Stat(ctx, "a")
		missing("Stat", err)
		_, err = s.List(ctx, "a", true)
		missing("List", err)
		must(t, s.Delete(ctx, "a/b.crt"))
		begin := time.Now().Truncate(time.Millisecond)
		for _, key := range []string{"a/b.crt", "a/c/d.key", "a/c/e/f.json", "ab"} {
			must(t, s.Store(ctx, key, []byte("before")))
			must(t, s.Store(ctx, key, []byte("value of "+key)))
		}
		if value, err := s.Load(ctx, "a/c/d.key"); err != nil || string(value) != "value of a/c/d.key" {
			t.Errorf("%s: %q, %v", name, value, err)
		}
		if info, err := s.Stat(ctx, "a/c/d.key"); err != nil || !info.IsTerminal || info.Key != "a/c/d.key" || info.Size != 18 || info.Modified.Before(begin.Add(-time.Second)) {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
		if info, err := s.Stat(ctx, "a/c"); err != nil || info.IsTerminal {
			t.Errorf("%s: a directory: %+v, %v", name, info, err)
		}
		if !s.Exists(ctx, "a/c") || !s.Exists(ctx, "a/b.crt") || s.Exists(ctx, "a/b") || s.Exists(ctx, "c") {
			t.Errorf("%s: Exists is wrong", name)
		}
		if keys, err := s.List(ctx, "a", false); err != nil || !slices.Equal(keys, []string{"a/b.crt", "a/c"}) {
			t.Errorf("%s: %q, %v", name, keys, err)
		}
		keys, err := s.List(ctx, "a", true)
		for _, key := range []string{"a/b.crt", "a/c/d.key", "a/c/e/f.json"} {
			if err != nil || !slices.Contains(keys, key) || slices.Contains(keys, "ab") {
				t.Errorf("%s: %q, %v", name, keys, err)
			}
		}
		must(t, s.Delete(ctx, "a/c"))
		if s.Exists(ctx, "a/c/d.key") || s.Exists(ctx, "a/c") || !s.Exists(ctx, "a/b.crt") || !s.Exists(ctx, "ab") {
			t.Errorf("%s: Delete deletes something else", name)
		}
	}
	for _, name := range []string{"issue_cert_a.example", "issue_cert_*.example"} {
		s := newStorage(t, agent.URL(), token.SecretID)
		must(t, s.Lock(ctx, name))
		must(t, s.Unlock(ctx, name))
	}
	other := newStorage(t, agent.URL(), "")
	if err := other.Store(ctx, "a", nil); !consul.Forbidden(err) || !consul.Forbidden(other.fault()) {
		t.Errorf("without a token: %v", err)
	}
}

// Locks exclude other storages, and end with theirs.
func TestLocksEndWithTheStorage(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	a, b := newStorage(t, agent.URL(), ""), newStorage(t, agent.URL(), "")
	must(t, a.Lock(t.Context(), "one"))
	locked := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		locked <- b.Lock(t.Context(), "one")
	}()
	t.Cleanup(func() { <-ended })
	consultest.Await(t, "the other storage waits", func() bool {
		sessions, _, err := agent.Client().Session().List(nil)
		return err == nil && len(sessions) == 2
	})
	select {
	case err := <-locked:
		t.Fatalf("two have the lock: %v", err)
	default:
	}
	a.close()
	must(t, <-locked)
	must(t, a.Unlock(t.Context(), "one")) // by certmagic, later
	if err := a.Lock(t.Context(), "two"); err == nil {
		t.Error("a closed storage gives a lock")
	}
	must(t, b.Unlock(t.Context(), "one"))
	sessions, _, err := agent.Client().Session().List(nil)
	if err != nil || len(sessions) > 0 {
		t.Errorf("sessions %v, %v", sessions, err)
	}
}

// Orders wait for Consul, challenges do not.
func TestOrdersWaitForConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	s := newStorage(t, relay.URL(), "")
	relay.Cut()
	if _, err := s.Load(t.Context(), "a"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a challenge: %v", err)
	}
	if s.fault() == nil {
		t.Error("no fault is told")
	}
	loaded := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := s.Load(patiently(t.Context()), "a")
		loaded <- err
	}()
	t.Cleanup(func() { <-ended })
	ctx, cancel := context.WithTimeout(patiently(t.Context()), 10*firstPause)
	defer cancel()
	if err := s.Store(ctx, "b", nil); err == nil {
		t.Error("a value is stored without Consul")
	}
	select {
	case err := <-loaded:
		t.Errorf("an order does not wait: %v", err)
	default:
	}
	relay.Heal()
	if err := <-loaded; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an order: %v", err)
	}
	if s.fault() == nil {
		t.Error("a read hides that nothing could be stored")
	}
	must(t, s.Store(patiently(t.Context()), "b", nil))
	if err := s.fault(); err != nil {
		t.Errorf("the fault is still told: %v", err)
	}
}

// A challenge of another replica is in Consul.
func TestHTTPChallengeInConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	m := New(Options{
		Names: []string{"a.example"}, Directory: "https://127.0.0.1:1/dir", Consul: newClient(t, agent.URL(), ""), Prefix: "sluice/acme",
		HTTP: true, Listener: l.Addr().(*net.TCPAddr), Log: zerolog.Nop(),
	})
	defer m.Close()
	const token = `{"type":"http-01","token":"abc","keyAuthorization":"abc.key","identifier":{"type":"dns","value":"a.example"}}`
	key := fmt.Sprintf("sluice/acme/acme/%s/challenge_tokens/a.example.json", certmagic.StorageKeys.Safe(m.issuer.IssuerKey()))
	_, err = agent.Client().KV().Put(&api.KVPair{Key: key, Value: []byte(token)}, nil)
	must(t, err)
	if body, ok := m.HTTPChallenge("a.example", ChallengePath+"abc"); !ok || string(body) != "abc.key" {
		t.Errorf("got %q, %v", body, ok)
	}
	if body, ok := m.HTTPChallenge("a.example", ChallengePath+"other"); ok {
		t.Errorf("got %q for another token", body)
	}
}
