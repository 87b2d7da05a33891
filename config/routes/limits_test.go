package routes

import (
	"testing"
	"time"

	"sluice/config"
	"sluice/route/ratelimit"
	"sluice/test/verify"
)

// Limits of the fleet have the same name at replicas with other settings, and different names where
// one replica has several for the same requests: none is left out.
func TestFleetLimitsAreIdentified(t *testing.T) {
	of := func(rates ...int) (all []FleetLimit) {
		l := make(limiters)
		for _, rate := range rates {
			settings := config.RateLimit{Rate: rate, Per: time.Second, Burst: 1, Key: config.HashKey{Text: "route"}, Scope: "fleet"}
			l.of(&config.Route{Actions: config.Actions{RateLimit: &settings}}, nil, ratelimit.NewFleet(ratelimit.Seed{}))
		}
		return l.ofFleet()
	}
	one, other := of(10), of(20)
	verify.Equal(t, one[0].ID, other[0].ID, "one limit, during a rollout")
	several, again := of(10, 20), of(20, 10, 30)
	verify.Require(t, len(several) == 2 && len(again) == 3, "%d and %d limits", len(several), len(again))
	ids := make(map[string]int)
	for _, l := range again {
		ids[l.ID] = l.Settings.Rate
	}
	for _, l := range several {
		verify.Equal(t, ids[l.ID], l.Settings.Rate, "the limit of the same name")
		verify.That(t, l.ID != one[0].ID, "one of several has the name of a single one")
	}
	verify.Equal(t, len(of()), 0, "limits without any")
}
