package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/consul"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
)

// queryUses counts the instances that the used services select: among the gathered ones if
// tags alone select, else with the query that sluice would send. It also queries if
// there are none, since ACLs may hide them.
func (d *Doctor) queryUses(ctx context.Context, f *Facts) {
	for _, u := range d.options.Uses {
		if len(f.Only) > 0 && !slices.Contains(f.Only, u.Source.Service) {
			continue
		}
		u.Service, u.Selected = u.Source.Service, selected(u.Source)
		f.Uses = append(f.Uses, u)
	}
	for _, name := range f.Only {
		if !slices.ContainsFunc(f.Uses, func(u Use) bool { return u.Service == name }) {
			source := consulsource.ServiceOptions{Service: name, Datacenter: d.options.Datacenter}
			f.Uses = append(f.Uses, Use{Source: source, Service: name, Routed: true})
		}
	}
	_ = each(ctx, maxQueries, len(f.Uses), func(ctx context.Context, n int) error {
		u := &f.Uses[n]
		if d.listed(u.Source, f.Agent.Datacenter) {
			u.Instances, u.Serving = selects(f.Instances, u.Source)
			u.Listed = len(u.Instances)
		}
		if u.Listed == 0 {
			d.queryUse(ctx, u)
		}
		return nil
	})
}

// listed reports whether the gathered instances include all that o selects.
func (d *Doctor) listed(o consulsource.ServiceOptions, agents string) bool {
	here := cmp.Or(d.options.Datacenter, agents)
	elsewhere := slices.ContainsFunc(o.Datacenters, func(datacenter string) bool { return datacenter != here })
	return o.PreparedQuery == "" && o.Filter == "" && o.Peer == "" && !elsewhere &&
		cmp.Or(o.Namespace, d.options.Consul.Namespace) == d.options.Consul.Namespace &&
		cmp.Or(o.Partition, d.options.Consul.Partition) == d.options.Consul.Partition
}

// selects returns the instances that o selects, and how many of them are in service.
func selects(instances []Instance, o consulsource.ServiceOptions) (selected []Instance, serving int) {
	for _, i := range instances {
		if i.Service != o.Service || slices.ContainsFunc(o.Tags, func(tag string) bool { return !slices.Contains(i.Tags, tag) }) {
			continue
		}
		selected = append(selected, i)
		if i.Unusable == "" && i.Serving() && !(o.PassingOnly && i.Status == discovery.StatusWarning) {
			serving++
		}
	}
	return selected, serving
}

func (d *Doctor) queryUse(ctx context.Context, u *Use) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	answer, err := consulsource.Health(ctx, d.client, u.Source)
	if err != nil {
		u.Refused, u.Forbidden = err.Error(), consul.Forbidden(err)
		return
	}
	u.Listed, u.Hidden = answer.Listed, answer.FilteredByACL
	for _, i := range answer.Instances {
		u.Service = i.Service // which a prepared query decides
		u.Instances = append(u.Instances, Instance{Instance: i})
		if i.Serving() {
			u.Serving++
		}
	}
}

// addressTag returns the tag of the addresses by which the configuration uses a service.
func (d *Doctor) addressTag(service string) string {
	i := slices.IndexFunc(d.options.Uses, func(u Use) bool { return u.Source.Service == service && u.Source.PreparedQuery == "" })
	if i < 0 {
		return ""
	}
	return d.options.Uses[i].Source.Address
}

// selected describes the conditions of o other than the name.
func selected(o consulsource.ServiceOptions) string {
	var words []string
	if o.PreparedQuery != "" {
		words = append(words, fmt.Sprintf("prepared query %s", o.PreparedQuery))
	}
	if len(o.Tags) > 0 {
		words = append(words, "tags "+strings.Join(o.Tags, ", "))
	}
	if o.Filter != "" {
		words = append(words, "filter "+o.Filter)
	}
	if len(o.Datacenters) > 0 {
		words = append(words, "data centres "+strings.Join(o.Datacenters, ", "))
	}
	if o.Peer != "" {
		words = append(words, "peer "+o.Peer)
	}
	return strings.Join(words, "; ")
}
