package admin

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/balancer"
	"sluice/balancer/reading"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/observe/excerpt"
	"sluice/observe/panics"
	"sluice/tags"
)

// Comparison compares Consul's answer for a service with its pool.
type Comparison struct {
	Service string `json:"service"` // sluice's name for it
	Error   string `json:"error,omitempty"`

	Index         uint64  `json:"index"`
	KnownLeader   bool    `json:"known_leader"`
	LastContactMS float64 `json:"last_contact_ms"` // since the server heard from the leader

	Same      bool               `json:"same"` // no instance has a difference
	Instances []ComparedInstance `json:"instances"`
}

// Differences between Consul and the pool.
const (
	onlyInConsul = "only_in_consul"
	onlyInPool   = "only_in_pool"
	differs      = "differs"
	skipped      = "skipped"
)

// ComparedInstance is an instance in Consul and in the pool.
type ComparedInstance struct {
	ID      string `json:"id"`
	Node    string `json:"node"`
	Address string `json:"address"`

	// Difference is empty, only_in_consul, only_in_pool, differs or skipped; Fields names the
	// fields that differ, and Reason says why sluice does not use what it skips.
	Difference string   `json:"difference"`
	Fields     []string `json:"fields,omitempty"`
	Reason     string   `json:"reason,omitempty"`

	Consul *Registered `json:"consul"` // null: only_in_pool, or skipped
	Pool   *Pooled     `json:"pool"`   // null: only_in_consul, or skipped
}

type Registered struct {
	Status string            `json:"status"`
	Detail string            `json:"detail,omitempty"` // why it is not passing
	Weight int               `json:"weight"`
	Tags   []string          `json:"tags"`
	Meta   map[string]string `json:"meta,omitempty"`
}

type Pooled struct {
	Registered
	State   string   `json:"state"`
	Reasons []string `json:"reasons"`
}

func describeInstance(i discovery.Instance) Registered {
	return Registered{Status: i.Status.String(), Detail: i.Detail, Weight: i.Weight, Tags: each(i.Tags, tags.Masked), Meta: i.Meta}
}

const (
	consulTimeout = 5 * time.Second // for all queries of a request
	consulQueries = 8               // concurrent
)

func (h serviceHandler) consulOne(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), consulTimeout)
	defer cancel()
	name, err := h.nameOf(r.PathValue("service"))
	if err != nil {
		writeFailure(w, err)
		return
	}
	var answer any
	if _, raw := r.URL.Query()["raw"]; raw {
		answer, err = h.Raw(ctx, name)
		if err != nil {
			answer = map[string]string{"error": err.Error()}
		}
	} else {
		answer, err = h.compare(ctx, name)
	}
	switch {
	case errors.Is(err, ErrNotInConsul):
		writeFailure(w, refuse(http.StatusNotFound, "service %q: %w", name, err))
	case err != nil:
		writeJSON(w, http.StatusBadGateway, answer)
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}

// nameOf returns sluice's name for a service, which has that name or, if none has, that name in
// Consul.
func (h serviceHandler) nameOf(name string) (string, error) {
	if slices.Contains(namesOf(reading.Sorted(h.Pools())), name) {
		return name, nil
	}
	switch named := h.Named(name); len(named) {
	case 0:
		return name, nil
	case 1:
		return named[0], nil
	default:
		return "", refuse(http.StatusNotFound, "service %q: it has several names here: want one of %s", name, strings.Join(named, ", "))
	}
}

// consulAll answers /consul with every service that comes from Consul.
func (h serviceHandler) consulAll(r *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), consulTimeout)
	defer cancel()
	names := namesOf(reading.Sorted(h.Pools()))

	answers := make([]*Comparison, len(names)) // nil: not in Consul
	var asking errgroup.Group
	asking.SetLimit(consulQueries)
	for i, name := range names {
		asking.Go(func() error {
			defer panics.Contain(panics.Task, nil)
			if c, err := h.compare(ctx, name); !errors.Is(err, ErrNotInConsul) {
				answers[i] = &c
			}
			return nil
		})
	}
	_ = asking.Wait()
	return slices.DeleteFunc(answers, func(c *Comparison) bool { return c == nil }), nil
}

