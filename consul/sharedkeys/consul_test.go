package sharedkeys

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/test/consultest"
	"sluice/test/parallel"
	"sluice/test/verify"
)

// wait is how long queries block. A Consul that begins anew while a replica has no query under way
// is noticed when the next one ends.
const wait = 2 * time.Second

// prefix is the first part of the keys of t.
func prefix(t *testing.T) string { return strings.ReplaceAll(t.Name(), "/", "-") }

// newReplica returns keys below the prefix of t that do not follow Consul yet.
func newReplica(t *testing.T, url, token string) *Keys[string] {
	t.Helper()
	client := verify.Result(consul.New(consul.Options{Addresses: []string{url}, Token: token, Log: zerolog.Nop()})).Must(t)
	k := New(Options[string]{
		Consul: client, Prefix: prefix(t), Wait: func() time.Duration { return wait }, Decode: decode,
		Name: "values", Log: zerolog.Nop(),
	})
	t.Cleanup(func() {
		k.Pause()
		client.Close()
	})
	return k
}

// startReplica returns keys that follow Consul.
func startReplica(t *testing.T, url string) *Keys[string] {
	t.Helper()
	k := newReplica(t, url, "")
	k.Resume()
	k.AwaitFirst(t.Context(), time.Minute)
	return k
}

// putKey writes a key below the prefix of t.
func putKey(t *testing.T, agent *consultest.Agent, key, value string) {
	t.Helper()
	pair := &api.KVPair{Key: prefix(t) + "/" + key, Value: []byte(value)}
	verify.Result(agent.Client().KV().Put(pair, nil)).Must(t)
}

// awaitMark waits until Consul has the mark of t's keys.
func awaitMark(t *testing.T, agent *consultest.Agent) {
	t.Helper()
	consultest.Await(t, "the mark is there", func() bool { return indexes(t, agent)[markKey] > 0 })
}

func awaitCounting(t *testing.T, k *Keys[string], want ...string) {
	t.Helper()
	consultest.Await(t, fmt.Sprintf("%q count, and nothing is pending", want), func() bool {
		all := k.All()
		for _, e := range all {
			if e.Changing {
				return false
			}
		}
		return slices.Equal(counting(all), want)
	})
}

func awaitAccepted(t *testing.T, k *Keys[string], keys ...string) {
	t.Helper()
	for _, key := range keys {
		consultest.Await(t, "Consul accepts "+key, func() bool { return k.Await(t.Context(), key, time.Minute) == nil })
	}
}

// indexes returns the ModifyIndex of each key below the prefix.
func indexes(t *testing.T, agent *consultest.Agent) map[string]uint64 {
	t.Helper()
	pairs, _, err := agent.Client().KV().List(prefix(t)+"/", nil)
	verify.NoError(t, err)
	all := make(map[string]uint64)
	for _, p := range pairs {
		all[strings.TrimPrefix(p.Key, prefix(t)+"/")] = p.ModifyIndex
	}
	return all
}

func TestKeys(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	for name, test := range map[string]func(t *testing.T, agent *consultest.Agent){
		"replicas write at once": replicasWriteAtOnce, "proposals": proposals, "changes without Consul": changesWithoutConsul,
		"changes that are void":            changesThatAreVoid,
		"a deletion with a shorter prefix": deletionWithAShorterPrefix, "keys without the mark": keysWithoutTheMark,
		"a loss while it is restored": lossWhileItIsRestored,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, agent)
		})
	}
}

// replicasWriteAtOnce: replicas that write the same keys at once agree about what Consul has.
func replicasWriteAtOnce(t *testing.T, agent *consultest.Agent) {
	replicas := []*Keys[string]{startReplica(t, agent.URL()), startReplica(t, agent.URL()), startReplica(t, agent.URL())}
	var writing sync.WaitGroup
	for n, k := range replicas {
		writing.Go(func() {
			for i := range 20 {
				k.Put("same", fmt.Sprint(n, i), nil)
				k.Put(fmt.Sprint("own", n), fmt.Sprint(i), nil)
				if i%7 == 3 {
					k.Delete("same", nil)
				}
				_ = k.Await(t.Context(), "same", time.Minute)
			}
		})
	}
	writing.Wait()
	for n, k := range replicas {
		awaitAccepted(t, k, "same", fmt.Sprint("own", n))
	}
	pair, _, err := agent.Client().KV().Get(prefix(t)+"/same", nil)
	verify.Require(t, err == nil && pair != nil, "%v, %v", pair, err)
	last, _ := decode("", pair.Value)
	for _, k := range replicas {
		awaitCounting(t, k, "own0=19", "own1=19", "own2=19", "same="+last)
	}
}

