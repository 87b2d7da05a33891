package consul

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// catalogBubble watches the fake's catalog in a synctest bubble.
type catalogBubble struct {
	*discoverytest.Consul
	t     *testing.T
	watch *Catalog
	begin time.Time
	log   strings.Builder

	mu   sync.Mutex
	sets []string // that were reported since the last check: "1s: moon star"
}

func watchCatalog(t *testing.T, s Selection, f func(b *catalogBubble)) {
	synctest.Test(t, func(t *testing.T) {
		b := &catalogBubble{Consul: discoverytest.New(), t: t, begin: time.Now()}
		b.tagged("star", "web", "v1")
		client, _ := inMemory(t, b.Consul, consul.Options{Log: zerolog.New(&b.log)})
		if s.Probation == 0 {
			s.Probation = 30 * sec
		}
		b.watch = client.Catalog(s)
		parallel.Run(t, func(ctx context.Context) {
			b.watch.Run(ctx, func(services []CatalogService) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.sets = append(b.sets, fmt.Sprintf("%v: %s", time.Since(b.begin), namesOf(services)))
			})
		})
		f(b)
	})
}

func namesOf(services []CatalogService) string {
	var names []string
	for _, s := range services {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

// tagged registers one instance of a service with tags.
func (b *catalogBubble) tagged(service string, tags ...string) {
	e := discoverytest.Instance(service, service+"-1", 80)
	e.Service.Tags = tags
	b.Set(service, e)
}

// forget removes services from the catalog.
func (b *catalogBubble) forget(services ...string) {
	none := make(map[string][]*api.ServiceEntry)
	for _, s := range services {
		none[s] = nil
	}
	b.SetAll(none)
}

// expect checks what was reported since the last check, until d after the start.
func (b *catalogBubble) expect(d time.Duration, want ...string) {
	b.t.Helper()
	time.Sleep(time.Until(b.begin.Add(d)))
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	verify.Slices(b.t, b.sets, want, "by %v reported", d)
	b.sets = nil
}

func TestCatalogSelects(t *testing.T) {
	for _, tt := range []struct {
		name      string
		selection Selection
		want      string
	}{
		{"everything but Consul itself", Selection{}, "moon star sun web-1"},
		{"a tag", Selection{Tag: "web"}, "star web-1"},
		{"a pattern", Selection{Name: "web-*"}, "web-1"},
		{"a name", Selection{Name: "moon"}, "moon"},
		{"a tag and a pattern", Selection{Tag: "web", Name: "s*"}, "star"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			watchCatalog(t, tt.selection, func(b *catalogBubble) {
				b.tagged("consul")
				b.tagged("moon", "v1")
				b.tagged("sun")
				b.tagged("web-1", "v2", "web")
				time.Sleep(time.Second)
				synctest.Wait()
				verify.Equal(t, namesOf(b.watch.Status().Services), tt.want, "selected")
			})
		})
	}
}

func TestCatalogAddsAtOnceAndRemovesAfterProbation(t *testing.T) {
	watchCatalog(t, Selection{Tag: "web"}, func(b *catalogBubble) {
		b.expect(sec, "0s: star")
		b.tagged("moon", "web")
		b.expect(2*sec, "1s: moon star")
		b.tagged("sun", "other")
		b.expect(3 * sec)
		b.tagged("moon", "web", "v2") // its tags are news, too
		b.expect(4*sec, "3s: moon star")

		b.forget("moon")
		b.expect(30 * sec)
		verify.Slices(b.t, b.watch.Status().Probation, []string{"moon"}, "on probation")
		b.expect(40*sec, "34s: star")

		b.tagged("star", "no longer")
		b.expect(50 * sec)
		b.tagged("star", "web")
		b.expect(200*sec, "50s: star") // it came back in time, with one tag less
	})
}

func TestCatalogRemovesNothingWhileConsulFails(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]discoverytest.Fault{
		"dropped connections":  {Drop: true},
		"500":                  {Status: 500, Body: "No cluster leader"},
		"no known leader":      {NoLeader: true, Body: "{}"},
		"not an object":        {Index: "99", Body: "[]"},
		"null":                 {Index: "99", Body: "null"},
		"everything is hidden": {Index: "99", Filtered: true, Body: "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			watchCatalog(t, Selection{}, func(b *catalogBubble) {
				b.expect(sec, "0s: star")
				b.Break(fault)
				b.expect(60 * sec)
				s := b.watch.Status()
				verify.That(t, fault.Filtered || s.State == discovery.WatchStale && s.LastError != "", "status %+v", s)
				b.forget("star")
				b.Heal()
				b.expect(75 * sec)    // 30 s begin with the first good answer
				time.Sleep(100 * sec) // a query may block on the index of the fault
				synctest.Wait()
				s = b.watch.Status()
				verify.That(t, s.State == discovery.WatchFresh && len(s.Services) == 0, "afterwards %+v", s)
			})
		})
	}
}

