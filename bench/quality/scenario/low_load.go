package scenario

import (
	"math"
	"time"
)

// lowLoad returns the scenarios in which requests seldom meet at a peer, so that each peer should
// get what its weight gives.
func lowLoad(seed uint64, length Length, d Distribution) []Scenario {
	warmUp, duration := 10*time.Second, 2*time.Minute // also in tests, as there is little to simulate
	if length == Live {
		warmUp, duration = 4*time.Second, time.Minute
	}
	few := func(name, about string, perSecond float64, n int, f func(i int, p *Peer)) Scenario {
		s := Scenario{
			Name: name, About: about, Peers: make([]Peer, n),
			Routes: []Route{{Name: "all", Share: 1, Work: []Work{{1, 5 * time.Millisecond, d}}}}, Measured: 1,
			Rates: []Rate{{0, perSecond}}, Replicas: 1, LowLoad: true, WarmUp: warmUp, Duration: duration, Seed: seedOf(seed, name),
		}
		for i := range s.Peers {
			s.Peers[i].Slots = slots
			f(i, &s.Peers[i])
		}
		return s
	}
	silent := func(from, length time.Duration) []Interval { return []Interval{{from, from + length, math.Inf(1)}} }
	return []Scenario{
		few("first answer", "three peers with little to do, of which one takes 250 ms longer for its first request", 40, 3, func(i int, p *Peer) {
			if i == 2 {
				p.First = 250 * time.Millisecond
			}
		}),
		few("weights at low load", "two peers with little to do; the one with nine times the weight answers nothing for its first 80 ms", 200, 2, func(i int, p *Peer) {
			if i == 1 {
				p.Weight, p.Slowness = 9, silent(0, 80*time.Millisecond)
			}
		}),
		few("deploy", "three peers with little to do, each of which is replaced once, and answers nothing for 400 ms", 60, 3, func(i int, p *Peer) {
			start := warmUp + time.Duration(i)*(duration-warmUp)/3
			p.Starts, p.Slowness = []time.Duration{start}, silent(start, 400*time.Millisecond)
		}),
	}
}

// A share of the requests is read over shareWindow. A sound peer has it settled after its
// beginning.
const (
	shareWindow = 5 * time.Second
	settled     = 10 * time.Second
)

// Shares returns the least and the most that a sound peer got of what its weight gives it, in any
// five seconds from ten after its beginning, and after it began to be slow; 1 and 1 if none is
// sound. times has, by peer, when it got requests.
func (s *Scenario) Shares(times [][]time.Duration) (least, most float64) {
	least, most = 1, 1
	weights := 0
	for i := range s.Peers {
		weights += max(s.Peers[i].Weight, 1)
	}
	for from := settled; from+shareWindow <= s.Duration; from += shareWindow {
		counts, all := make([]int, len(s.Peers)), 0
		for i, of := range times {
			for _, at := range of {
				if at >= from && at < from+shareWindow {
					counts[i]++
					all++
				}
			}
		}
		for i := range s.Peers {
			if p := &s.Peers[i]; p.sound(from, from+shareWindow) {
				share := float64(counts[i]*weights) / float64(max(all, 1)*max(p.Weight, 1))
				least, most = min(least, share), max(most, share)
			}
		}
	}
	return least, most
}

// sound reports whether the peer works as usual from one time to another, and long enough before.
func (p *Peer) sound(from, to time.Duration) bool {
	for _, i := range p.Slowness {
		if i.From < to && (i.From > from-settled || i.To > from) {
			return false
		}
	}
	for _, at := range p.Starts {
		if at < to && at > from-settled {
			return false
		}
	}
	return p.Answer == Works
}
