package config

import (
	"fmt"
	"maps"
	"slices"
)

// Fragment contains the services and routes that one origin adds to a configuration. They
// are complete, as in a [Config].
type Fragment struct {
	Origin   string // for messages
	Services map[string]Service
	Routes   []Route
}

// Merge returns c with the services and routes of the fragments. c has precedence over
// the fragments, and an earlier fragment over a later one. Merge omits a later service
// with the same name, a later route for the same requests, and a route without a service,
// and returns an error for each in conflicts. It changes neither c nor the fragments.
func Merge(c *Config, fragments ...Fragment) (merged *Config, conflicts Errors) {
	copied := *c
	services := make(map[string]string) // the origin of each
	routes := make(map[string]string)
	copied.Services, copied.Routes = make(map[string]Service), nil
	fragments = slices.Insert(slices.Clone(fragments), 0, Fragment{Origin: "the file", Services: c.Services, Routes: c.Routes})
	refuse := func(f Fragment, key, want string) {
		conflicts = append(conflicts, &Error{Origin: f.Origin, Key: key, Want: want})
	}
	for _, f := range fragments {
		for _, name := range slices.Sorted(maps.Keys(f.Services)) {
			if first, taken := services[name]; taken {
				refuse(f, join("services", name), "ignored: "+first+" has a service with this name")
				continue
			}
			services[name], copied.Services[name] = f.Origin, f.Services[name]
		}
	}
	for _, f := range fragments {
		for i, r := range f.Routes {
			key := fmt.Sprintf("routes[%d]", i)
			requests, err := requestsOf(r)
			first, taken := routes[requests]
			switch {
			case err != nil:
				refuse(f, key, err.Error())
			case taken:
				refuse(f, key, "ignored: "+first+" has a route for the same requests")
			case services[r.Service] == "":
				refuse(f, key+".service", fmt.Sprintf("ignored: there is no service %q", r.Service))
			default:
				routes[requests], copied.Routes = f.Origin, append(copied.Routes, r)
			}
		}
	}
	return &copied, conflicts
}
