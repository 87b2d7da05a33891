package balancer

import (
	"maps"
	"slices"
	"time"

	"sluice/discovery"
)

// maxStandingDrains bounds how many drains of absent instances are remembered.
const maxStandingDrains = 1000

// StandingDrain is an operator's drain of an instance that is not in the set. It
// takes effect when the instance returns.
type StandingDrain struct {
	ID    discovery.Key
	Node  string // that it was registered with last
	Why   string
	Since time.Time // when the drain was ordered
}

// StandingDrains returns the drains of instances that are not in the set, sorted
// by service, id and address. See [Pool.SetReason].
func (p *Pool) StandingDrains() []StandingDrain {
	p.mu.Lock()
	defer p.mu.Unlock()
	var standing []StandingDrain
	for id, d := range p.drains {
		if p.peers[id] == nil {
			standing = append(standing, d)
		}
	}
	slices.SortFunc(standing, func(a, b StandingDrain) int { return compareKeys(a.ID, b.ID) })
	return standing
}

// remember keeps an operator's drain for when the instance leaves and returns.
// The pool's mutex must be held.
func (p *Pool) remember(peer *Peer, why string) {
	id := peer.ID
	since := time.Now()
	if before, known := p.drains[id]; known {
		since = before.Since
	}
	p.drains[id] = StandingDrain{ID: id, Node: peer.Instance().Node, Why: why, Since: since}
	if len(p.drains) > maxStandingDrains {
		p.forgetOldest()
	}
}

// forget ends what remember began, and reports whether there was something. The
// pool's mutex must be held.
func (p *Pool) forget(id discovery.Key) bool {
	_, known := p.drains[id]
	delete(p.drains, id)
	return known
}

// forgetOldest forgets the oldest drain of an instance that is absent, if there
// is any.
func (p *Pool) forgetOldest() {
	var oldest *StandingDrain
	for id, d := range p.drains {
		if p.peers[id] == nil && (oldest == nil || d.Since.Before(oldest.Since)) {
			oldest = &d
		}
	}
	if oldest != nil {
		delete(p.drains, oldest.ID)
	}
}

// Drains returns all drains that stand, of present instances too, in any order:
// for a process that goes on with them.
func (p *Pool) Drains() []StandingDrain {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.drains))
}

// AdoptDrains has drains of another process stand here. It is for a pool that has
// not got its first set.
func (p *Pool) AdoptDrains(drains []StandingDrain) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range drains {
		p.drains[d.ID] = d
	}
}
