package consul

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

var (
	nearestDatacenter  = ServiceOptions{Datacenters: []string{"dc3", "dc2", "dc1"}, MinHealthy: 1, Nearest: true}
	nearestDatacenters = ServiceOptions{Datacenters: []string{"dc3", "dc2", "dc1"}, MinHealthy: 1, Nearest: true, Spill: true}
)

// far sets the distances of dc2 and dc3 from dc1, the agent's.
func (b *bubble) far(dc2, dc3 time.Duration) {
	b.SetDistances(discoverytest.Distance{Datacenter: "dc1", Seconds: []float64{0}},
		discoverytest.Distance{Datacenter: "dc3", Seconds: []float64{dc3.Seconds()}}, discoverytest.Distance{Datacenter: "dc2", Seconds: []float64{dc2.Seconds()}})
}

// inThree has an instance in each of three data centres.
func inThree(dc2, dc3 time.Duration) func(*bubble) {
	return func(b *bubble) {
		b.far(dc2, dc3)
		b.setIn("dc1", "a")
		b.setIn("dc2", "m")
		b.setIn("dc3", "x")
	}
}

// expectPriorities checks the last set of Sink.
func (b *bubble) expectPriorities(d time.Duration, want string) {
	b.t.Helper()
	b.at(d)
	verify.Equal(b.t, b.priorities(), want, "after %v", d)
}

func TestNearestDatacenterIsUsed(t *testing.T) {
	watchInBubble(t, nearestDatacenter, inThree(20*ms, 10*ms), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a") // the agent's own
		verify.Contains(t, b.status().Source, `data centres ["dc3" "dc2" "dc1"], the nearest first`, "the source")
		b.setIn("dc1", "a:critical")
		b.expect(2*sec, "1s: x")
		b.far(10*ms, 20*ms)
		b.expect(85 * sec)
		b.expect(95*sec, "1m30s: m") // the third reading
		verify.Contains(t, b.log.String(), `"datacenter":"dc2","instead_of":"dc3"`, "the log has no change from dc3 to dc2")
		b.setIn("dc1", "a")
		b.expect(110*sec, "1m45s: a")
		verify.Equal(t, countLines(b.log.String(), `"message":"data centres are ordered by distance"`), 2, "log lines about the order: %s", b.log.String())
	})
}

// Distances that differ little, or not for long, change nothing.
func TestOrderOfDatacentersDoesNotFlap(t *testing.T) {
	t.Parallel()
	watchInBubble(t, nearestDatacenters, inThree(10*ms, 12*ms), func(t *testing.T, b *bubble) {
		const order = "a^0 m^1 x^2"
		b.expectPriorities(sec, order)
		b.far(12*ms, 10*ms)
		b.expectPriorities(10*time.Minute, order)
		for n := range 10 { // two of three readings
			b.far(20*ms, 10*ms)
			b.expectPriorities(10*time.Minute+time.Duration(n)*90*sec+75*sec, order)
			b.far(10*ms, 12*ms)
			b.expectPriorities(10*time.Minute+time.Duration(n+1)*90*sec, order)
		}
		b.far(20*ms, 10*ms)
		b.expectPriorities(30*time.Minute, "a^0 m^2 x^1")
		b.SetDistances(discoverytest.Distance{Datacenter: "dc1", Seconds: []float64{0}}) // the others are gone from the gossip
		b.expectPriorities(40*time.Minute, "a^0 m^2 x^1")
	})
}

// The order is that of the list until the distances are known, and stays when they cannot
// be read.
func TestUnknownDistances(t *testing.T) {
	t.Parallel()
	refused := discoverytest.Fault{Status: 500, Body: "no", Only: func(r discoverytest.Request) bool { return strings.HasSuffix(r.Path, "/datacenters") }}
	prepare := func(b *bubble) {
		inThree(20*ms, 10*ms)(b)
		b.Break(refused)
	}
	watchInBubble(t, nearestDatacenters, prepare, func(t *testing.T, b *bubble) {
		b.expect(990 * ms)
		b.expectPriorities(2*sec, "a^2 m^1 x^0")
		b.Heal()
		b.expectPriorities(6*sec, "a^0 m^2 x^1")
		b.Break(refused)
		b.expectPriorities(time.Hour, "a^0 m^2 x^1")
		b.fresh()
		log := b.log.String()
		failed, again := countLines(log, "cannot be read: their order"), countLines(log, "are read again")
		verify.That(t, failed == 2 && again == 1, "the log tells %d failures and %d recoveries:\n%s", failed, again, log)
	})
	// Only that of dc2 is known at first.
	prepare = func(b *bubble) {
		inThree(20*ms, 10*ms)(b)
		b.SetDistances(discoverytest.Distance{Datacenter: "dc1", Seconds: []float64{0}}, discoverytest.Distance{Datacenter: "dc2", Seconds: []float64{0.02}}, discoverytest.Distance{Datacenter: "dc3"})
	}
	watchInBubble(t, nearestDatacenters, prepare, func(t *testing.T, b *bubble) {
		b.expectPriorities(sec, "a^0 m^1 x^2")
		b.far(20*ms, 10*ms)
		b.expectPriorities(5*time.Minute, "a^0 m^2 x^1")
	})
}

// All watches share the readings.
func TestReadingsOfDistancesAreShared(t *testing.T) {
	watchInBubble(t, nearestDatacenters, inThree(20*ms, 10*ms), func(t *testing.T, b *bubble) {
		b.at(7 * sec)
		other := nearestDatacenters
		other.Service = "other"
		b.manager.Watch("other", b.client.Source(other))
		b.at(10 * time.Minute)
		var times []time.Duration
		for _, r := range b.Requests() {
			if strings.HasSuffix(r.Path, "/datacenters") {
				times = append(times, r.Time.Sub(b.begin))
			}
		}
		verify.Equal(t, len(times), 2*21, "queries in 10 minutes: %v", times)
	})
}

