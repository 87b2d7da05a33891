package acme

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/consul"
	"sluice/test/consultest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// newClient returns a client of the agent at url.
func newClient(t *testing.T, url, token string) *consul.Client {
	t.Helper()
	client := verify.Result(consul.New(consul.Options{Addresses: []string{url}, Token: token, Log: zerolog.Nop()})).Must(t)
	t.Cleanup(client.Close)
	return client
}

// newStorage returns a storage with a client of its own. Its values are in plain text if cipher is
// nil.
func newStorage(t *testing.T, url, token, prefix string, cipher *certificates.Cipher) *consulStorage {
	t.Helper()
	s := newConsulStorage(newClient(t, url, token), prefix, cipher, zerolog.Nop())
	t.Cleanup(s.close)
	return s
}

// newCipher returns one with new keys, of which the first encrypts. It names their files.
func newCipher(t *testing.T, files ...string) (*certificates.Cipher, []string) {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	file := filepath.Join(t.TempDir(), "key")
	verify.NoError(t, os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(key)), 0o600))
	files = append([]string{file}, files...)
	return verify.Result(certificates.ReadCipher(files)).Must(t), files
}

// The storage behaves as that in a directory, with the documented permissions.
func TestConsulStorage(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	rules := verify.Result(consultest.DocumentedPolicy("../../docs/tls.md", "### Storage in Consul")).Must(t)
	_, token, err := agent.NewToken("acme", rules)
	verify.NoError(t, err)
	ctx := t.Context()
	cipher, _ := newCipher(t)
	open := func(below string, cipher *certificates.Cipher) *consulStorage {
		return newStorage(t, agent.URL(), token.SecretID, "sluice-acme"+below, cipher)
	}
	for name, s := range map[string]certmagic.Storage{
		"consul": open("", nil), "encrypted": open("/encrypted", cipher), "directory": &certmagic.FileStorage{Path: t.TempDir()},
	} {
		missing := func(what string, err error) {
			t.Helper()
			verify.That(t, errors.Is(err, fs.ErrNotExist), "%s: %s: %v", name, what, err)
		}
		_, err := s.Load(ctx, "a/b.pem")
		missing("Load", err)
		_, err = s.Stat(ctx, "a")
		missing("Stat", err)
		_, err = s.List(ctx, "a", true)
		missing("List", err)
		verify.NoError(t, s.Delete(ctx, "a/b.pem"))
		begin := time.Now().Truncate(time.Millisecond)
		for _, key := range []string{"a/b.pem", "a/c/d.key", "a/c/e/f.json", "ab"} {
			verify.NoError(t, s.Store(ctx, key, []byte("before")))
			verify.NoError(t, s.Store(ctx, key, []byte("value of "+key)))
		}
		value, err := s.Load(ctx, "a/c/d.key")
		verify.That(t, err == nil && string(value) == "value of a/c/d.key", "%s: %q, %v", name, value, err)
		info, err := s.Stat(ctx, "a/c/d.key")
		verify.That(t, err == nil && info.IsTerminal && info.Key == "a/c/d.key" && info.Size == 18 && !info.Modified.Before(begin.Add(-time.Second)), "%s: %+v, %v", name, info, err)
		info, err = s.Stat(ctx, "a/c")
		verify.That(t, err == nil && !info.IsTerminal, "%s: a directory: %+v, %v", name, info, err)
		verify.That(t, s.Exists(ctx, "a/c") && s.Exists(ctx, "a/b.pem") && !s.Exists(ctx, "a/b") && !s.Exists(ctx, "c"), "%s: Exists is wrong", name)
		keys, err := s.List(ctx, "a", false)
		verify.That(t, err == nil && slices.Equal(keys, []string{"a/b.pem", "a/c"}), "%s: %q, %v", name, keys, err)
		keys, err = s.List(ctx, "a", true)
		for _, key := range []string{"a/b.pem", "a/c/d.key", "a/c/e/f.json"} {
			verify.That(t, err == nil && slices.Contains(keys, key) && !slices.Contains(keys, "ab"), "%s: %q, %v", name, keys, err)
		}
		verify.NoError(t, s.Delete(ctx, "a/c"))
		verify.That(t, !s.Exists(ctx, "a/c/d.key") && !s.Exists(ctx, "a/c") && s.Exists(ctx, "a/b.pem") && s.Exists(ctx, "ab"), "%s: Delete deletes something else", name)
	}
	for _, name := range []string{"issue_cert_a.example", "issue_cert_*.example"} {
		s := open("", nil)
		verify.NoError(t, s.Lock(ctx, name))
		verify.NoError(t, s.Unlock(ctx, name))
	}
	other := newStorage(t, agent.URL(), "", "sluice-acme", nil)
	other.end() // a write is not repeated
	err = other.Store(ctx, "a", nil)
	verify.That(t, consul.Forbidden(err) && consul.Forbidden(other.fault()), "without a token: %v", err)
}

