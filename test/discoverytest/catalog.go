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
)

var (
	metaFilter    = regexp.MustCompile("ServiceMeta\\[`([^`]*)`\\] == `([^`]*)`")
	metaKeyFilter = regexp.MustCompile("`([^`]*)` in ServiceMeta")
)

// view is the response of a path of the catalog.
type view struct {
	index uint64 // of the last change
	trace string // the watched data, as JSON
	body  any
}

// catalogPath reports whether the response of a path depends on all services.
func catalogPath(path string) bool {
	switch path {
	case "/v1/catalog/services", "/v1/catalog/nodes":
		return true
	}
	return strings.HasPrefix(path, nodeServicesPath) || strings.HasPrefix(path, statePath)
}

// catalog answers a query for a view. Its index changes when Consul's memdb would wake the query.
func (c *Consul) catalog(w http.ResponseWriter, r *http.Request) {
	request := parse("", r)
	name := r.URL.Path
	if request.Filter != "" && !strings.HasPrefix(name, nodeServicesPath) {
		name += "?" + request.Filter
	}
	c.mu.Lock()
	c.requests = append(c.requests, request)
	if c.views[name] == nil {
		if c.views == nil {
			c.views = make(map[string]*view)
		}
		c.views[name] = &view{index: c.index}
		c.refreshLocked(name)
	}
	c.mu.Unlock()
	c.block(r, request, func() reply {
		v := *c.views[name]
		if list, ok := v.body.(api.CatalogNodeServiceList); ok && request.Filter != "" { // it selects none
			v.body = api.CatalogNodeServiceList{Node: list.Node}
		}
		return reply{index: v.index, send: func(f *Fault) { f.answerWith(w, r, v.index, v.body, false) }}
	})
}

func (c *Consul) refreshAllLocked() {
	for path := range c.views {
		c.refreshLocked(path)
	}
}

// refreshLocked updates a view. name is a path, perhaps with "?" and a filter expression.
func (c *Consul) refreshLocked(name string) {
	path, filter, _ := strings.Cut(name, "?")
	var body, watched any
	switch path {
	case "/v1/catalog/services":
		body, watched = c.serviceNamesLocked(func(s *api.AgentService) bool { return selects(filter, s) })
	case "/v1/catalog/nodes":
		body = c.nodesLocked()
	default:
		if node, ok := strings.CutPrefix(path, nodeServicesPath); ok {
			all := c.nodeServicesLocked(node)
			body, watched = all, all.Services
		} else {
			body = c.checksLocked(strings.TrimPrefix(path, statePath))
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

// selects reports whether a filter expression for services selects one.
func selects(filter string, s *api.AgentService) bool {
	for _, parts := range metaFilter.FindAllStringSubmatch(filter, -1) {
		if s.Meta[parts[1]] != parts[2] {
			return false
		}
	}
	for _, parts := range metaKeyFilter.FindAllStringSubmatch(filter, -1) {
		if _, ok := s.Meta[parts[1]]; !ok {
			return false
		}
	}
	return s.Kind == api.ServiceKindTypical || !strings.Contains(filter, `ServiceKind == ""`)
}

// eachLocked calls f for each complete entry, sorted by service.
func (c *Consul) eachLocked(f func(service string, e *api.ServiceEntry)) {
	for _, name := range slices.Sorted(maps.Keys(c.services)) {
		for _, e := range c.services[name].entries {
			if e != nil && e.Node != nil && e.Service != nil {
				f(name, e)
			}
		}
	}
}

// serviceNamesLocked returns the tags of the selected instances by service, and as watched
// data all instances without their checks.
func (c *Consul) serviceNamesLocked(selected func(*api.AgentService) bool) (names map[string][]string, watched []*api.AgentService) {
	names = make(map[string][]string)
	c.eachLocked(func(service string, e *api.ServiceEntry) {
		watched = append(watched, e.Service)
		if !selected(e.Service) {
			return
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

func (c *Consul) nodesLocked() []*api.Node {
	byName := make(map[string]*api.Node)
	c.eachLocked(func(_ string, e *api.ServiceEntry) { byName[e.Node.Node] = e.Node })
	nodes := []*api.Node{}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		nodes = append(nodes, byName[name])
	}
	return nodes
}

func (c *Consul) nodeServicesLocked(node string) (answer api.CatalogNodeServiceList) {
	c.eachLocked(func(_ string, e *api.ServiceEntry) {
		if e.Node.Node == node {
			answer.Node = e.Node
			answer.Services = append(answer.Services, e.Service)
		}
	})
	return answer
}

func (c *Consul) checksLocked(state string) []*api.HealthCheck {
	checks := []*api.HealthCheck{}
	seen := make(map[[2]string]bool) // each instance of a node has the checks of the node
	c.eachLocked(func(service string, e *api.ServiceEntry) {
		for _, check := range e.Checks {
			id := [2]string{check.Node, check.CheckID}
			if check.Status == state && !seen[id] {
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

// restamp returns copies of entries whose registrations of the same id count from index 1, in their
// order.
func restamp(entries []*api.ServiceEntry) []*api.ServiceEntry {
	restamped := slices.Clone(entries)
	byID := make(map[string][]*api.AgentService)
	for n, e := range entries {
		if e == nil || e.Service == nil {
			continue
		}
		service := *e.Service
		restamped[n] = &api.ServiceEntry{Node: e.Node, Service: &service, Checks: e.Checks}
		byID[service.ID] = append(byID[service.ID], &service)
	}
	for _, registrations := range byID {
		slices.SortStableFunc(registrations, func(a, b *api.AgentService) int { return cmp.Compare(a.ModifyIndex, b.ModifyIndex) })
		for n, service := range registrations {
			service.ModifyIndex = uint64(n) + 1
		}
	}
	return restamped
}
