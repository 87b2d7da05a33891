package admin

import (
	"encoding/json"

	"sluice/balancer/reading"
	"sluice/config"
	"sluice/route"
)

// Weighted is how the requests of a route are divided among services.
type Weighted struct {
	Targets []Target `json:"targets"`
	Key     string   `json:"key"` // of a client: cookie, header NAME, client_address or none
	// ByPeers says that the shares are for each usable peer, as tags ask for.
	ByPeers bool `json:"by_peers,omitempty"`
}

// Target is a part of a Weighted.
type Target struct {
	Service string  `json:"service"`
	Group   string  `json:"group,omitempty"` // the only one with requests; empty: all, or Split
	Share   float64 `json:"share"`           // as asked for; 0 with ByPeers: what the others leave
	Present float64 `json:"present_share"`   // of the requests at present, 0 to 1
	// UsablePeers is the number of peers that may get requests. A target without gives its share to
	// the others.
	UsablePeers int     `json:"usable_peers"`
	Split       *Split  `json:"split,omitempty"`
	Mirror      *Mirror `json:"mirror,omitempty"`
	Origin      string  `json:"origin"`
	RouteChain
	// Actions are the target's own; absent: it has none.
	Actions json.RawMessage `json:"actions,omitempty"`
}

// describeWeighted describes w, which may be nil.
func describeWeighted(w *route.Weighted, readings map[string]*reading.Service) *Weighted {
	if w == nil {
		return nil
	}
	d := &Weighted{Key: w.Key.String(), ByPeers: w.ByPeers}
	shares := w.Shares()
	for i := range w.Targets {
		t := &w.Targets[i]
		r := t.Route
		one := Target{Service: r.Service.Name, Share: t.Share, Present: shares[i], UsablePeers: t.UsablePeers(), Mirror: describeMirror(r.Mirror), Origin: r.Origin}
		one.Chain = describeChain(r.Router, readings)
		if one.Group = t.Group(); one.Group == "" {
			one.Split = describeSplit(r.Split, readings[r.Service.Name])
		}
		d.Targets = append(d.Targets, one)
	}
	return d
}

// addActions adds the actions of parts, one for each target.
func (w *Weighted) addActions(parts []config.Part) {
	if w == nil || len(parts) != len(w.Targets) {
		return // the configuration has changed just now
	}
	for i := range parts {
		w.Targets[i].Actions = config.ActionsJSON(parts[i].Route.Actions)
	}
}
