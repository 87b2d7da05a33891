package routes

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"sluice/config"
	"sluice/route/ratelimit"
)

// FleetLimit is a rate limit that the replicas keep together.
type FleetLimit struct {
	ID       string // the same in all replicas with a route for the same requests and a limit with the same key
	Requests string // that the route matches, for people
	Settings config.RateLimit
	*ratelimit.Limiter
}

// FleetLimits returns the limits with the scope fleet, by ID, which are the same while r is in use.
func (r *Routes) FleetLimits() []FleetLimit {
	if r == nil {
		return nil
	}
	return r.fleetLimits
}

func (l limiters) ofFleet() (all []FleetLimit) {
	for id, limiter := range l {
		if id.settings.OfFleet() {
			sum := sha256.Sum256([]byte(id.requests + "\x00" + id.settings.Key.Text))
			all = append(all, FleetLimit{hex.EncodeToString(sum[:8]), id.requests, id.settings, limiter})
		}
	}
	slices.SortFunc(all, func(a, b FleetLimit) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(all, func(a, b FleetLimit) bool { return a.ID == b.ID }) // with several, all but one keep to 1 / replicas
}