// Values that are in plain text, or encrypted with an old key, are read and encrypted anew.
// Nothing below the prefix shows them then, and a storage without the key cannot read them.
func TestEncryptionInConsul(t *testing.T) {
	t.Parallel()
	agent, prefix := shared.Agent(t)
	ctx := t.Context()
	first, files := newCipher(t)
	second, _ := newCipher(t, files...)
	with := func(cipher *certificates.Cipher) *consulStorage {
		return newStorage(t, agent.URL(), "", prefix, cipher)
	}
	plain := with(nil)
	expect := func(s *consulStorage, key, want string) {
		t.Helper()
		value, err := s.Load(patiently(ctx), key)
		verify.That(t, err == nil && string(value) == want, "%s: got %q, %v", key, value, err)
	}
	refused := func(s *consulStorage, key string) {
		t.Helper()
		value, err := s.Load(patiently(ctx), key)
		verify.That(t, errors.Is(err, certificates.ErrSealed) && !errors.Is(err, fs.ErrNotExist) && s.fault() != nil, "%s: got %q, %v", key, value, err)
	}
	stored := func() map[string]*api.KVPair {
		t.Helper()
		pairs, _, err := agent.Client().KV().List(prefix+"/", nil)
		verify.NoError(t, err)
		all := make(map[string]*api.KVPair)
		for _, pair := range pairs {
			all[strings.TrimPrefix(pair.Key, prefix+"/")] = pair
		}
		return all
	}
	verify.NoError(t, plain.Store(ctx, "a/b.key", []byte("secret b")))
	verify.NoError(t, plain.Store(ctx, "a/c.key", []byte("secret c")))
	verify.NoError(t, plain.Lock(ctx, "one"))
	before := stored()

	a := with(first)
	expect(a, "a/b.key", "secret b")
	verify.NoError(t, a.Store(ctx, "a/d.key", []byte("secret d")))
	pair := stored()["a/d.key"]
	verify.That(t, pair != nil && !strings.Contains(string(pair.Value), "secret"), "a value is stored in plain text: %+v", pair)
	verify.NoError(t, a.encryptAll(ctx))
	verify.NoError(t, with(first).encryptAll(ctx)) // changes nothing
	for key, pair := range stored() {
		verify.That(t, !strings.Contains(string(pair.Value), "secret"), "%s is in plain text", key)
		old := before[key]
		verify.That(t, old == nil || old.Flags == pair.Flags && (!strings.HasPrefix(key, locks) || old.ModifyIndex == pair.ModifyIndex), "%s: got %+v, want %+v", key, pair, old)
	}
	verify.NoError(t, plain.Unlock(ctx, "one"))
	expect(a, "a/b.key", "secret b")
	expect(a, "a/d.key", "secret d")
	refused(plain, "a/b.key")

	b := with(second)
	expect(b, "a/c.key", "secret c")
	expect(a, "a/c.key", "secret c")
	withFirst := stored()
	verify.NoError(t, b.encryptAll(ctx))
	for key, pair := range stored() {
		verify.That(t, pair.ModifyIndex != withFirst[key].ModifyIndex, "%s has the old key", key)
	}
	expect(b, "a/c.key", "secret c")
	refused(a, "a/c.key")

	// A value of another name.
	verify.Result(agent.Client().KV().Put(&api.KVPair{Key: prefix + "/a/b.key", Value: stored()["a/c.key"].Value}, nil)).Must(t)
	refused(b, "a/b.key")
	err := b.encryptAll(ctx)
	verify.That(t, errors.Is(err, certificates.ErrSealed), "a value that cannot be read: %v", err)
}

// A manager encrypts what it finds. One that cannot read it says so, and orders nothing.
func TestManagerEncrypts(t *testing.T) {
	t.Parallel()
	agent, prefix := shared.Agent(t)
	names := []string{"a.example"}
	start := func(cipher *certificates.Cipher) *Manager {
		m := newManager(t, Options{Consul: newClient(t, agent.URL(), ""), Prefix: prefix, Cipher: cipher})
		verify.NoError(t, m.Manage(names))
		return m
	}
	awaitStatus := func(what string, m *Manager, holds func(certificates.Status) bool) {
		t.Helper()
		consultest.Await(t, what, func() bool {
			all := m.Statuses(names)
			return len(all) == 1 && holds(all[0])
		})
	}
	inUse := func(s certificates.Status) bool { return !s.Expires.IsZero() && s.Fault == nil }
	m := newManager(t, Options{Storage: t.TempDir()})
	cert, key := testcert.PEM("a.example")
	storePair(t, newStorage(t, agent.URL(), "", prefix, nil), m.issuer.IssuerKey(), cert, key)

	cipher, _ := newCipher(t)
	m = start(cipher)
	awaitStatus("the certificate in plain text is in use", m, inUse)
	consultest.Await(t, "all values are encrypted", func() bool {
		pairs, _, err := agent.Client().KV().List(prefix+"/certificates/", nil)
		return err == nil && len(pairs) == 3 && !slices.ContainsFunc(pairs, func(pair *api.KVPair) bool {
			return strings.Contains(string(pair.Value), "BEGIN") || strings.Contains(string(pair.Value), "sans")
		})
	})
	m.Close()
	m = start(cipher)
	awaitStatus("the encrypted certificate is in use", m, inUse)
	m.Close()
	other, _ := newCipher(t)
	for _, wrong := range []*certificates.Cipher{nil, other} {
		m := start(wrong)
		awaitStatus("the certificate cannot be read", m, func(s certificates.Status) bool { return errors.Is(s.Fault, certificates.ErrSealed) })
		m.Close()
	}
	keys, _, err := agent.Client().KV().Keys(prefix+"/", "", nil)
	// An order would have left those of an account, too.
	verify.That(t, err == nil && len(keys) == 3, "got keys %q, %v", keys, err)
}

