package consul

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// setIn sets the instances of star in a data centre.
func (b *bubble) setIn(datacenter, words string) { b.SetIn(datacenter, "star", b.entries(words)...) }

// inTwo has instances in two data centres.
func inTwo(dc1, dc2 string) func(*bubble) {
	return func(b *bubble) {
		b.setIn("dc1", dc1)
		b.setIn("dc2", dc2)
	}
}

var twoDatacenters = ServiceOptions{Datacenters: []string{"dc1", "dc2"}, MinHealthy: 2}

func TestFirstDatacenterWithEnoughInstancesIsUsed(t *testing.T) {
	watchInBubble(t, twoDatacenters, inTwo("a b", "x y z"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		b.setIn("dc1", "a b:critical")
		b.expect(sec, "1s: x y z")
		b.at(20 * sec)
		b.setIn("dc2", "x y")
		b.expect(20*sec, "20s: x y")
		b.at(30 * sec)
		b.setIn("dc1", "a b")
		b.expect(39*sec + 900*ms)
		b.expect(40*sec, "40s: a b")
		b.fresh()
		verify.Contains(t, b.status().Source, `data centres ["dc1" "dc2"]`, "the source")
		log := b.log.String()
		verify.Equal(t, countLines(log, `"instead_of":`), 2, "lines about changes in %s", log)
	})
}

func TestLossOfStateInADatacenterIsAnEvent(t *testing.T) {
	together := twoDatacenters
	together.Spill = true
	for _, o := range []ServiceOptions{{}, twoDatacenters, together} {
		watchInBubble(t, o, inTwo("a b", "x y"), func(t *testing.T, b *bubble) {
			b.set("a b")
			b.at(10 * sec)
			b.SetIndex(7)
			b.at(3 * time.Minute)
			reset := func(e events.Event) bool { return e.Kind == events.KindReset }
			verify.That(t, slices.ContainsFunc(b.events.All(), reset), "data centres %q: no event", o.Datacenters)
		})
	}
}

// What one data centre says was confirmed when it answered, also if another one, or since then
// itself, fails.
func TestSetOfOneDatacenterIsConfirmed(t *testing.T) {
	together := twoDatacenters
	together.Spill = true
	for _, o := range []ServiceOptions{twoDatacenters, together} {
		o.Wait = time.Minute
		watchInBubble(t, o, inTwo("a b", "x y"), func(t *testing.T, b *bubble) {
			confirmed := func() time.Duration {
				t.Helper()
				synctest.Wait()
				s := b.manager.States()["star"]
				verify.That(t, s.Known && s.Restored.IsZero(), "state %+v", s)
				return s.LastSuccess.Sub(b.begin)
			}
			b.at(time.Minute)
			b.cut("dc1")
			b.at(30 * time.Minute)
			got := confirmed()
			verify.That(t, got > 20*time.Minute, "together %t: without dc1 the set was confirmed after %v", o.Spill, got)
			b.cut("dc1", "dc2")
			b.at(time.Hour)
			got = confirmed()
			verify.That(t, got < 40*time.Minute, "together %t: without any data centre the set was confirmed after %v", o.Spill, got)
			verify.Equal(t, b.status().State, discovery.WatchStale, "the watch")
		})
	}
}

// A panic of the watch of one data centre ends it for a second only.
func TestPanicOfTheWatchOfADatacenter(t *testing.T) {
	panics.Fatal.Store(false)
	defer panics.Fatal.Store(true)
	defer panics.Observe(func(panics.Contained) {})()
	var armed atomic.Bool
	o := consul.Options{Random: func() float64 {
		stack := make([]byte, 1<<14)
		if armed.Load() && strings.Contains(string(stack[:runtime.Stack(stack, false)]), "(*watch).poll") && armed.Swap(false) {
			panic("of a test")
		}
		return 0
	}}
	watchInBubbleAs(t, o, twoDatacenters, inTwo("a b", "x y"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		b.setIn("dc1", "a b c")
		b.expect(2*sec, "1s: a b c")
		armed.Store(true)
		b.setIn("dc1", "a b c d")
		b.at(2500 * ms)
		verify.Equal(t, b.status().LastError, panics.Err.Error(), "after the panic the error is")
		b.at(10 * sec)
		verify.Equal(t, formatSet(b.latest()), "a b c d", "the pool has")
		verify.Equal(t, b.status().LastError, "", "later the error is")
	})
}

