package kv

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// watched is a watch of a key of a real Consul.
type watched struct {
	t       *testing.T
	manager *discovery.Manager
	mu      sync.Mutex
	set     []discovery.Instance
	changes int
}

func watchKey(t *testing.T, url, token string, o Options) *watched {
	t.Helper()
	client, err := consul.New(consul.Options{
		Addresses: []string{url}, Token: token, MaxWatches: 8, Log: zerolog.New(zerolog.NewTestWriter(t)),
		AnswerGrace: 2 * time.Second, // tests of hangs wait for it
	})
	verify.NoError(t, err)
	o.Wait = cmp.Or(o.Wait, 10*time.Minute) // no change is seen because a wait has ended
	w := &watched{t: t}
	w.manager = discovery.NewManager(discovery.ManagerOptions{Sink: func(_ string, set []discovery.Instance) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.set = set
		w.changes++
	}})
	w.manager.Watch("via", NewSources(client, zerolog.New(zerolog.NewTestWriter(t))).Source("via", o))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.manager.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		client.Close()
	})
	return w
}

// await waits for a set, with "?" after those on probation, and a state of the watch whose last
// error contains failure.
func (w *watched) await(want, failure string) {
	w.t.Helper()
	var got string
	var status discovery.WatchStatus
	defer func() {
		if w.t.Failed() {
			w.t.Logf("the set is %q; %+v", got, status)
		}
	}()
	consultest.Await(w.t, fmt.Sprintf("the set %q, error %q", want, failure), func() bool {
		status = w.manager.Statuses()[0]
		w.mu.Lock()
		defer w.mu.Unlock()
		got = format(w.set)
		return got == want && w.changes > 0 && strings.Contains(status.LastError, failure) && (failure != "" || status.LastError == "")
	})
}

