package listeners

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// A registers many names, and B one: B's is ordered within a minute of its turn, whatever A does,
// and certificates that are there wait for nothing.
func TestOrdersForNamesOfRoutesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r routed
		var names []string
		for n := range 2 * maxRouted {
			names = append(names, fmt.Sprintf("a%04d.example", n))
		}
		stored := func(name string) bool { return strings.HasSuffix(name, "9.example") }
		r.set(names)
		verify.Equal(t, len(r.all()), maxRouted, "the names")
		due := r.due(stored)
		verify.Equal(t, len(due), ordersAtOnce+maxRouted/10, "due at once")
		verify.Equal(t, len(r.due(stored)), len(due), "due again")
		r.set(names)
		verify.That(t, r.waits(), "none waits")
		time.Sleep(10 * orderEvery)
		verify.Equal(t, len(r.due(stored)), len(due)+10, "due after ten minutes")
		verify.That(t, r.has("A0001.example") && !r.has("b.example"), "the names that it has")
		// All that was ordered goes and comes back: no turn is left, and none is needed for what is stored.
		r.set(nil)
		r.set([]string{"a0009.example", "b.example"})
		verify.Equal(t, fmt.Sprint(r.due(stored)), "[a0009.example]", "due")
		time.Sleep(time.Minute)
		verify.Equal(t, fmt.Sprint(r.due(stored)), "[a0009.example b.example]", "due a minute later")
		verify.That(t, !r.waits(), "one waits")
	})
}
