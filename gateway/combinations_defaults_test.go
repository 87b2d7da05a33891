package gateway

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
)

// patchOf returns what says want where nothing means value: a JSON Merge Patch.
func patchOf(value, want any) any {
	from, mapping := value.(settings)
	to, wanted := want.(settings)
	if !mapping || !wanted {
		return want
	}
	patch := settings{}
	for key := range from {
		if _, there := to[key]; !there {
			patch[key] = nil
		}
	}
	for key, v := range to {
		if !reflect.DeepEqual(from[key], v) {
			patch[key] = patchOf(from[key], v)
		}
	}
	return patch
}

// notDefaults are the keys of services that say which instances they have, and one that services of
// connections may not mention.
var notDefaults = []string{"consul", "etcd", "dns", "consul_kv", "file", "peers", "groups", "split", "judge", "keepalive"}

// defaults returns those of a file: what one service has, and a key of one route. The others say
// what differs, so that for clients it is all the same.
func (c *combinations) defaults(routes []settings, all ...settings) settings {
	random := rand.New(rand.NewPCG(uint64(len(c.texts)), 10_001)) // so that the other choices stay
	names := slices.Sorted(maps.Keys(all[0]))
	if len(names) == 0 || random.IntN(3) == 0 {
		return settings{}
	}
	service := maps.Clone(all[0][names[random.IntN(len(names))]].(settings))
	for _, key := range notDefaults {
		delete(service, key)
	}
	// A document meets the defaults of the file before, too, so clients notice none of them.
	inRoutes := []string{"compress", "timeouts", "retry", "criticality", "body_limit"}
	if c.divided {
		maps.DeleteFunc(service, func(key string, _ any) bool { return key != "balance" && key != "timeouts" })
		inRoutes = []string{"compress", "timeouts"}
	}
	for section, keys := range map[string][]string{"timeouts": {"response_header"}, "retry": {"per_try_timeout", "body"}} {
		if s, ok := service[section].(settings); ok {
			s = maps.Clone(s)
			for _, key := range keys {
				delete(s, key)
			}
			service[section] = s
		}
	}
	for _, services := range all {
		for name, s := range services {
			services[name] = patchOf(service, s)
		}
	}
	route := settings{}
	for _, key := range inRoutes {
		for _, r := range routes {
			if r[key] != nil && random.IntN(2) == 0 {
				route[key] = r[key]
			}
		}
	}
	for _, r := range routes {
		for key, value := range route {
			if own, there := r[key]; !there {
				r[key] = nil
			} else if reflect.DeepEqual(own, value) {
				delete(r, key)
			}
		}
	}
	return settings{"service": service, "route": route}
}
