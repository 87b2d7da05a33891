package gateway

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// nameActions chooses which keys of routes are actions that the file names and the route uses: for
// what a route does it is all the same. random is not that of the other choices, so that those
// stay.
func (c *combinations) nameActions(random *rand.Rand) {
	for _, r := range c.routes {
		for _, key := range slices.Sorted(maps.Keys(r.keys)) {
			// A path is no action, and what tokens are from changes with the configuration.
			if !slices.Contains([]string{"path", "jwt"}, key) && random.IntN(3) == 0 {
				r.named = append(r.named, key)
			}
		}
	}
}

func (r *combinedRoute) actionsOf() string {
	return "of" + strings.ReplaceAll(r.keys["path"].(string), "/", "-")
}

func (c *combinations) namedActions() settings {
	all := settings{}
	for _, r := range c.routes {
		actions := settings{}
		for _, key := range r.named {
			actions[key] = r.keys[key]
		}
		all[r.actionsOf()] = actions
	}
	return all
}

// withNames returns the keys of a route with the name of actions in place of those that it has.
func (r *combinedRoute) withNames(keys settings) settings {
	if len(r.named) == 0 {
		return keys
	}
	maps.DeleteFunc(keys, func(key string, _ any) bool { return slices.Contains(r.named, key) })
	keys["use"] = []string{r.actionsOf()}
	return keys
}
