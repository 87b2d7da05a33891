package discoverytest

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
)

const (
	nodeServicesPath = "/v1/catalog/node-services/"
	statePath        = "/v1/health/state/"

	// sickFilter is a filter expression that the fake knows. Another one is an id
	// that matches, or does not match, a regular expression, or meta of a service.
	sickFilter = `Status != "passing"`
)

var metaFilter = regexp.MustCompile("ServiceMeta\\[`([^`]*)`\\] == `([^`]*)`")

var idFilter = regexp.MustCompile(`^(?:Service)?ID (not )?matches "(.*)"$`)

// view is what a path of the catalog answers.
type view struct {
	index uint64 // of the last change
	trace string // what the endpoint watches, as JSON
	body  any
}

// catalogPath reports whether the fake answers path from all services together.
func catalogPath(path string) bool {
	switch path {
	case "/v1/catalog/services", "/v1/catalog/nodes":
		return true
	}
	return strings.HasPrefix(path, nodeServicesPath) || strings.HasPrefix(path, statePath)
}

// catalog answers a query for a view. Its index moves when something moves that
// Consul's memdb would wake the query for.
func (c *Consul) catalog(w http.ResponseWriter, r *http.Request) {
	request := parse("", r)
	name := r.URL.Path
	if request.Filter == sickFilter {
		name = statePath + "sick"
	} else if request.Filter != "" {
		name += "?" + request.Filter
	}
	c.mu.Lock()
	c.requests = append(c.requests, request)
	if c.views[name] == nil {
		if c.views == nil {
			c.views = make(map[string]*view)
		}
		c.views[name] = &view{index: c.index}
		c.refresh(name)
	}
	c.mu.Unlock()
	c.block(r, request, func() reply {
		v := *c.views[name]
		return reply{index: v.index, send: func(f *Fault) { f.answerWith(w, r, v.index, v.body, false) }}
	})
}

// refreshAll brings the views up to date. It needs mu.
func (c *Consul) refreshAll() {
	for path := range c.views {
		c.refresh(path)
	}
}

// refresh needs mu. Name is a path, which may end with "sick" instead of a state,
// perhaps with "?" and a filter expression.
func (c *Consul) refresh(name string) {
	path, filter, _ := strings.Cut(name, "?")
	listed := listedBy(filter)
	var body, watched any
	switch path {
	case "/v1/catalog/services":
		body, watched = c.serviceNames(metaOf(filter))
	case "/v1/catalog/nodes":
		body = c.nodes()
	default:
		if node, ok := strings.CutPrefix(path, nodeServicesPath); ok {
			all := c.nodeServices(node)
			watched = slices.Clone(all.Services)
			all.Services = slices.DeleteFunc(all.Services, func(s *api.AgentService) bool { return !listed(s.ID) })
			body = all
		} else {
			all := c.checks(strings.TrimPrefix(path, statePath))
			watched = slices.Clone(all)
			body = slices.DeleteFunc(all, func(c *api.HealthCheck) bool { return !listed(c.ServiceID) })
		}
	}
	if watched == nil {
		watched = body
	}
	trace, err := json.Marshal(watched)
	if err != nil {
		panic(err)
	}
	v := c.views[name]
	if v.body = body; v.trace != string(trace) {
		v.trace = string(trace)
		v.index = c.index
	}
}

// listedBy returns whether a filter expression lets an id through. One that
// the fake does not know lets everything through.
func listedBy(filter string) func(id string) bool {
	parts := idFilter.FindStringSubmatch(filter)
	if parts == nil {
		return func(string) bool { return true }
	}
	expression := regexp.MustCompile(parts[2])
	return func(id string) bool { return expression.MatchString(id) == (parts[1] == "") }
}

// metaOf returns the meta that a filter expression asks for.
func metaOf(filter string) map[string]string {
	meta := make(map[string]string)
	for _, parts := range metaFilter.FindAllStringSubmatch(filter, -1) {
		meta[parts[1]] = parts[2]
	}
	return meta
}

