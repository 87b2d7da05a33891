package consul

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
)

const (
	// nearnessEvery is how often the distances of data centres are read while a watch needs
	// them, and nearnessRetry how long after the first reading has failed.
	nearnessEvery = 30 * time.Second
	nearnessRetry = 5 * time.Second

	// The order changes after contradictions readings in a row in which a data centre is
	// clearly nearer than one before it: by a fifth and a millisecond.
	contradictions = 3
	clearlyShare   = 0.8
	clearlyLess    = time.Millisecond
)

// A nearness is the order of data centres by their distance from the agent's own, for all
// watches of a client. It is safe for concurrent use.
type nearness struct {
	client *consul.Client
	log    zerolog.Logger

	reading chan struct{} // capacity 1: has an element during a reading
	// Who has put the element guards the fields below.
	read    time.Time // when the latest reading began
	failing bool      // it has failed
	order   distanceOrder
}

// follow calls use with the order, nearest first, now and after later readings, until ctx ends.
func (n *nearness) follow(ctx context.Context, use func(order []string)) {
	for {
		order := n.latest(ctx)
		pause := nearnessEvery
		if order == nil {
			pause = nearnessRetry
		} else {
			use(order)
		}
		if consul.Sleep(ctx, pause) != nil {
			return
		}
	}
}

// latest returns the order after a reading, unless another watch has read it just now; nil:
// there was no reading that succeeded.
func (n *nearness) latest(ctx context.Context) []string {
	select {
	case n.reading <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	defer func() { <-n.reading }()
	every := nearnessEvery
	if n.order.names == nil {
		every = nearnessRetry
	}
	if now := time.Now(); now.Sub(n.read) >= every {
		n.read = now
		distances, err := readDistances(ctx, n.client)
		if ctx.Err() != nil {
			n.read = time.Time{} // of another watch, it may succeed
			return nil
		}
		n.recordError(err)
		n.record(distances)
	}
	return n.order.names
}

// recordError logs when failures begin and end.
func (n *nearness) recordError(err error) {
	switch {
	case err != nil && !n.failing:
		n.log.Warn().Err(err).Msg("the distances of data centres cannot be read: their order stays the same")
	case err == nil && n.failing:
		n.log.Info().Msg("the distances of data centres are read again")
	}
	n.failing = err != nil
}

// record processes a reading.
func (n *nearness) record(distances map[string]time.Duration) {
	if len(distances) == 0 || !n.order.record(distances) {
		return
	}
	event := n.log.Info().Strs("nearest_first", n.order.names)
	for _, name := range n.order.names {
		event = event.Dur("ms_to_"+name, n.order.distances[name])
	}
	event.Msg("data centres are ordered by distance")
}

// A distanceOrder is an order of data centres that follows their distances slowly.
type distanceOrder struct {
	names     []string // nearest first; never changed, but replaced
	distances map[string]time.Duration
	against   int // readings in a row that contradict the order
}

// record processes a reading, and reports whether the order has changed. A data centre that is
// not in the reading keeps its distance.
func (o *distanceOrder) record(reading map[string]time.Duration) (changed bool) {
	first := o.names == nil
	if first {
		o.distances = make(map[string]time.Duration)
	}
	var added []string
	for name, distance := range reading {
		if _, known := o.distances[name]; !known {
			added = append(added, name)
		}
		o.distances[name] = distance
	}
	slices.Sort(added)
	before := o.names
	o.names = slices.Concat(o.names, added)
	o.against++
	if !o.contradicted() {
		o.against = 0
	}
	if first || o.against == contradictions {
		o.against = 0
		slices.SortStableFunc(o.names, func(a, b string) int { return cmp.Compare(o.distances[a], o.distances[b]) })
	}
	return !slices.Equal(before, o.names)
}

// contradicted reports whether one is clearly nearer than one before it.
func (o *distanceOrder) contradicted() bool {
	farthest := time.Duration(0)
	for _, name := range o.names {
		distance := o.distances[name]
		if distance < time.Duration(float64(farthest)*clearlyShare)-clearlyLess {
			return true
		}
		farthest = max(farthest, distance)
	}
	return false
}

// readDistances returns the estimated round-trip times from the agent's data centre, which has
// 0: the median between the servers of both, by their network coordinates. So it
// hardly depends on the agent. It leaves out data centres without coordinates.
func readDistances(ctx context.Context, client *consul.Client) (map[string]time.Duration, error) {
	var names []string // the agent's first
	if err := readList(ctx, client, "catalog/datacenters", &names); err != nil {
		return nil, err
	}
	var maps []api.CoordinateDatacenterMap
	if err := readList(ctx, client, "coordinate/datacenters", &maps); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("consul %s: the list of data centres is empty", client.URL())
	}
	own := make(map[string][]api.CoordinateEntry) // by area
	for _, m := range maps {
		if m.Datacenter == names[0] {
			own[m.AreaID] = m.Coordinates
		}
	}
	distances := map[string]time.Duration{names[0]: 0}
	for _, m := range maps {
		var all []time.Duration
		for _, a := range own[m.AreaID] {
			for _, b := range m.Coordinates {
				if a.Coord != nil && b.Coord != nil && a.Coord.IsCompatibleWith(b.Coord) {
					all = append(all, a.Coord.DistanceTo(b.Coord))
				}
			}
		}
		if len(all) == 0 || m.Datacenter == names[0] {
			continue
		}
		slices.Sort(all)
		median := all[len(all)/2]
		if nearer, other := distances[m.Datacenter]; !other || median < nearer { // in another area
			distances[m.Datacenter] = median
		}
	}
	return distances, nil
}

// readList reads the list at a path that has no index.
func readList(ctx context.Context, client *consul.Client, path string, list any) error {
	_, err := client.Get(ctx, consul.Query{Path: path, WithoutIndex: true}, func(body io.Reader) error {
		return json.NewDecoder(body).Decode(list)
	})
	return err
}

// nearestFirst sorts list, named by data centre, by the order of the data centres.
// Those that are not in order stay behind.
func nearestFirst[T any](list []T, name func(T) string, order []string) {
	rank := func(e T) int {
		if n := slices.Index(order, name(e)); n >= 0 {
			return n
		}
		return len(order)
	}
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(rank(a), rank(b)) })
}
