package route

import (
	"slices"
	"testing"

	"sluice/test/verify"
)

// Of any number of requests in a row, from any one on, a share is selected within a few; also of
// every second, third and tenth request.
func TestSelectIsExact(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{0, .001, .01, .05, .1, 1. / 3, .5, .7, .99, 1} {
		c := NewCopies("star", "next", "")
		const requests = 20_000
		before := make([]int, requests+1) // how many of the first are selected
		for i := range requests {
			before[i+1] = before[i]
			if c.Select(share) {
				before[i+1]++
			}
		}
		for from := 0; from < requests; from += 997 {
			for _, n := range []int{1, 10, 100, 1000, requests - from} {
				if n > requests-from {
					continue
				}
				got, want := before[from+n]-before[from], share*float64(n)
				d := float64(got) - want
				verify.That(t, d >= -3 && d <= 3, "share %g: %d of %d requests from %d on, want %g", share, got, n, from, want)
			}
		}
		for _, step := range []int{2, 3, 10} {
			got, n := 0, 0
			for i := 0; i < requests; i += step {
				got += before[i+1] - before[i]
				n++
			}
			if d := float64(got) - share*float64(n); d < -6 || d > 6 {
				t.Errorf("share %g: %d of %d requests, every %dth, want %g", share, got, n, step, share*float64(n))
			}
		}
	}
}

// A copy has one attempt and the edits of requests, with a mark that no template changes.
func TestSettingsOfCopies(t *testing.T) {
	t.Parallel()
	service := &Service{Retry: Retry{Attempts: 3, BodyBytes: 5}, Affinity: &Affinity{Cookie: "c"}, WaitForPeer: 1}
	if got := MirrorService(service); got.Retry != (Retry{Attempts: 1}) || got.Affinity != nil || service.Affinity == nil {
		t.Errorf("service %+v", got)
	}
	edits := verify.Result(NewHeaderEdits(map[string]string{"X-A": "a"}, nil, []string{"Cookie"})).Must(t)
	actions := &Actions{Host: "h", RequestHeaders: edits, ResponseHeaders: edits, BodyLimit: 7, RateLimit: new(RateLimit)}
	got := MirrorActions(actions, "a$b")
	verify.That(t, got.Host == "h" && got.ResponseHeaders.Empty() && got.BodyLimit == 0 && got.RateLimit == nil, "actions %+v", got)
	verify.That(t, slices.Equal(got.RequestHeaders.Dropped, []string{"cookie", "x-a", "x-sluice-mirror"}) && len(actions.RequestHeaders.Added) == 1, "edits %+v", got.RequestHeaders)
	mark := got.RequestHeaders.Added[1]
	verify.That(t, mark.Name == MirrorField && string(mark.Value.Append(nil, nil)) == "a$b", "mark %+v", mark)
	got = MirrorActions(nil, "a")
	verify.That(t, len(got.RequestHeaders.Added) == 1, "without actions: %+v", got)
}
