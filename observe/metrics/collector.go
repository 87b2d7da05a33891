package metrics

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/panics"
)

// Descriptions are the metrics of one part of sluice. Each part declares its own, beside the
// values that they show, and has a function Metrics that returns their collector.
type Descriptions []*prometheus.Desc

// New adds a metric and returns its description. Its name gets the prefix "sluice_".
func (d *Descriptions) New(name, help string, labels ...string) *prometheus.Desc {
	desc := prometheus.NewDesc("sluice_"+name, help, labels, nil)
	*d = append(*d, desc)
	return desc
}

// Collector returns the collector of d. collect sends all series; it is called at each scrape,
// concurrently. So no request updates a metric, and the series of a service or a peer end with it.
func (d Descriptions) Collector(collect func(Series)) prometheus.Collector {
	return &collector{descriptions: d, collect: collect}
}

// Brief returns c, or what sends the brief form of its series; see [Series.PerService].
func Brief(c prometheus.Collector) prometheus.Collector {
	if full, ok := c.(*collector); ok {
		return &collector{full.descriptions, full.collect, true}
	}
	return c
}

type collector struct {
	descriptions Descriptions
	collect      func(Series)
	brief        bool
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descriptions {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	defer panics.Contain(panics.Admin, nil) // in a goroutine of the registry
	c.collect(Series{ch: ch, Brief: c.brief})
}

// Series takes the series of a scrape.
type Series struct {
	ch     chan<- prometheus.Metric
	sparse bool

	// Brief: there are so many services that those who send details must leave them out.
	Brief bool
}

// PerService returns what takes the series that each service has. If s is brief, it leaves out
// zeros, and the buckets of histograms.
func (s Series) PerService() Series {
	s.sparse = s.Brief
	return s
}

// Gauge sends a value that may fall.
func (s Series) Gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.send(d, prometheus.GaugeValue, v, labels)
}

// Flag sends 1 if v is true, else 0.
func (s Series) Flag(d *prometheus.Desc, v bool, labels ...string) {
	if v {
		s.Gauge(d, 1, labels...)
	} else {
		s.Gauge(d, 0, labels...)
	}
}

// Timestamp sends Unix time in seconds, and nothing for the zero time.
func (s Series) Timestamp(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.Gauge(d, float64(t.UnixMilli())/1000, labels...)
	}
}

// Counter sends a value that never falls.
func (s Series) Counter(d *prometheus.Desc, n uint64, labels ...string) {
	s.send(d, prometheus.CounterValue, float64(n), labels)
}

// Histogram sends the latencies of requests.
func (s Series) Histogram(d *prometheus.Desc, requests *RequestsSnapshot, labels ...string) {
	// cumulative has the buckets by their bounds in seconds.
	cumulative, total := make(map[float64]uint64, NumBuckets-1), uint64(0)
	for i, n := range requests.Buckets() {
		total += n
		if i < NumBuckets-1 && !s.sparse {
			cumulative[time.Duration(bounds[i]).Seconds()] = total
		}
	}
	if total == 0 && s.sparse {
		return
	}
	makeValid(labels)
	s.ch <- prometheus.MustNewConstHistogram(d, total, requests.Latency.Seconds(), cumulative, labels...)
}

func (s Series) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	if v == 0 && s.sparse {
		return
	}
	makeValid(labels)
	s.ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
}

// makeValid makes labels UTF-8: others end a scrape.
func makeValid(labels []string) {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\ufffd")
	}
}

// Label returns the name of v as the value of a label.
func Label(v fmt.Stringer) string { return strings.ReplaceAll(v.String(), " ", "_") }

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
