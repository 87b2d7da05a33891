package consul

import "time"

// way is how an overview finds out what changed.
type way uint8

const (
	byNodes way = iota
	byChecks
	byNames
)

const (
	// fewNodes: for so many, one answer that lists every check is cheaper than one
	// that lists the services of a node.
	fewNodes = 4

	// smallCatalog is how many checks, or instances, Consul lists in 10 to 20 ms
	// of its time.
	smallCatalog = 3000

	// overviewReserve is how many of the connections an overview leaves to the
	// queries for single services, and how many of these there are at a time.
	overviewReserve = 16

	// An overview changes its way after noiseLimit answers that brought only
	// noise, less one for each second, and back after noiseTime.
	noiseLimit = 20
	noiseTime  = 10 * time.Minute

	// After bareLimit changes of instances that no check shows, more of them are
	// expected for noiseTime. One is forgotten in each bareFade.
	bareLimit = 3
	bareFade  = time.Minute
)

// choose returns the names of all nodes, nil if they are not known yet, and the
// way that suits.
func (v *overview) choose(now time.Time) ([]string, way) {
	limit, _ := v.client.gate.size()
	v.mu.Lock()
	defer v.mu.Unlock()
	switch nodes, room := len(v.names), limit-overviewReserve; {
	case nodes > fewNodes && nodes <= room:
		return v.names, byNodes
	case nodes <= fewNodes && 2*nodes <= room && v.size <= smallCatalog && v.bareLocked(now):
		return v.names, byNodes
	case v.size <= smallCatalog && now.After(v.noisy):
		return v.names, byChecks
	}
	return v.names, byNames
}

// resize takes note of the size of the catalog.
func (v *overview) resize(size int) {
	v.mu.Lock()
	before := v.size
	v.size = size
	v.mu.Unlock()
	if (before > smallCatalog) != (size > smallCatalog) || before == 0 {
		v.reconsider()
	}
}

// small reports whether the catalog is known to be small.
func (v *overview) small() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.size > 0 && v.size <= smallCatalog
}

// disturbed takes note of too much noise.
func (v *overview) disturbed() {
	v.mu.Lock()
	v.noisy = time.Now().Add(noiseTime)
	v.mu.Unlock()
	v.reconsider()
}

// sawBare takes note of an instance that changed while its checks did not, or
// that has none.
func (v *overview) sawBare() {
	if v.bares.Allow() {
		return
	}
	v.mu.Lock()
	v.bareEnd = time.Now().Add(noiseTime)
	v.mu.Unlock()
	v.reconsider()
}

// isBare reports whether more such changes are to be expected.
func (v *overview) isBare(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.bareLocked(now)
}

func (v *overview) bareLocked(now time.Time) bool { return now.Before(v.bareEnd) || 2*v.bare > v.count }

// countBareLocked counts a rider whose instances have no checks, or no longer.
func (v *overview) countBareLocked(in bool) {
	if in {
		v.bare++
	} else {
		v.bare--
	}
}
