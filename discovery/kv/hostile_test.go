package kv

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/hostile"
	"sluice/test/parallel"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// oneKey is a Consul with the key star.
type oneKey struct {
	*discoverytest.KV
	say   atomic.Pointer[http.HandlerFunc] // nil: it behaves
	asked atomic.Int64                     // queries of keys
}

func newOneKey() *oneKey { return &oneKey{KV: discoverytest.NewKV()} }

func (k *oneKey) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/v1/kv/") {
		k.asked.Add(1)
		if say := k.say.Load(); say != nil {
			(*say)(w, r)
			return
		}
	}
	k.KV.ServeHTTP(w, r)
}

// instances makes those that words stand for the value.
func (k *oneKey) instances(words string) {
	var lines strings.Builder
	for _, word := range strings.Fields(words) {
		fmt.Fprintf(&lines, "10.0.0.1:%d\n", hostile.Port(word))
	}
	k.Put("star", lines.String())
}

// Whatever is in a key, or poses as Consul, the last good set stays in use, and the state tells
// why.
func TestHostileValues(t *testing.T) {
	t.Parallel()
	cases := hostile.ConsulAnswers()
	for _, value := range hostile.Values() {
		body := fmt.Sprintf(`[{"Key":"star","Value":%q}]`, base64.StdEncoding.EncodeToString([]byte(value.Answer)))
		cases = append(cases, hostile.Case[http.HandlerFunc]{Name: value.Name, Answer: hostile.AsConsul(body), Reason: value.Reason, Set: value.Set, Large: value.Large})
	}
	for name, body := range map[string]string{
		"a value that is not base64": `[{"Key":"star","Value":"%%%"}]`,
		"a value that is an object":  `[{"Key":"star","Value":{}}]`,
		"a key that is a number":     `[{"Key":1}]`,
	} {
		cases = append(cases, hostile.Case[http.HandlerFunc]{Name: name, Answer: hostile.AsConsul(body), Reason: "not a list of keys"})
	}
	for _, key := range []string{"", "s", "stars", "elsewhere"} {
		body := fmt.Sprintf(`[{"Key":%q,"Value":"MTAuMC4wLjE6ODA="}]`, key)
		cases = append(cases, hostile.Case[http.HandlerFunc]{Name: "the key " + key, Answer: hostile.AsConsul(body), Reason: "was not asked for"})
	}
	hostile.Test(t, func(log zerolog.Logger) hostile.Registry[http.HandlerFunc] {
		key := newOneKey()
		pipe := discoverytest.ServePipe(key)
		client := verify.Result(consul.New(consul.Options{
			Addresses: []string{"http://agent"}, Token: "secret", Log: log, Dial: pipe.DialContext,
		})).Must(t)
		return hostile.Registry[http.HandlerFunc]{
			Source: NewSource("star", Options{Key: "star", Wait: 30 * time.Second}, client, log),
			Good: func(words string) {
				key.say.Store(nil)
				key.instances(words)
			},
			Say: func(say http.HandlerFunc) {
				key.say.Store(&say)
				key.instances("a") // ends the query that blocks
			},
			Close: func() { client.Close(); pipe.Close() },
		}
	}, cases)
}

// run runs a source of the key k until t ends, which is in a bubble of synctest.
func run(t *testing.T, k *oneKey, o Options, log zerolog.Logger, before discovery.WatchState, report func(discovery.Report)) {
	pipe := discoverytest.ServePipe(k)
	client := verify.Result(consul.New(consul.Options{Addresses: []string{"http://agent"}, Dial: pipe.DialContext})).Must(t)
	o.Key, o.Wait = "star", time.Minute
	t.Cleanup(func() {
		client.Close()
		pipe.Close()
	})
	parallel.Run(t, func(ctx context.Context) { _ = NewSource("star", o, client, log).Run(ctx, before, report) })
}

// While a value cannot be used, instances on probation stay, and Consul is not asked because their
// time is over.
func TestProbationWhileAValueCannotBeUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newOneKey()
		k.Put("star", "10.0.0.1:80")
		var mu sync.Mutex
		var set []discovery.Instance
		run(t, k, Options{Probation: 5 * time.Minute}, zerolog.Nop(), discovery.WatchState{}, func(r discovery.Report) {
			mu.Lock()
			defer mu.Unlock()
			if r.Known {
				set = r.Set
			}
		})
		inUse := func() []discovery.Instance {
			mu.Lock()
			defer mu.Unlock()
			return set
		}
		time.Sleep(time.Minute)
		k.Put("star", "")
		time.Sleep(time.Minute)
		k.Put("star", "nonsense")
		asked := k.asked.Load()
		time.Sleep(10 * time.Minute)
		now := inUse()
		verify.That(t, len(now) == 1 && !now[0].Probation.IsZero(), "the set is %+v", now)
		asked = k.asked.Load() - asked
		verify.That(t, asked < 20, "%d queries in 10 min", asked)
		k.Put("star", "[]")
		time.Sleep(time.Second)
		verify.That(t, len(inUse()) == 0, "after the time on probation the set is %+v", inUse())
	})
}

// A source that begins while the value cannot be used logs how many instances of before are in use.
func TestInstancesOfBeforeAreInUseWhileAValueCannotBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newOneKey()
		k.Put("star", "nonsense")
		var log subprocess.Output
		set := verify.Result(discovery.ParseValues("star", []byte("10.0.0.1:80\n10.0.0.2:80"))).Must(t)
		run(t, k, Options{}, zerolog.New(&log), discovery.WatchState{Known: true, Set: set}, func(r discovery.Report) {
			verify.That(t, !r.Known, "a set is reported: %+v", r)
		})
		time.Sleep(time.Minute)
		verify.That(t, strings.Count(log.String(), `"instances_in_use":2`) == 1, "the log has %s", log.String())
	})
}
