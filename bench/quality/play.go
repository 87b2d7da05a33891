//go:build linux

package main

import (
	"slices"
	"strings"
	"time"

	"sluice/bench/quality/scenario"
)

// play is what happens in a run: a scenario with a seed, the same for every proxy.
type play struct {
	scenario.Scenario
	name     string // for flags and files: "bimodal-by-route-constant"
	about    string
	requests []scenario.Request
}

// plays returns all scenarios with a seed: with nearly constant service times, and, where one proxy
// balances and requests meet, with exponential ones.
func plays(seed uint64, length scenario.Length) []*play {
	var all []*play
	for _, d := range []scenario.Distribution{scenario.Constant, scenario.Exponential} {
		for _, s := range scenario.All(seed, length, d) {
			if (s.Replicas > 1 || s.LowLoad) && d == scenario.Exponential {
				continue
			}
			all = append(all, &play{
				Scenario: s, about: s.About + "; service times are " + strings.Replace(d.String(), "constant", "nearly constant", 1),
				name: strings.NewReplacer(", ", "-", " ", "-").Replace(s.Name) + "-" + d.String(),
			})
		}
	}
	return all
}

// draw draws the requests.
func (p *play) draw() { p.requests = p.Requests() }

// measured reports whether a request counts: after the warm-up, and of the measured routes. Others
// are there to disturb those.
func (p *play) measured(r scenario.Request) bool { return r.At >= p.WarmUp && r.Route < p.Measured }

// queue is the work of a peer, in the order of arrival. When a request arrives, it is known when it
// ends.
type queue struct {
	peer  *scenario.Peer
	free  []time.Duration // when each slot has done what it has
	first *time.Duration  // what the next request takes in addition
}

func newQueue(p *scenario.Peer) queue {
	first := p.First
	return queue{p, make([]time.Duration, p.Slots), &first}
}

// idle reports whether work that arrives now begins at once.
func (q queue) idle(now time.Duration) bool { return slices.Min(q.free) <= now }

// next returns when work that arrives now would end.
func (q queue) next(now, work time.Duration) time.Duration {
	return q.peer.End(max(now, slices.Min(q.free)), work)
}

// add takes work, and returns when it ends.
func (q queue) add(now, work time.Duration) time.Duration {
	end := q.next(now, work+*q.first)
	*q.first = 0
	q.free[slices.Index(q.free, slices.Min(q.free))] = end
	return end
}

// best returns the latencies of one queue in front of all slots, which knows all speeds, now and
// later, and all work: each request has the slot that is done with it first. No proxy knows that
// much.
func (p *play) best() []time.Duration {
	var queues []queue
	for i := range p.Peers {
		if p.Peers[i].Answer == scenario.Works {
			queues = append(queues, newQueue(&p.Peers[i]))
		}
	}
	latencies := make([]time.Duration, len(p.requests))
	for n, r := range p.requests {
		first := slices.MinFunc(queues, func(a, b queue) int { return int(a.next(r.At, r.Work) - b.next(r.At, r.Work)) })
		latencies[n] = first.add(r.At, r.Work) - r.At
	}
	return latencies
}