// A panic of what decides about the answers does not wait for what asks: the watch can begin again.
func TestPanicEndsWhatAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := discoverytest.New()
		fake.SetIn("dc1", "star", discoverytest.Instance("star", "a", 80))
		client, _ := inMemory(t, fake, consul.Options{Log: zerolog.Nop()})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		o := twoDatacenters
		o.Service = "star"
		for name, run := range map[string]func() error{
			"data centres": func() error {
				return client.Source(o).Run(ctx, discovery.WatchState{}, func(discovery.Report) { panic("of a test") })
			},
			"catalog": func() error {
				return client.Catalog(Selection{Wait: time.Minute}).Run(ctx, func([]CatalogService) { panic("of a test") })
			},
		} {
			ended := make(chan any, 1)
			go func() {
				defer func() { ended <- recover() }()
				_ = run()
			}()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			verify.That(t, len(ended) == 1, "%s: the panic waits", name)
		}
	})
}

func TestInstancesOnProbationDoNotCountForADatacenter(t *testing.T) {
	watchInBubble(t, twoDatacenters, inTwo("a b", "x y"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		b.setIn("dc1", "")
		b.expect(22*sec, "1s: x y")
		b.setIn("dc2", "x y:critical")
		b.expect(23*sec, "22s: x y:critical") // better than those that may answer
		b.setIn("dc2", "x:critical y:critical")
		b.expect(24*sec, "23s: a? b?")
		verify.Equal(t, b.status().Probation, 2, "on probation")
	})
}

func TestInstancesOnProbationArePreferredToNone(t *testing.T) {
	for _, preferred := range []string{"", "a:critical"} {
		watchInBubble(t, twoDatacenters, inTwo(preferred, "x y"), func(t *testing.T, b *bubble) {
			b.expect(sec, "0s: x y")
			b.setIn("dc2", "")
			b.expect(100*sec, "1s: x? y?")
			b.setIn("dc1", preferred+" c")
			b.at(101 * sec)
			verify.Equal(t, formatSet(b.latest()), strings.TrimSpace(preferred+" c"), "the pool has with one in service")
		})
	}
}

// cut makes data centres unreachable.
func (b *bubble) cut(datacenters ...string) {
	b.Break(discoverytest.Fault{Status: 500, Body: "No path to datacenter", Only: func(r discoverytest.Request) bool {
		return slices.Contains(datacenters, r.Datacenter)
	}})
}

func TestDatacenterThatIsUnreachableForAMinuteCountsAsEmpty(t *testing.T) {
	t.Parallel()
	watchInBubble(t, twoDatacenters, inTwo("a b", "x y"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b")
		b.cut("dc1")
		b.expect(61*sec - ms)
		b.stale("No path to datacenter")
		b.expect(62*sec, "1m1s: x y")
		b.stale("No path to datacenter") // the preferred one fails
		log := b.log.String()
		verify.That(t, countLines(log, `"instead_of":`, `"unreachable":`) == 1, "want one log line with the error:\n%s", log)
		b.expect(20 * time.Minute)
		verify.That(t, b.Probes() <= 20*60, "%d probes, want one a second at most", b.Probes())
		b.Heal()
		b.expectOne(20*time.Minute+datacenterStableTime, 20*time.Minute+datacenterStableTime+10*sec, "a b")
		b.fresh()
	})
}