// compare queries Consul for a service. On an error the comparison contains it.
func (h serviceHandler) compare(ctx context.Context, service string) (Comparison, error) {
	answer, err := h.Consul(ctx, service)
	if err != nil {
		return Comparison{Service: service, Error: err.Error(), Instances: []ComparedInstance{}}, err
	}
	c := Comparison{
		Service:       service,
		Index:         answer.Index,
		KnownLeader:   answer.KnownLeader,
		LastContactMS: float64(answer.LastContact) / float64(time.Millisecond),
	}
	var present, leaving []balancer.PeerView
	for _, pool := range h.Pools() {
		if pool.Name == service {
			view := pool.View()
			n := len(view.Snapshot.All)
			present, leaving = append(present, view.Peers[:n]...), append(leaving, view.Peers[n:]...)
		}
	}
	used, others := usedOf(answer)
	c.Instances = compareInstances(used, append(present, leaving...))
	for _, s := range others {
		c.Instances = append(c.Instances, ComparedInstance{
			ID: excerpt.Of(s.ID, maxShown), Node: excerpt.Of(s.Node, maxShown), Difference: skipped, Reason: s.Reason,
		})
	}
	c.Same = !slices.ContainsFunc(c.Instances, func(i ComparedInstance) bool { return i.Difference != "" })
	return c, nil
}

// maxShown limits the id and the node of an instance that sluice skips.
const maxShown = 100

// usedOf returns the instances that sluice may use, and the others.
func usedOf(a consulsource.Answer) (used []discovery.Instance, others []consulsource.Skipped) {
	others = slices.Clone(a.Skipped)
	for _, i := range a.Instances {
		if why := i.Excess(); why != "" {
			others = append(others, consulsource.Skipped{ID: i.ID, Node: i.Node, Reason: why})
		} else {
			used = append(used, i)
		}
	}
	return used, others
}

// compareInstances joins instances and peers by identity, sorted. Of several peers with one
// identity, the first counts: others are of a pool of the service that was removed and still
// drains.
func compareInstances(instances []discovery.Instance, peers []balancer.PeerView) []ComparedInstance {
	all := make(map[discovery.Key]*ComparedInstance)
	at := func(i discovery.Instance) *ComparedInstance {
		k := i.Key()
		if all[k] == nil {
			all[k] = &ComparedInstance{ID: k.ID, Node: i.Node, Address: k.Address}
		}
		return all[k]
	}
	for _, i := range instances {
		at(i).Consul = new(describeInstance(i))
	}
	for _, p := range peers {
		if c := at(p.Instance()); c.Pool == nil {
			c.Pool = &Pooled{describeInstance(p.Instance()), p.State().String(), list(p.Reasons())}
		}
	}

	compared := make([]ComparedInstance, 0, len(all))
	for _, c := range all {
		c.mark()
		compared = append(compared, *c)
	}
	slices.SortFunc(compared, func(a, b ComparedInstance) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address))
	})
	return compared
}

func (c *ComparedInstance) mark() {
	switch {
	case c.Pool == nil:
		c.Difference = onlyInConsul
		return
	case c.Consul == nil:
		c.Difference = onlyInPool
		return
	}
	differ := func(field string, same bool) {
		if !same {
			c.Difference = differs
			c.Fields = append(c.Fields, field)
		}
	}
	differ("status", c.Consul.Status == c.Pool.Status)
	differ("weight", c.Consul.Weight == c.Pool.Weight)
	differ("tags", slices.Equal(c.Consul.Tags, c.Pool.Tags))
	differ("meta", maps.Equal(c.Consul.Meta, c.Pool.Meta))
}
