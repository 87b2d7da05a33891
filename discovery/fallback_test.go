package discovery

import (
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

func TestFallbackServesUntilTheSourceReports(t *testing.T) {
	asOf := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	saved := func(service, source string) ([]Instance, time.Time, bool) {
		return instances("b", "a"), asOf, service == "star" && source == "*discovery.scripted"
	}
	for _, tt := range []struct {
		name string
		fail bool
		at   time.Duration
	}{{"after the first error", true, 0}, {"after a second without an answer", false, time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				b.fallback = saved
				w := b.start("star")
				if tt.fail {
					w.fail("refused")
				}
				b.expect(2*time.Second, call{tt.at, "star", "a b"})
				s := b.status()
				verify.That(t, s.State == WatchStale && s.Restored.Equal(asOf) && s.Instances == 2 && s.LastSuccess.IsZero(), "status %+v", s)
				verify.Equal(t, strings.Count(b.log.String(), `"as_of":`), 1, "lines with as_of in %s", &b.log)
				w.fail("refused")
				w.setAt(1, instances("a", "b"))
				b.expect(3*time.Second, call{2 * time.Second, "star", "a b"}) // it was the truth
				s = b.status()
				verify.That(t, s.State == WatchFresh && s.Restored.IsZero(), "after a report: %+v", s)
			})
		})
	}
}

func TestFallbackIsNotUsedAfterAReport(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.fallback = func(string, string) ([]Instance, time.Time, bool) { return instances("old"), time.Now(), true }
		w := b.start("star")
		w.set(nil)
		w.fail("refused")
		b.expect(5*time.Second, call{0, "star", ""})
		b.Unwatch("star")
		b.start("star")
		b.Unwatch("star")
		b.expect(10 * time.Second)
	})
}
