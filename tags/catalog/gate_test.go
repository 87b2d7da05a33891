package catalog

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/config"
	"sluice/discovery"
	"sluice/tags/claim"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// gated is a service whose tags are read, with what its pool has.
type gated struct {
	*Gate
	t      *testing.T
	reader *Reader
	c      *config.Config
	pool   []discovery.Instance
	asked  atomic.Int64 // requests to apply the configuration again
}

func newGated(t *testing.T) *gated {
	t.Helper()
	c := configtest.Must(t, "catalog: { tags: [fabio] }\nservices: { star: { consul: {} } }")
	g := &gated{t: t, c: c}
	g.reader = NewReader(func() { g.asked.Add(1) })
	g.reader.Start(c)
	g.Gate = g.reader.Gate("star", c.Services["star"], func(set discovery.Set, _ bool) { g.pool = set.Instances })
	return g
}

// pass passes instances, each as "id path"; "!" before the id: it is critical.
func (g *gated) pass(list ...string) {
	var set []discovery.Instance
	for _, text := range list {
		id, path, _ := strings.Cut(text, " ")
		i := discovery.Instance{Service: "star", Address: "192.0.2.1", Port: 80, Weight: 1, Tags: []string{"urlprefix-h" + path}}
		if i.ID = strings.TrimPrefix(id, "!"); i.ID != id {
			i.Status = discovery.StatusCritical
		}
		set = append(set, i)
	}
	g.Pass(discovery.Set{Instances: set})
}

// apply applies what the tags ask for.
func (g *gated) apply() { g.reader.Applied(g.reader.Ask(g.c, config.Addition{})) }

// has fails if the pool has other instances, in the form of pass.
func (g *gated) has(when string, want ...string) {
	g.t.Helper()
	var got []string
	for _, i := range g.pool {
		text := i.ID + strings.TrimPrefix(i.Tags[0], "urlprefix-h")
		if !i.Usable() {
			text = "!" + text
		}
		got = append(got, strings.Replace(text, "/", " /", 1))
	}
	verify.Slices(g.t, got, want, "%s: the pool", when)
}

// An instance that asks for routes which are not in use waits for them; everything else passes at
// once.
func TestGateHoldsOnlyWhatHasNoRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t)
		g.pass("a /x")
		g.has("the first set", "a /x")
		g.apply()
		g.pass("a /x", "b /x")
		g.has("the same tags", "a /x", "b /x")
		g.pass("!a /x", "b /x", "c /y")
		g.has("other tags, and a failure", "!a /x", "b /x")
		g.pass("b /x", "c /y")
		g.has("a removal", "b /x")
		g.pass("b /y", "c /y")
		g.has("the last one has other tags too", "b /x")
		g.apply()
		g.has("the routes have just been replaced", "b /x")
		g.apply()
		g.has("applied once more: requests may still be on their way by the former routes", "b /x")
		g.pass("b /y", "c /y", "d /y")
		g.has("a set meanwhile", "b /x")
		g.apply()
		asked := g.asked.Load()
		time.Sleep(routeSwapDelay)
		synctest.Wait()
		g.has("the routes are in use", "b /y", "c /y", "d /y")
		verify.Equal(t, g.asked.Load(), asked, "requests to apply the configuration, where nobody is kept")
	})
}

// The configuration is applied once for other tags. Once more if routes lead to those who are kept,
// and once more if groups are left which only former routes need.
func TestApplicationsForOtherTags(t *testing.T) {
	for what, test := range map[string]struct {
		before, after []string
		want          int64
	}{
		"a tag":            {[]string{"a /x"}, []string{"a /y"}, 1},
		"tags of all":      {[]string{"a /x", "b /x"}, []string{"a /y", "b /y"}, 1},
		"the first groups": {[]string{"a /x", "b /x"}, []string{"a /x", "b /y"}, 1},
		"a group":          {[]string{"a /x", "b /y"}, []string{"a /x", "b /z"}, 2},
		"who is kept":      {[]string{"a /x"}, []string{"b /y"}, 3},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGated(t)
				settle := func() {
					for done := g.asked.Load() - 1; done < g.asked.Load(); {
						done = g.asked.Load()
						g.apply()
						time.Sleep(2 * routeSwapDelay)
						synctest.Wait()
					}
				}
				g.pass(test.before...)
				settle()
				g.has("before", test.before...)
				asked := g.asked.Load()
				g.pass(test.after...)
				settle()
				g.has("after", test.after...)
				verify.Equal(t, g.asked.Load()-asked, test.want, "requests to apply the configuration")
			})
		})
	}
}

