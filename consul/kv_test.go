package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
	verify.NoError(t, err)
	keys, err := DecodeKeys(a, body)
	var names []string
	for _, k := range keys {
		verify.Equal(t, string(k.Value), "value of "+k.Key, "%s has the value %q", k.Key, k.Value)
		names = append(names, k.Key)
	}
	return names, a, err
}

// testKeys: what is absent is no error, and what ACLs hide is one.
func testKeys(t *testing.T, agent *consultest.Agent) {
	_, token, err := agent.NewToken("keys", `
		key_prefix "a/" { policy = "write" }
		key_prefix "hidden/" { policy = "write" }
		key "hidden/b" { policy = "deny" }`)
	verify.NoError(t, err)
	operator, c := realClient(t, agent, agent.Token()), realClient(t, agent, token.SecretID)
	pair, a, err := c.KV().Get(t.Context(), "a/none", 0, 0)
	verify.That(t, pair == nil && err == nil && a.Index != 0, "no key: %+v, %+v, %v", pair, a, err)
	names, a, err := below(t, c, "a/")
	verify.That(t, len(names) == 0 && err == nil && a.Index != 0, "no keys: %q, %+v, %v", names, a, err)
	all := []string{"a/b/c?d e", "a/b/e", "a/f"}
	for _, key := range append(all, "a/directory/", "ab", "hidden/a", "hidden/b") {
		verify.NoError(t, operator.KV().Put(t.Context(), &api.KVPair{Key: key, Value: []byte("value of " + key), Flags: 7}))
	}
	names, _, err = below(t, c, "a/")
	verify.NoError(t, err)
	verify.Slices(t, names, all, "names")
	pair, _, err = c.KV().Get(t.Context(), all[0], 0, 0)
	verify.Require(t, err == nil && pair != nil, "%s: %+v, %v", all[0], pair, err)
	verify.That(t, string(pair.Value) == "value of "+all[0] && pair.Flags == 7, "%s: %+v", all[0], pair)
	names = verify.Result(c.KV().Names(t.Context(), "a/", "/")).Must(t)
	verify.Slices(t, names, []string{"a/b/", "a/directory/", "a/f"}, "names with a separator")
	names, _, err = below(t, c, "hidden/")
	verify.That(t, errors.Is(err, ErrFiltered), "hidden: %q, %v", names, err)
	names, err = c.KV().Names(t.Context(), "hidden/", "")
	verify.That(t, errors.Is(err, ErrFiltered), "hidden names: %q, %v", names, err)
	err = c.KV().Put(t.Context(), &api.KVPair{Key: "ab"})
	verify.That(t, Forbidden(err), "write of another key: %v", err)
	verify.NoError(t, c.KV().Delete(t.Context(), "a/f"))
	verify.NoError(t, c.KV().Delete(t.Context(), "a/f"))
	verify.NoError(t, c.KV().DeleteBelow(t.Context(), "a/b/"))
	names = verify.Result(operator.KV().Names(t.Context(), "a", "")).Must(t)
	verify.Slices(t, names, []string{"a/directory/", "ab"}, "names after deletion")
}

// A recovery of the agent cancels the requests in flight. Those that may happen twice are repeated;
// of a query with an index and a conditional write, the caller learns it.
func TestRequestsInARecovery(t *testing.T) {
	pair := &api.KVPair{Key: "a", Value: []byte("b")}
	for name, test := range map[string]struct {
		send     func(context.Context, KV) error
		repeated bool
	}{
		"query":             {func(ctx context.Context, k KV) error { _, _, err := k.Get(ctx, "a", 0, 0); return err }, true},
		"put":               {func(ctx context.Context, k KV) error { return k.Put(ctx, pair) }, true},
		"delete":            {func(ctx context.Context, k KV) error { return k.Delete(ctx, "a") }, true},
		"blocking query":    {func(ctx context.Context, k KV) error { _, _, err := k.Get(ctx, "a", 7, time.Minute); return err }, false},
		"conditional write": {func(ctx context.Context, k KV) error { _, err := k.Replace(ctx, pair); return err }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var requests atomic.Int32
				c := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body) // the end of the request is noticed only after it
					w.Header().Set("X-Consul-Index", "1")
					w.Header().Set("X-Consul-KnownLeader", "true")
					switch {
					case requests.Add(1) == 1:
						<-r.Context().Done()
					case r.Method == http.MethodGet:
						fmt.Fprint(w, "[]")
					default:
						fmt.Fprint(w, "true")
					}
				}))
				ended := make(chan error, 1)
				go func() { ended <- test.send(t.Context(), c.KV()) }()
				synctest.Wait()
				c.CancelQueries()
				err := <-ended
				verify.That(t, test.repeated == (err == nil) && (err == nil || canceledByAgents(err)), "error %v, want it repeated: %t", err, test.repeated)
			})
		})
	}
}

// The first answer is cut after its keys. Only the repeated query counts, also if it finds nothing.
func TestAnswerThatIsCutInARecovery(t *testing.T) {
	for name, test := range map[string]struct {
		second string // "": there is no such key
		want   []api.KVPair
	}{
		"deleted":  {"", nil},
		"released": {`[{"Key":"a"}]`, []api.KVPair{{Key: "a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var requests atomic.Int32
				c := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Consul-Index", "1")
					w.Header().Set("X-Consul-KnownLeader", "true")
					switch {
					case requests.Add(1) == 1:
						io.WriteString(w, `[{"Key":"a","Session":"held"}]`)
						w.(http.Flusher).Flush()
						<-r.Context().Done()
					case test.second == "":
						w.WriteHeader(http.StatusNotFound)
					default:
						io.WriteString(w, test.second)
					}
				}))
				var got []api.KVPair
				ended := make(chan error, 1)
				go func() {
					found, _, err := c.KV().Get(t.Context(), "a", 0, 0)
					if found != nil {
						got = append(got, *found)
					}
					ended <- err
				}()
				synctest.Wait()
				c.CancelQueries()
				verify.NoError(t, <-ended)
				verify.DeepEqual(t, got, test.want, "keys")
			})
		})
	}
}
