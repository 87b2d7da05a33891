package judge

import "math"

// ratios are the rates of failure of the canary, relative to the baseline's, on which the
// wager is divided equally.
var ratios = [...]float64{1.5, 2, 4, 10, 30}

// Evidence is the evidence that the canary is worse. The zero value is 1: none.
type Evidence struct {
	logs [len(ratios)]float64 // of what each part of the wager has become
}

// Add adds the failure of a client that had none before in this release. share, between 0
// and 1, was the probability that the client used the canary.
func (e *Evidence) Add(canary bool, share float64) {
	if !(share > 0 && share < 1) {
		return // the arm was certain, so it proves nothing
	}
	for i, ratio := range ratios {
		// If the canary fails ratio times as often, this is the share of failures on it.
		expected := ratio * share / (ratio*share + 1 - share)
		if canary {
			e.logs[i] += math.Log(expected / share)
		} else {
			e.logs[i] += math.Log((1 - expected) / (1 - share))
		}
	}
}

// Value returns the evidence: at least 0, 1 for none.
func (e *Evidence) Value() float64 {
	var sum float64
	for _, log := range e.logs {
		sum += math.Exp(min(log, 600)) // a float64 ends at exp(709)
	}
	return sum / float64(len(e.logs))
}

// maxClients bounds the clients that a sample remembers.
const maxClients = 100_000

// A sample counts each client once, by the first time when something befalls it.
type sample struct {
	evidence   Evidence
	perRequest bool                // see [Settings.PerRequest]
	counted    map[uint64]struct{} // at most maxClients; later ones do not count, or replace all
	clients    [2]int              // on the baseline, on the canary
}

func newSample(s Settings) sample {
	return sample{perRequest: s.PerRequest, counted: make(map[uint64]struct{})}
}

// add adds what befell a client.
func (s *sample) add(client uint64, canary bool, share float64) {
	if _, again := s.counted[client]; again {
		return
	}
	if len(s.counted) == maxClients {
		if !s.perRequest {
			return
		}
		clear(s.counted) // nearly all of these requests have ended
	}
	s.counted[client] = struct{}{}
	if canary {
		s.clients[1]++
	} else {
		s.clients[0]++
	}
	s.evidence.Add(canary, share)
}
