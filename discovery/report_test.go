package discovery

import (
	"errors"
	"testing"
	"time"
)

// A service in several data centres may have a set, and an error of one of them.
func TestSetWithAnErrorIsUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		report := b.startWith("a")
		inUse := report(Report{Set: instances("a", "b"), Known: true, Endpoint: "http://c", Index: 7, Err: errors.New("dc1 is away")}).Set
		if describe(inUse) != "a b" {
			t.Errorf("%q is in use", describe(inUse))
		}
		b.expect(time.Second, call{100 * ms, "star", "a b"})
		if s := b.status(); s.State != WatchStale || s.LastError != "dc1 is away" || s.Endpoint != "http://c" || s.Index != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// Neither a zero report nor a doubtful one is a query or an empty set.
func TestReportWithoutASetRemovesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.fallback = func(string, string) ([]Instance, time.Time, bool) { return instances("saved"), time.Now(), true }
		report := b.start("star")
		if inUse := report(Report{}).Set; inUse != nil {
			t.Errorf("%q is in use", describe(inUse))
		}
		if inUse := report(Report{Doubtful: true}).Set; describe(inUse) != "saved" {
			t.Errorf("%q is in use, want the saved set", describe(inUse))
		}
		report(Report{})
		b.expect(0, call{0, "star", "saved"})
		if s := b.status(); s.State != WatchStale || s.Queries != 0 {
			t.Errorf("status %+v", s)
		}
		report(Report{Known: true})
		b.expect(0, call{0, "star", ""})
	})
}
