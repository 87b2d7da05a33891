//go:build linux

package main

import (
	"fmt"
	"time"
)

// print writes the figures of a fleet as a table in Markdown.
func (r fleetResult) print(o options) {
	scheme, asked, backend := "http", "the servers", ""
	if o.tls {
		scheme = "https"
	}
	if o.agents > 0 {
		asked = fmt.Sprintf("%d agents", o.agents)
	}
	if o.polling {
		backend += ", agents without streaming"
	}
	if o.cached {
		backend += ", cached"
	}
	fmt.Printf("\n#### %d replicas ask %s by %s%s; %d services × %d on %d nodes\n\n", o.replicas, asked, scheme, backend, o.services, o.instances, o.nodes)
	fmt.Println("| each | CPU idle, % | CPU of the start, s | CPU of a change, ms | MiB | sockets | goroutines | blocking queries | streams |")
	fmt.Println("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
	for _, name := range []string{"leader", "follower", "agent", "replica"} {
		held, before := r.held[name], r.before[name]
		if held.resident == 0 {
			continue
		}
		fmt.Printf("| %s | %s | %.2f | %s | %s | %s | %s | %s | %s |\n", name,
			pair(percent(r.idleBefore[name]), percent(r.idle[name]), 2), r.start[name].Seconds(), pair(milliseconds(r.changeOnly[name]), milliseconds(r.change[name]), 1),
			pair(before.resident/(1<<20), held.resident/(1<<20), 0), pair(before.sockets, held.sockets, 0), pair(before.goroutines, held.goroutines, 0),
			pair(before.blocking, held.blocking, 0), pair(before.streams, held.streams, 0))
	}
	fmt.Printf("\nA replica: %.2f queries/s and %.0f bytes/s at rest, %.1f queries and %.1f kB for a change; %d connections, %d goroutines, %.1f MiB heap. "+
		"The last replica had all sets after %.1f s, and a change after %.0f ms (median; at most %.0f ms).\n",
		r.idleQueries, r.idleBytes, r.queries, r.bytes/1000, r.replica.Connections, r.replica.Goroutines, float64(r.replica.HeapBytes)/(1<<20),
		r.first.Seconds(), milliseconds(r.median), milliseconds(r.last))
	if r.loss != nil {
		fmt.Printf("\nThe leader was killed: the next change reached the last replica after %.1f s. In %v each replica sent %.0f queries; CPU in s: follower %.2f, agent %.2f, replica %.2f.\n",
			r.lossTime.Seconds(), o.loss, r.lossQueries, r.loss["follower"].Seconds(), r.loss["agent"].Seconds(), r.loss["replica"].Seconds())
	}
}

// pair returns a figure without replicas and one with them.
func pair(before, after float64, digits int) string {
	return fmt.Sprintf("%.*f → %.*f", digits, before, digits, after)
}

func percent(second time.Duration) float64      { return 100 * second.Seconds() }
func milliseconds(change time.Duration) float64 { return 1000 * change.Seconds() }
