package consul

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/long"
	"sluice/test/verify"
)

// threeTargets are two subsets, which the fake has as services, and the service in another data
// centre.
var threeTargets = []Target{{Service: "v1"}, {Service: "v2"}, {Service: "star", Datacenter: "dc2"}}

// placed returns "id^priority@target" of the last set that Sink got.
func (b *bubble) placed() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return placed(b.last)
}

func placed(set []discovery.Instance) string {
	var words []string
	for _, i := range set {
		words = append(words, fmt.Sprintf("%s^%d@%s", i.ID, i.Priority, i.Target))
	}
	return strings.Join(words, " ")
}

func TestTargetsAreTiersInTheirOrder(t *testing.T) {
	prepare := func(b *bubble) {
		b.Set("v1", b.entries("a")...)
		b.Set("v2", b.entries("b c")...)
		b.setIn("dc2", "x")
	}
	watchInBubble(t, ServiceOptions{Targets: threeTargets, Filter: "F"}, prepare, func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b c x")
		verify.Equal(t, b.placed(), "a^0@v1 b^1@v2 c^1@v2 x^2@star.dc2", "the targets are")
		b.Set("v2")
		b.expect(2*sec, "1s: a b? c? x") // each target has its own losses
		b.cut("dc2")
		b.setIn("dc2", "y")
		b.expect(10*time.Minute - ms) // and keeps its instances while it fails
		b.Heal()
		b.at(30 * time.Minute)
		verify.Equal(t, b.placed(), "a^0@v1 y^2@star.dc2", "later")
	})
}

// A chain gets other targets: the first has no instance, the second does not answer yet.
// The instances of the former target stay until it has, or for a minute.
func TestATargetThatHasNotAnsweredEndsNoUse(t *testing.T) {
	for name, recovers := range map[string]bool{"it answers": true, "it fails": false} {
		t.Run(name, func(t *testing.T) {
			prepare := func(b *bubble) {
				b.Set("v1", b.entries("a")...)
				b.setIn("dc2", "x")
			}
			o := ServiceOptions{Service: "star", Targets: threeTargets[:1]}
			watchInBubble(t, o, prepare, func(t *testing.T, b *bubble) {
				b.expect(10*sec, "0s: a")
				b.Break(discoverytest.Fault{Status: 500, Only: func(r discoverytest.Request) bool { return r.Datacenter == "dc2" }})
				o.Targets = threeTargets[1:] // v2 has none
				b.manager.Watch("star", b.client.Source(o))
				b.expect(40 * sec)
				if recovers {
					b.Heal()
					b.expectOne(40*sec, 80*sec, "x")
					return
				}
				b.expectOne(60*sec, 3*time.Minute, "")
			})
		})
	}
}

// A process in several targets is in the first one that may use it.
func TestProcessInTwoTargets(t *testing.T) {
	prepare := func(b *bubble) {
		b.Set("v1", b.entries("a b")...)
		b.Set("v2", b.entries("a b c")...)
	}
	targets := []Target{{Service: "v1", OnlyPassing: true}, {Service: "v2"}}
	watchInBubble(t, ServiceOptions{Targets: targets}, prepare, func(t *testing.T, b *bubble) {
		b.at(sec)
		verify.Equal(t, b.placed(), "a^0@v1 b^0@v1 c^1@v2", "in both")
		b.Set("v1", b.entries("a:warning b")...)
		b.Set("v2", b.entries("a:warning b c")...)
		b.at(2 * sec)
		verify.Equal(t, b.placed(), "a^1@v2 b^0@v1 c^1@v2", "the first one may not use a")
		b.Set("v1", b.entries("a:warning")...)
		b.at(30 * sec)
		verify.Equal(t, b.placed(), "a^1@v2 b^1@v2 c^1@v2", "the first one has lost b")
	})
}

// What is known about a target stays when the chain gets other targets or another order.
func TestChangedTargetsKeepWhatIsKnown(t *testing.T) {
	prepare := func(b *bubble) {
		b.Set("v1", b.entries("a")...)
		b.Set("v2", b.entries("b c")...)
		b.setIn("dc2", "x")
	}
	o := ServiceOptions{Service: "star", Targets: threeTargets, Probation: time.Hour}
	watchInBubble(t, o, prepare, func(t *testing.T, b *bubble) {
		b.at(sec)
		b.Set("v2")
		b.at(2 * sec)
		verify.Equal(t, formatSet(b.latest()), "a b? c? x", "a target has lost its instances")
		b.cut("dc2")
		o.Targets = []Target{threeTargets[2], threeTargets[1]}
		b.manager.Watch("star", b.client.Source(o))
		b.at(5 * sec)
		verify.Equal(t, b.placed(), "b^1@v2 c^1@v2 x^0@star.dc2", "in another order")
		verify.Equal(t, formatSet(b.latest()), "b? c? x", "they are on probation and used")
		verify.That(t, strings.Contains(b.status().LastError, "No path to datacenter"), "status %+v", b.status())
	})
}

// churn is a service of several targets whose instances come and go, and that come and go
// themselves.
type churn struct {
	*bubble
	random  *rand.Rand
	options ServiceOptions
	in      map[string]string // the instances of a target that Consul has, as words
}