func format(set []discovery.Instance) string {
	var words []string
	for _, i := range set {
		word := i.ID
		if !i.Probation.IsZero() {
			word += "?"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func put(t *testing.T, agent *consultest.Agent, key, value string) {
	t.Helper()
	_, err := agent.Client().KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil)
	verify.NoError(t, err)
}

func TestValues(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	const key = "metis/via_ip_port"
	w := watchKey(t, agent.URL(), "", Options{Key: key, Probation: time.Hour})
	w.await("", "")
	put(t, agent, key, "10.0.0.1_8080")
	w.await("10.0.0.1:8080", "")
	put(t, agent, key, "10.0.0.2:8080\n")
	w.await("10.0.0.2:8080", "")
	put(t, agent, key, `[{"host":"10.0.0.2","port":8080,"weight":3,"tags":["v2"],"meta":{"zone":"a"}},"10.0.0.3:8080"]`)
	w.await("10.0.0.2:8080 10.0.0.3:8080", "")
	w.mu.Lock()
	want := discovery.Instance{Service: "via", ID: "10.0.0.2:8080", Address: "10.0.0.2", Port: 8080, Weight: 3, Tags: []string{"v2"}, Meta: map[string]string{"zone": "a"}}
	if !w.set[0].Equal(want) {
		t.Errorf("got %+v, want %+v", w.set[0], want)
	}
	w.mu.Unlock()

	// A value that cannot be used keeps the last one, and costs Consul no more than another.
	put(t, agent, key, `{"host":"10.0.0.2"}`)
	w.await("10.0.0.2:8080 10.0.0.3:8080", "key "+key+`: the value cannot be used, the last usable one stays in use: "port" is missing`)
	put(t, agent, key, "")
	w.await("10.0.0.2:8080 10.0.0.3:8080", "empty: want []")
	errors := w.manager.Statuses()[0].Errors
	verify.That(t, errors <= 6, "%d failures for two values", errors)
	put(t, agent, key, "10.0.0.3:8080")
	w.await("10.0.0.3:8080", "")

}

// An absent key may be a lost one, and so may be those of an empty list: the instances are on
// probation.
func TestAbsentKey(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	w := watchKey(t, agent.URL(), "", Options{Key: "via", Probation: time.Hour})
	w.await("", "")
	put(t, agent, "via2", "10.0.0.9:80") // another key
	put(t, agent, "via", "10.0.0.1:80")
	w.await("10.0.0.1:80", "")
	_, err := agent.Client().KV().Delete("via", nil)
	verify.NoError(t, err)
	w.await("10.0.0.1:80?", "")
	put(t, agent, "via", "10.0.0.2:80")
	w.await("10.0.0.2:80", "")
	put(t, agent, "via", "[]")
	w.await("10.0.0.2:80?", "")
	put(t, agent, "via", "10.0.0.2:80")
	w.await("10.0.0.2:80", "")

	now := watchKey(t, agent.URL(), "", Options{Key: "via"}) // without probation
	now.await("10.0.0.2:80", "")
	put(t, agent, "via", "[]")
	now.await("", "")
}

// While Consul is away, and when it comes back without its data, the instances stay in use.
func TestOutages(t *testing.T) {
	t.Parallel()
	const both, three = "10.0.0.1:80 10.0.0.2:80", "10.0.0.1:80 10.0.0.2:80 10.0.0.3:80"
	putThree := func(agent *consultest.Agent) { put(t, agent, "via", strings.ReplaceAll(three, " ", "\n")) }
	for name, outage := range map[string]func(*testing.T, *consultest.Agent, *consultest.Relay, *watched){
		"connections are refused": func(t *testing.T, agent *consultest.Agent, relay *consultest.Relay, w *watched) {
			relay.Cut()
			w.await(both, "consul")
			relay.Heal()
			w.await(both, "")
		},
		"connections hang": func(t *testing.T, agent *consultest.Agent, relay *consultest.Relay, w *watched) {
			relay.Hang()
			putThree(agent)
			relay.Heal() // connections that hang stay so
			w.await(three, "")
		},
		"the agent hangs": func(t *testing.T, agent *consultest.Agent, _ *consultest.Relay, w *watched) {
			must(t, agent.Pause())
			w.await(both, "consul")
			must(t, agent.Resume())
			w.await(both, "")
			putThree(agent)
			w.await(three, "")
		},
		"the agent loses its data": func(t *testing.T, agent *consultest.Agent, _ *consultest.Relay, w *watched) {
			for n := range 20 { // so that the index of the new Consul is smaller
				put(t, agent, "other", fmt.Sprint(n))
			}
			must(t, agent.Kill())
			w.await(both, "consul")
			must(t, agent.Launch(t.Context()))
			w.await("10.0.0.1:80? 10.0.0.2:80?", "")
			putThree(agent)
			w.await(three, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := consultest.Start(t, consultest.Options{})
			relay := consultest.StartRelay(t, agent.HTTPAddress())
			put(t, agent, "via", strings.ReplaceAll(both, " ", "\n"))
			w := watchKey(t, relay.URL(), "", Options{Key: "via", Probation: time.Hour, Wait: time.Second})
			w.await(both, "")
			outage(t, agent, relay, w)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	verify.NoError(t, err)
}

// A token that may not read the key takes nothing out of service.
func TestDenied(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	_, token, err := agent.NewToken("via", `key "via" { policy = "read" }`)
	verify.NoError(t, err)
	put(t, agent, "via", "10.0.0.1:80")
	w := watchKey(t, agent.URL(), token.SecretID, Options{Key: "via", Probation: time.Hour})
	w.await("10.0.0.1:80", "")
	token.Policies = nil
	if _, _, err := agent.Client().ACL().TokenUpdate(token, nil); err != nil {
		t.Fatal(err)
	}
	put(t, agent, "via", "10.0.0.2:80") // the query ends
	w.await("10.0.0.1:80", `lacks key:read: key "via"`)
	refused := w.manager.Statuses()[0].Refused
	verify.That(t, refused != 0, "the failure does not count as refused")
}
