package socket

import (
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// Memory after the start, and after a burst of connections
//
// Serving requests allocates nothing, so the garbage collector may not run for minutes. Only a
// collection frees what the start has left, and the grown stacks and pooled buffers of a burst. It
// takes two: a pool is emptied at the second one, and each one halves a stack.

const (
	reclaimInterval = 2 * time.Second
	// reclaimConnections is the number of new connections that counts as a burst.
	reclaimConnections = 1000
	// reclaimWork is the CPU time within an interval below which the process is quiet.
	reclaimWork = reclaimInterval / 10
	// reclaimQuiet is how many intervals the process must be quiet after a burst: one that comes
	// again within half a minute finds its memory. If 1,000 connections have to map it again, they
	// are answered after 135 ms in place of 50.
	reclaimQuiet = 15
)

// Reclaim calls collect after the start, once the process is quiet, because a collection delays
// requests, and after each burst of connections, once it has been quiet for half a minute. It
// returns when stop is closed. opened returns the number of connections so far, worked the CPU time
// so far. A steady rate of connections is not a burst.
func Reclaim(stop <-chan struct{}, opened func() uint32, worked func() time.Duration, collect func()) {
	ticker := time.NewTicker(reclaimInterval)
	defer ticker.Stop()
	last, lastWorked := opened(), worked()
	burst := uint32(0) // recent connections; the weight halves with each interval
	quiet := 1         // intervals without work until the memory of the start or of a burst is freed; 0: it is
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		now, nowWorked := opened(), worked()
		if burst >= reclaimConnections && now-last < burst/10 {
			burst, quiet = 0, reclaimQuiet
		} else {
			burst = burst/2 + now - last
		}
		if quiet > 0 && nowWorked-lastWorked < reclaimWork {
			if quiet--; quiet == 0 {
				collect()
				now, nowWorked = opened(), worked()
			}
		}
		last, lastWorked = now, nowWorked
	}
}

// ProcessorTime returns the CPU time of the process.
func ProcessorTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// ReturnMemory returns the memory that is not in use to the system.
func ReturnMemory() {
	runtime.GC()
	debug.FreeOSMemory()
	unmapProgram() // last: a collection reads tables of the program
}