func (c *churn) set(target Target) {
	n := slices.IndexFunc(threeTargets, func(t Target) bool { return t == target })
	var words []string
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		status := []string{"", ":critical", ":warning", ":maintenance", "-"}[min(c.random.IntN(12), 4)]
		if c.random.IntN(2) == 0 {
			status = ""
		}
		if status != "-" {
			words = append(words, string(rune(id[0]+byte(n)))+status) // each shares some with the next
		}
	}
	words = append(words, fmt.Sprintf("%c", 'p'+n)) // always in service: a target is never lost
	c.in[target.name()] = strings.Join(words, " ")
	if target.Datacenter == "" {
		c.Set(target.Service, c.entries(c.in[target.name()])...)
	} else {
		c.setIn(target.Datacenter, c.in[target.name()])
	}
}

// chain gives the service a random list of targets.
func (c *churn) chain() {
	var list []Target
	for _, n := range c.random.Perm(3)[:1+c.random.IntN(3)] {
		list = append(list, threeTargets[n])
	}
	c.options.Targets = list
	c.manager.Watch("star", c.client.Source(c.options))
}

// want is what the pool must have when all targets have answered.
func (c *churn) want() string {
	var all union
	for n, t := range c.options.Targets {
		set, _ := instances(c.decoded(c.in[t.name()]), &ServiceOptions{})
		all.add(set, n, part{name: t.name(), target: &t})
	}
	return placed(discovery.Normalize(all.set))
}

func (c *churn) decoded(words string) (entries []serviceEntry) {
	for _, e := range c.entries(words) {
		entries = append(entries, shorten(e))
	}
	return entries
}

// At no time the pool is without an instance in service, and it follows the targets and their
// instances.
func TestTargetsUnderChurn(t *testing.T) {
	t.Parallel()
	for n := range long.Count(t, 8, 20) {
		seed := rand.Uint64()
		if n == 0 {
			seed = 7334567562996488534 // a chain that only fails comes between two others
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { churnTargets(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func churnTargets(t *testing.T, random *rand.Rand) {
	o := ServiceOptions{Service: "star", Targets: threeTargets, Probation: time.Hour}
	c := &churn{random: random, options: o, in: make(map[string]string)}
	prepare := func(b *bubble) {
		c.bubble = b
		for _, target := range threeTargets {
			c.set(target)
		}
	}
	watchInBubble(t, o, prepare, func(t *testing.T, b *bubble) {
		b.at(sec)
		failing := false
		for range 40 {
			switch random.IntN(6) {
			case 0:
				c.chain()
			case 1:
				b.Heal()
				if failing = !failing; failing {
					all, of := random.IntN(3) == 0, threeTargets[random.IntN(3)]
					b.Break(discoverytest.Fault{Status: 500, Body: "No path to datacenter", Only: func(r discoverytest.Request) bool {
						return all || r.Service == of.Service && r.Datacenter == of.Datacenter
					}})
				}
			default:
				c.set(threeTargets[random.IntN(3)])
			}
			time.Sleep(time.Duration(random.IntN(2000)) * ms)
			synctest.Wait()
			verify.Require(t, discovery.CountServing(b.latest()) > 0, "nothing in service: %s", b.placed())
		}
		b.Heal()
		time.Sleep(time.Minute)
		synctest.Wait()
		verify.Equal(t, b.placed(), c.want(), "at the end the targets %v have", slices.Collect(maps.Values(c.in)))
	})
}

// The gateways of a target stay what they were while it is not known which instances are behind
// them.
func TestGatewaysOfATarget(t *testing.T) {
	t.Parallel()
	gateways := func(b *bubble, ids ...string) {
		var entries []*api.ServiceEntry
		for _, id := range ids {
			entries = append(entries, discoverytest.Instance("mesh-gateway", id, 8000+int(id[0])))
		}
		b.Set("mesh-gateway", entries...)
	}
	o := ServiceOptions{Service: "star", MeshGateway: "mesh-gateway", Probation: time.Hour, Targets: []Target{
		{Service: "star"}, {Service: "star", Datacenter: "dc2", Gateway: "local", SNI: "star.dc2"},
	}}
	prepare := func(b *bubble) {
		b.set("a")
		b.setIn("dc2", "x y")
		gateways(b, "g", "h")
	}
	watchInBubble(t, o, prepare, func(t *testing.T, b *bubble) {
		again := func() { b.manager.Watch("star", b.client.Source(o)) }
		b.expect(sec, "0s: a g@star.dc2 h@star.dc2")
		b.setIn("dc2", "x y:critical")
		b.expect(2 * sec)
		b.cut("dc2")
		again()
		b.setIn("dc2", "x:critical y:critical")
		b.expect(20 * sec)
		verify.That(t, strings.Contains(b.status().LastError, "No path to datacenter"), "status %+v", b.status())
		b.Heal()
		b.expectOne(20*sec, 40*sec, "a g@star.dc2:critical h@star.dc2:critical")
		b.setIn("dc2", "x")
		b.expectOne(40*sec, 41*sec, "a g@star.dc2 h@star.dc2")
		gateways(b)
		b.expectOne(41*sec, 45*sec, "a g@star.dc2? h@star.dc2?")
		again()
		b.expect(60 * sec)
		gateways(b, "g")
		b.expectOne(60*sec, 62*sec, "a g@star.dc2 h@star.dc2?")
		for _, i := range b.latest()[1:] {
			verify.Equal(t, i.Target+" "+i.Service, "star.dc2 star", "target and service")
		}
	})
}
