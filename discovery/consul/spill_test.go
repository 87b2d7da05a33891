package consul

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

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

func TestAllDatacentersAreUsed(t *testing.T) {
	watchInBubble(t, spillingDatacenters, inTwo("a b", "x y"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b x y")
		verify.Equal(t, b.priorities(), "a^0 b^0 x^1 y^1", "priorities")
		b.fresh()
		verify.Contains(t, b.status().Source, `data centres ["dc1" "dc2"] together`, "the source")
		b.setIn("dc2", "x y z")
		b.expect(2*sec, "1s: a b x y z")
		b.setIn("dc1", "a b:critical")
		b.expect(3*sec, "2s: a b:critical x y z")
		b.setIn("dc1", "a b")
		b.expect(20*sec, "3s: a b x y z")
		b.setIn("dc1", "") // lost: on probation, like in one data centre
		b.expect(21*sec, "20s: a? b? x y z")
	})
}

// An unreachable data centre keeps its instances, whatever the other one does.
func TestUnreachableDatacenterKeepsItsInstancesIfAllAreUsed(t *testing.T) {
	t.Parallel()
	watchInBubble(t, spillingDatacenters, inTwo("a b", "x y"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a b x y")
		for n, datacenter := range []string{"dc1", "dc2"} {
			b.cut(datacenter)
			b.expect(time.Duration(n+1) * 10 * time.Minute)
			b.stale("No path to datacenter")
			b.Heal()
		}
		b.at(21 * time.Minute)
		b.cut("dc1")
		b.setIn("dc2", "x")
		b.expect(30*time.Minute, "21m0s: a b x")
		b.Heal()
		b.expect(40 * time.Minute)
		b.fresh()
	})
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