// Sets that ask for the same routes, one after the other, do not put off that their instances get
// requests.
func TestGateWaitsOnceForItsRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t)
		g.pass("a /x")
		g.apply()
		g.pass("b /y")
		g.apply()
		for _, more := range []string{"c /y", "!c /y", "c /y"} {
			time.Sleep(routeSwapDelay / 3)
			g.pass("b /y", more)
			g.has("the routes have just been replaced", "a /x")
			g.apply()
		}
		asked := g.asked.Load()
		time.Sleep(routeSwapDelay / 3)
		synctest.Wait()
		verify.That(t, g.asked.Load() > asked, "nobody asked to apply the configuration again")
		g.apply()
		g.has("the routes are in use", "b /y", "c /y")
	})
}

// Instances with the same tags are the same to a gate, whatever their ports are: they come and go
// at once. Only a tag that names the port makes it count.
func TestGateOfInstancesWithOtherPorts(t *testing.T) {
	g := newGated(t)
	set := func(ports ...int) (set []discovery.Instance) {
		for _, port := range ports {
			set = append(set, discovery.Instance{Service: "star", ID: fmt.Sprint(port), Address: "192.0.2.1", Port: port, Weight: 1, Tags: []string{"urlprefix-h/"}})
		}
		return set
	}
	g.Pass(discovery.Set{Instances: set(1, 2)})
	g.apply()
	asked := g.asked.Load()
	g.Pass(discovery.Set{Instances: set(2, 3)})
	verify.That(t, len(g.pool) == 2 && g.pool[0].Port == 2 && g.pool[1].Port == 3, "one has left, and one has come: the pool has %+v", g.pool)
	verify.Equal(t, g.asked.Load(), asked, "requests to apply the configuration")

	reader := claim.NewReader(configtest.Must(t, "catalog: { tags: [traefik] }"))
	i := set(1)[0]
	i.Tags = []string{"traefik.enable=true", "traefik.http.services.s.loadBalancer.server.port=1"}
	before := reader.Profile(&i)
	i.Port = 2
	verify.That(t, reader.Profile(&i) != before, "the profile is the same for another port than the tag names")
}

// Where each instance has tags of its own, which ask for the same routes, one that leaves is not
// kept: the others have its routes.
func TestGateKeepsNobodyWhoseRoutesOthersHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t)
		g.pass("a /x o=1", "b /x o=2")
		g.apply()
		g.pass("b /x o=2")
		g.has("one has left", "b /x o=2")
		g.pass("c /x o=3")
		g.has("the last one has left", "b /x o=2")
		g.apply()
		time.Sleep(routeSwapDelay)
		g.pass("c /x o=3", "d /y")
		g.has("the routes of the new one have just come into use", "b /x o=2")
		g.apply()
		time.Sleep(routeSwapDelay)
		g.apply()
		g.has("another one has other routes", "c /x o=3", "d /y")
		g.pass("d /y")
		g.has("one has left whose route nobody else has", "c /x o=3", "d /y")
	})
}

// The routes that have just come into use may lead to some instances only: one of them that leaves
// then is kept.
func TestGateKeepsWhoLeavesWhileRoutesDivide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t)
		g.pass("a /x o=1", "b /x o=2")
		g.apply()
		g.pass("a /x o=1", "b /x o=2", "d /y")
		g.apply()
		g.pass("b /x o=2", "d /y")
		g.has("one has left while the new routes settle", "a /x o=1", "b /x o=2")
	})
}

