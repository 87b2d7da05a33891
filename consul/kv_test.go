package consul

import (
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// below returns the names of the keys that begin with prefix.
func below(t *testing.T, c *Client, prefix string) ([]string, Answer, error) {
	t.Helper()
	var body []byte
	a, err := c.Get(t.Context(), KeysBelow(prefix), func(r io.Reader) (err error) {
		body, err = io.ReadAll(r)
		return err
	})
	must(t, err)
	keys, err := DecodeKeys(a, body)
	var names []string
	for _, k := range keys {
		verify.Equal(t, string(k.Value), "value of "+k.Key, "%s has the value %q", k.Key, k.Value)
		names = append(names, k.Key)
	}
	return names, a, err
}

// What is absent is no error, and what ACLs hide is one.
func TestKeys(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	_, token, err := agent.NewToken("keys", `
		key_prefix "a/" { policy = "write" }
		key_prefix "hidden/" { policy = "write" }
		key "hidden/b" { policy = "deny" }`)
	must(t, err)
	operator, c := realClient(t, agent, agent.Token()), realClient(t, agent, token.SecretID)
	if pair, a, err := c.KV().Get(t.Context(), "a/none", 0, 0); pair != nil || err != nil || a.Index == 0 {
		t.Errorf("no key: %+v, %+v, %v", pair, a, err)
	}
	if names, a, err := below(t, c, "a/"); len(names) > 0 || err != nil || a.Index == 0 {
		t.Errorf("no keys: %q, %+v, %v", names, a, err)
	}
	all := []string{"a/b/c?d e", "a/b/e", "a/f"}
	for _, key := range append(all, "a/directory/", "ab", "hidden/a", "hidden/b") {
		must(t, operator.KV().Put(t.Context(), &api.KVPair{Key: key, Value: []byte("value of " + key), Flags: 7}))
	}
	if names, _, err := below(t, c, "a/"); err != nil || !slices.Equal(names, all) {
		t.Errorf("got %q, %v", names, err)
	}
	if pair, _, err := c.KV().Get(t.Context(), all[0], 0, 0); err != nil || pair == nil || string(pair.Value) != "value of "+all[0] || pair.Flags != 7 {
		t.Errorf("%s: %+v, %v", all[0], pair, err)
	}
	if names, err := c.KV().Names(t.Context(), "a/", "/"); err != nil || !slices.Equal(names, []string{"a/b/", "a/directory/", "a/f"}) {
		t.Errorf("with a separator: %q, %v", names, err)
	}
	if names, _, err := below(t, c, "hidden/"); !errors.Is(err, ErrFiltered) {
		t.Errorf("hidden: %q, %v", names, err)
	}
	if names, err := c.KV().Names(t.Context(), "hidden/", ""); !errors.Is(err, ErrFiltered) {
		t.Errorf("hidden names: %q, %v", names, err)
	}
	if err := c.KV().Put(t.Context(), &api.KVPair{Key: "ab"}); !Forbidden(err) {
		t.Errorf("write of another key: %v", err)
	}
	must(t, c.KV().Delete(t.Context(), "a/f"))
	must(t, c.KV().Delete(t.Context(), "a/f"))
	must(t, c.KV().DeleteBelow(t.Context(), "a/b/"))
	if names, err := operator.KV().Names(t.Context(), "a", ""); err != nil || !slices.Equal(names, []string{"a/directory/", "ab"}) {
		t.Errorf("after deletion: %q, %v", names, err)
	}
}
