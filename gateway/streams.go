package gateway

import (
	"fmt"

	"sluice/config"
	"sluice/proxy"
	"sluice/route"
)

// streamsOf returns where the connections of each listener go; nil for a listener with
// another protocol than tcp.
func streamsOf(listeners []*listener, targets map[string]*route.Service) ([]*proxy.Streams, error) {
	all := make([]*proxy.Streams, len(listeners))
	for i, l := range listeners {
		if l.config.Protocol != config.ProtocolTCP {
			continue
		}
		all[i] = &proxy.Streams{Service: targets[l.config.Service]}
		if len(l.config.SNI) == 0 {
			continue
		}
		var names []route.Route
		for _, entry := range l.config.SNI {
			names = append(names, route.Route{Host: entry.Host, Path: "/", Service: targets[entry.Service]})
		}
		var err error
		if all[i].Names, err = route.NewTable(names); err != nil {
			return nil, fmt.Errorf("listener %q: %w", l.config.Name, err)
		}
	}
	return all, nil
}
