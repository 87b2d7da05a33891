package proxy

import (
	"runtime"
	"runtime/debug"
	"time"
)

// Memory after a rush of connections
//
// Serving requests allocates nothing, so that the garbage collector may not run
// for minutes. But what many connections at a time have left, grown stacks and
// pooled buffers, is given back only by a collection; two, because a pool lets
// go of its buffers at the second, and a stack is halved at each.

const (
	reclaimInterval = 2 * time.Second
	// reclaimConnections is how many new connections make a rush.
	reclaimConnections = 1000
)

// reclaim collects after each rush of connections, when it is over, until stop
// is closed. opened counts the connections so far. Connections that come at a
// steady rate are no rush, however many: no collection would find them over.
func reclaim(stop <-chan struct{}, opened func() uint32, collect func()) {
	ticker := time.NewTicker(reclaimInterval)
	defer ticker.Stop()
	last := opened()
	rush := uint32(0) // the connections of late: those of each interval count half of those after it
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		now := opened()
		if rush >= reclaimConnections && now-last < rush/10 {
			collect()
			rush, now = 0, opened()
		} else {
			rush = rush/2 + now - last
		}
		last = now
	}
}

func collectGarbage() {
	runtime.GC()
	debug.FreeOSMemory()
}
