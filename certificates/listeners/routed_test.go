package listeners

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/config"
	"sluice/test/verify"
)

// A service asks for as many names as there may be, which come before those of others in any order
// of names: another one's is ordered within a minute, its certificate stays, and what is stored
// waits for nothing.
func TestOrdersForNamesOfRoutesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r routed
		c := new(config.Config)
		route := func(service, host string) {
			c.Routes = append(c.Routes, config.Route{Service: service, Host: host})
		}
		for n := range 2 * maxRouted {
			route("a", fmt.Sprintf("a%04d.example", n))
		}
		stored := func(name string) bool { return strings.HasSuffix(name, "9.example") }
		r.replace(c.RouteHosts("web"))
		verify.Equal(t, len(r.all()), maxRouted, "the names")
		due := r.due(stored)
		verify.Equal(t, len(due), ordersAtOnce+maxRouted/10, "due at once")
		verify.Equal(t, len(r.due(stored)), len(due), "due again")
		route("b", "B.example")
		r.replace(c.RouteHosts("web"))
		verify.That(t, r.has("b.example") && r.waits(), "b has no place among those who wait")
		time.Sleep(orderEvery)
		verify.That(t, slices.Contains(r.due(stored), "b.example"), "b has had no turn")
		for n := range 2 * maxRouted { // as many services, each with its first name
			route(fmt.Sprint("c", n), fmt.Sprintf("a-%04d.example", n))
		}
		r.replace(c.RouteHosts("web"))
		verify.That(t, r.has("b.example") && r.has(due[0]), "a certificate in use is left out for a new name")
		// All that was ordered goes and comes back: no turn is left, and none is needed for what is
		// stored.
		r.replace(nil)
		r.replace([]string{"a0009.example", "b.example"})
		verify.Equal(t, fmt.Sprint(r.due(stored)), "[a0009.example]", "due")
		time.Sleep(orderEvery)
		verify.Equal(t, fmt.Sprint(r.due(stored)), "[a0009.example b.example]", "due a minute later")
		verify.That(t, !r.waits(), "one waits")
	})
}
