package balancer

import (
	"fmt"
	"math"
	"slices"
	"time"

	"sluice/discovery"
)

// View is a pool at one moment: snapshot and peers fit together. It is immutable,
// except for the counters of the peers.
type View struct {
	Snapshot *Snapshot
	Peers    []PeerView // Snapshot.All, then Snapshot.Draining
}

// View returns the current view, without shares. It locks the pool, so it is for people and
// metrics, not for requests.
func (p *Pool) View() View {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.snapshot.Load()
	p.lately.count(s.All, time.Now())
	return newView(s, nil)
}

// ViewWithShares returns the current view. What View has counted until then tells which part of
// the requests each peer gets.
func (p *Pool) ViewWithShares() View {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, now := p.snapshot.Load(), time.Now()
	p.lately.count(s.All, now)
	return newView(s, p.lately[0].shares(s, &p.options, now))
}

func newView(s *Snapshot, shares map[*Peer]Share) View {
	v := View{s, make([]PeerView, 0, len(s.All)+len(s.Draining))}
	for _, peer := range slices.Concat(s.All, s.Draining) {
		share, known := shares[peer]
		if !known {
			share.Is = -1
		}
		v.Peers = append(v.Peers, PeerView{peer, peer.Used(), share, peer.condition.Load()})
	}
	return v
}

// PeerView is a peer in a [View]: it has what the methods of Peer returned at one moment.
type PeerView struct {
	Peer      *Peer // for its identity and counters
	Used      bool
	Share     Share
	condition *condition
}

func (v PeerView) Instance() discovery.Instance { return v.condition.instance }
func (v PeerView) Weight() int                  { return v.condition.weight() }

func (v PeerView) State() State      { return v.condition.state() }
func (v PeerView) Since() time.Time  { return v.condition.since }
func (v PeerView) Reasons() []string { return v.condition.reasonLines() }

// Leaving reports whether the set has the peer no more: only requests in flight keep it.
func (v PeerView) Leaving() bool { return v.condition.leaving }

// Share is which part of the requests of its service, or of its group, a peer should get and gets.
type Share struct {
	// Due is the part that its weight gives it, 0 to 1, if all peers of its tier were healthy and
	// alike, and the tier had the part of the requests that it has.
	Due float64
	// Is is its part of the attempts that began lately, mostly in the last 10 to 20 seconds; -1:
	// there were too few to say.
	Is float64
	// Why are the causes that are known, for people, if the two differ by more than chance.
	Why []string
}

const (
	// shareWindow is the least time over which attempts are counted, if the pool is looked at
	// often.
	shareWindow = 10 * time.Second
	// fewAttempts say nothing of shares.
	fewAttempts = 20
	// A share is as due within shareTolerance of it, and shareChance standard deviations.
	shareTolerance = 0.2
	shareChance    = 3
	// differs is by how many times latencies or loads differ, so that they say why shares do.
	differs = 1.25
)

// attempts are how many attempts had begun on each peer at a time.
type attempts struct {
	at    time.Time
	begun map[*Peer]uint64
}

// lately are the attempts at two earlier looks at a pool, shareWindow apart or more.
type lately [2]attempts

// count counts the attempts on peers, if it is time to.
func (l *lately) count(peers []*Peer, now time.Time) {
	if now.Sub(l[1].at) < shareWindow {
		return
	}
	begun := make(map[*Peer]uint64, len(peers))
	for _, p := range peers {
		begun[p] = attemptsOn(p)
	}
	l[0], l[1] = l[1], attempts{now, begun}
}

// attemptsOn returns how many attempts on a peer have begun.
func attemptsOn(p *Peer) uint64 { return p.Requests() + uint64(p.Inflight()) }