func TestUnreachableDatacenterKeepsItsInstancesUnlessAnotherHasMore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, other string
		test        func(t *testing.T, b *bubble)
	}{
		{"the other one recovers first", "x y", func(_ *testing.T, b *bubble) {
			b.cut("dc1", "dc2")
			b.at(3 * time.Minute)
			b.cut("dc1")
			b.expect(3*time.Minute + 50*sec)
			b.Heal()
			b.expect(6 * time.Minute)
			b.cut("dc1", "dc2")
			b.at(9 * time.Minute)
			b.cut("dc1")
			b.expectOne(9*time.Minute+60*sec, 9*time.Minute+75*sec, "x y")
		}},
		{"the other one has no instance", "x:critical", func(_ *testing.T, b *bubble) {
			b.cut("dc1")
			b.expect(3 * time.Minute)
			b.setIn("dc2", "x")
			b.expect(4*time.Minute, "3m0s: x") // less than min_healthy, but more than nothing
			b.setIn("dc2", "x:critical")
			b.expect(5*time.Minute, "4m0s: a b") // better than none that may be there
		}},
		{"short outages", "x y", func(_ *testing.T, b *bubble) {
			for n := range 5 {
				begin := time.Duration(1+2*n) * time.Minute
				b.at(begin)
				b.cut("dc1")
				b.at(begin + 45*sec)
				b.Heal()
			}
			b.expect(15 * time.Minute)
		}},
		{"a less preferred one", "x y", func(t *testing.T, b *bubble) {
			b.cut("dc2")
			b.expect(10 * time.Minute)
			b.fresh()
			log := b.log.String()
			verify.Equal(t, countLines(log, `"level":"warn"`, `"datacenter":"dc2"`), 1, "lines about dc2 in %s", log)
			b.setIn("dc1", "a b:critical")
			b.expect(11*time.Minute, "10m0s: a b:critical") // the instances of dc2 may be gone
			b.setIn("dc1", "a:critical b:critical")
			b.expect(12*time.Minute, "11m0s: x y") // better than none
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			watchInBubble(t, twoDatacenters, inTwo("a b", tt.other), func(t *testing.T, b *bubble) {
				b.expect(sec, "0s: a b")
				tt.test(t, b)
			})
		})
	}
}

func TestDatacenterUnreachableFromTheStartIsSkipped(t *testing.T) {
	unreachable := func(b *bubble) {
		b.setIn("dc2", "x y")
		b.Break(discoverytest.Fault{Status: 500, Body: "No path to datacenter", Only: func(r discoverytest.Request) bool { return r.Datacenter == "dc1" }})
	}
	watchInBubble(t, twoDatacenters, unreachable, func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: x y")
		b.setIn("dc1", "a b")
		b.Heal()
		b.expectOne(11*sec, 20*sec, "a b")
	})
}

// A preferred data centre that was left as unreachable is not returned to when the one in use fails
// too, nor when only that one answers again, also if it has few instances: those of the preferred
// one are known from long ago.
func TestDatacenterThatWasLeftIsReturnedToWhenItAnswers(t *testing.T) {
	t.Parallel()
	for _, other := range []string{"x y", "x"} {
		watchInBubble(t, twoDatacenters, inTwo("a b", other), func(t *testing.T, b *bubble) {
			b.expect(sec, "0s: a b")
			b.cut("dc1")
			b.expectOne(time.Minute, time.Minute+15*sec, other)
			b.cut("dc1", "dc2")
			b.expect(3 * time.Minute)
			b.cut("dc1")
			b.expect(6 * time.Minute)
			healed := 6 * time.Minute
			if other == "x y" { // enough: it must have answered for a while
				b.Heal()
				b.expect(healed + datacenterStableTime/2)
				b.cut("dc1")
				healed = 10 * time.Minute
				b.expect(healed)
			}
			b.Heal()
			b.expectOne(healed, healed+datacenterStableTime+15*sec, "a b")
		})
	}
}

