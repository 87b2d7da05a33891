package roll

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"sluice/admin"
)

// Plan is what a roll will do, in this order.
type Plan struct {
	Batches [][]admin.Peer // rolled one after the other
	Skipped []Instance     // done in a roll that this one continues
	Done    []Instance     // Skipped, and done ones that are gone since
	Ours    []Instance     // whose drains are of the roll that this one continues
}

// NewPlan returns the plan for the peers of a service, to continue a roll with some progress.
// Instances that get no requests come first: they cost nothing, and may be better afterwards.
func NewPlan(o Options, peers []admin.Peer, before Progress) (p Plan, err error) {
	p.Done, p.Ours = before.Done, before.Present
	var todo []admin.Peer
	all := registered(peers)
	for _, peer := range all {
		switch i := InstanceOf(peer); {
		case slices.Contains(p.Done, i):
			p.Skipped = append(p.Skipped, i)
		case peer.Node == "":
			return p, fmt.Errorf("%s is not registered in Consul: a roll cannot tell when it is back", i)
		default:
			todo = append(todo, peer)
		}
	}
	if len(todo) == 0 && len(p.Skipped) == 0 {
		return p, errors.New("the service has no instances")
	}
	for _, peer := range todo {
		if _, err := expand(o.Command, o.Service, peer); err != nil {
			return p, err
		}
	}
	rank := map[bool]int{true: 1} // of Used
	slices.SortStableFunc(todo, func(a, b admin.Peer) int {
		return cmp.Or(cmp.Compare(rank[a.Used], rank[b.Used]), cmp.Compare(o.groupOf(a), o.groupOf(b)), cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
	})
	for len(todo) > 0 {
		n := o.batchSize(todo)
		if n == len(all) && empties(all, todo) && !o.Force {
			return p, errNobodyLeft // waiting would change nothing
		}
		p.Batches, todo = append(p.Batches, todo[:n:n]), todo[n:]
	}
	return p, nil
}

// batchSize returns how many of the first peers are rolled together.
func (o Options) batchSize(todo []admin.Peer) (n int) {
	most := o.Parallel
	if most == 0 && o.Group == "" {
		most = 1
	}
	same := func(p admin.Peer) bool {
		return o.Group == "" || o.groupOf(p) == o.groupOf(todo[0]) && p.Used == todo[0].Used
	}
	for n < len(todo) && (most == 0 || n < most) && same(todo[n]) {
		n++
	}
	return n
}

// groupOf returns the value by which instances are rolled together.
func (o Options) groupOf(p admin.Peer) string {
	switch o.Group {
	case "":
		return ""
	case "node":
		return p.Node
	case "datacenter":
		return p.Datacenter
	}
	return p.Meta[o.Group]
}

// registered returns the peers that the registry has.
func registered(peers []admin.Peer) []admin.Peer {
	return slices.DeleteFunc(slices.Clone(peers), func(p admin.Peer) bool { return p.Leaving || p.Probation != nil })
}

// others returns the peers that get requests and are not in a batch.
func others(peers, batch []admin.Peer) []admin.Peer {
	return slices.DeleteFunc(registered(peers), func(p admin.Peer) bool {
		return !p.Used || slices.ContainsFunc(batch, func(b admin.Peer) bool { return b.Node == p.Node && b.ID == p.ID })
	})
}

// empties reports whether only instances of a batch get requests. If none does, none is lost.
func empties(peers, batch []admin.Peer) bool {
	return len(others(peers, batch)) == 0 && slices.ContainsFunc(registered(peers), func(p admin.Peer) bool { return p.Used })
}

// harmless are the characters that no shell gives a meaning to: who registers an instance must not
// be able to run a command of his own.
var harmless = regexp.MustCompile(`^[A-Za-z0-9_.:@%+/=\[\]~,][A-Za-z0-9_.:@%+/=\[\]~,-]*$`)

// expand returns a command with the placeholders {service}, {id}, {node}, {datacenter}, {address},
// {host} and {port} replaced.
func expand(command []string, service string, p admin.Peer) ([]string, error) {
	host, port, _ := net.SplitHostPort(p.Address) // sluice has made it
	values := map[string]string{
		"{service}": service, "{id}": p.ID, "{node}": p.Node, "{datacenter}": p.Datacenter,
		"{address}": p.Address, "{host}": host, "{port}": port,
	}
	expanded := slices.Clone(command)
	for name, value := range values {
		for n, word := range expanded {
			if !strings.Contains(command[n], name) {
				continue
			}
			if !harmless.MatchString(value) {
				return nil, fmt.Errorf("%s is %q in %s: a shell may take a part of it for a command, so it is not passed on", name, value, InstanceOf(p))
			}
			expanded[n] = strings.ReplaceAll(word, name, value)
		}
	}
	return expanded, nil
}
