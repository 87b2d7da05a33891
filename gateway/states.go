package gateway

import (
	"fmt"
	"maps"
	"slices"

	"sluice/balancer"
	"sluice/discovery"
)

// states returns the states of the watches of registries, by service, complete: with the instances on
// probation that have failed, which only pools know. A new process, the snapshot and a service with a
// new name get the same.
func (g *Gateway) states() map[string]discovery.WatchState {
	states := g.discovery.States()
	for name, state := range states {
		if service := g.services.get(name); service != nil {
			state.Set = service.pool.WithFailures(state.Set)
			states[name] = state
		}
	}
	return states
}

// knownOf returns what states have about a source: the state of the service itself, else that of
// another service with the same source, whose name it may have had before.
func knownOf(states map[string]discovery.WatchState, service, source string, spec sourceSpec) (discovery.WatchState, bool) {
	if state := states[service]; state.Known && state.Source == source {
		return state, true
	}
	for _, other := range slices.Sorted(maps.Keys(states)) {
		if state := states[other]; state.Known && state.Source == source {
			state.Set = named(state.Set, service, spec)
			return state, true
		}
	}
	return discovery.WatchState{}, false
}

// named returns a set for a service of another name. In Consul's catalog instances have a service of
// their own; elsewhere that of sluice.
func named(set []discovery.Instance, service string, spec sourceSpec) []discovery.Instance {
	if spec.consul != nil {
		return set
	}
	set = slices.Clone(set)
	for n := range set {
		set[n].Service = service
	}
	return discovery.Normalize(set)
}

// watch begins to watch the new sources of p.
func (g *Gateway) watch(p *plan) {
	var states map[string]discovery.WatchState
	if g.table.Load() != nil { // else nothing is watched yet
		states = g.states()
	}
	for _, name := range slices.Sorted(maps.Keys(p.sources)) {
		source := p.sources[name]
		known, ok := knownOf(states, name, fmt.Sprint(source), p.specs[name])
		if !ok {
			g.discovery.Watch(name, source)
			continue
		}
		known.Fresh = false // until its own source confirms it
		g.discovery.Watch(name, source, known)
	}
}

// notePeer passes an event of a pool on. The pool's mutex is held.
func (g *Gateway) notePeer(e balancer.Event) {
	g.journal.Note(e)
	if g.snapshot != nil && e.Kind == balancer.EventState && !e.Peer.Instance().Probation.IsZero() {
		g.snapshot.Changed() // it has failed for good, which is part of the state
	}
}
