package balancer

import (
	"maps"
	"slices"
	"time"

	"sluice/discovery"
)

// maxStandingDrains bounds the stored drains.
const maxStandingDrains = 1000

// StandingDrain is an operator's drain that outlives the instance's presence in the
// set.
type StandingDrain struct {
	ID    discovery.Key
	Node  string // of the last registration
	Why   string
	Since time.Time // when the drain was ordered
}

// StandingDrains returns the drains of absent instances, sorted by service, id and
// address. They take effect when the instance returns; see [Pool.SetReason].
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

func (p *Pool) rememberDrainLocked(peer *Peer, why string) {
	id := peer.ID
	since := time.Now()
	if before, known := p.drains[id]; known {
		since = before.Since
	}
	p.drains[id] = StandingDrain{ID: id, Node: peer.Instance().Node, Why: why, Since: since}
	if len(p.drains) > maxStandingDrains {
		p.forgetOldestDrainLocked()
	}
}

// forgetDrainLocked reports whether there was such a drain.
func (p *Pool) forgetDrainLocked(id discovery.Key) bool {
	_, known := p.drains[id]
	delete(p.drains, id)
	return known
}

// forgetOldestDrainLocked removes the oldest drain of an absent instance.
func (p *Pool) forgetOldestDrainLocked() {
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

// Drains returns all drains, of present instances too, in any order.
func (p *Pool) Drains() []StandingDrain {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.drains))
}

// AdoptDrains stores the drains of another process. Call it before the first Apply.
func (p *Pool) AdoptDrains(drains []StandingDrain) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range drains {
		p.drains[d.ID] = d
	}
}