// each calls f for every whole entry, by name of the service. It needs mu.
func (c *Consul) each(f func(service string, e *api.ServiceEntry)) {
	for _, name := range slices.Sorted(maps.Keys(c.services)) {
		for _, e := range c.services[name].entries {
			if e != nil && e.Node != nil && e.Service != nil {
				f(name, e)
			}
		}
	}
}

// serviceNames returns the tags of the instances that have meta by service and, as
// what is watched, every instance without its checks. It needs mu.
func (c *Consul) serviceNames(meta map[string]string) (names map[string][]string, watched []*api.AgentService) {
	names = make(map[string][]string)
	c.each(func(service string, e *api.ServiceEntry) {
		watched = append(watched, e.Service)
		for key, value := range meta {
			if e.Service.Meta[key] != value {
				return
			}
		}
		tags := names[service]
		if tags == nil {
			tags = []string{}
		}
		for _, tag := range e.Service.Tags {
			if !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
		}
		names[service] = tags
	})
	return names, watched
}

// nodes needs mu.
func (c *Consul) nodes() []*api.Node {
	byName := make(map[string]*api.Node)
	c.each(func(_ string, e *api.ServiceEntry) { byName[e.Node.Node] = e.Node })
	nodes := []*api.Node{}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		nodes = append(nodes, byName[name])
	}
	return nodes
}

// nodeServices needs mu.
func (c *Consul) nodeServices(node string) (answer api.CatalogNodeServiceList) {
	c.each(func(_ string, e *api.ServiceEntry) {
		if e.Node.Node == node {
			answer.Node = e.Node
			answer.Services = append(answer.Services, e.Service)
		}
	})
	return answer
}

// checks needs mu.
func (c *Consul) checks(state string) []*api.HealthCheck {
	checks := []*api.HealthCheck{}
	seen := make(map[[2]string]bool) // the node's checks stand in each of its instances
	c.each(func(service string, e *api.ServiceEntry) {
		for _, check := range e.Checks {
			id := [2]string{check.Node, check.CheckID}
			listed := state == "any" || check.Status == state || state == "sick" && check.Status != api.HealthPassing
			if listed && !seen[id] {
				seen[id] = true
				checks = append(checks, check)
			}
		}
	})
	slices.SortStableFunc(checks, func(a, b *api.HealthCheck) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.CheckID, b.CheckID))
	})
	return checks
}

// stamp returns copies of entries with the index at which each service and
// check last changed, given what there was before.
func stamp(before, entries []*api.ServiceEntry, index uint64) []*api.ServiceEntry {
	services := make(map[[2]string]*api.AgentService)
	checks := make(map[[2]string]*api.HealthCheck)
	for _, e := range before {
		if e == nil || e.Node == nil || e.Service == nil {
			continue
		}
		services[[2]string{e.Node.Node, e.Service.ID}] = e.Service
		for _, check := range e.Checks {
			checks[[2]string{check.Node, check.CheckID}] = check
		}
	}
	stamped := make([]*api.ServiceEntry, len(entries))
	for n, e := range entries {
		if e == nil || e.Node == nil || e.Service == nil {
			stamped[n] = e // a test of what is not Consul's
			continue
		}
		service := *e.Service
		if old := services[[2]string{e.Node.Node, service.ID}]; old != nil {
			service.ModifyIndex = old.ModifyIndex
			if !reflect.DeepEqual(*old, service) {
				service.ModifyIndex = index
			}
		} else {
			service.ModifyIndex = index
		}
		stamped[n] = &api.ServiceEntry{Node: e.Node, Service: &service}
		for _, c := range e.Checks {
			check := *c
			if check.ServiceID != "" {
				check.ServiceName = service.Service
			}
			check.ModifyIndex = index
			if old := checks[[2]string{check.Node, check.CheckID}]; old != nil {
				same := *old
				same.ModifyIndex = index
				if reflect.DeepEqual(same, check) {
					check.ModifyIndex = old.ModifyIndex
				}
			}
			stamped[n].Checks = append(stamped[n].Checks, &check)
		}
	}
	return stamped
}
