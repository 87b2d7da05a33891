package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/discovery"
	"sluice/discovery/consul"
)

// askUses finds out what the services select that are wanted. Where tags
// alone select, the instances are here already; else Consul is asked as sluice
// would ask it, and also when there is nothing: it may be hidden.
func (d *Doctor) askUses(ctx context.Context, f *Facts) {
	for _, u := range d.options.Uses {
		if len(f.Only) > 0 && !slices.Contains(f.Only, u.Source.Service) {
			continue
		}
		u.Service, u.Selected = u.Source.Service, selected(u.Source)
		f.Uses = append(f.Uses, u)
	}
	for _, name := range f.Only {
		if !slices.ContainsFunc(f.Uses, func(u Use) bool { return u.Service == name }) {
			source := consul.ServiceOptions{Service: name, Datacenter: d.options.Datacenter}
			f.Uses = append(f.Uses, Use{Source: source, Service: name, Routed: true})
		}
	}
	_ = each(ctx, len(f.Uses), func(ctx context.Context, n int) error {
		u := &f.Uses[n]
		if d.listed(u.Source, f.Agent.Datacenter) {
			u.Listed, u.Serving = selects(f.Instances, u.Source)
		}
		if u.Listed == 0 {
			d.askUse(ctx, u)
		}
		return nil
	})
}

// listed reports whether the instances that o selects are among those that were
// gathered in the data centre that was looked at.
func (d *Doctor) listed(o consul.ServiceOptions, agents string) bool {
	here := cmp.Or(d.options.Datacenter, agents)
	elsewhere := slices.ContainsFunc(o.Datacenters, func(datacenter string) bool { return datacenter != here })
	return o.PreparedQuery == "" && o.Filter == "" && o.Peer == "" && !elsewhere &&
		cmp.Or(o.Namespace, d.options.Consul.Namespace) == d.options.Consul.Namespace &&
		cmp.Or(o.Partition, d.options.Consul.Partition) == d.options.Consul.Partition
}

// selects counts the instances that o selects, and those of them in service.
func selects(instances []Instance, o consul.ServiceOptions) (listed, serving int) {
	for _, i := range instances {
		if i.Service != o.Service || slices.ContainsFunc(o.Tags, func(tag string) bool { return !slices.Contains(i.Tags, tag) }) {
			continue
		}
		listed++
		if i.Unusable == "" && i.Serving() && !(o.PassingOnly && i.Status == discovery.StatusWarning) {
			serving++
		}
	}
	return listed, serving
}

// askUse asks Consul for what u selects.
func (d *Doctor) askUse(ctx context.Context, u *Use) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	answer, err := d.client.Health(ctx, u.Source)
	if err != nil {
		u.Refused, u.Forbidden = err.Error(), consul.Forbidden(err)
		return
	}
	u.Listed, u.Hidden = answer.Listed, answer.FilteredByACL
	for _, i := range answer.Instances {
		u.Service = i.Service // which a prepared query decides
		if i.Serving() {
			u.Serving++
		}
	}
}

// selected says what o demands beside the name.
func selected(o consul.ServiceOptions) string {
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
