package admin

import (
	"net/http"
	"net/url"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/admin/series"
	"sluice/balancer"
	"sluice/test/verify"
)

// The samples of services have common times; what a service lacks is null.
func TestSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		star, late := newPool(t, "star", instance("star", "a", "10.0.0.1")), newPool(t, "late")
		var inUse atomic.Pointer[[]*balancer.Pool]
		inUse.Store(&[]*balancer.Pool{star})
		pools := func() []*balancer.Pool { return *inUse.Load() }
		recorder := series.NewRecorder(pools)
		h := handlerOf(Options{Services: Services{Pools: pools, Series: recorder}})
		go recorder.Run(t.Context()) // the bubble waits for it
		synctest.Wait()
		begin := time.Now()
		star.Requests.Observe(0, 200, 4*time.Millisecond, 0, 0)
		star.Requests.Observe(0, 503, 4*time.Millisecond, 0, 0)
		star.Requests.Retry(0)
		time.Sleep(series.Interval + time.Second)
		inUse.Store(&[]*balancer.Pool{star, late})
		time.Sleep(series.Interval)

		got := getJSON[SeriesAnswer](t, h, "/api/series")
		verify.Require(t, len(got.Times) == 3 && got.Times[2].Equal(moment(begin.Add(2*series.Interval))), "times %v", got.Times)
		n, ms, peers := func(n uint32) *uint32 { return &n }, func(ms float32) *float32 { return &ms }, func(n uint16) *uint16 { return &n }
		states := func(up ...*uint16) map[string][]*uint16 {
			all := map[string][]*uint16{"up": up}
			for _, state := range []string{"warming", "draining", "ejected", "unhealthy"} {
				for _, n := range up {
					if n != nil {
						n = peers(0)
					}
					all[state] = append(all[state], n)
				}
			}
			return all
		}
		want := []ServiceSeries{
			{"late", []*uint32{nil, n(0)}, []*uint32{nil, n(0)}, []*uint32{nil, n(0)}, []*float32{nil, nil}, []*float32{nil, nil}, states(nil, peers(0))},
			{"star", []*uint32{n(2), n(0)}, []*uint32{n(1), n(0)}, []*uint32{n(1), n(0)}, []*float32{ms(3.75), nil}, []*float32{ms(4.975), nil}, states(peers(1), peers(1))},
		}
		if !reflect.DeepEqual(got.Services, want) {
			_, body := get(t, h, "/api/series")
			t.Errorf("got %s", body)
		}
		after := url.QueryEscape(got.Times[1].Format(time.RFC3339Nano))
		later := getJSON[SeriesAnswer](t, h, "/api/series?service=star&after="+after)
		verify.That(t, len(later.Times) == 2 && len(later.Services) == 1 && reflect.DeepEqual(later.Services[0].Requests, []*uint32{n(0)}), "after the first sample: %+v", later)
		for query, status := range map[string]int{"service=moon": http.StatusNotFound, "after=now": http.StatusBadRequest} {
			got, body := get(t, h, "/api/series?"+query)
			verify.That(t, got == status && errorOf(t, body) != "", "%s: %d %s", query, got, body)
		}
	})
}