// Locks exclude other storages, and end with theirs.
func TestLocksEndWithTheStorage(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	a, b := newStorage(t, agent.URL(), "", "sluice-acme", nil), newStorage(t, agent.URL(), "", "sluice-acme", nil)
	verify.NoError(t, a.Lock(t.Context(), "one"))
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
	verify.NoError(t, <-locked)
	verify.NoError(t, a.Unlock(t.Context(), "one")) // by certmagic, later
	verify.That(t, a.Lock(t.Context(), "two") != nil, "a closed storage gives a lock")
	verify.NoError(t, b.Unlock(t.Context(), "one"))
	consultest.Await(t, "the sessions end: at once, or by their TTL if Consul is late", func() bool {
		sessions, _, err := agent.Client().Session().List(nil)
		return err == nil && len(sessions) == 0
	})
}

// Orders wait for Consul, and so does what a renewal writes, until the storage ends. Challenges do
// not.
func TestOrdersWaitForConsul(t *testing.T) {
	t.Parallel()
	agent, prefix := shared.Agent(t)
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	s := newStorage(t, relay.URL(), "", prefix, nil)
	relay.Cut()
	_, err := s.Load(t.Context(), "a")
	verify.That(t, err != nil && !errors.Is(err, fs.ErrNotExist), "a challenge: %v", err)
	verify.That(t, s.fault() != nil, "no fault is told")
	loaded, stored := make(chan error, 1), make(chan error, 1)
	store := func() { stored <- s.Store(t.Context(), "c", nil) }
	go func() {
		_, err := s.Load(patiently(t.Context()), "a")
		loaded <- err
	}()
	go store()
	ctx, cancel := context.WithTimeout(patiently(t.Context()), 10*firstPause)
	defer cancel()
	verify.That(t, s.Store(ctx, "b", nil) != nil, "a value is stored without Consul")
	select {
	case err := <-loaded:
		t.Fatalf("an order does not wait: %v", err)
	case err := <-stored:
		t.Fatalf("a renewal does not wait: %v", err)
	default:
	}
	relay.Heal()
	err = <-loaded
	verify.That(t, errors.Is(err, fs.ErrNotExist), "an order: %v", err)
	verify.NoError(t, <-stored)
	verify.Succeeds(t, s.fault())
	relay.Cut()
	go store()
	consultest.Await(t, "Consul is away again", func() bool { return s.fault() != nil })
	s.end()
	verify.That(t, <-stored != nil, "a value is stored without Consul")
	relay.Heal()
	consultest.Await(t, "Consul is back", func() bool {
		_, err := s.Load(t.Context(), "a")
		return errors.Is(err, fs.ErrNotExist)
	})
	verify.That(t, s.fault() != nil, "a read hides that nothing could be stored")
}

// A challenge of another replica is in Consul.
func TestHTTPChallengeInConsul(t *testing.T) {
	t.Parallel()
	agent, prefix := shared.Agent(t)
	m := newManager(t, Options{Consul: newClient(t, agent.URL(), ""), Prefix: prefix, HTTP: true})
	verify.NoError(t, m.Manage([]string{"a.example"}))
	const token = `{"type":"http-01","token":"abc","keyAuthorization":"abc.key","identifier":{"type":"dns","value":"a.example"}}`
	key := fmt.Sprintf("%s/acme/%s/challenge_tokens/a.example.json", prefix, certmagic.StorageKeys.Safe(m.issuer.IssuerKey()))
	verify.Result(agent.Client().KV().Put(&api.KVPair{Key: key, Value: []byte(token)}, nil)).Must(t)
	body, ok := m.HTTPChallenge("a.example", challengePath+"abc")
	verify.That(t, ok && string(body) == "abc.key", "got %q, %v", body, ok)
	body, ok = m.HTTPChallenge("a.example", challengePath+"other")
	verify.That(t, !ok, "got %q for another token", body)
}