// If no instance of a variant is there any more, the pool's stay until its routes have been
// replaced.
func TestGateKeepsTheLastOfItsRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated(t)
		g.pass("a /x")
		g.apply()
		g.pass("b /y")
		g.has("all at once", "a /x")
		g.pass("!b /y")
		g.has("there is nothing to wait for", "!b /y")
		g.pass("b /y")
		g.has("it works again: nothing of the pool is worth to keep", "b /y")
		g.pass("a /x")
		g.apply()
		time.Sleep(routeSwapDelay)
		g.apply()
		g.has("back", "a /x")
		g.pass("b /y")
		g.reader.Release()
		g.has("the routes cannot be used for now", "b /y")
	})
}

// Of a service with a leader nothing is kept: who led before must get nothing, whatever routes the
// tags ask for.
func TestGateKeepsNoFormerLeader(t *testing.T) {
	c := configtest.Must(t, "catalog: { tags: [fabio] }\nservices: { star: { consul: { leader: { tag: primary } } } }")
	instance := func(id, path string, follower bool) discovery.Instance {
		return discovery.Instance{ID: id, Service: "star", Address: "192.0.2.1", Port: 80, Weight: 1, Tags: []string{"urlprefix-h" + path}, Follower: follower}
	}
	for what, set := range map[string][]discovery.Instance{
		"it follows now":  {instance("a", "/replica", true), instance("b", "/replica", true)},
		"it has left":     {instance("b", "/other", false)},
		"another one led": {instance("a", "/replica", true), instance("b", "/other", false)},
	} {
		t.Run(what, func(t *testing.T) {
			var pool []discovery.Instance
			reader := NewReader(func() {})
			reader.Start(c)
			g := reader.Gate("star", c.Services["star"], func(set discovery.Set, _ bool) { pool = discovery.WithoutFollowers(set.Instances) })
			g.Pass(discovery.Set{Instances: []discovery.Instance{instance("a", "/primary", false), instance("b", "/replica", true)}})
			reader.Applied(reader.Ask(c, config.Addition{}))
			verify.Require(t, len(pool) == 1 && pool[0].ID == "a", "at the begin the pool has %+v", pool)
			g.Pass(discovery.Set{Instances: set})
			for _, i := range pool {
				verify.That(t, i.ID != "a", "the pool has the former leader: %+v", pool)
			}
		})
	}
}

// A set passes while tags are being read, whatever is in it: the gate does not wait for the reader.
func TestReaderDelaysNoSet(t *testing.T) {
	g := newGated(t)
	g.pass("a /x", "b /x")
	g.apply()
	g.reader.mu.Lock() // as while it reads
	defer g.reader.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.pass("b /x")
		g.pass("b /x", "c /y")
		g.pass("c /y")
		g.pass("!c /y")
	}()
	select {
	case <-done:
		g.has("the latest set", "!c /y")
	case <-time.After(30 * time.Second):
		t.Fatal("a set waits for the reader")
	}
}

// Each reader of a new configuration has its own routes: sets wait for these, and a gate without a
// set passes none.
func TestGateOfAnotherReader(t *testing.T) {
	g := newGated(t)
	g.pass("a /x")
	g.apply()
	passed := 0
	c := configtest.Must(t, "catalog: { tags: [fabio, sluice] }\nservices: { star: { consul: {} }, moon: { consul: {} } }")
	g.reader.Gate("moon", c.Services["moon"], func(discovery.Set, bool) { passed++ })
	asked := g.reader.Ask(c, config.Addition{})
	verify.Equal(t, fmt.Sprint(len(asked.Routes.Routes)), "1", "routes")
	g.reader.Applied(asked)
	g.has("with another reader", "a /x")
	verify.That(t, passed <= 0, "a set that there is not was passed")
	g.reader.Await(t.Context(), 0)
	select {
	case <-g.reader.waiting.latest():
	default:
		t.Error("a gate waits for routes")
	}
}