func TestCatalogFiltersByMetaInConsulAndBlocks(t *testing.T) {
	o := Selection{Meta: map[string]string{"public": `say "yes"`, "a": "b"}, Wait: 5 * time.Minute}
	watchCatalog(t, o, func(b *catalogBubble) {
		time.Sleep(sec)
		synctest.Wait()
		want := "ServiceMeta[`a`] == `b` and ServiceMeta[`public`] == `say \"yes\"`"
		all := b.Requests()
		verify.Equal(b.t, all[0].Filter, want, "filter")
		last := all[len(all)-1]
		verify.That(t, last.Index != 0 && last.Wait <= 5*time.Minute && last.Wait >= 4*time.Minute, "the last query waits %v, want a little less than 5m", last.Wait)
		want = strings.ReplaceAll(want, "ServiceMeta", "Service.Meta")
		verify.Equal(b.t, b.watch.selection.InstanceFilter(), want, "filter of instances")
	})
}

// A service that was missing before the failure may be listed again.
func TestProbationDoesNotEndWhileConsulFails(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]discoverytest.Fault{
		"500":                  {Status: 500, Body: "No cluster leader"},
		"everything is hidden": {Filtered: true, Body: "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			watchCatalog(t, Selection{}, func(b *catalogBubble) {
				b.expect(sec, "0s: star")
				b.forget("star")
				b.expect(10 * sec)
				b.Break(fault)
				b.expect(100 * sec)
				b.Heal()
				b.expect(125 * sec)
				time.Sleep(100 * sec)
				synctest.Wait()
				s := b.watch.Status()
				verify.That(t, s.State == discovery.WatchFresh && len(s.Services) == 0, "afterwards %+v", s)
			})
		})
	}
}

// withMeta registers one instance of a service with an entry in its meta.
func (b *catalogBubble) withMeta(service, key string, kind api.ServiceKind) {
	e := discoverytest.Instance(service, service+"-1", 80)
	e.Service.Meta, e.Service.Kind = map[string]string{key: "moon.example.com/"}, kind
	b.Set(service, e)
}

func TestCatalogSelectsByMetaWithoutTags(t *testing.T) {
	selection := Selection{TagPrefixes: []string{"v"}, MetaKey: "sluice_route", Typical: true}
	watchCatalog(t, selection, func(b *catalogBubble) {
		b.expect(sec, "0s: star")
		b.tagged("plain")
		b.withMeta("other", "other", api.ServiceKindTypical)
		b.withMeta("moon-sidecar", "sluice_route", api.ServiceKindConnectProxy)
		b.expect(2 * sec)
		b.withMeta("moon", "sluice_route", api.ServiceKindTypical)
		b.expect(3*sec, "2s: moon star")
		b.Break(discoverytest.Fault{Status: 500})
		b.expect(100 * sec)
		b.Heal()
		b.expect(200 * sec)
		b.tagged("moon") // without the entry
		b.expect(300*sec, "3m50s: star")
	})
}

func TestCatalogRejectsInvalidPattern(t *testing.T) {
	client := verify.Result(newClient(consul.Options{})).Must(t)
	verify.That(t, client.Catalog(Selection{Name: "[a"}).Run(t.Context(), nil) != nil, "no error")
}

// catalogIsFollowed follows the catalog of a real agent by tags and meta.
func catalogIsFollowed(t *testing.T, agent *consultest.Agent) {
	client := clientOf(t, agent, "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	follow := func(s Selection) (await func(want string)) {
		s.Wait, s.Probation = maxWait, -1 // what arrives within a test's patience does so without the end of a wait
		found := make(chan string, 100)
		running.Go(func() {
			client.Catalog(s).Run(ctx, func(services []CatalogService) { found <- namesOf(services) })
		})
		return func(want string) {
			t.Helper()
			for last := "nothing"; last != want; {
				select {
				case last = <-found:
				case <-ctx.Done():
					t.Fatalf("last services %q, want %q", last, want)
				}
			}
		}
	}
	register := func(service string, tags []string, meta map[string]string) {
		t.Helper()
		registerTTL(t, agent, service, service+"-1", 8001, func(r *api.AgentServiceRegistration) { r.Tags, r.Meta = tags, meta })
	}
	yes, route := map[string]string{"public": `say "yes"`}, map[string]string{"sluice_route": "moon.example.com"}

	await := follow(Selection{Tag: "web", Meta: yes})
	await("")
	register("cat", []string{"web"}, yes)
	await("cat")
	register("hidden", []string{"web"}, nil)
	register("dog", []string{"web"}, yes)
	await("cat dog")
	verify.NoError(t, agent.Client().Agent().ServiceDeregister("cat-1"))
	await("dog")
	// The query for the instances filters by the same meta.
	o := ServiceOptions{Service: "dog", Tags: []string{"web"}, Filter: Selection{Meta: yes}.InstanceFilter()}
	answer := verify.Result(client.Health(t.Context(), o)).Must(t)
	verify.Equal(t, formatSet(answer.Instances), "dog-1", "instances")

	await = follow(Selection{TagPrefixes: []string{"sluice."}, MetaKey: "sluice_route", Typical: true})
	await("")
	register("fox", []string{"sluice.route=fox.example.com"}, nil)
	await("fox")
	register("owl", nil, route)
	await("fox owl")
	register("owl", nil, nil) // without the entry
	await("fox")
}
