package kv

import (
	"os"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/parallel"
	"sluice/test/verify"
)

func watchKey(t *testing.T, url, token string, o Options) *discoverytest.Watched {
	t.Helper()
	o.Wait = 10 * time.Minute // no change is seen because a wait has ended
	log := zerolog.New(zerolog.NewTestWriter(t))
	client := verify.Result(consul.New(consul.Options{
		Addresses: []string{url}, Token: token, MaxWatches: 8, Log: log,
	})).Must(t)
	t.Cleanup(client.Close)
	return discoverytest.Watch(t, NewSource("star", o, client, log), log)
}

func put(t *testing.T, agent *consultest.Agent, key, value string) {
	t.Helper()
	verify.Result(agent.Client().KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil)).Must(t)
}

// TestConsul has tests with keys of their own in one Consul.
func TestConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	t.Run("values", func(t *testing.T) { testValues(t, agent) })
	t.Run("the token may not read the key", func(t *testing.T) { testDenied(t, agent) })
}

func testValues(t *testing.T, agent *consultest.Agent) {
	const key = "metis/via_ip_port"
	w := watchKey(t, agent.URL(), agent.Token(), Options{Key: key, Probation: time.Hour})
	w.Await("", "")
	put(t, agent, key, "10.0.0.1_8080")
	w.Await("10.0.0.1:8080", "")
	put(t, agent, key, "10.0.0.2:8080\n")
	w.Await("10.0.0.2:8080", "")
	put(t, agent, key, `[{"host":"10.0.0.2","port":8080,"weight":3,"tags":["v2"],"meta":{"zone":"a"}},"10.0.0.3:8080"]`)
	w.Await("10.0.0.2:8080*3 10.0.0.3:8080", "")
	want := discovery.Instance{Service: "star", ID: "10.0.0.2:8080", Address: "10.0.0.2", Port: 8080, Weight: 3, Tags: []string{"v2"}, Meta: map[string]string{"zone": "a"}}
	verify.That(t, w.Set()[0].Equal(want), "got %+v, want %+v", w.Set(), want)

	// A value that cannot be used keeps the last one, and costs Consul no more than another.
	put(t, agent, key, `{"host":"10.0.0.2"}`)
	w.Await("10.0.0.2:8080*3 10.0.0.3:8080", "key "+key+`: the value cannot be used, the last usable one stays in use: "port" is missing`)
	put(t, agent, key, "")
	w.Await("10.0.0.2:8080*3 10.0.0.3:8080", "empty: want []")
	errors := w.Status().Errors
	verify.That(t, errors <= 6, "%d failures for two values", errors)

	// An absent key may be a lost one, and so may those of an empty list.
	put(t, agent, key, "10.0.0.3:8080")
	w.Await("10.0.0.3:8080", "")
	put(t, agent, key+"2", "10.0.0.9:80") // another key
	verify.Result(agent.Client().KV().Delete(key, nil)).Must(t)
	w.Await("10.0.0.3:8080?", "")
	put(t, agent, key, "10.0.0.2:80")
	w.Await("10.0.0.2:80", "")
	put(t, agent, key, "[]")
	w.Await("10.0.0.2:80?", "")
}

// A token that may not read the key takes nothing out of service.
func testDenied(t *testing.T, agent *consultest.Agent) {
	_, token, err := agent.NewToken("via", `key "secret" { policy = "read" }`)
	verify.NoError(t, err)
	put(t, agent, "secret", "10.0.0.1:80")
	w := watchKey(t, agent.URL(), token.SecretID, Options{Key: "secret", Probation: time.Hour})
	w.Await("10.0.0.1:80", "")
	token.Policies = nil
	_, _, err = agent.Client().ACL().TokenUpdate(token, nil)
	verify.NoError(t, err)
	put(t, agent, "secret", "10.0.0.2:80") // the query ends
	w.Await("10.0.0.1:80", `lacks key:read: key "secret"`)
	verify.That(t, w.Status().Refused != 0, "the failure does not count as refused")
}

// Tests with a real server mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	os.Exit(m.Run())
}
