package admin

import (
	"slices"

	"sluice/observe/metrics"
	"sluice/route"
)

// Mirror is where copies of a route's requests go. The counters are those of all routes that
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
	Dropped  map[string]uint64 `json:"dropped"` // by reason, those above 0
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

// mirrors sends the metrics of the copies of all routes.
func (c *collector) mirrors(e emitter) {
	var seen []*route.Copies
	var all []*route.Mirror
	for _, r := range c.h.Table().Routes() {
		all = append(all, r.Mirror)
	}
	for _, r := range c.h.Table().Weighted() {
		for _, t := range r.Weighted.Targets {
			all = append(all, t.Route.Mirror)
		}
	}
	for _, m := range all {
		if m == nil || slices.Contains(seen, m.Copies) {
			continue
		}
		copies := m.Copies
		seen = append(seen, copies)
		answers := copies.Answers().Snapshot()
		for class := range metrics.Class(metrics.NumClasses) {
			e.counter(mirrorRequests, float64(answers.Class(class)), copies.From, copies.To, copies.Group, class.String())
		}
		c.histogram(e, mirrorDuration, &answers, copies.From, copies.To, copies.Group)
		e.counter(mirrorFailures, float64(copies.Failed()), copies.From, copies.To, copies.Group)
		for why, n := range copies.Dropped() {
			e.counter(mirrorDropped, float64(n), copies.From, copies.To, copies.Group, route.Dropped(why).String())
		}
		e.gauge(mirrorInFlight, float64(copies.InFlight()), copies.From, copies.To, copies.Group)
	}
}
