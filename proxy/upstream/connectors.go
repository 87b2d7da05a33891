package upstream

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

// Connectors are the connectors with idle connections to close. They have a goroutine of their own,
// beside the sweeper's: it takes the mutexes of connections. Safe for concurrent use.
type Connectors struct {
	sweeper *socket.Sweeper
	log     zerolog.Logger

	mu sync.Mutex
	// mu guards the field below.
	open map[Connector]struct{}
}

func NewConnectors(s *socket.Sweeper, log zerolog.Logger) *Connectors {
	return &Connectors{sweeper: s, log: log, open: make(map[Connector]struct{})}
}

// Run closes idle connections until stop is closed.
func (all *Connectors) Run(stop <-chan struct{}) {
	ticker := time.NewTicker(idleInterval)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			for _, t := range all.List() {
				closeIdle(t, all.sweeper.Now())
			}
		}
	}
}

// closeIdle closes the idle connections of one connector, which may panic.
func closeIdle(t Connector, now int64) {
	defer panics.Contain(panics.Sweep, nil)
	t.CloseIdle(now)
}

func (all *Connectors) add(t Connector) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.open[t] = struct{}{}
}

func (all *Connectors) remove(t Connector) {
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.open, t)
}

func (all *Connectors) List() []Connector {
	all.mu.Lock()
	defer all.mu.Unlock()
	return slices.Collect(maps.Keys(all.open))
}
