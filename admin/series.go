package admin

import (
	"fmt"
	"net/http"
	"time"

	"sluice/admin/series"
	"sluice/balancer/reading"
)

// SeriesAnswer is the body of /api/series: what services did in the last 15 minutes.
type SeriesAnswer struct {
	// Times are the limits of the samples, one more than there are samples.
	Times    []time.Time     `json:"times"`
	Services []ServiceSeries `json:"services"`
}

// ServiceSeries has a value for each sample; null while the service was not there yet.
type ServiceSeries struct {
	Service  string     `json:"service"`
	Requests []*uint32  `json:"requests"` // that ended
	Errors   []*uint32  `json:"errors"`   // of them, the ones with a status of 5xx
	Retries  []*uint32  `json:"retries"`
	P50MS    []*float32 `json:"p50_ms"` // null: no requests
	P99MS    []*float32 `json:"p99_ms"`
	// Peers has the number of peers by state, at the end of the sample.
	Peers map[string][]*uint16 `json:"peers"`
}

// series answers /api/series. ?service= selects and may be repeated; ?after= leaves out the
// samples that do not end after a time.
func (h serviceHandler) series(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	var after time.Time
	if text := query.Get("after"); text != "" {
		var err error
		if after, err = time.Parse(time.RFC3339, text); err != nil {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("after %q: want a time such as 2026-01-02T15:04:05.678Z", text))
			return
		}
	}
	pools, err := h.poolsOf(query["service"])
	if err != nil {
		writeFailure(w, err)
		return
	}
	names := namesOf(pools)
	s := h.Series.Read(after, names...)
	answer := SeriesAnswer{Times: list(s.Limits), Services: []ServiceSeries{}}
	for i, name := range names {
		answer.Services = append(answer.Services, describeSeries(name, len(s.Limits)-1, s.Services[i]))
	}
	encodeJSON(w, http.StatusOK, answer, "") // long lists of numbers
}

// describeSeries describes the latest of n samples.
func describeSeries(name string, n int, samples []series.Sample) ServiceSeries {
	d := ServiceSeries{
		Service: name, Requests: make([]*uint32, n), Errors: make([]*uint32, n), Retries: make([]*uint32, n),
		P50MS: make([]*float32, n), P99MS: make([]*float32, n), Peers: make(map[string][]*uint16),
	}
	for _, state := range reading.States {
		d.Peers[state.String()] = make([]*uint16, n)
	}
	for i := range samples {
		s, at := &samples[i], n-len(samples)+i
		d.Requests[at], d.Errors[at], d.Retries[at] = &s.Requests, &s.Errors, &s.Retries
		if s.Requests > 0 {
			d.P50MS[at], d.P99MS[at] = &s.P50, &s.P99
		}
		for j, state := range reading.States {
			d.Peers[state.String()][at] = &s.Peers[j]
		}
	}
	return d
}
