package gateway

import (
	"fmt"
	"time"

	"sluice/config"
	"sluice/discovery"
	"sluice/snapshot"
)

// openSnapshot reads the last known good sets, if they are kept.
func (g *Gateway) openSnapshot(c config.Consul) (*snapshot.Store, error) {
	if c.Snapshot == "" {
		return nil, nil
	}
	store, err := snapshot.Open(snapshot.Options{
		Path:    c.Snapshot,
		MaxAge:  c.SnapshotMaxAge,
		Watches: func() []discovery.WatchStatus { return g.discovery.Statuses() },
		Log:     g.log,
	})
	if err != nil {
		return nil, fmt.Errorf("consul.snapshot: %w", err)
	}
	return store, nil
}

// restore is the discovery manager's fallback.
func (g *Gateway) restore(service, source string) ([]discovery.Instance, time.Time, bool) {
	if g.snapshot == nil {
		return nil, time.Time{}, false
	}
	return g.snapshot.Get(service, source)
}

// snapshotStatus says how writing the snapshot fares.
func (g *Gateway) snapshotStatus() snapshot.Status {
	if g.snapshot == nil {
		return snapshot.Status{}
	}
	return g.snapshot.Status()
}
