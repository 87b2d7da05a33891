package gateway

import (
	"fmt"

	"sluice/config"
	"sluice/discovery"
	"sluice/discovery/saved"
)

// openSnapshot opens the snapshot, or returns nil if none is configured.
func (g *Gateway) openSnapshot(c config.Discovery) (*saved.Store, error) {
	if c.Snapshot == "" {
		return nil, nil
	}
	store, err := saved.Open(saved.Options{
		Path:   c.Snapshot,
		MaxAge: c.SnapshotMaxAge,
		Owner:  g.owner.Do,
		States: g.states,
		Log:    g.log,
	})
	if err != nil {
		return nil, fmt.Errorf("discovery.snapshot: %w", err)
	}
	return store, nil
}

// restore returns the state of the watch of a service in the snapshot.
func (g *Gateway) restore(service, source string) (discovery.WatchState, bool) {
	if g.snapshot == nil {
		return discovery.WatchState{}, false
	}
	state, ok := g.snapshot.Get(service, source)
	if s := g.services.get(service); ok && s != nil {
		state.Set = named(state.Set, service, s.source)
	}
	return state, ok
}

// snapshotStatus returns the status of the snapshot.
func (g *Gateway) snapshotStatus() saved.Status {
	if g.snapshot == nil {
		return saved.Status{}
	}
	return g.snapshot.Status()
}
