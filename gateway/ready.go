package gateway

import (
	"context"
	"fmt"
)

// becomeReady waits until the catalog, if there is one, has said which services
// there are, and every one knows its first set. That is said
// once: a service that a reload adds later does not take readiness back.
func (g *Gateway) becomeReady(ctx context.Context) {
	select {
	case <-g.finder.first:
	case <-ctx.Done():
		return
	}
	for {
		pending := g.pending()
		if len(pending) == 0 {
			g.ready.Store(true)
			close(g.becameReady)
			g.log.Info().Int("services", len(g.services.all())).Msg("ready")
			return
		}
		select {
		case <-pending[0].first:
		case <-pending[0].gone:
		case <-ctx.Done():
			return
		}
	}
}

// pending returns the services whose first set has not arrived yet.
func (g *Gateway) pending() []*service {
	var pending []*service
	for _, service := range g.services.all() {
		if !service.known() {
			pending = append(pending, service)
		}
	}
	return pending
}

// readiness reports whether requests should be sent to this sluice, and if
// not, why.
func (g *Gateway) readiness() (ready bool, missing []string) {
	if g.stopping.Load() {
		return false, []string{"sluice is stopping"}
	}
	if g.ready.Load() {
		return true, nil
	}
	if !g.finder.settled() {
		missing = append(missing, "catalog: no answer from Consul yet")
	}
	for _, service := range g.pending() {
		missing = append(missing, fmt.Sprintf("service %q: %s", service.name, service.missing()))
	}
	return len(missing) == 0, missing
}
