package balancer

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A request can make every peer fail: a client that asks for such an URL must not cost the others
// their peers. So a failure after the connection was made counts only for a peer that does worse
// than others at like requests, those with the same Outcome.Endpoint.
//
// The pool begins to look when a peer fails, and ends after likeTime without a failure. Until then
// a success has nothing to do with it: peers that are looked at have a bit in the word that a
// success reads anyway.

const (
	// likeEndpoints is how many endpoints a pool compares at a time. One that fails takes the
	// place of another one.
	likeEndpoints = 64
	likeTime      = 10 * time.Second

	// looked is the bit of a peer's streak that says that its successes are looked at.
	looked = 1 << 63
)

// alike has the latest results at like requests. It is safe for concurrent use without a lock; a
// result may be lost.
type alike struct {
	until     atomic.Int64 // the end of the look, by nanotime; 0: nobody looks
	endpoints [likeEndpoints]likes
	all       results // whatever was asked
}

// likes are the latest results at one endpoint.
type likes struct {
	endpoint atomic.Uint32
	results  results
	// alone is a peer that has failed before another one was asked; nil: there is none.
	alone atomic.Pointer[Peer]
}

// results are the latest eight, the last one in the lowest byte: above a bit for a failure is the
// number of the peer, not 0.
type results struct{ word atomic.Uint64 }

// add adds a result and returns the word.
func (r *results) add(peer uint8, failed bool) uint64 {
	one := uint64(peer) << 1
	if failed {
		one |= 1
	}
	for {
		word := r.word.Load()
		if next := word<<8 | one; r.word.CompareAndSwap(word, next) {
			return next
		}
	}
}

// A comparison of a peer with the others, by the latest results.
type comparison struct {
	own       int  // how often the peer has failed in a row
	good, bad int  // how many others have succeeded and failed the last time
	mixed     bool // another one has done both: it depends on the request
}

// worse reports whether the others leave no doubt that the peer, which has failed, does worse.
func (c *comparison) worse() bool { return c.good > 0 && c.good >= c.bad && !c.mixed }

func compare(word uint64, peer uint8) (c comparison) {
	var seen, last [2][2]uint64 // others that have failed, and succeeded, by number
	worked := false
	for ; word != 0; word >>= 8 {
		number, result := uint8(word)>>1, word&1
		half, bit := number/64, uint64(1)<<(number%64)
		if number == peer {
			if worked = worked || result == 0; !worked {
				c.own++
			}
			continue
		}
		if (last[0][half]|last[1][half])&bit == 0 {
			last[result][half] |= bit
		}
		seen[result][half] |= bit
	}
	for half := range last[0] {
		c.good += bits.OnesCount64(last[0][half])
		c.bad += bits.OnesCount64(last[1][half])
		c.mixed = c.mixed || seen[0][half]&seen[1][half] != 0
	}
	return c
}

// likesOf returns the place of an endpoint.
func (a *alike) likesOf(endpoint uint32) *likes { return &a.endpoints[endpoint%likeEndpoints] }

// failed notes that the peer has failed. It returns how many failures in a row there were at least,
// with those that did not count when they came; 0: this one does not count.
func (a *alike) failed(p *Peer, endpoint uint32) int {
	if a.until.Swap(nanotime()+int64(likeTime)) == 0 {
		a.forget()
		p.pool.snapshot.Load().look(true)
	}
	row := p.row.Add(1)
	l := a.likesOf(endpoint)
	if l.endpoint.Swap(endpoint) != endpoint {
		l.results.word.Store(0)
		l.alone.Store(nil)
	}
	all := a.all.add(p.number, true)
	c := compare(l.results.add(p.number, true), p.number)
	if c.good+c.bad > 0 {
		if p.alone.Store(0); c.worse() {
			return max(min(c.own, int(row)), 1)
		}
		return 0
	}
	l.alone.Store(p)
	// Nobody else was asked for this. A peer that fails at one thing after the other, while others
	// do something well, is worse, too.
	if last := p.alone.Swap(endpoint); last != 0 && last != endpoint {
		if c := compare(all, p.number); c.worse() {
			return 1
		}
	}
	return 0
}

// worked notes a success, at the time answered.
func (a *alike) worked(p *Peer, endpoint uint32, answered int64) {
	p.alone.Store(0)
	if until := a.until.Load(); answered > until {
		if until != 0 && a.until.CompareAndSwap(until, 0) {
			p.pool.snapshot.Load().look(false)
		}
		return
	}
	a.all.add(p.number, false)
	l := a.likesOf(endpoint)
	if endpoint == 0 || l.endpoint.Load() != endpoint {
		return
	}
	word := l.results.add(p.number, false)
	if other := l.alone.Load(); other != nil && other != p && l.alone.CompareAndSwap(other, nil) {
		if c := compare(word, other.number); c.own > 0 && c.worse() {
			other.grow(unpackFailure(other.lastClass.Load()), min(c.own, int(other.row.Load())))
		}
	}
}

// forget forgets all results: nobody has looked since.
func (a *alike) forget() {
	a.all.word.Store(0)
	for i := range a.endpoints {
		a.endpoints[i].results.word.Store(0)
		a.endpoints[i].alone.Store(nil)
	}
}

// look begins or ends the look at the results of the peers.
func (s *Snapshot) look(begin bool) {
	for _, peers := range [...][]*Peer{s.All, s.Draining} {
		for _, peer := range peers {
			if begin {
				peer.row.Store(0)
				peer.streak.Or(looked)
			} else {
				peer.streak.And(^uint64(looked))
			}
		}
	}
}
