//go:build linux

package main

import (
	"slices"
	"time"
)

// A share is read over a window, whose end moves by steps.
const (
	shareWindow = 500 * time.Millisecond
	shareStep   = 50 * time.Millisecond
)

// A peer that is slower than usual by this factor, for as long as this, is to lose its share.
const (
	slowBy  = 3
	slowFor = time.Second
)

// arrival is a request, or another attempt at it, at a peer.
type arrival struct {
	at   time.Duration
	peer int
}

// reactions returns, for each time in which a peer is slow, how long it has had half of its share
// or more, and, if it becomes fast again, how long it has had less than four fifths of it from then
// on. Both end with the load.
func reactions(p *play, arrivals []arrival) (less, again []time.Duration) {
	var all []time.Duration
	of := make([][]time.Duration, len(p.Peers))
	for _, a := range arrivals {
		all = append(all, a.at)
		of[a.peer] = append(of[a.peer], a.at)
	}
	share := func(peer int, at time.Duration) float64 {
		total := within(all, at-shareWindow, at)
		return float64(within(of[peer], at-shareWindow, at)) / float64(max(total, 1)) * float64(len(p.Peers))
	}
	for n, peer := range p.Peers {
		for _, slow := range peer.Slowness {
			to := min(slow.To, p.Duration)
			if slow.By < slowBy || to-slow.From < slowFor {
				continue
			}
			at := max(slow.From, shareWindow)
			for at < to && share(n, at) >= 0.5 {
				at += shareStep
			}
			less = append(less, at-slow.From)
			if to == p.Duration {
				continue
			}
			for at = to; at < p.Duration && share(n, at) < 0.8; {
				at += shareStep
			}
			again = append(again, at-to)
		}
	}
	return less, again
}

// within counts the times after from, to to.
func within(times []time.Duration, from, to time.Duration) int {
	first, _ := slices.BinarySearch(times, from+1)
	last, _ := slices.BinarySearch(times, to+1)
	return last - first
}
