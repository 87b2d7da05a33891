package routes

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"sluice/config"
	"sluice/route/ratelimit"
)

// FleetLimit is a rate limit that the replicas keep together.
type FleetLimit struct {
	// ID is the same in all replicas with a route for the same requests and a limit with the same
	// key; where a replica has several of these, as the targets of a route may, with the same
	// settings too.
	ID       string
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
	type common struct{ requests, key string }
	number := make(map[common]int)
	for id := range l {
		if id.settings.OfFleet() {
			number[common{id.requests, id.settings.Key.Text}]++
		}
	}
	for id, limiter := range l {
		if s := id.settings; s.OfFleet() {
			text := id.requests + "\x00" + s.Key.Text
			if number[common{id.requests, s.Key.Text}] > 1 {
				text += fmt.Sprintf("\x00%d/%s, burst %d", s.Rate, s.Per, s.Burst)
			}
			sum := sha256.Sum256([]byte(text))
			all = append(all, FleetLimit{hex.EncodeToString(sum[:8]), id.requests, s, limiter})
		}
	}
	slices.SortFunc(all, func(a, b FleetLimit) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