func TestDistances(t *testing.T) {
	distances := func(names ...string) map[string]time.Duration {
		all := make(map[string]time.Duration)
		for _, word := range names {
			name, distance, _ := strings.Cut(word, "=")
			all[name] = verify.Result(time.ParseDuration(distance)).Must(t)
		}
		return all
	}
	var o distanceOrder
	for n, step := range []struct{ reading, want string }{
		{"a=0s b=10ms c=5ms", "a c b"},
		{"a=0s b=2ms c=5ms", "a c b"}, {"a=0s b=2ms c=5ms", "a c b"}, {"a=0s b=4.5ms c=5ms", "a c b"}, // interrupted
		{"b=2ms c=5ms", "a c b"}, {"b=2ms c=5ms", "a c b"}, {"b=2ms c=5ms", "a b c"},
		{"b=1ms c=0.1ms", "a b c"}, {"b=1ms c=0.1ms", "a b c"}, {"b=1ms c=0.1ms", "a b c"}, {"b=1ms c=0.1ms", "a b c"}, // less than a millisecond
		{"d=1ms b=100ms c=90ms", "a b c d"}, {"d=1ms", "a b c d"}, {"d=1ms", "a d c b"},
	} {
		before := slices.Clone(o.names)
		changed := o.record(distances(strings.Fields(step.reading)...))
		verify.Equal(t, strings.Join(o.names, " "), step.want, "step %d: the order", n)
		verify.Equal(t, changed, !slices.Equal(before, o.names), "step %d: changed", n)
	}
}

// The distance is the median of those between all servers.
func TestDistanceIsTheMedian(t *testing.T) {
	f := discoverytest.Start(t)
	f.SetDistances(discoverytest.Distance{Datacenter: "dc1", Seconds: []float64{0, 0.001}}, discoverytest.Distance{Datacenter: "dc2", Seconds: []float64{0.1, 0.2, 5}})
	client := realClient(t, consul.Options{Addresses: []string{f.URL()}})
	got, err := readDistances(t.Context(), client.Client)
	verify.That(t, err == nil && len(got) == 2 && got["dc1"] == 0 && got["dc2"].Round(ms) == 200*ms, "got %v, %v", got, err)
}

// distancesNeedNoPermission reads them with a token without permissions, and without a token.
func distancesNeedNoPermission(t *testing.T, agent *consultest.Agent) {
	_, token, err := agent.NewToken("nothing", "")
	verify.NoError(t, err)
	for _, secret := range []string{"", token.SecretID} {
		distances, err := readDistances(t.Context(), clientOf(t, agent, secret).Client)
		verify.That(t, err == nil && len(distances) == 1 && distances["dc1"] == 0, "got %v, %v", distances, err)
	}
}

// eachPrefersItsOwn has the same configuration in two data centres.
func eachPrefersItsOwn(t *testing.T, one, two *consultest.Agent) {
	registerTTL(t, one, "star", "a", 8001, nil)
	registerTTL(t, two, "star", "x", 8002, nil)
	for _, agent := range []*consultest.Agent{one, two} {
		client := clientOf(t, agent, "")
		consultest.Await(t, "the distances are known", func() bool {
			distances, err := readDistances(t.Context(), client.Client)
			return err == nil && len(distances) == 2
		})
	}
	for _, list := range [][]string{{"dc1", "dc2"}, {"dc2", "dc1"}} {
		o := ServiceOptions{Service: "star", Datacenters: list, MinHealthy: 1, Nearest: true}
		watchReal(t, one, o).await("a")
		watchReal(t, two, o).await("x")
		o.Spill = true
		for n, agent := range []*consultest.Agent{one, two} {
			r := watchReal(t, agent, o)
			// Until the distances are known, the order of the list counts.
			for set := r.await("a x"); set[n].Priority != 0 || set[1-n].Priority != 1; set = r.await("a x") {
				t.Logf("%q at agent %d: got %+v", list, n, set)
			}
		}
		client := clientOf(t, two, "")
		for spill, want := range map[bool]string{true: "a x", false: "x"} {
			o.Spill = spill
			answer := verify.Result(client.Health(t.Context(), o)).Must(t)
			verify.Equal(t, formatSet(discovery.Normalize(answer.Instances)), want, "together %t: %+v", spill, answer)
		}
	}
}

var spillingDatacenters = ServiceOptions{Datacenters: []string{"dc1", "dc2"}, MinHealthy: 1, Spill: true}

// priorities returns "id^priority" of the last set that Sink got.
func (b *bubble) priorities() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var words []string
	for _, i := range b.last {
		words = append(words, fmt.Sprintf("%s^%d", i.ID, i.Priority))
	}
	return strings.Join(words, " ")
}

// One that is unreachable from the start does not delay the others, and joins later.
func TestUnreachableFromTheStartIfAllAreUsed(t *testing.T) {
	for name, fault := range map[string]discoverytest.Fault{"refusing": {Status: 500, Body: "No path to datacenter"}, "hanging": {Hang: true}} {
		t.Run(name, func(t *testing.T) {
			unreachable := func(b *bubble) {
				b.setIn("dc2", "x y")
				fault.Only = func(r discoverytest.Request) bool { return r.Datacenter == "dc1" }
				b.Break(fault)
			}
			watchInBubble(t, spillingDatacenters, unreachable, func(t *testing.T, b *bubble) {
				b.expectOne(0, 2*sec, "x y")
				b.setIn("dc1", "a b")
				b.Heal()
				b.expectOne(2*sec, 30*sec, "a b x y")
			})
		})
	}
}
