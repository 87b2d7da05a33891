package series

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"time"
)

const (
	// maxHanded is the number of services whose samples a process hands over: those with the most
	// requests. Of each it needs up to 7 KiB of JSON.
	maxHanded = 1000
	// leastSample is the time that the last sample before a handover must have.
	leastSample = time.Second
)

var sampleSize = binary.Size(Sample{})

// State is what a process hands over to the next one.
type State struct {
	Limits   []time.Time       `json:"limits"`   // as in Series
	Services map[string][]byte `json:"services"` // the latest samples of each, little-endian
}

// State returns the samples, the last of which ends now. Before Run there are none.
func (r *Recorder) State() State {
	recent, now := r.recent(), time.Now()
	if recent.IsZero() {
		return State{}
	}
	if now.Sub(recent) >= leastSample {
		r.sample(now)
	}
	r.mu.Lock()
	names := slices.Collect(maps.Keys(r.services))
	r.mu.Unlock()
	read := r.Read(time.Time{}, names...)
	requests := make(map[string]uint64)
	samples := make(map[string][]Sample)
	for i, name := range names {
		samples[name] = read.Services[i]
		for _, s := range read.Services[i] {
			requests[name] += uint64(s.Requests)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(requests[b], requests[a]), cmp.Compare(a, b)) })
	s := State{Limits: read.Limits, Services: make(map[string][]byte)}
	for _, name := range names[:min(len(names), maxHanded)] {
		s.Services[name], _ = binary.Append(nil, binary.LittleEndian, samples[name]) // cannot fail
	}
	return s
}

// recent returns when the last sample ended; zero: there is none.
func (r *Recorder) recent() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limit(r.next)
}

// Adopt continues the samples of another process. The next one begins where the last of those
// ended. It must be called before Run. A state that cannot be right is ignored.
func (r *Recorder) Adopt(s State, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(s.Limits)
	if n < 2 || n > len(r.limits) || s.Limits[n-1].After(now) || !slices.IsSortedFunc(s.Limits, time.Time.Compare) {
		return
	}
	copy(r.limits[:], s.Limits)
	r.next = uint64(n - 1)
	for name, data := range s.Services {
		count := len(data) / sampleSize
		samples := make([]Sample, count, Length)
		if _, err := binary.Decode(data, binary.LittleEndian, samples); err == nil && count < n && count*sampleSize == len(data) {
			r.services[name] = &track{first: r.next - uint64(count), samples: samples}
		}
	}
}
