package admin

import (
	"sluice/observe/metrics"
	"sluice/route"
)

// Mirror is where copies of a route's requests go. The counters are sums over all routes that
// copy requests to the same service to the same service or group, since the start.
type Mirror struct {
	Service   string  `json:"service"`
	Group     string  `json:"group,omitempty"` // empty: all peers
	Share     float64 `json:"share"`           // of the requests, 0 to 1
	BodyBytes int64   `json:"body_bytes"`      // longest body that is copied
	Limit     int64   `json:"limit"`           // of copies in flight

	InFlight int               `json:"in_flight"`
	Sent     uint64            `json:"sent"`   // copies that have ended
	Errors   uint64            `json:"errors"` // of Sent: with a status of 5xx or without an answer
	Failed   uint64            `json:"failed"` // of Sent: without an answer
	P50MS    float64           `json:"p50_ms"` // estimates over Sent
	P99MS    float64           `json:"p99_ms"`
	Dropped  map[string]uint64 `json:"dropped"` // by reason, above 0
}

// describeMirror describes the mirror of a route, which may be nil.
func describeMirror(m *route.Mirror) *Mirror {
	if m == nil {
		return nil
	}
	answers := m.Copies.Answers().Snapshot()
	described := &Mirror{
		Service: m.Copies.To, Group: m.Copies.Group, Share: m.Share, BodyBytes: m.BodyBytes, Limit: m.InFlight,
		InFlight: m.Copies.InFlight(), Sent: answers.Total(), Errors: answers.Class(metrics.Class5xx), Failed: m.Copies.Failed(),
		P50MS: millis(answers.Quantile(.5)), P99MS: millis(answers.Quantile(.99)),
		Dropped: make(map[string]uint64),
	}
	for why, n := range m.Copies.Dropped() {
		if n > 0 {
			described.Dropped[route.Dropped(why).String()] = n
		}
	}
	return described
}
