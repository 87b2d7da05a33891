package config

import (
	"reflect"
	"slices"
)

// Equal reports whether a and b are the same configuration, also if a key has moved to another
// line or document.
func Equal(a, b *Config) bool { return equalBut(a, b, equalRoutes) }

// Identical reports whether a and b are the same configuration, with each key in the same place.
func Identical(a, b *Config) bool {
	return a == b || a != nil && b != nil && equalBut(a, b, func(a, b *Route) bool { return a.Origin == b.Origin && equalRoutes(a, b) })
}

// equalBut compares all but the routes, which equalRoutes compares.
func equalBut(a, b *Config, equalRoutes func(a, b *Route) bool) bool {
	if len(a.Routes) != len(b.Routes) {
		return false
	}
	for i := range a.Routes {
		if !equalRoutes(&a.Routes[i], &b.Routes[i]) {
			return false
		}
	}
	x, y := *a, *b
	x.Routes, y.Routes = nil, nil
	return reflect.DeepEqual(x, y)
}

// equalRoutes reports whether two routes differ in nothing but their places.
func equalRoutes(a, b *Route) bool {
	if a.checked != nil && a.checked == b.checked {
		return true // the same route of a document that has not changed
	}
	if a.Host != b.Host || a.Path != b.Path || a.Service != b.Service {
		return false
	}
	x, y := *a, *b
	x.Origin, y.Origin, x.checked, y.checked = "", "", nil, nil
	return reflect.DeepEqual(x, y)
}

// routesWithoutOrigins returns routes that can be compared deeply.
func routesWithoutOrigins(routes []Route) []Route {
	routes = slices.Clone(routes)
	for i := range routes {
		routes[i].Origin, routes[i].checked = "", nil
	}
	return routes
}
