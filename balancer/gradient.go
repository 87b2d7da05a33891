package balancer

import (
	"math"
	"time"
)

const (
	// tolerance is by how much answers may be later than in calm times before a tier counts as
	// overloaded: a third of the time of a request may be the wait in a queue.
	tolerance = 1.5
	// slack is a delay that is no overload, however quick answers are in calm times.
	slack = 5 * time.Millisecond
	// A window lasts for at least windowTime, and until it has windowSamples.
	windowTime    = 100 * time.Millisecond
	windowSamples = 40
	// longestWindow is how long a window may last: what is seen in a longer one says little of
	// any time in it.
	longestWindow = 10 * time.Second
	// standstill is how long no answer may come at a limit.
	standstill = time.Second
	// calmMemory is the time constant by which calm windows are forgotten.
	calmMemory = 30 * time.Second
	// calmSamples are known before anything counts as overload.
	calmSamples = 200
	// growth is by how much a limit grows in a calm window.
	growth = 1.05
	// unlimited is the limit of a tier that has none.
	unlimited = quiesced
)

// gradient finds the limit of requests in flight at which a tier does as much as it can without a
// queue that grows. It is Netflix's idea, the gradient of latency
// (github.com/Netflix/concurrency-limits, Gradient2Limit), with four differences:
//
//   - While no overload is seen there is no limit at all, and so none to be too low in calm times.
//   - What is compared is a quarter and the half of the answers, not their mean: a peer that
//     pauses, and a route whose few requests take long, do not move both.
//   - The limit is set in one step, by Little's law: the answers per second times the time that a
//     request takes in calm times, as BBR does (Cardwell et al., "BBR: Congestion-Based Congestion
//     Control", 2016). A step by the latency would fall too low, since what is answered while a
//     queue drains has waited in it.
//   - A limit that does not make answers quicker was wrong: nothing has waited, so what is seen is
//     the normal now. That is how a service that became slower for good, without being overloaded,
//     gets rid of it. Cinnamon asks by the covariance of throughput and requests in flight
//     (uber.com/blog/cinnamon-auto-tuner-adaptive-concurrency-in-the-wild).
//
// It reads no clock and is used by one goroutine at a time. The zero value has seen nothing.
type gradient struct {
	calm  [numLatencies]float64 // answers of calm windows, fewer the older
	limit float64               // 0: none

	overloads int     // windows in a row with late answers
	changed   int64   // when limit was last lowered, by nanotime
	inflight  float64 // before the limit was first lowered in this overload; 0: there is none
	worst     float64 // lateness before the limit could show
}

// observe adds the answers of a window of that many nanoseconds and returns the limit from now on,
// at least floor. held: the limit has stopped a request in it.
func (g *gradient) observe(w *Latencies, length int64, now int64, held bool, floor int) int64 {
	lateness := g.lateness(w)
	switch {
	case lateness <= 1:
		g.overloads, g.inflight = 0, 0
		if g.limit > 0 && held {
			g.limit *= growth
			break // to learn from these would be to get used to the queue that the limit allows
		}
		g.learn(w, length)
		if g.limit > 0 {
			if g.limit *= 1 + 2*(growth-1); g.limit > 4*rate(w, length)*mean(w[:]) {
				g.limit = 0 // of no use any more
			}
		}
	case g.overloads == 0:
		g.overloads++ // may be chance
	default:
		g.overloads++
		g.lower(w, length, now, lateness)
	}
	if g.limit == 0 {
		return unlimited
	}
	g.limit = max(g.limit, float64(floor), 2) // so that each criticality has a place
	return int64(math.Ceil(g.limit))
}

// interrupt ends the limit and the overload, since nothing is known of so many nanoseconds.
func (g *gradient) interrupt(length int64) {
	*g = gradient{calm: g.calm}
	g.learn(new(Latencies), length)
}

// lower lowers the limit in an overload.
func (g *gradient) lower(w *Latencies, length int64, now int64, lateness float64) {
	switch {
	case g.inflight == 0:
		g.inflight, g.worst = rate(w, length)*mean(w[:]), lateness
		wait := (tolerance-1)*quantile(g.calm[:], .5) + float64(slack)
		fits := rate(w, length) * (mean(g.calm[:]) + wait)
		if g.limit == 0 || fits < g.limit {
			g.limit = fits
		} else {
			g.limit /= min(lateness, 1.2)
		}
	case float64(now-g.changed) < 2*quantile(w[:], .5): // answers of before may still come
		g.worst = max(g.worst, lateness)
		return
	case g.limit < .75*g.inflight && lateness > g.worst*math.Sqrt(g.limit/g.inflight):
		*g = gradient{}
		g.learn(w, length)
	default:
		g.limit /= min(lateness, 1.2)
	}
	g.changed = now
}

// learn adds the answers of a calm window.
func (g *gradient) learn(w *Latencies, length int64) {
	keep := math.Exp(-float64(length) / float64(calmMemory))
	for i, n := range w {
		g.calm[i] = g.calm[i]*keep + float64(n)
	}
}

// lateness compares the answers of a window with calm ones: above 1 there is an overload.
func (g *gradient) lateness(w *Latencies) float64 {
	if total(g.calm[:]) < calmSamples {
		return 0
	}
	least := math.Inf(1)
	for _, q := range [...]float64{.25, .5} {
		least = min(least, quantile(w[:], q)/(tolerance*quantile(g.calm[:], q)+float64(slack)))
	}
	return least
}

// rate returns the answers of a window per nanosecond.
func rate(w *Latencies, length int64) float64 { return total(w[:]) / float64(length) }