// A configuration that reads other dialects asks for what its own reader reads. While it is not in
// use, it leaves no trace.
func TestOtherDialects(t *testing.T) {
	g := newGated(t)
	const services = "services: { star: { consul: {} }, moon: { consul: {} } }"
	one, both := configtest.Must(t, "catalog: { tags: [fabio] }\n"+services), configtest.Must(t, "catalog: { tags: [fabio, sluice] }\n"+services)
	moon := g.reader.Gate("moon", one.Services["moon"], func(discovery.Set, bool) {})
	instance := func(tags ...string) []discovery.Instance {
		return []discovery.Instance{{ID: "a", Address: "192.0.2.1", Port: 80, Weight: 1, Tags: tags}}
	}
	asks := func(c *config.Config, want int) Asked {
		t.Helper()
		asked := g.reader.Ask(c, config.Addition{})
		verify.Equal(t, len(asked.Routes.Routes), want, "routes")
		return asked
	}
	g.Pass(discovery.Set{Instances: instance("urlprefix-h/x", "sluice.route=h/y")})
	moon.Pass(discovery.Set{Instances: instance("sluice.route=h/z")})
	g.reader.Applied(asks(one, 1))
	asks(both, 3) // and is refused
	asks(one, 1)
	g.reader.Applied(asks(both, 3))
	verify.That(t, !moon.seen().waits, "an instance waits for routes that are in use")
}

// The tags of instances from elsewhere than Consul's catalog are not read: nothing waits for their
// routes, neither from the beginning nor after the service had instances of the catalog.
func TestGateOfOtherInstances(t *testing.T) {
	g := newGated(t)
	const catalog = "catalog: { tags: [fabio], default_rule: '{service}.example.com' }\nservices: "
	others := configtest.Must(t, catalog+`{ star: { peers: ["192.0.2.1:80"] }, moon: { peers: ["192.0.2.1:80"] } }`)
	quiet := func(when string) {
		t.Helper()
		verify.That(t, !g.seen().waits, "%s: it waits for routes", when)
	}
	g.pass("a /x")
	g.apply()
	g.Pass(discovery.Set{Instances: []discovery.Instance{{ID: "b", Address: "192.0.2.1", Port: 80, Weight: 1, Tags: []string{"urlprefix-h/y"}}}})
	g.has("a set before the configuration is in use", "a /x")
	g.c = others
	g.apply()
	g.has("the configuration is in use", "b /y")
	quiet("instead of instances of the catalog")
	g.pass("c /z")
	g.has("other tags", "c /z")
	quiet("other tags")
	passed := 0
	moon := g.reader.Gate("moon", others.Services["moon"], func(discovery.Set, bool) { passed++ })
	moon.Pass(discovery.Set{Instances: []discovery.Instance{{ID: "d", Address: "192.0.2.1", Port: 80, Weight: 1}}})
	verify.That(t, passed == 1 && !moon.seen().waits, "passed %d times, waits: %v", passed, moon.seen().waits)

	g.c = configtest.Must(t, catalog+"{ star: { consul: {} } }")
	asked := g.reader.Ask(g.c, config.Addition{})
	before := g.asked.Load()
	g.pass("e /x") // before the reader that the tags are for
	g.reader.Applied(asked)
	verify.That(t, g.asked.Load() > before, "nobody asks for the routes of instances of the catalog again")
	g.apply()
	g.has("instances of the catalog again", "e /x")
	quiet("instances of the catalog again")
}

// A gate that is forgotten makes nobody wait, whatever its watch still passes.
func TestAForgottenGateIsNotWaitedFor(t *testing.T) {
	g := newGated(t)
	g.pass("a /x")
	g.apply()
	g.reader.Forget("star")
	g.pass("a /y")
	verify.That(t, !g.seen().waits, "it waits for routes")
	select {
	case <-g.reader.waiting.latest():
	default:
		t.Error("the reader waits for it")
	}
}

// While the routes of new tags are awaited, instances of before stay beside a set, and in place of
// instances with the same keys.
func TestInstancesThatStay(t *testing.T) {
	const number = 4000
	var set, kept []discovery.Instance
	for n := range number {
		i := discovery.Instance{Service: "star", ID: fmt.Sprintf("star-%05d", n), Address: "192.0.2.1", Port: 1 + n, Tags: []string{"old"}}
		kept = append(kept, i)
		i.Tags = []string{"new"}
		if n%2 == 0 {
			i.ID += "-new"
		}
		set = append(set, i)
	}
	all := with(set, kept)
	before := 0
	for i := range all {
		if all[i].Tags[0] == "old" {
			before++
		}
	}
	verify.Equal(t, len(all), number+number/2, "instances")
	verify.Equal(t, before, number, "instances as before")
}
