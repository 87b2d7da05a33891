package discovery

import (
	"errors"
	"testing"
	"time"

	"sluice/test/verify"
)

// A service in several data centres may have a set, and an error of one of them.
func TestSetWithAnErrorIsUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		report := b.startWith("a")
		report(Report{Set: instances("a", "b"), Known: true, Endpoint: "http://c", Index: 7, Err: errors.New("dc1 is away")})
		b.expect(time.Second, call{100 * ms, "star", "a b"})
		s := b.status()
		verify.That(t, s.State == WatchStale && s.LastError == "dc1 is away" && s.Endpoint == "http://c" && s.Index == 0, "status %+v", s)
	})
}

// A set with an error is known, also if it is the first one.
func TestFirstSetWithAnErrorIsStale(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		report := b.start("star")
		b.expect(time.Second)
		report(Report{Set: instances("a"), Known: true, Err: errors.New("dc2 is away")})
		b.expect(time.Second, call{time.Second, "star", "a"})
		s := b.status()
		verify.That(t, s.State == WatchStale && s.Since.Equal(b.begin.Add(time.Second)), "status %+v", s)
	})
}

// A source gets what is in use of its own selection, or else what is saved of it, and the zero Report
// changes nothing.
func TestSourceGetsTheStateBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.fallback = func(string, string) ([]Instance, time.Time, bool) { return instances("saved"), time.Now(), true }
		begin := func(want string) reports {
			t.Helper()
			s := newScripted()
			b.Watch("star", s)
			before := <-s.before
			verify.That(t, before.Known == (want != "") && describe(before.Set) == want, "before %+v, want %q", before, want)
			return <-s.reports
		}
		report := begin("saved")
		report(Report{})
		b.expect(0) // the saved set is not in use yet
		report(Report{Set: instances("a"), Known: true})
		report(Report{})
		b.expect(0, call{0, "star", "a"})
		begin("a")
		b.Watch("star", &Static{})
		b.expect(0, call{0, "star", ""})
		begin("")
	})
}
