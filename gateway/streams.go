package gateway

import (
	"fmt"

	"sluice/config"
	"sluice/proxy"
	"sluice/route"
	"sluice/tags"
)

// newStreams returns where the connections of each listener of p go; nil for a listener with
// another protocol than tcp.
func (g *Gateway) newStreams(p *plan, targets map[string]*route.Service) ([]*proxy.Streams, error) {
	all := make([]*proxy.Streams, len(p.config.Listeners))
	for i, l := range p.config.Listeners {
		if l.Protocol != config.ProtocolTCP {
			continue
		}
		all[i] = new(proxy.Streams)
		if l.Service != "" {
			all[i].Other = &route.Route{Service: targets[l.Service]}
		}
		var names []route.Route
		for _, entry := range l.SNI {
			names = append(names, route.Route{Host: entry.Host, Path: "/", Service: targets[entry.Service]})
		}
		for _, r := range l.Streams {
			r.Listeners = nil // the table is that of the listener
			target := r.Target()
			target.Service = targets[r.Service]
			target.Split = splitOf(&r, config.Service{}, target.Service)
			var err error
			if target.Actions, err = g.actionsOf(&r, p); err != nil {
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
		var err error
		if all[i].Names, err = route.NewTable(names); err != nil {
			return nil, fmt.Errorf("listener %q: %w", l.Name, err)
		}
	}
	return all, nil
}