// shares returns the shares of the peers of s.All since before: of a peer that was not there then,
// all attempts are later. The pool's mutex is held.
func (before *attempts) shares(s *Snapshot, o *Options, now time.Time) map[*Peer]Share {
	begun := make(map[*Peer]uint64, len(s.All))
	for _, peer := range s.All {
		n := attemptsOn(peer)
		begun[peer] = n - min(before.begun[peer], n)
	}
	shares := make(map[*Peer]Share, len(s.All))
	for _, part := range s.parts() {
		total := uint64(0)
		for _, peer := range part.All {
			total += begun[peer]
		}
		r := part.averages()
		for i, all := range part.allInTiers {
			weights := 0
			for _, peer := range all {
				weights += dueWeight(peer, o)
			}
			for _, peer := range all {
				share := Share{Due: part.Tiers[i].Share * float64(dueWeight(peer, o)) / float64(max(weights, 1)), Is: -1}
				if total >= fewAttempts {
					share.Is = float64(begun[peer]) / float64(total)
					expected := share.Due * float64(total)
					if off := math.Abs(float64(begun[peer]) - expected); off > shareTolerance*expected && off > shareChance*math.Sqrt(expected) {
						share.Why = r.why(s, o, peer, share, before.at, now)
					}
				}
				shares[peer] = share
			}
		}
	}
	return shares
}

// dueWeight returns the weight of a healthy peer, 0 of one that is not in the subset.
func dueWeight(peer *Peer, o *Options) int {
	c := peer.condition.Load()
	if o.Subset.Size > 0 && !peer.used && c.eligible() {
		return 0
	}
	return c.usualWeight()
}

// averages are what peers are compared with: the usual latency of a part's peers, and their
// requests in flight by weight.
type averages struct {
	latency, load float64
}

func (part *Part) averages() (r averages) {
	var latencies []float64
	weights := 0
	for _, p := range part.Eligible {
		if l := float64(p.Latency()); l > 0 {
			latencies = append(latencies, l)
		}
		r.load += float64(p.Inflight())
		weights += p.Weight()
	}
	r.load /= float64(max(weights, 1))
	if slices.Sort(latencies); len(latencies) > 0 {
		r.latency = latencies[(len(latencies)-1)/2]
	}
	return r
}

// why returns why a peer has another share than is due to it.
func (r averages) why(s *Snapshot, o *Options, peer *Peer, share Share, from, now time.Time) (why []string) {
	c := peer.condition.Load()
	add := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	less := share.Is < share.Due
	if since := now.Sub(c.since); !from.IsZero() && c.since.After(from) || since < shareWindow {
		add("%s for only %d s", c.state(), int(since.Seconds()))
	}
	if !c.eligible() {
		return append(why, c.reasonLines()...)
	}
	switch limited := s.terms.perPeer; {
	case !less:
	case peer.load.isQuiesced():
		add("not in the subset")
	case withoutCopies(peer.load.Load()) >= int64(limited):
		add("at its limit of %d requests", limited)
	}
	if !c.warmFrom.IsZero() && less {
		add("slow start: %.0f %% of its weight", 100*o.SlowStart.factor(now.Sub(c.warmFrom)))
	}
	if c.factor.value() < 1 && less {
		add("weight: %s", c.factor.why)
	}
	latency, load := float64(peer.Latency()), float64(peer.Inflight())/float64(max(c.weight(), 1))
	round := func(l float64) time.Duration { return time.Duration(l).Round(10 * time.Microsecond) }
	switch byLatency := s.Policy == PolicyEWMA || s.Policy == PolicySticky; {
	case byLatency && less && latency > r.latency*differs:
		add("slower than the others: %v, usual is %v", round(latency), round(r.latency))
	case byLatency && !less && latency > 0 && latency*differs < r.latency:
		add("faster than the others: %v, usual is %v", round(latency), round(r.latency))
	case less && len(why) == 0 && load > r.load*differs && peer.Inflight() > 1:
		add("%d requests in flight, more than the others", peer.Inflight())
	}
	switch {
	case s.Policy == PolicySticky:
		add("sessions stay with their peers")
	case s.Policy == PolicyHash:
		add("keys stay with their peers")
	}
	if !less && len(why) == 0 {
		add("others get less")
	}
	return why
}