// proposals: one counts only if Consul accepts it before the key has another value.
func proposals(t *testing.T, agent *consultest.Agent) {
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	a, b := startReplica(t, agent.URL()), startReplica(t, relay.URL())
	propose := func(k *Keys[string], value string) bool { return k.Propose("a", value, nil) }
	verify.Require(t, propose(a, "first"), "not proposed")
	awaitCounting(t, a, "a=first")
	awaitCounting(t, b, "a=first")

	b.Pause() // it does not see the next value
	a.Put("a", "second", nil)
	awaitCounting(t, a, "a=second")
	verify.That(t, propose(b, "late") && !propose(b, "twice"), "want one proposal at a time")
	verify.Slices(t, counting(b.All()), []string{"a=first"}, "with a proposal count")
	verify.Succeeds(t, b.writeAll(t.Context()))
	e := b.Of("a")
	verify.That(t, !e.Changing, "a void proposal: %+v", e)
	b.Resume()
	awaitCounting(t, b, "a=second")

	relay.Cut()
	consultest.Await(t, "Consul is away", func() bool { return !b.Current() })
	verify.That(t, propose(b, "away"), "not proposed")
	consultest.Await(t, "the proposal is dropped", func() bool { return !b.Of("a").Changing })
	relay.Heal()
	consultest.Await(t, "Consul is back", b.Current)
	awaitCounting(t, b, "a=second")
	awaitCounting(t, a, "a=second")
}

// changesWithoutConsul: a change that is made while Consul is away counts here, and is written when
// Consul is back, over what others have written meanwhile, unless its condition says otherwise.
func changesWithoutConsul(t *testing.T, agent *consultest.Agent) {
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	a, b := startReplica(t, relay.URL()), startReplica(t, agent.URL())
	b.Put("ended", "x", nil)
	b.Put("kept", "x", nil)
	awaitCounting(t, a, "ended=x", "kept=x")
	relay.Cut()
	a.Put("given", "a", nil)
	a.Put("yields", "a", func(now string, _ uint64) bool { return now == "b" })
	a.Delete("ended", nil)
	kept := a.Of("kept").Index
	a.Delete("kept", func(_ string, index uint64) bool { return index != kept })
	err := a.Await(t.Context(), "given", time.Minute)
	verify.That(t, err != nil, "accepted without Consul")
	consultest.Await(t, "the write has failed", func() bool { _, write := a.Errors(); return write != nil })
	verify.Slices(t, counting(a.All()), []string{"given=a", "yields=a"}, "without Consul count")
	for _, key := range []string{"given", "yields", "kept"} {
		b.Put(key, "b", nil)
		awaitAccepted(t, b, key)
	}
	relay.Heal()
	awaitCounting(t, a, "given=a", "kept=b", "yields=b")
	awaitCounting(t, b, "given=a", "kept=b", "yields=b")
	consultest.Await(t, "the error is gone", func() bool { query, write := a.Errors(); return query == nil && write == nil })
}

// changesThatAreVoid: a change that turns out to be void before the replica has seen why undoes
// nothing: it was not made later than what others have written.
func changesThatAreVoid(t *testing.T, agent *consultest.Agent) {
	a, b := startReplica(t, agent.URL()), startReplica(t, agent.URL())
	b.Put("deleted", "x", nil)
	b.Put("put", "x", nil)
	awaitCounting(t, a, "deleted=x", "put=x")
	a.Pause() // it does not see what b writes
	others := func(now string, _ uint64) bool { return now == "b" }
	a.Delete("deleted", others)
	a.Put("put", "a", others)
	b.Put("deleted", "b", nil)
	b.Put("put", "b", nil)
	awaitAccepted(t, b, "deleted", "put")
	verify.Succeeds(t, a.writeAll(t.Context()))
	verify.Slices(t, counting(a.All()), []string{"put=a"}, "before the next answer count")
	a.Resume()
	awaitCounting(t, a, "deleted=b", "put=b")
	awaitCounting(t, b, "deleted=b", "put=b")
}

// A change that Consul refuses counts here, and is written when Consul accepts it.
func TestRefusedWrites(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	policy, token, err := agent.NewToken("reader", `key_prefix "TestRefusedWrites/" { policy = "read" }`)
	verify.NoError(t, err)
	k := newReplica(t, agent.URL(), token.SecretID)
	k.Resume()
	k.AwaitFirst(t.Context(), time.Minute) // no later answer makes it write
	k.Put("a", "a!", nil)
	err = k.Await(t.Context(), "a", time.Minute)
	verify.That(t, err != nil && strings.Contains(err.Error(), "lacks key:write"), "got %v", err)
	consultest.Await(t, "the write has failed", func() bool { _, write := k.Errors(); return write != nil })
	verify.Slices(t, counting(k.All()), []string{"a=a!"}, "count")
	policy.Rules = `key_prefix "TestRefusedWrites/" { policy = "write" }`
	_, _, err = agent.Client().ACL().PolicyUpdate(policy, nil)
	verify.NoError(t, err)
	awaitCounting(t, k, "a=a!")
	consultest.Await(t, "the error is gone", func() bool { _, write := k.Errors(); return write == nil })
}

