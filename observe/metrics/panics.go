package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/panics"
)

var ofPanics Descriptions

var panicsTotal = ofPanics.New("panics_total", "Faults of sluice itself that ended one connection, request or watch, by what it was.", "at")

// Panics returns the collector of the panics, which package panics counts: it is below this one.
func Panics() prometheus.Collector {
	return ofPanics.Collector(func(s Series) {
		for at := range panics.Place(panics.NumPlaces) {
			s.Counter(panicsTotal, panics.Total(at), at.String())
		}
	})
}