// A reload, or an upgrade that fails, begins with the data centre that is in use: it is left as at
// any other time.
func TestDatacenterInUseIsNotLeftByABoundary(t *testing.T) {
	t.Parallel()
	three := twoDatacenters
	three.Service, three.MinHealthy = "star", 1
	for what, boundary := range map[string]func(b *bubble){
		"another source": func(b *bubble) { b.manager.Watch("star", b.client.Source(three)) },
		"a pause": func(b *bubble) {
			b.manager.Pause()
			b.manager.Resume()
		},
	} {
		t.Run(what, func(t *testing.T) {
			watchInBubble(t, twoDatacenters, inTwo("a b", "x y"), func(t *testing.T, b *bubble) {
				b.expect(sec, "0s: a b")
				b.cut("dc1")
				boundary(b)
				b.expect(50 * sec)
				b.stale("No path to datacenter")
				b.Heal()
				b.expect(2 * time.Minute)
				b.cut("dc1", "dc2")
				boundary(b)
				b.expect(4 * time.Minute)
				b.cut("dc1")
				b.expectOne(5*time.Minute, 5*time.Minute+15*sec, "x y")
				b.cut("dc1", "dc2")
				boundary(b) // in dc2, and the other one recovers
				b.expect(6 * time.Minute)
				b.cut("dc2")
				b.expectOne(6*time.Minute, 6*time.Minute+datacenterStableTime+15*sec, "a b")
			})
		})
	}
}

// A data centre that hangs when a new run begins holds up no change of the one in use.
func TestDatacenterThatHangsAtABoundary(t *testing.T) {
	t.Parallel()
	watchInBubble(t, twoDatacenters, inTwo("a", "x y"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: x y")
		b.Break(discoverytest.Fault{Hang: true, Only: func(r discoverytest.Request) bool { return r.Datacenter == "dc1" }})
		b.manager.Pause()
		b.manager.Resume()
		b.at(2 * sec)
		b.setIn("dc2", "x y:critical z")
		b.expect(3*sec, "2s: x y:critical z")
		b.Heal()
		b.setIn("dc1", "a b")
		b.expectOne(3*sec+datacenterStableTime, 40*sec, "a b")
	})
}

// TestRealDatacenters has two data centres of one WAN.
func TestRealDatacenters(t *testing.T) {
	t.Parallel()
	one := consultest.Start(t, consultest.Options{Node: "node-1", WAN: true})
	two := consultest.Start(t, consultest.Options{Node: "node-2", WAN: true, Datacenter: "dc2",
		Config: map[string]any{"retry_join_wan": []string{one.WANAddress()}, "retry_interval_wan": "1s"}})
	for _, tt := range []struct {
		name string
		test func(t *testing.T, one, two *consultest.Agent)
	}{
		{"each prefers its own", eachPrefersItsOwn},
		{"a prepared query fails over", preparedQueryFailsOver},
		{"a prepared query from the cache", cachedPreparedQueryFollowsChanges},
		{"targets of a discovery chain", meshTargetsAreReached},
		{"one is used", oneDatacenterIsUsed},
	} {
		for _, agent := range []*consultest.Agent{one, two} {
			services := verify.Result(agent.Client().Agent().Services()).Must(t)
			for id := range services {
				verify.NoError(t, agent.Client().Agent().ServiceDeregister(id))
			}
		}
		if !t.Run(tt.name, func(t *testing.T) { tt.test(t, one, two) }) {
			return
		}
	}
}

// oneDatacenterIsUsed watches a service in two data centres.
func oneDatacenterIsUsed(t *testing.T, one, two *consultest.Agent) {
	registerTTL(t, one, "star", "a", 8001, nil)
	registerTTL(t, two, "star", "x", 8002, nil)

	r := watchReal(t, one, ServiceOptions{Service: "star", Datacenters: []string{"dc1", "dc2"}})
	r.await("a")
	verify.NoError(t, one.Client().Agent().UpdateTTL("check-star-a", "refused", api.HealthCritical))
	verify.Equal(t, r.await("x")[0].Datacenter, "dc2", "data centre")
	client := clientOf(t, one, "")
	for datacenters, want := range map[string]string{"dc1 dc2": "x", "dc9 dc1": "a:critical", "dc1": "a:critical"} {
		answer, err := client.Health(t.Context(), ServiceOptions{Service: "star", Datacenters: strings.Fields(datacenters)})
		verify.That(t, err == nil && formatSet(answer.Instances) == want, "%v: %+v, %v; want %s", datacenters, answer, err, want)
	}
	watchReal(t, one, ServiceOptions{Service: "star", Datacenter: "dc9"}).awaitError("No path to datacenter")
	verify.NoError(t, one.Client().Agent().UpdateTTL("check-star-a", "", api.HealthPassing))
	r.await("a")
}
