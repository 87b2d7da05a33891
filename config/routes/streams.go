package routes

import (
	"fmt"

	"sluice/config"
	"sluice/proxy"
	"sluice/route"
	"sluice/tags"
)

// streams returns where the connections of each listener go; nil for a listener with another
// protocol than tcp.
func (b *builder) streams() ([]*proxy.Streams, error) {
	all := make([]*proxy.Streams, len(b.config.Listeners))
	for i, l := range b.config.Listeners {
		if l.Protocol != config.ProtocolTCP {
			continue
		}
		all[i] = new(proxy.Streams)
		var names []route.Route
		var err error
		for _, r := range l.StreamRoutes() {
			r.Limit() // the listener has a table of its own
			target := r.Target()
			target.Service = b.services[r.Service]
			target.EndsTLS = r.Protocol == tags.ProtocolEndedTLS || r.Protocol == tags.ProtocolTCP && l.TLS != nil
			target.Split = splitOf(&r, config.Service{}, target.Service)
			if target.Actions, err = b.actionsOf(&r); err != nil {
				return nil, fmt.Errorf("listener %q: %w", l.Name, err)
			}
			if r.Protocol == tags.ProtocolTCP {
				all[i].Other = &target
			} else {
				names = append(names, target)
			}
		}
		if len(names) == 0 && all[i].Other != nil {
			continue // there is no name to wait for
		}
		if all[i].Names, err = route.NewTable(names); err != nil {
			return nil, fmt.Errorf("listener %q: %w", l.Name, err)
		}
	}
	return all, nil
}
