package gateway

import (
	"fmt"
	"time"

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
		Path:    c.Snapshot,
		MaxAge:  c.SnapshotMaxAge,
		Watches: func() []discovery.WatchStatus { return g.discovery.Statuses() },
		Log:     g.log,
	})
	if err != nil {
		return nil, fmt.Errorf("discovery.snapshot: %w", err)
	}
	return store, nil
}

// restore returns the set of a service in the snapshot.
func (g *Gateway) restore(service, source string) ([]discovery.Instance, time.Time, bool) {
	if g.snapshot == nil {
		return nil, time.Time{}, false
	}
	return g.snapshot.Get(service, source)
}

// snapshotStatus returns the status of the snapshot.
func (g *Gateway) snapshotStatus() saved.Status {
	if g.snapshot == nil {
		return saved.Status{}
	}
	return g.snapshot.Status()
}
