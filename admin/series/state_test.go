package series

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
)

// A process continues the samples of another one, also after more than 15 minutes and twice.
func TestStateIsContinued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var recorder *Recorder
		for _, samples := range []int{3, 2*Length + 5, 2} {
			star, late := newPool(t, "star", "a"), newPool(t, "late")
			pools := []*balancer.Pool{star}
			next := NewRecorder(func() []*balancer.Pool { return pools })
			var want Series
			if recorder != nil {
				text, err := json.Marshal(recorder.State())
				if err != nil {
					t.Fatal(err)
				}
				var state State
				if err := json.Unmarshal(text, &state); err != nil {
					t.Fatal(err)
				}
				next.Adopt(state, time.Now())
				want = recorder.Read(time.Time{}, "star", "late")
				if got := next.Read(time.Time{}, "star", "late"); !reflect.DeepEqual(got, want) {
					t.Fatalf("adopted %+v\nwant %+v", got, want)
				}
				if end := want.Limits[len(want.Limits)-1]; !end.Equal(moment(time.Now())) {
					t.Errorf("the last sample ends %v before the handover", time.Since(end))
				}
			}
			time.Sleep(leastSample) // the new process starts
			next.begin(time.Now())
			for n := range samples {
				star.Requests().Observe(0, 200, time.Duration(n)*time.Millisecond, 0, 0)
				if n == 1 {
					pools = append(pools, late)
				}
				time.Sleep(Interval)
				next.sample(time.Now())
			}
			if recorder != nil && samples < Length {
				got := next.Read(want.Limits[len(want.Limits)-1], "star", "late")
				if len(got.Services[0]) != samples || got.Services[0][0].Requests != 1 || !got.Limits[0].Equal(want.Limits[len(want.Limits)-1]) ||
					got.Limits[1].Sub(got.Limits[0]) != leastSample+Interval {
					t.Errorf("then %+v", got)
				}
			}
			time.Sleep(leastSample) // the handover is between two samples
			recorder = next
		}
	})
}

// What is handed over is bounded, and the services with the most requests come first.
func TestStateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pools []*balancer.Pool
		for n := range maxHanded + 2 {
			pools = append(pools, newPool(t, fmt.Sprintf("%04d", n)))
		}
		r := NewRecorder(func() []*balancer.Pool { return pools })
		if s := r.State(); len(s.Limits)+len(s.Services) != 0 {
			t.Errorf("before the first sample: %+v", s)
		}
		r.begin(time.Now())
		for _, pool := range pools[2:] {
			pool.Requests().Observe(0, 200, 0, 0, 0)
		}
		time.Sleep(leastSample)
		s := r.State()
		if len(s.Services) != maxHanded || s.Services["0000"] != nil || s.Services["0001"] != nil {
			t.Errorf("%d services, with those without requests: %t", len(s.Services), s.Services["0000"] != nil || s.Services["0001"] != nil)
		}
		if again := r.State(); !slices.Equal(again.Limits, s.Limits) {
			t.Errorf("a sample without time: %v", again.Limits)
		}
	})
}

// What cannot be right is not adopted.
func TestBadStateIsIgnored(t *testing.T) {
	now := time.Unix(1_000_000, 0).UTC()
	limits := func(n int) (all []time.Time) {
		for i := range n {
			all = append(all, now.Add(time.Duration(i-n+1)*Interval))
		}
		return all
	}
	good := map[string][]byte{"star": make([]byte, 2*sampleSize)}
	backwards := limits(3)
	slices.Reverse(backwards)
	for name, test := range map[string]struct {
		state  State
		limits int
		star   int // samples
	}{
		"good":                       {State{limits(4), good}, 4, 2},
		"nothing":                    {State{}, 1, 0},
		"one limit":                  {State{limits(1), good}, 1, 0},
		"too many limits":            {State{limits(Length + 2), good}, 1, 0},
		"backwards":                  {State{backwards, good}, 1, 0},
		"in the future":              {State{[]time.Time{now, now.Add(time.Second)}, good}, 1, 0},
		"more samples than limits":   {State{limits(2), good}, 2, 0},
		"a part of a sample":         {State{limits(4), map[string][]byte{"star": make([]byte, sampleSize+1)}}, 4, 0},
		"a service without a sample": {State{limits(4), map[string][]byte{"star": nil}}, 4, 0},
	} {
		r := NewRecorder(func() []*balancer.Pool { return nil })
		r.Adopt(test.state, now)
		if got := r.Read(time.Time{}, "star"); len(got.Limits) != test.limits || len(got.Services[0]) != test.star {
			t.Errorf("%s: %d limits, %d samples", name, len(got.Limits), len(got.Services[0]))
		}
	}
}

// The samples of 1,000 services for a new process.
func BenchmarkState(b *testing.B) {
	var pools []*balancer.Pool
	for n := range maxHanded {
		pools = append(pools, newPool(b, fmt.Sprint(n)))
	}
	r := NewRecorder(func() []*balancer.Pool { return pools })
	r.begin(time.Now())
	for range Length {
		r.sample(time.Now())
	}
	for b.Loop() {
		text, err := json.Marshal(r.State())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(text))/1e6, "MB")
	}
}
