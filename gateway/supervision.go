package gateway

import (
	"context"
	"fmt"
	"time"
)

// stopMargin is how much longer than its limits a stop may take, before systemd kills this
// process.
const stopMargin = 10 * time.Second

// status returns what `systemctl status` shows of a process that serves.
func (g *Gateway) status() string {
	text := fmt.Sprintf("Serves. Configuration %d, services: %d", g.history.Current().Number, len(g.services.all()))
	if g.documents.Refuses() {
		text += ". A later configuration is refused: see the log"
	}
	return text
}

// feedWatchdog tells systemd that this process works until ctx ends, if systemd asks for it.
// It takes the locks of the discovery and of the services before, so a deadlock of these ends
// in a restart.
func (g *Gateway) feedWatchdog(ctx context.Context) {
	limit := g.options.Systemd.Watchdog()
	if limit == 0 {
		return
	}
	const pings = 3 // within the limit, so that a busy machine may delay one
	tick := time.NewTicker(max(limit/pings, time.Millisecond))
	defer tick.Stop()
	for {
		g.readiness()
		g.options.Systemd.Alive()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// warnOfSockets logs the sockets of systemd that no listener has.
func (g *Gateway) warnOfSockets() {
	if unused := g.options.Systemd.Unused(); len(unused) > 0 {
		g.log.Warn().Strs("sockets", unused).
			Msg("systemd opens sockets that no listener has: FileDescriptorName of a socket unit must be the name of a listener")
	}
}
