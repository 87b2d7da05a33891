package healthcheck

import (
	"testing"

	"sluice/test/verify"
)

func TestThresholds(t *testing.T) {
	a := &Active{Schedule: Schedule{UnhealthyThreshold: 3, HealthyThreshold: 2}}
	f := func(down bool, results, want string) {
		t.Helper()
		j := checkState{down: down}
		got := ""
		for _, r := range results {
			j.take(r == '+', false, a)
			if j.down {
				got += "d"
			} else {
				got += "u"
			}
		}
		verify.Equal(t, got, want, "%s", results)
	}
	f(false, "+++", "uuu")
	f(false, "---+-+++", "uudddduu")
	f(false, "--+--+---", "uuuuuuuud")
	f(false, "---+--++", "uudddddu")
	// A peer that waits for its first check needs one pass, and no other peer.
	f(true, "+-", "uu")
	f(true, "-+-++", "ddddu")
}