// A change that Consul loses between its acceptance and the next answer is no deletion: it is
// written again.
func TestConsulLosesAnAcceptedChange(t *testing.T) {
	var mu sync.Mutex // guards the fields below
	had, writes := "", 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		key := strings.TrimPrefix(r.URL.Path, "/v1/kv/"+prefix(t)+"/")
		w.Header().Set("X-Consul-Index", "7")
		w.Header().Set("X-Consul-KnownLeader", "true")
		var steps api.TxnOps
		if r.URL.Path == "/v1/txn" {
			verify.Succeeds(t, json.NewDecoder(r.Body).Decode(&steps))
			key = strings.TrimPrefix(steps[1].KV.Key, prefix(t)+"/")
		}
		switch {
		case steps != nil && key == markKey:
			fmt.Fprint(w, "{}")
		case steps != nil:
			had = key
			writes++
			fmt.Fprint(w, "{}")
		case r.Method == http.MethodPut:
			if had = key; writes == 0 {
				had = "" // it has begun anew
			}
			writes++
			fmt.Fprint(w, "true")
		case key == had:
			fmt.Fprintf(w, `[{"Key":"%s/%s","Value":"IjEi","ModifyIndex":8}]`, prefix(t), key)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	k := newReplica(t, server.URL, "")
	k.setKnown(1000, []api.KVPair{{Key: prefix(t) + "/" + markKey, ModifyIndex: 3}}, false)
	k.Put("a", "1", nil)
	err := k.writeAll(t.Context())
	verify.That(t, errors.Is(err, errLost), "the first write: %v", err)
	k.setKnown(7, nil, false)
	verify.Succeeds(t, k.writeAll(t.Context()))
	verify.Slices(t, counting(k.All()), []string{"a=1"}, "count")
	// An index from before the loss says nothing about what is written after it.
	k.setKnown(1000, []api.KVPair{{Key: prefix(t) + "/" + markKey, ModifyIndex: 3}}, false)
	k.Put("b", "1", nil)
	verify.Succeeds(t, k.writeAll(t.Context()))
	verify.Slices(t, counting(k.All()), []string{"b=1"}, "count before an answer of the new Consul")
	mu.Lock()
	defer mu.Unlock()
	verify.Equal(t, had, "b", "Consul has")
}

// lossWhileItIsRestored: Consul loses its state again just before the mark is written, and the next
// answer is from after that. The values are written again.
func lossWhileItIsRestored(t *testing.T, agent *consultest.Agent) {
	lose := func() { verify.Result(agent.Client().KV().DeleteTree(prefix(t)+"/", nil)).Must(t) }
	proxy := httputil.NewSingleHostReverseProxy(verify.URL(t, agent.URL()))
	var armed, losing atomic.Bool
	proxy.ModifyResponse = func(r *http.Response) error {
		if losing.Load() && r.Request.URL.Query().Has("recurse") {
			return errLost
		}
		return nil
	}
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		marks := r.Method == http.MethodPut && (r.URL.Path == "/v1/txn" || strings.HasSuffix(r.URL.Path, "/"+markKey))
		if marks && armed.CompareAndSwap(true, false) {
			losing.Store(true)
			defer losing.Store(false)
			lose()
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	k := startReplica(t, server.URL)
	k.Put("a", "1", nil)
	k.Put("b", "1", nil)
	awaitCounting(t, k, "a=1", "b=1")
	armed.Store(true)
	lose()
	consultest.Await(t, "Consul has the values and the mark", func() bool {
		now := indexes(t, agent)
		return !armed.Load() && now["a"] > 0 && now["b"] > 0 && now[markKey] > now["a"]
	})
	awaitCounting(t, k, "a=1", "b=1")
}

// deletionWithAShorterPrefix does not wake the query, and leaves the index at the last deletion of
// a key: the answer at the end of the wait counts.
func deletionWithAShorterPrefix(t *testing.T, agent *consultest.Agent) {
	k := startReplica(t, agent.URL())
	k.Put("a", "1", nil)
	k.Put("b", "1", nil)
	awaitAccepted(t, k, "a", "b")
	awaitMark(t, agent)
	k.Delete("b", nil)
	awaitCounting(t, k, "a=1")
	verify.Result(agent.Client().KV().DeleteTree(prefix(t), nil)).Must(t)
	consultest.Await(t, "Consul has the value and the mark again", func() bool {
		now := indexes(t, agent)
		return now["a"] > 0 && now[markKey] > now["a"]
	})
	awaitCounting(t, k, "a=1")
}

// keysWithoutTheMark, of an earlier version, count and get one.
func keysWithoutTheMark(t *testing.T, agent *consultest.Agent) {
	putKey(t, agent, "a", `"1"`)
	k := startReplica(t, agent.URL())
	awaitCounting(t, k, "a=1")
	awaitMark(t, agent)
	verify.Result(agent.Client().KV().Delete(prefix(t)+"/a", nil)).Must(t)
	awaitCounting(t, k)
}

// Tests with a real Consul mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	os.Exit(m.Run())
}
