package proxy

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/observe/panics"
	"sluice/proxy/socket"
)

// idleInterval is the time between checks of idle connections to peers, which are not
// urgent and may be many.
const idleInterval = 10 * socket.SweepInterval

// connectors are those with idle connections to close. They have a goroutine of their own,
// beside the sweeper's: it takes the mutexes of connections. Safe for concurrent use.
type connectors struct {
	sweeper *socket.Sweeper
	log     zerolog.Logger

	mu sync.Mutex
	// mu guards the field below.
	open map[connector]struct{}
}

func newConnectors(s *socket.Sweeper, log zerolog.Logger) *connectors {
	return &connectors{sweeper: s, log: log, open: make(map[connector]struct{})}
}

// run closes idle connections until stop is closed.
func (all *connectors) run(stop <-chan struct{}) {
	ticker := time.NewTicker(idleInterval)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			for _, t := range all.list() {
				closeIdle(t, all.sweeper.Now())
			}
		}
	}
}

// closeIdle closes the idle connections of one connector, which may panic.
func closeIdle(t connector, now int64) {
	defer panics.Contain(panics.Sweep, nil)
	t.closeIdle(now)
}

func (all *connectors) add(t connector) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.open[t] = struct{}{}
}

func (all *connectors) remove(t connector) {
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.open, t)
}

func (all *connectors) list() []connector {
	all.mu.Lock()
	defer all.mu.Unlock()
	return slices.Collect(maps.Keys(all.open))
}
