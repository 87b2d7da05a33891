package cli

import (
	"testing"

	"sluice/discovery"
)

func TestDrainOfTheLastPeerNeedsForce(t *testing.T) {
	address, _ := servePools(t,
		[]discovery.Instance{instanceOf("star", "s-1", "a", 1), instanceOf("star", "s-2", "b", 2), instanceOf("star", "s-3", "b", 3)},
		[]discovery.Instance{instanceOf("moon", "m-1", "b", 4)},
		[]discovery.Instance{instanceOf("blue", "s-1", "a", 1)}, // the instance of star
	)
	do := commandsTo(t, address)
	refused := func(services string, args ...string) {
		t.Helper()
		do(exitFailed, "sluice: no other peer of "+services+" gets requests: --force drains all the same\n", append([]string{"drain"}, args...)...)
	}
	refused("blue", "star/s-1")
	refused("blue", "--node", "a")
	refused("moon", "--node", "b")
	do(exitOK, "star/s-2 (10.0.0.1:2) is draining, 0 in flight: drain: by an operator\n", "drain", "s-2")
	do(exitOK, "star/s-2 (10.0.0.1:2) is draining, 0 in flight: drain: by an operator\n", "drain", "s-2") // again
	do(exitOK, "star/s-3 (10.0.0.1:3) is draining, 0 in flight: drain: by an operator\n", "drain", "s-3")
	refused("blue, star", "--node", "a")
	do(exitOK, "moon/m-1 (10.0.0.1:4) is draining, 0 in flight: drain: by an operator\n", "drain", "m-1", "--force")
	do(exitOK, "star/s-2 (10.0.0.1:2) is draining, 0 in flight: drain: by an operator\n", "drain", "s-2") // takes nobody out
}
